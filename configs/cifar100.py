"""CIFAR-100-LT, imbalance ratio 10, ResNet-18: the long-tailed recipe at full scale (AT-BSL's, 100 epochs).

python main.py --config=configs/cifar100.py --workdir=runs/cifar100 [--config.data.dir=DIR]
"""

from typing import Any

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config: Any = default.get_config()
    config.data.name = "cifar100"
    config.data.imbalance_ratio = 10.0
    config.methods.self_distillation.beta = 10.0
    return config
