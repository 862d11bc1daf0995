"""Kinds of attacks in protocols, each with its settings."""

import dataclasses
import math
from typing import Any

from ltrobust.attacks import ball
from ltrobust.attacks.algorithms import apgd, cw_l2, deepfool, fab, pgd, square
from ltrobust.attacks.search import Search
from ltrobust.threat import Threat, pixels

MOST_TARGETS = 9  # of the targeted attacks in `standard`


@dataclasses.dataclass(frozen=True)
class Pgd:
    """A PGD attack, judged by its last iterate. `step` is a fraction of the radius: 1/4 is 2/255 at 8/255.

    `loss` is one of `pgd.LOSSES`, of the logits times `scale` (one number, or one for each true class). `radius` is in
    1/255, None for the threat's.
    """

    name: str
    loss: str
    steps: int
    step: float
    start: str
    scale: float | tuple[float, ...] = 1.0
    kappa: float = 50.0
    decay: float = 0.0
    radius: float | None = None
    after: tuple[str, ...] = ()

    def build(self, threat: Threat, num_classes: int, image_shape: tuple[int, ...]) -> tuple[Search, dict[str, Any]]:
        """The search and its settings."""
        del image_shape
        radius = radius_of(self, threat)
        settings = pgd.settings(
            loss=self.loss,
            radius=radius,
            steps=self.steps,
            step_size=self.step * radius,
            num_classes=num_classes,
            scale=self.scale,
            kappa=self.kappa,
            decay=self.decay,
        )
        ball.check_start(self.start, threat)  # searches are kept by their start, and a list cannot be looked up
        return pgd.search(self.start), settings


@dataclasses.dataclass(frozen=True)
class Apgd:
    """Auto-PGD; broken by any wrong iterate. `targets`: 0 for an untargeted loss, else at most so many classes.

    With fewer than four classes the targeted loss is the difference of two logits, because DLR does not exist.
    """

    name: str
    loss: str
    steps: int = 100
    targets: int = 0
    radius: float | None = None
    after: tuple[str, ...] = ()

    def build(self, threat: Threat, num_classes: int, image_shape: tuple[int, ...]) -> tuple[Search, dict[str, Any]]:
        """The search and its settings."""
        del image_shape
        loss = "difference" if self.loss == "targeted_dlr" and num_classes < 4 else self.loss
        # torchattacks aims at all other classes; its protocols ask for more targets than there are.
        runs = min(self.targets, num_classes - 1) if self.targets else 1
        radius = radius_of(self, threat)
        return apgd.APGD, apgd.settings(loss=loss, radius=radius, num_classes=num_classes, steps=self.steps, runs=runs)


@dataclasses.dataclass(frozen=True)
class Fab:
    """Targeted FAB; broken by the smallest perturbation found, if it is within the radius."""

    name: str
    steps: int = 100
    targets: int = MOST_TARGETS
    radius: float | None = None
    after: tuple[str, ...] = ()

    def build(self, threat: Threat, num_classes: int, image_shape: tuple[int, ...]) -> tuple[Search, dict[str, Any]]:
        """The search and its settings."""
        del image_shape
        runs = min(self.targets, num_classes - 1)
        radius = radius_of(self, threat)
        return fab.FAB, fab.settings(
            radius=radius, num_classes=num_classes, norm=threat.norm, steps=self.steps, runs=runs
        )


@dataclasses.dataclass(frozen=True)
class Square:
    """Random search without gradients; broken as soon as a proposal is misclassified."""

    name: str
    queries: int = 5000
    rescale: bool = False
    radius: float | None = None
    after: tuple[str, ...] = ()

    def build(self, threat: Threat, num_classes: int, image_shape: tuple[int, ...]) -> tuple[Search, dict[str, Any]]:
        """The search and its settings."""
        del num_classes
        radius = radius_of(self, threat)
        search = square.LINF if threat.norm == "linf" else square.SQUARE
        return search, square.settings(
            radius=radius, queries=self.queries, rescale=self.rescale, image_shape=image_shape, norm=threat.norm
        )


@dataclasses.dataclass(frozen=True)
class CwL2:
    """Carlini and Wagner's L2 attack without a radius; broken if any iterate was wrong, however far away."""

    name: str
    steps: int = 100
    # Any distance is allowed when the point is judged; the pixel bounds still hold.
    radius: float = math.inf
    after: tuple[str, ...] = ()

    def build(self, threat: Threat, num_classes: int, image_shape: tuple[int, ...]) -> tuple[Search, dict[str, Any]]:
        """The search and its settings."""
        del threat, num_classes, image_shape
        return cw_l2.CW_L2, cw_l2.settings(steps=self.steps)


@dataclasses.dataclass(frozen=True)
class DeepFool:
    """DeepFool without a radius; broken if the last point is wrong, however far away."""

    name: str
    steps: int = 50
    radius: float = math.inf
    after: tuple[str, ...] = ()

    def build(self, threat: Threat, num_classes: int, image_shape: tuple[int, ...]) -> tuple[Search, dict[str, Any]]:
        """The search and its settings."""
        del threat, num_classes, image_shape
        return deepfool.DEEPFOOL, deepfool.settings(steps=self.steps)


Attack = Pgd | Apgd | Fab | Square | CwL2 | DeepFool


def radius_of(attack: Attack, threat: Threat) -> float:
    """The attack's radius in pixel units."""
    return threat.epsilon if attack.radius is None else pixels(attack.radius)
