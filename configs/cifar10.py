"""CIFAR-10-LT, imbalance ratio 50, ResNet-18: the long-tailed recipe at full scale (AT-BSL's, 100 epochs).

    python main.py --config=configs/cifar10.py --workdir=runs/cifar10 [--config.data.dir=DIR]

Arithmetic floor: an attack step costs 2 to 3 forward passes of 1.11 GFLOP, an outer pass 3; a student image with its
teacher about 35 of them. 1.32 M student and 0.2 M teacher images make 6e16 FLOP, a little over a minute at a bfloat16
peak of 8e14 FLOP/s and several times that in practice. No GPU or TPU time has been measured for this version.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config: Any = default.get_config()
    config.data.name = "cifar10"
    return config
