"""Named, frozen lists of attacks. A number is quoted under its protocol's name and no other."""

import dataclasses
import functools
from collections.abc import Callable

import jax

from ltrobust.attacks import objectives

OBJECTIVES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "ce": objectives.cross_entropy,
    "margin_k50": functools.partial(objectives.margin, kappa=50.0),
    "ce_10z": functools.partial(objectives.scaled_cross_entropy, scale=10.0),
}


@dataclasses.dataclass(frozen=True)
class Attack:
    """A PGD attack, judged by its final iterate.

    `step` is a fraction of the threat's radius: 1/4 is 2/255 at 8/255. `objective` is a key of `OBJECTIVES`.
    """

    name: str
    objective: str
    steps: int
    step: float
    start: str


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Attacks in order, and the names of those whose per-image worst case is reported as `worst`."""

    name: str
    attacks: tuple[Attack, ...]
    worst: tuple[str, ...] = ()


_PGD20 = Attack("pgd20", "ce", steps=20, step=0.25, start="uniform_raw")

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # What training looks at after each epoch, on the validation part only.
        Protocol("validation", (_PGD20,)),
        Protocol(
            "quick",
            (
                Attack("fgsm", "ce", steps=1, step=1.0, start="none"),
                _PGD20,
                Attack("cw20_k50", "margin_k50", steps=20, step=0.25, start="uniform_raw"),
                Attack("lsa20", "ce_10z", steps=20, step=0.25, start="uniform_raw"),
            ),
            worst=("pgd20", "cw20_k50", "lsa20"),
        ),
    )
}


def get(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
      ValueError: unknown name; lists the known ones.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"evaluation protocol is {name!r}; known protocols: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
