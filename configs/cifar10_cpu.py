"""Real CIFAR-10-LT, imbalance ratio 50, small network: both phases and evaluation on two CPU cores in 25 minutes.

    python main.py --config=configs/cifar10_cpu.py --workdir=runs/cifar10_cpu [--config.data.dir=DIR]

The network is 1/200 of ResNet-18's arithmetic, trained a fifth as long: its numbers compare methods at this scale and
nothing else. Measured: 19 minutes on two x86 cores (480 images/s teacher, 390 student), 28 minutes held to one core.
Card, seed 0: `results/cifar10_cpu/`.
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
