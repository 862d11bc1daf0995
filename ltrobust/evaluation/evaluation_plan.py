"""How networks are evaluated on the test set, as a configuration describes it."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from ltrobust.evaluation import protocols
from ltrobust.runtime.names import nearest
from ltrobust.runtime.workdir import PHASES, WEIGHTS
from ltrobust.threat import Threat


@dataclasses.dataclass(frozen=True)
class EvaluationPlan:
    """How networks are evaluated on the test set. Attributes are keys of `eval`; `protocol` is the protocol itself."""

    protocol: protocols.Protocol
    checkpoint: str
    batch_size: int
    limit: int
    seed: int
    networks: tuple[str, ...]
    keep_images: bool


def make_evaluation_plan(settings: Mapping[str, Any], threat: Threat) -> EvaluationPlan:
    """The plan of the group `eval`; its `also` is not a part of it.

    Raises:
      ValueError: a setting that makes no sense; names the key, the value and what is allowed.
    """
    protocol = protocols.get(settings["protocol"])
    protocols.check_threat(protocol, threat)
    if settings["batch_size"] < 0 or settings["limit"] < 0:
        raise ValueError(
            f"eval.batch_size is {settings['batch_size']} and eval.limit is {settings['limit']}; "
            "they must be at least 0."
        )
    known = [f"{phase}/{weights}" for phase in PHASES for weights in WEIGHTS]
    for name in settings["networks"]:
        if name not in known:
            raise ValueError(
                f"eval.networks has {name!r}; {nearest(str(name), known)}known networks: {', '.join(known)}."
            )
    kept = {key: value for key, value in settings.items() if key not in ("protocol", "networks", "also")}
    return EvaluationPlan(protocol=protocol, networks=tuple(settings["networks"]), **kept)


def check_networks(plans: Iterable[EvaluationPlan], phases: Sequence[str], averaging: Collection[str]) -> None:
    """Refuses evaluations whose networks a run will not have, before it trains.

    Args:
      plans: of the run's evaluations.
      phases: that it trains.
      averaging: those of them that average weights.

    Raises:
      ValueError: names the networks that there will be.
    """
    known = [
        f"{phase}/{weights}" for phase in phases for weights in WEIGHTS if weights != "averaged" or phase in averaging
    ]
    for plan in plans:
        if plan.networks and not set(plan.networks) & set(known):
            raise ValueError(f"eval.networks is {plan.networks}, but this run trains {', '.join(known)}; name one.")


def change_evaluation(config: ConfigDict, changes: Any) -> ConfigDict:
    """The configuration of one of its further evaluations.

    Args:
      config: of a run.
      changes: an entry of its `eval.also`: key -> value.

    Raises:
      ValueError: no dict, a key that may not be changed, or a value of another type.
    """
    changed: Any = config.copy_and_resolve_references()
    changed.eval.also = ()
    try:
        for key, value in changes.items():
            if not key.startswith(("eval.", "threat.")) or key in ("eval.also", "eval.checkpoint"):
                raise ValueError(f"{key} cannot be changed")
            # A boolean would pass as 1 where a number belongs.
            before = _value(changed, key)
            if isinstance(value, bool) and not isinstance(before, bool):
                raise ValueError(f"{key} is {value}, where {before!r} was")
            changed.update_from_flattened_dict({key: value})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = str(error) if isinstance(changes, Mapping) else "it is not a dict"
        raise ValueError(
            f"{why}; give a dict of keys of eval and threat, such as "
            '{"eval.protocol": "standard", "eval.limit": 100}.'
        ) from error
    return changed


def _value(config: Any, key: str) -> Any:
    """The value of a dotted key."""
    for part in key.split("."):
        config = config[part]
    return config
