"""Real CIFAR-10-LT, imbalance ratio 50, small network: both phases and evaluation on one CPU core in half an hour.

    python main.py --config=configs/cifar10_cpu.py --workdir=runs/cifar10_cpu [--config.data.dir=DIR]

The network is 1/200 of ResNet-18's arithmetic, trained a fifth as long: its numbers compare methods at this scale and
nothing else. Card, seed 0 (28 minutes held to one x86 core): `results/cifar10_cpu/`.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config: Any = default.get_config()
    config.data.name = "cifar10"
    config.model.name = "small_resnet"
    config.model.stem_stride = 2  # the stages work at 16x16, 8x8 and 4x4
    config.teacher.epochs = 12
    config.student.epochs = 22
    config.eval.batch_size = 250
    return config
