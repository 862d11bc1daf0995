"""Class-wise methods on digits, imbalance ratio 10, beside what they are built on; three seeds, one protocol.

    ltrobust sweep configs/sweeps/class_wise_digits.py --out=runs/sweep_class_wise_digits

Every method has its published settings, and none was tuned here. What is an epoch in a paper is at the same fraction of
the 100 epochs here (CFA: of 200). FRL and FAAL fine-tune a robust network at their published rates, FRL for 40 epochs
and FAAL for 2; that network is trained before, on all images, so that the student's epochs are 100 in all. CFA's
result are the averaged weights. The balanced teacher of the other combinations with self-distillation is that of
`self_distillation` of the same seed.
"""

from typing import Any

from configs.sweeps.digits import TEACHER, method

CONFIG = "configs/digits.py"
AXES = {"seed": (0, 1, 2)}

EPOCHS = 100


def cfa(base: str, **settings: Any) -> dict[str, Any]:
    """CFA around a method: plain for 10 of 200 epochs, averaging from the 50th."""
    return method(base, "cfa", cfa__plain_epochs=EPOCHS * 10 // 200, cfa__average_after=EPOCHS * 49 // 200, **settings)


def fine_tuned(base: str, epochs: int, *, of: int = EPOCHS, **optimizer: Any) -> dict[str, Any]:
    """Changes that train `base` on all images first, by the student's recipe, and the student for its last epochs.

    `of` is the epochs of both together.
    """
    first = {
        "teacher.method": base,
        "teacher.subset": "all",
        "teacher.remainder": "drop",
        "teacher.optimizer.drops": (0.74, 0.89, 0.99),
        "teacher.epochs": of - epochs,
    }
    then = {f"student.optimizer.{key}": value for key, value in optimizer.items()}
    return first | {"student.initialize": "teacher", "student.epochs": epochs} | then


VARIANTS = {
    "self_distillation": {},
    "pgd_at": method("pgd_at"),
    "trades": method("trades"),
    "at_bsl": method("at_bsl"),
    "fat": method("fat"),
    "pgd_at+cfa": cfa("pgd_at"),
    "trades+cfa": cfa("trades", cfa__margin_base=0.3),
    "fat+cfa": cfa("fat", cfa__margin_base=0.7),
    "chi2_class_dro": method("chi2_class_dro"),
    "label_aug": method("label_aug"),
    "dafa": method("dafa"),
    "wat": method("wat"),
    "frl": method("frl") | fine_tuned("trades", 40, learning_rate=1e-3, schedule="constant"),
    "faal": method("faal") | fine_tuned("pgd_at", 2, learning_rate=0.01, drops=(0.5,)),
    "bat": method("bat"),
    "pgd_at+weak_class_reweight": method("pgd_at", "weak_class_reweight"),
    "trades+weak_class_reweight": method("trades", "weak_class_reweight"),
    "at_bsl+weak_class_reweight": method("at_bsl", "weak_class_reweight"),
    "at_bsl+cfa": cfa("at_bsl"),
    "self_distillation+cfa": cfa("self_distillation") | TEACHER,
    "self_distillation+weak_class_reweight": method("self_distillation", "weak_class_reweight") | TEACHER,
}
