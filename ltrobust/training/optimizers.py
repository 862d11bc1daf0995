"""Learning-rate schedules and optimisers, all of them optax's."""

import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ltrobust.runtime.names import nearest

_COMMON = ("sgd", "adam", "adamw", "lamb")
SCHEDULES = ("drops", "cosine", "constant")


def make_schedule(
    *,
    name: str,
    learning_rate: float,
    steps: int,
    first_step: Callable[[int], int],
    epochs: int,
    drops: Sequence[float] = (),
    drop_factor: float = 0.1,
    warmup_epochs: int = 0,
) -> optax.Schedule:
    """The learning rate as a function of the step, counted from 0.

    `drops`: multiplied by `drop_factor` after each given fraction of the epochs; 0.74 of 100 epochs is the peers' "75"
    (the first epoch, counted from 1, at the new rate). `cosine`: half a cosine from `learning_rate` to 0. `constant`.
    During warm-up the rate rises linearly from 0 and replaces the schedule, which runs on underneath.

    Args:
      steps: number of steps of the phase.
      first_step: epoch counted from 0 -> its first step.
      epochs: number of epochs of the phase.

    Raises:
      ValueError: unknown schedule, a rate that is not positive, a drop outside (0, 1], a drop factor outside [0, 1], or
        a warm-up that is longer than the phase.
    """
    if name not in SCHEDULES:
        raise ValueError(
            f"learning-rate schedule is {name!r}; {nearest(name, SCHEDULES)}known schedules: {', '.join(SCHEDULES)}."
        )
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"learning rate is {learning_rate}; it must be positive.")
    if not 0 <= drop_factor <= 1:
        raise ValueError(f"drop factor is {drop_factor}; the rate is multiplied by it, so it must lie in [0, 1].")
    if not 0 <= warmup_epochs <= epochs:
        raise ValueError(f"warmup epochs are {warmup_epochs}; the phase has {epochs}, so 0 to {epochs} are allowed.")
    if not all(isinstance(drop, numbers.Real) and 0 < drop <= 1 for drop in drops):
        raise ValueError(f"learning-rate drops are {tuple(drops)}; they are fractions of the phase, in (0, 1].")
    if name == "drops":
        # The small addition keeps 0.29 * 100 = 28.999999999999996 at epoch 29. A drop before the first epoch's end
        # (few epochs) falls inside it, at its fraction of the steps.
        ends = [math.floor(drop * epochs + 1e-9) for drop in drops]
        boundaries = [first_step(end) if end else int(drop * steps) for drop, end in zip(drops, ends, strict=True)]
        schedule = optax.piecewise_constant_schedule(
            learning_rate, {boundary: drop_factor ** boundaries.count(boundary) for boundary in boundaries}
        )
    elif name == "cosine":
        schedule = optax.cosine_decay_schedule(learning_rate, steps)
    else:
        schedule = optax.constant_schedule(learning_rate)
    if warmup_epochs > 0:
        rise, underneath = first_step(warmup_epochs), schedule
        warmup = optax.linear_schedule(0.0, learning_rate, rise)
        schedule = optax.join_schedules([warmup, lambda step: underneath(step + rise)], [rise])
    # In float32, because optax's schedules mix the count with floats.
    return lambda step: schedule(jnp.asarray(step, jnp.float32))


def make_optimizer(
    name: str,
    schedule: optax.Schedule,
    *,
    weight_decay: float = 0.0,
    options: Mapping[str, Any] | None = None,
) -> optax.GradientTransformation:
    """Any optax optimiser by name, with coupled L2 in front of it.

    For `sgd` with `momentum=0.9` this is the peers' `g <- g + wd * w; v <- 0.9 v + g; w <- w - lr * v`, on all
    parameters, BatchNorm and biases included. Decoupled decay is the optimiser's own option (`adamw`).

    Raises:
      ValueError: a name that optax does not have, one that needs more than gradients, an option that it does not take,
        or negative decay.
    """
    factory = getattr(optax, name, None)
    if not inspect.isfunction(factory) or "learning_rate" not in inspect.signature(factory).parameters:
        raise ValueError(
            f"optimiser is {name!r}; {nearest(name, _COMMON)}give the name of an optax optimiser, such as "
            f"{', '.join(_COMMON)}."
        )
    if weight_decay < 0:
        raise ValueError(f"weight decay is {weight_decay}; it must be at least 0.")
    options = dict(options or {})
    known = [parameter for parameter in inspect.signature(factory).parameters if parameter != "learning_rate"]
    if set(options) - set(known):
        unknown = ", ".join(sorted(set(options) - set(known)))
        raise ValueError(f"optimiser {name} has no option {unknown}; its options: {', '.join(known)}.")
    try:
        optimizer = factory(learning_rate=schedule, **options)
        # optax mixes integers and floats; whether that is refused is not the optimiser's fault.
        with jax.numpy_dtype_promotion("standard"):
            jax.eval_shape(lambda weights: optimizer.update(weights, optimizer.init(weights), weights), jnp.zeros(2))
    except (TypeError, ValueError, AssertionError, AttributeError) as error:
        raise ValueError(
            f"optimiser {name} with options {options} cannot be used here ({error}); give one that needs nothing but "
            "gradients and a schedule, such as sgd, adam, adamw or lamb."
        ) from error
    # In front of the optimiser, as PyTorch's SGD does it: the decay goes through momentum and learning rate.
    return optax.chain(optax.add_decayed_weights(weight_decay), optimizer) if weight_decay else optimizer
