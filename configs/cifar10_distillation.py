"""Adversarial distillation on the whole of CIFAR-10, ResNet-18: the published recipes by name, with and without IGDM.

    python main.py --config=configs/cifar10_distillation.py:NAME --workdir=runs/NAME \
        --config.teachers.teacher.path=FILE --config.teachers.teacher.architecture=wrn_34_10 [--config.data.dir=DIR]

NAME is one of `BASES`, with `+igdm` for IGDM's term at its paper's weight for the LTD teacher, or one of `OTHERS`. FILE
is a teacher's PyTorch file, or a workdir (without an architecture). `mtard`, `b_mtard` and `iad2` need
`config.teachers.clean_teacher` too. docs/methods/distillation.md describes the methods. Published runs train on all
50,000 images; here a twentieth is held out for selection. No time has been measured.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import default
from ltrobust.runtime.names import UnknownName, nearest

# Methods that IGDM's paper starts from, with its weight of the term for ResNet-18 and the LTD teacher. For BDM-AT and
# IKL-AT it has: pgd_at 70, 70; trades 20, 20; ard 10, 10; iad 30, 30; rslad 0.9, 1; adaad 10, 5.
BASES = {"pgd_at": 60.0, "trades": 20.0, "ard": 5.0, "iad": 50.0, "rslad": 0.9, "adaad": 5.0}
OTHERS = ("ard_2020", "fair_ard", "iad2", "adaiad", "mtard", "b_mtard")
R200 = {"epochs": 200, "drops": (100 / 200, 150 / 200)}
R300 = {"epochs": 300, "drops": (215 / 300, 260 / 300, 285 / 300)}
# As these papers' own code does it, which has a second drop written in it that changes nothing.
ONE_DROP = ("ard_2020", "fair_ard", "iad2")


def get_config(name: str = "ard+igdm") -> ConfigDict:
    return make("cifar10", 10, name, BASES)


def make(data: str, num_classes: int, name: str, alphas: dict[str, float]) -> ConfigDict:
    """The recipe of that name on balanced data.

    Raises:
      ValueError: unknown name (lists the known ones).
    """
    base, _, wrapper = name.partition("+")
    if (base not in alphas or wrapper not in ("", "igdm")) and name not in OTHERS:
        known = (*alphas, *(f"{method}+igdm" for method in alphas), *OTHERS)
        raise UnknownName(f"there is no recipe {name!r}; {nearest(name, known)}known: {', '.join(known)}.")
    config: Any = default.get_config()
    config.data.name = data
    config.data.imbalance_ratio = 1.0
    student = config.student
    student.method = {"ard_2020": "ard", "fair_ard": "ard"}.get(base, base)
    if wrapper:
        student.wrappers = ("igdm",)
        config.methods.igdm.alpha = alphas[base]
        config.methods.adaad.passes = "adv_clean"
    recipe = R300 if base in ("rslad", "mtard", "b_mtard") else R200
    student.epochs, student.optimizer.drops = recipe["epochs"], recipe["drops"]
    if name in ONE_DROP:
        student.optimizer.drops = (100 / 200,)
    if name == "rslad+igdm":
        student.optimizer.drops = (210 / 300, 258 / 300, 285 / 300)
    # IGDM's paper trains everything with 5e-4; the other papers' own code, AdaAD's apart, with 2e-4.
    student.optimizer.weight_decay = 5e-4 if base in alphas or base == "adaiad" else 2e-4
    for method in ("mtard", "b_mtard"):
        config.methods[method].rate_drops = R300["drops"]
    if base == "ard":
        student.attack.start, student.attack.step_size = "uniform", 255 * 2 / 225
    if base in ("ard_2020", "fair_ard"):
        config.methods.ard.temperature = 30.0
        config.methods.ard.kl_scale = 1 / num_classes
    if name in ONE_DROP:
        student.attack.bn = "batch_frozen"
        student.attack.start = "uniform_raw"
    if base == "fair_ard":
        student.wrappers = ("fair_ard",)
        student.optimizer.nesterov = True
    return config
