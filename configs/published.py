"""Published recipes of adversarial training on long-tailed data, by name: ResNet-18 or WRN-28-10 at full scale.

    python main.py --config=configs/published.py:NAME --workdir=runs/NAME [--config.data.dir=DIR]
    python main.py --config=configs/published.py:NAME+all_images --workdir=runs/NAME [--config.data.dir=DIR]

Names are the keys of `RECIPES`, which state differences from `default.py`; docs/methods/ says what each recipe is and
what of it is somebody else's. Data are CIFAR-10-LT with imbalance ratio 50, or CIFAR-100-LT with 10 (`..._cifar100`);
of `cfa_at`, `cfa_trades`, `dafa`, `wat` and `bat`, which are for class-wise robustness, balanced CIFAR-10.

With `+all_images` a long-tailed recipe trains on all images of the split, as published (13,996 of CIFAR-10 at 50), and
is evaluated by its last weights. Without it a validation part is held out, which leaves 13,287, and selects weights
besides. Class-wise recipes read the validation part while they train and have no such form.

On one CPU core: `--config=configs/cifar10_cpu.py --config.student.method=METHOD`. No time has been measured.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import default
from ltrobust.runtime.names import UnknownName, nearest

# The first epoch at a new rate, counted from 1, is the one after the fraction.
EPOCHS_80 = {"student.epochs": 80, "student.optimizer.drops": (60 / 80, 75 / 80)}
EPOCHS_100 = {"student.epochs": 100, "student.optimizer.drops": (75 / 100, 90 / 100)}
EPOCHS_200 = {"student.epochs": 200, "student.optimizer.drops": (100 / 200, 150 / 200)}
# The released runs also have start `one_sided` and a drop after each of the fractions 59/80, 60/80, ..., 73/80.
ROBAL = {
    "student.method": "robal",
    "student.epochs": 80,
    "student.optimizer.drops": (59 / 80, 74 / 80),
    "student.optimizer.weight_decay": 2e-4,
    "student.batch_size": 64,
    "student.attack.radius": 255 * 0.031,
    "student.attack.step_size": 255 * 0.0078,
    "student.attack.steps": 5,
    "student.attack.start": "uniform",
}
# Only the code's form of the tail term is established (docs/methods/long_tail.md).
REAT = {
    "student.method": "reat",
    "methods.reat.variant": "as_released",
    "student.attack.start": "uniform_raw",
    **EPOCHS_80,
}
TAET = {
    "student.method": "taet",
    **EPOCHS_100,
    "student.attack.radius": 255 * 0.031,
    "student.attack.step_size": 255 * 0.003,
}
CIFAR100 = {"data.name": "cifar100", "data.imbalance_ratio": 10.0}
# Its released code lowers the rate one epoch later than the other papers' own code of AT-BSL and RoBal does.
ROBUST_LT = {
    "model.name": "wrn_28_10",
    "student.wrappers": ("robust_lt",),
    "student.optimizer.nesterov": True,
    "student.optimizer.weight_decay": 5e-4,
    "student.attack.start": "uniform",
    "student.attack.radius": 8.0,
    "student.attack.step_size": 2.0,
}
CFA = {
    "data.imbalance_ratio": 1.0,
    "data.validation_fraction": 0.02,
    "model.name": "preact_resnet18",
    "student.wrappers": ("cfa",),
    **EPOCHS_200,
}
BALANCED = {
    "data.imbalance_ratio": 1.0,
    "data.validation_fraction": 0.06,
    "student.attack.radius": 255 * 0.031,
    "student.attack.step_size": 255 * 0.007,
}
SCALE_1 = {"methods.robal.tau_b": 1.5, "methods.robal.tau_m": 0.3, "methods.robal.test_scale": 1.0}
PLAIN_TEST = {"methods.robal.tau_p": 0.0}

RECIPES: dict[str, dict[str, Any]] = {
    "pgd_at": {"student.method": "pgd_at", "student.attack.start": "uniform"},
    "trades": {"student.method": "trades"},
    # The released optimiser for ResNet-18: at rate 0.1 with decay 5e-4 MART can be unstable.
    "mart": {
        "student.method": "mart",
        "student.epochs": 120,
        "student.optimizer.drops": (74 / 120, 89 / 120, 99 / 120),
        "student.optimizer.learning_rate": 0.01,
        "student.optimizer.weight_decay": 3.5e-3,
    },
    "awp": {"student.method": "pgd_at", "student.wrappers": ("awp",)},
    "at_bsl": {"student.method": "at_bsl"},
    "at_bsl_ra": {"student.method": "at_bsl", "student.augmentation.policy": "randaugment"},
    "at_bsl_aua": {"student.method": "at_bsl", "student.augmentation.policy": "autoaugment"},
    "robal_n": ROBAL,
    "robal_r": ROBAL | SCALE_1 | PLAIN_TEST,
    "robal_n_cifar100": ROBAL
    | CIFAR100
    | {"methods.robal.margin": 0.2, "methods.robal.tau_b": 0.0, "methods.robal.beta": 3.0, "methods.robal.tau_p": 1.5},
    "robal_r_cifar100": ROBAL
    | CIFAR100
    | {
        "methods.robal.margin": 0.3,
        "methods.robal.tau_b": 0.0,
        "methods.robal.floor": 1 / 16,
        "methods.robal.tau_p": 1.7,
    },
    "cfa_at": CFA | {"student.method": "pgd_at", "student.attack.start": "uniform"},
    "cfa_trades": CFA | {"student.method": "trades", "methods.cfa.margin_base": 0.3},
    "cfa_fat": CFA | {"student.method": "fat", "student.attack.start": "uniform", "methods.cfa.margin_base": 0.7},
    "dafa": BALANCED
    | {
        "student.method": "dafa",
        "student.epochs": 110,
        "student.optimizer.drops": (99 / 110, 104 / 110),
        "student.optimizer.nesterov": True,
    },
    "wat": BALANCED | {"student.method": "wat", "student.optimizer.weight_decay": 2e-4},
    "bat": BALANCED
    | {
        "student.method": "bat",
        "student.epochs": 200,
        "student.optimizer.drops": (74 / 200, 89 / 200, 99 / 200),
        "student.optimizer.weight_decay": 2e-4,
    },
    "reat": REAT,
    "taet": TAET,
    "robust_lt_at": ROBUST_LT | EPOCHS_100 | {"student.method": "pgd_at"},
    "robust_lt_awp": ROBUST_LT
    | EPOCHS_200
    | {
        "student.method": "pgd_at",
        "student.wrappers": ("awp", "robust_lt"),
        "methods.awp.direction": "optimizer",
    },
    "robust_lt_at_bsl": ROBUST_LT
    | EPOCHS_100
    | {"student.method": "at_bsl", "student.augmentation.policy": "autoaugment"},
    "robust_lt_robal": ROBAL | ROBUST_LT | SCALE_1 | PLAIN_TEST | EPOCHS_80,
    "robust_lt_reat": REAT | ROBUST_LT,
    "robust_lt_taet": TAET
    | ROBUST_LT
    | {
        "methods.taet.clean_fraction": 0.39,
        "methods.robust_lt.ramp": 1.0,
    },
}


ALL_IMAGES = {
    f"{name}+all_images": recipe | {"data.validation_fraction": 0.0}
    for name, recipe in RECIPES.items()
    # The others are the class-wise methods, whose class weights, radii or averages come from the validation part.
    if "data.validation_fraction" not in recipe
}


def get_config(name: str = "") -> ConfigDict:
    known = RECIPES | ALL_IMAGES
    if name not in known:
        raise UnknownName(
            f"recipe is {name!r}; {nearest(name, known)}give --config=configs/published.py:NAME with one of "
            f"{', '.join(RECIPES)}, or a long-tailed one with +all_images."
        )
    config: Any = default.get_config()
    config.data.name = "cifar10"
    config.update_from_flattened_dict(known[name])
    return config
