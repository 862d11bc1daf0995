"""Named, frozen lists of attacks. A number is quoted under its protocol's name and no other.

`AutoAttack` is what `standard` runs, and nothing else is called so. What other projects printed under that name has
names of its own here: `aa_ta10` (torchattacks: 10 iterations) and `aa2_031` (RoBal: two attacks at 0.031).
"""

import dataclasses
import math
from typing import Any

from ltrobust.attacks import apgd, cw_l2, deepfool, fab, pgd, square
from ltrobust.attacks.search import Search
from ltrobust.names import nearest
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
        return square.SQUARE, square.settings(
            radius=radius, queries=self.queries, rescale=self.rescale, image_shape=image_shape, norm=threat.norm
        )


@dataclasses.dataclass(frozen=True)
class CwL2:
    """Carlini and Wagner's L2 attack without a radius; broken if any iterate was wrong, however far away."""

    name: str
    steps: int = 100
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


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Attacks in order, and named combinations of them.

    An attack with `after` sees only images that survive the attacks named there, and its column counts those as broken
    too. Every other attack sees all images that are right when clean.

    Attributes:
      name: under which its numbers may be quoted.
      attacks: in order.
      combined: (column, names of attacks): right under each of them, image by image. The last one is the headline.
      radius: in 1/255, where the protocol exists at one radius only, else None.
      sanity: whether the sanity panel belongs to it.
      note: what its numbers depend on that one would not expect; printed, and on the card.
    """

    name: str
    attacks: tuple[Attack, ...]
    combined: tuple[tuple[str, tuple[str, ...]], ...] = ()
    radius: float | None = None
    sanity: bool = False
    note: str = ""

    @property
    def headline(self) -> str:
        """The column that stands for the protocol's robust accuracy."""
        return self.combined[-1][0] if self.combined else self.attacks[-1].name


def radius_of(attack: Attack, threat: Threat) -> float:
    """The attack's radius in pixel units."""
    return threat.epsilon if attack.radius is None else pixels(attack.radius)


def _sequence(prefix: str, *attacks: Attack) -> tuple[Attack, ...]:
    """Attacks under `prefix`, each on the survivors of those before it."""
    named = [dataclasses.replace(attack, name=prefix + attack.name) for attack in attacks]
    return tuple(
        dataclasses.replace(attack, after=tuple(before.name for before in named[:position]))
        for position, attack in enumerate(named)
    )


def _names(attacks: tuple[Attack, ...]) -> tuple[str, ...]:
    """Names in order."""
    return tuple(attack.name for attack in attacks)


_FGSM = Pgd("fgsm", "ce", steps=1, step=1.0, start="none")
_FGSM_G = Pgd("fgsm_g", "ce", steps=1, step=1.0, start="gauss")
PGD20 = Pgd("pgd20", "ce", steps=20, step=1 / 4, start="uniform_raw")
_CW20 = Pgd("cw20_k50", "margin", steps=20, step=1 / 4, start="uniform_raw")
_LSA20 = Pgd("lsa20", "ce", steps=20, step=1 / 4, start="uniform_raw", scale=10.0)
_PGD20_1 = Pgd("pgd20_1", "ce", steps=20, step=1 / 8, start="uniform")
_PGD100_1 = Pgd("pgd100_1", "ce", steps=100, step=1 / 8, start="uniform")
_CW20_K0 = Pgd("cw20_k0", "margin", steps=20, step=1 / 8, start="uniform", kappa=0.0)
_WORST = ("worst", ("pgd20", "cw20_k50", "lsa20"))
# Temperature-PGD at 1/T behind the `@`, from the start of `pgd20`, which is 1/T = 1.
_TEMPERED = tuple(
    dataclasses.replace(PGD20, name=f"pgd20@{scale}", loss="tempered", scale=float(scale)) for scale in (2, 5, 10, 50)
)
_DIAGNOSE = (_FGSM, PGD20, _CW20, dataclasses.replace(PGD20, name="mim20", decay=1.0), *_TEMPERED)

_AUTOATTACK = _sequence(
    "",
    Apgd("apgd-ce", "ce"),
    Apgd("apgd-t", "targeted_dlr", targets=MOST_TARGETS),
    Fab("fab-t"),
    Square("square"),
)
# Targets are all other classes, and Square's schedule for 10,000 queries is squeezed into 5,000.
_TORCHATTACKS = _sequence(
    "aa_ta10/",
    Apgd("apgd-ce", "ce", steps=10),
    Apgd("apgd-t", "targeted_dlr", steps=10, targets=1 << 20),
    Fab("fab-t", steps=10, targets=1 << 20),
    Square("square", rescale=True),
)
_AA_TA10 = ("aa_ta10", _names(_TORCHATTACKS))
_NOTE_TA10 = "aa_ta10 is what torchattacks runs by default: 10 iterations per gradient attack, so weaker than standard"
_ROBAL = 0.031 * 255  # 7.905/255, not 8/255
_ROBAL_STEP = 0.0078 / 0.031
_ROBAL_TWO = _sequence("aa2_031/", Apgd("apgd-ce", "ce"), Apgd("apgd-t", "targeted_dlr", targets=MOST_TARGETS))

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # What training looks at after each epoch, on the validation part only.
        Protocol("validation", (PGD20,)),
        Protocol("quick", (_FGSM, PGD20, _CW20, _LSA20), combined=(_WORST,)),
        Protocol(
            "standard",
            (_FGSM, PGD20, _CW20, _LSA20, *_AUTOATTACK),
            combined=(_WORST, ("autoattack", _names(_AUTOATTACK))),
            sanity=True,
        ),
        Protocol(
            "diagnose",
            _DIAGNOSE,
            combined=(("temperature", ("pgd20", *_names(_TEMPERED))), ("all_attacks", _names(_DIAGNOSE))),
        ),
        Protocol(
            "legacy_at_bsl",
            (_FGSM_G, PGD20, _CW20, _LSA20, *_TORCHATTACKS),
            combined=(_AA_TA10,),
            radius=8,
            note=_NOTE_TA10,
        ),
        Protocol(
            "legacy_robal",
            (
                Pgd("fgsm_031", "ce", steps=1, step=1.0, start="none"),
                Pgd("pgd20_031", "ce", steps=20, step=_ROBAL_STEP, start="uniform_raw"),
                Pgd("mim20_031", "ce", steps=20, step=_ROBAL_STEP, start="uniform_raw", decay=1.0),
                Pgd("cw20_031", "margin", steps=20, step=_ROBAL_STEP, start="uniform_raw"),
                *_ROBAL_TWO,
            ),
            combined=(("aa2_031", _names(_ROBAL_TWO)),),
            radius=_ROBAL,
            note="radius 0.031 is 7.905/255; aa2_031 is two of AutoAttack's four attacks, an upper bound of it",
        ),
        Protocol(
            "legacy_robustlt", (_PGD20_1, _CW20_K0, *_TORCHATTACKS), combined=(_AA_TA10,), radius=8, note=_NOTE_TA10
        ),
        Protocol(
            "legacy_taet/b1",
            (_FGSM, _PGD20_1, _PGD100_1, CwL2("cw_l2"), DeepFool("deepfool"), *_TORCHATTACKS),
            combined=(_AA_TA10,),
            radius=8,
            note=f"{_NOTE_TA10}; cw_l2 and deepfool have no radius; the released code ends cw_l2 by the summed cost of "
            "a batch of 32, here every image is a batch",
        ),
    )
}


def get(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
      ValueError: unknown name; lists the known ones.
    """
    if name not in PROTOCOLS:
        hint = nearest(name, PROTOCOLS, {"autoattack": "standard", "auto_attack": "standard", "aa": "standard"})
        raise ValueError(f"evaluation protocol is {name!r}; {hint}known protocols: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def check_threat(protocol: Protocol, threat: Threat) -> None:
    """Refuses a radius at which a published protocol was never run.

    Raises:
      ValueError: says which radius and norm the protocol has.
    """
    if protocol.radius is not None and (threat.norm != "linf" or abs(threat.radius - protocol.radius) > 1e-9):
        raise ValueError(
            f"protocol {protocol.name!r} is defined at linf {protocol.radius:g}/255 only, the threat is {threat}; "
            "give that radius, or use the protocol standard, which exists at every radius."
        )


def title(column: str, num_classes: int) -> str:
    """How a column may be called in print."""
    if column != "autoattack":
        return column
    if num_classes > MOST_TARGETS:
        return "AutoAttack (standard)"
    if num_classes >= 4:
        return f"AutoAttack (standard, {num_classes - 1} targets)"
    return f"AutoAttack-like ({num_classes} classes)"
