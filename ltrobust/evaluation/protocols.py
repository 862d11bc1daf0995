"""Named, frozen lists of attacks. A number is quoted under its protocol's name and no other.

`AutoAttack` is what `standard` runs, and nothing else is called so. What other projects printed under that name has
names of its own here: `aa_ta10` (torchattacks: 10 iterations) and `aa2_031` (RoBal: two attacks at 0.031).
"""

import dataclasses
import json
import math
from typing import Any

from ltrobust.attacks.kinds import MOST_TARGETS, Apgd, Attack, CwL2, DeepFool, Fab, Pgd, Square
from ltrobust.attacks.kinds import radius_of as radius_of
from ltrobust.evaluation.columns import Columns
from ltrobust.runtime.names import nearest
from ltrobust.threat import Threat


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
    def columns(self) -> Columns:
        """What it reports, and what each column consists of."""
        return Columns({attack.name: attack.after for attack in self.attacks}, dict(self.combined))

    @property
    def headline(self) -> str:
        """The column that stands for the protocol's robust accuracy."""
        return self.columns.headline


def _sequence(prefix: str, *attacks: Attack) -> tuple[Attack, ...]:
    """Attacks under `prefix`, each on the survivors of those before it."""
    # The prefix makes the names, and with them the draws, differ from those of AutoAttack's attacks.
    named = [dataclasses.replace(attack, name=prefix + attack.name) for attack in attacks]
    return tuple(
        dataclasses.replace(attack, after=tuple(before.name for before in named[:position]))
        for position, attack in enumerate(named)
    )


def _names(attacks: tuple[Attack, ...]) -> tuple[str, ...]:
    """Names in order."""
    return tuple(attack.name for attack in attacks)


# Names end in what tells attacks apart: `_g` a Gaussian start, `_k50` a kappa of 50, `_1` steps of 1/255 at radius
# 8/255, `_031` a radius of 0.031.
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
# In pixel units the step is 0.0078, which is a bit less than 2/255.
_ROBAL_STEP = 0.0078 / 0.031
_ROBAL_TWO = _sequence("aa2_031/", Apgd("apgd-ce", "ce"), Apgd("apgd-t", "targeted_dlr", targets=MOST_TARGETS))

# A protocol whose numbers have been quoted is never changed; a change gets a new name.
# `tests/evaluation/protocols.json` keeps every setting. The name of an attack addresses its draws, so it must not
# change either, and no two attacks share one.
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


def get(name: str | Protocol) -> Protocol:
    """The protocol of that name; a `Protocol` of the user is returned as it is.

    Raises:
      ValueError: unknown name; lists the known ones, and the one that is probably meant. Or another protocol under the
        name of a built-in one.
    """
    if isinstance(name, Protocol):
        if PROTOCOLS.get(name.name, name) != name:
            raise ValueError(f"protocol {name.name!r} is built in, with other attacks; give yours another name.")
        return name
    if not isinstance(name, str) or name not in PROTOCOLS:
        hint = nearest(name, PROTOCOLS, {"autoattack": "standard", "auto_attack": "standard", "aa": "standard"})
        raise ValueError(f"evaluation protocol is {name!r}; {hint}known protocols: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def plain(protocol: Protocol) -> dict[str, Any]:
    """Every setting, as JSON reads it back; the radius of an attack that has none is "unbounded".

    JSON has no infinity, and null is the radius of the threat.
    """
    settings = json.loads(json.dumps(dataclasses.asdict(protocol)))
    for attack in settings["attacks"]:
        if attack.get("radius") == math.inf:
            attack["radius"] = "unbounded"
    return settings


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
