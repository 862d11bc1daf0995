"""ImageNet-LT at 224x224, ResNet-50 within 4/255: the long-tailed recipe at the size of ImageNet.

    python main.py --config=configs/imagenet_lt.py --workdir=runs/imagenet_lt --config.data.dir=DIR

DIR holds ImageNet's folders `train` and `val`, and the published lists by their names: 115,846 training images of 1,000
classes, 1,280 to 5 of each. Made for 64 TPU v5e or 8 H100; on fewer chips give `student.accumulate` and
`teacher.accumulate` (2, 4, ...), or `model.remat=True`. Nobody has run it.

Published for one half each, and put together here:

- Attack: 3 steps of 2/3 of the radius (Salman et al., NeurIPS 2020, arXiv 2007.08489, for ImageNet within 4/255).
- Optimisation and augmentation: 90 epochs in batches of 512, rate 0.2 with a cosine, weight decay 5e-4, colour jitter
  of 0.4 (Kang et al., ICLR 2020, arXiv 1910.09217, clean training on ImageNet-LT).

This project's choice: both phases' method, 30 epochs of the teacher on 80 images of each class, 5 epochs of warm-up,
bfloat16.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import default

RADIUS = 4.0


def get_config() -> ConfigDict:
    config: Any = default.get_config()
    config.data.name = "image_list"
    config.data.lists.train = "ImageNet_LT_train.txt"
    config.data.lists.validation = "ImageNet_LT_val.txt"
    config.data.lists.test = "ImageNet_LT_test.txt"
    config.data.image_size = 224
    config.data.imbalance_ratio = 0.0
    config.threat.radius = RADIUS
    config.model.name = "imagenet_resnet50"
    config.model.dtype = "bfloat16"
    config.methods.self_distillation.beta = 10.0
    for phase in (config.teacher, config.student):
        phase.batch_size = 512
        phase.augmentation.policy = "random_resized_crop"
        phase.augmentation.jitter = (0.4, 0.4, 0.4)
        phase.optimizer.learning_rate = 0.2
        phase.optimizer.schedule = "cosine"
        phase.optimizer.warmup_epochs = 5
        phase.attack.steps = 3
        phase.attack.step_size = 2 / 3 * RADIUS
        phase.attack.start = "uniform"
        phase.validate_every = 5
    config.student.epochs = 90
    config.eval.batch_size = 32
    return config
