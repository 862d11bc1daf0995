"""The compiled programs of an evaluation, traced from shapes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.attacks.search import Search, draws
from ltrobust.evaluation.drive import Driver
from ltrobust.evaluation.protocols import Attack


class EvaluationProgram(NamedTuple):
    """One program that several attacks may share.

    `name` says what it does and `attacks` for which attacks; `trace` gives JAX's `Traced`; `passes` says whether it
    repeats passes through the network, as many as it is asked for.
    """

    name: str
    attacks: tuple[str, ...]
    trace: Callable[[], Any]
    passes: bool


def programs(
    driver: Driver,
    variables: Any,
    image_shape: tuple[int, ...],
    attacks: Sequence[Attack],
    place: Callable[[Any], Any],
) -> Iterator[EvaluationProgram]:
    """Every program that a driver runs for these attacks, at its full batch.

    Args:
      driver: of the evaluation.
      variables: of the network, as shapes with their places.
      image_shape: height, width and channels.
      attacks: of a protocol.
      place: shapes with leading axis B -> the same with their places on the devices.
    """
    size = driver.batch_size
    images, labels, logits, ids = place(
        (
            jax.ShapeDtypeStruct((size, *image_shape), jnp.float32),
            jax.ShapeDtypeStruct((size,), jnp.int32),
            jax.ShapeDtypeStruct((size, driver.num_classes), jnp.float32),
            jax.ShapeDtypeStruct((size,), jnp.uint32),
        )
    )
    radius, whole, runs = np.float32(0), np.ones(size, bool), np.zeros(size, np.int32)
    yield EvaluationProgram(
        "judge", (), lambda: driver.programs.judge.trace(variables, images, images, labels, radius), passes=False
    )
    starts: dict[Search, list[tuple[Attack, Any]]] = {}
    loops: dict[Search, list[tuple[Attack, Any, Search]]] = {}
    for attack in attacks:
        search, settings = attack.build(driver.threat, driver.num_classes, image_shape)
        starts.setdefault(search, []).append((attack, settings))
        loops.setdefault(driver.programs.shared(search, restarts=True), []).append((attack, settings, search))

    def begin(search: Search, attack: Attack, settings: Any) -> Any:
        root = draws(driver.seed, attack.name)
        return driver.programs.begin(search).trace(images, labels, logits, ids, root, settings, whole, runs)

    for search, users in loops.items():
        attack, settings, first = users[0]

        def loop(search=search, first=first, attack=attack, settings=settings) -> Any:
            lanes, one = place(begin(first, attack, settings).out_info), np.int32(1)
            return driver.programs.work(search, restarts=True).trace(variables, lanes, settings, one, one, runs)

        kind, names = type(attack).__name__.lower(), tuple(user[0].name for user in users)
        yield EvaluationProgram(kind, names, loop, passes=True)
    for search, users in starts.items():
        attack, settings = users[0]
        kind, names = type(attack).__name__.lower(), tuple(user[0].name for user in users)
        yield EvaluationProgram(
            f"start of {kind}",
            names,
            lambda search=search, attack=attack, settings=settings: begin(search, attack, settings),
            passes=False,
        )
