"""Balanced MNIST, a small network, PGD-AT in a ball of 0.3: where the robustness of classes is diagnosed.

    python main.py --config=configs/class_wise/mnist.py --workdir=runs/class_wise_mnist --config.data.dir=DIR
    python main.py --mode=diagnose --workdir=runs/class_wise_mnist

The ball is 76.5/255 with steps of 2.55/255, 40 of them in training. Nothing is flipped or cropped.
"""

from ml_collections import ConfigDict

from configs.class_wise.cifar10 import balanced


def get_config() -> ConfigDict:
    config = balanced("mnist")
    config.threat.radius = 255 * 0.3
    config.model.name = "small_resnet"
    config.student.attack.steps = 40
    config.student.attack.step_size = 255 * 0.01
    config.student.augmentation.policy = "none"
    config.student.optimizer.learning_rate = 0.01
    config.student.epochs = 30
    return config
