"""The table of the sanity panel: what each item checks, what it allows, and how a measurement becomes a verdict."""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ltrobust.runtime.typed_json import Count

STATUSES = ("pass", "skipped", "warn", "fail")  # the later the worse
# Named in the line of an item, worst first.
_SHOWN_CLASSES = 6
_EXACT = 1e-9  # slack of comparisons: 0.2 % of 500 images are one image


class Limit(NamedTuple):
    """Up to `passes` is a pass, up to `warns` a warning, more a failure; in percent, or in images where that is more.

    `chance` adds 100 % / C to `warns`. `warns` None: more than `passes` is a warning, however much.
    """

    passes: float
    warns: float | None
    passes_images: float = 0
    warns_images: float = 0
    chance: bool = False


# Item -> required, what is checked.
CHECKS: dict[str, tuple[bool, str]] = {
    "P01": (True, "threat model stated, radius large enough to matter"),
    "P02": (True, "robust images are right when clean"),
    "P03": (True, "counted successes are valid"),
    "P04": (True, "every image of the test set has one verdict"),
    "P05": (True, "iterative attack beats single step: broken by FGSM, not by PGD-20"),
    "P06": (True, "catastrophic overfitting: FGSM accuracy above PGD-20"),
    "P07": (True, "steps: PGD-20 accuracy above PGD-100"),
    "P08": (True, "iterations: APGD-CE accuracy, 100 above 200"),
    "P09": (False, "restarts: PGD-20 accuracy, one start above five"),
    "P10": (True, "larger radius, no higher accuracy: largest rise"),
    "P11": (True, "accuracy at radius 128/255"),
    "P12": (True, "gradient-free attack: broken by Square only"),
    "P13": (False, "transfer attack"),
    "P14": (False, "random noise"),
    "P15": (False, "hard-label attack"),
    "P16": (True, "targeted and untargeted attacks"),
    "P17": (True, "zero gradient at a random start"),
    "P18": (True, "logit scale: PGD-20 accuracy above PGD-20 on rescaled logits"),
    "P19": (True, "strength ratio, AutoAttack over PGD-20 accuracy"),
    "P20": (True, "randomised predictions"),
    "P21": (True, "logits do not depend on the batch"),
    "P22": (True, "outputs are logits, not probabilities"),
    "P23": (True, "exact ties at the top"),
    "P24": (True, "number of classes allows the attacks"),
    "P25": (True, "operations that hide or take gradients"),
    "P26": (False, "attack through substitutes of hidden gradients"),
    "P27": (True, "dead classes and collapse"),
    "P28": (True, "verdicts repeat"),
    "P29": (True, "precision: verdicts changed by the exact network"),
    "P30": (False, "broken only before rounding to 8 bits"),
    "P31": (True, "selection did not use the test set"),
    "P32": (True, "control: exact answers on the linear network"),
    "P33": (False, "broader threat models"),
    "P34": (False, "defence parts switched off one by one"),
}

OVERALL: dict[str, Limit] = {
    "P05": Limit(1, 3),
    "P06": Limit(12, 25),
    "P07": Limit(1, 2),
    "P08": Limit(0.5, 1),
    "P09": Limit(1.5, 3),
    "P10": Limit(0.2, 0.5),
    "P11": Limit(1, 1, chance=True),
    "P12": Limit(0.2, 1),
    "P17 ce": Limit(1, None),
    "P17": Limit(0, 0.1),
    "P18": Limit(1.5, 4),
    "P23": Limit(0, 0.1),
    "P29": Limit(0.1, 0.5),
    "P30": Limit(1, 3),
    **dict.fromkeys(("P02", "P03", "P04", "P20", "P28"), Limit(0, 0)),
}
PER_CLASS: dict[str, Limit] = {
    "P05": Limit(3, 8, 3, 5),
    "P06": Limit(20, 40),
    "P07": Limit(3, 6, 3, 6),
    "P09": Limit(5, 8),
    "P10": Limit(1, None, 2),
    "P11": Limit(2, 5, chance=True),
    "P12": Limit(0.5, 2, 2, 4),
    "P17 ce": Limit(5, 20),
    "P17": Limit(0, 1),
    "P18": Limit(7, 15, 3, 8),
    "P23": Limit(0, 1),
    "P29": Limit(1, 3),
    **dict.fromkeys(("P02", "P03", "P04", "P20", "P28"), Limit(0, 0)),
}
# Of the ratio, lowest for a pass and for a warning: overall, per class, and images that PGD-20 has to leave there.
STRENGTH, STRENGTH_PER_CLASS, STRENGTH_IMAGES = (0.70, 0.50), (0.5, 0.3), 50  # P19
BATCH_DIFFERENCE = (1e-4, 1e-2)  # P21, relative
RANDOMISED_DISTANCE = 1e-4  # P20, of logits of unit length
PROBABILITY = 1e-5  # P22
EIGHT_BITS = 1e-3  # P30: how far a pixel may be from a multiple of 1/255, in 1/255
COLLAPSE, COLLAPSE_CLASSES = 0.5, 10  # P27: share of one class, and from how many classes on


@dataclasses.dataclass(frozen=True)
class Item:
    """One line of the panel.

    Attributes:
      id: as in docs/concepts/sanity.md.
      status: `pass`, `warn`, `fail` or `skipped`: the worst of all images and of each class.
      check: what is checked.
      evidence: what was measured, or why nothing was.
      per_class: (class, status, what was measured) where that is not a pass.
    """

    id: str
    status: str
    check: str
    evidence: str
    per_class: tuple[tuple[Count, str, str], ...] = ()

    @property
    def required(self) -> bool:
        """Whether a failure takes the trust from the number."""
        return CHECKS[self.id][0]

    @property
    def details(self) -> str:
        """The evidence, and the worst of the classes that do not pass."""
        worst = sorted(self.per_class, key=lambda entry: -STATUSES.index(entry[1]))
        shown = [f"class {number}: {what} ({status})" for number, status, what in worst[:_SHOWN_CLASSES]]
        if len(worst) > _SHOWN_CLASSES:
            shown.append(f"and {len(worst) - _SHOWN_CLASSES} more classes")
        return "; ".join([self.evidence, *shown])

    def __str__(self) -> str:
        return f"{self.status:<7} {self.check} ({self.id}): {self.details}"


def verdict(items: Iterable[Item]) -> str:
    """`trustworthy`, `trustworthy, with warnings`, or `not trustworthy`: a required item failed."""
    items = tuple(items)
    # Items that are not required only warn: their failure is shown, and the number stands.
    if any(item.required and item.status == "fail" for item in items):
        return "not trustworthy"
    if any(item.status in ("warn", "fail") for item in items):
        return "trustworthy, with warnings"
    return "trustworthy"


def stated(identifier: str, status: str, evidence: str, per_class: Iterable[tuple[int, str, str]] = ()) -> Item:
    """An item whose status is known, made worse by its classes."""
    per_class = tuple(per_class)
    return Item(
        identifier, worst([status, *(entry[1] for entry in per_class)]), CHECKS[identifier][1], evidence, per_class
    )


def worst(statuses: Iterable[str]) -> str:
    """The worst of some statuses: fail, warn, skipped, pass."""
    return max(statuses, key=STATUSES.index)


def grade(number: float, total: int, limit: Limit, num_classes: int) -> str:
    """`pass`, `warn` or `fail` for `number` of `total` images."""
    # The larger of both: in a class of few test images one image is more than the percentage allows.
    if number <= max(limit.passes_images, limit.passes * total / 100) + _EXACT:
        return "pass"
    if limit.warns is None:
        return "warn"
    warns = limit.warns + (100 / num_classes if limit.chance else 0)
    return "warn" if number <= max(limit.warns_images, warns * total / 100) + _EXACT else "fail"


def probabilities(logits: np.ndarray) -> bool:
    """P22: whether [N, K] look like a softmax's output, by the rule of the AutoAttack code."""
    low, high, off = logits.min(), logits.max(), np.max(np.abs(logits.sum(axis=1) - 1))
    return bool(high < 1 + PROBABILITY and low > -PROBABILITY and off < PROBABILITY)


def measured(
    identifier: str,
    numbers: np.ndarray,
    totals: np.ndarray,
    *,
    overall: float | None = None,
    rule: str = "",
    label: str = "",
    note: str = "",
) -> Item:
    """An item from images counted per class.

    Args:
      identifier: of the item.
      numbers: [C], how many images speak against the evaluation; differences of accuracies may be negative.
      totals: [C], of how many; a class without images is not judged.
      overall: of all images, where that is not the sum.
      rule: key of the limits, where it is not the identifier.
      label: what the numbers are of, where an item has several.
      note: added to the evidence.
    """
    rule = rule or identifier
    limit, total, classes = OVERALL[rule], int(np.sum(totals)), len(totals)
    if total == 0:
        return stated(identifier, "skipped", f"no images to judge{note and '; ' + note}")
    number = float(np.sum(numbers) if overall is None else overall)
    per_class = []
    for position in np.flatnonzero(totals) if rule in PER_CLASS else ():
        status = grade(numbers[position], totals[position], PER_CLASS[rule], classes)
        if status != "pass":
            what = f"{label and label + ', '}{numbers[position]:g} of {totals[position]} images"
            per_class.append((int(position), status, what))
    warns = None if limit.warns is None else limit.warns + (100 / classes if limit.chance else 0)
    bounds = f"limit {limit.passes:g}" + ("" if warns is None else f"/{warns:g}")
    evidence = f"{label or 'overall'} {100 * number / total:.2f} % of {total} images ({bounds}){note and ', ' + note}"
    return stated(identifier, grade(number, total, limit, classes), evidence, per_class)


def joined(items: Iterable[Item]) -> Item:
    """Items of one identifier as one: the worst status, all the evidence."""
    items = tuple(items)
    per_class = tuple(entry for item in items for entry in item.per_class)
    return stated(items[0].id, worst(item.status for item in items), "; ".join(i.evidence for i in items), per_class)
