"""The training step, pure and written for one device's share of the batch, and chunks of it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from ltrobust.data.augment import augment
from ltrobust.data.batches import OnDevice, example_keys, to_unit
from ltrobust.methods import Batch, Learner, Method, Outcome, Teacher, make_batch
from ltrobust.training import accumulation, devices
from ltrobust.training.state import OWN_SUMS, TrainState, Weights


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """Settings of the steps of a phase.

    `epochs` is the length of the phase; `gather` is that of `augment` and `to_unit`; `ema_decay` 0 means no averaging;
    `sync_batch_norm` says that the module averages its batch statistics over the devices itself; `host_fed` that
    a device holds its share of the images of one chunk of steps, rather than all images; `compiler` are options of
    XLA's compiler by name; `accumulate` is the number of parts of a batch (`accumulation`).
    """

    module: nn.Module
    method: Method
    optimizer: optax.GradientTransformation
    epochs: int
    augmentation: str = "base"
    crop_padding: int = 4
    flip: bool = True
    jitter: tuple[float, ...] = (0.0, 0.0, 0.0)
    gather: bool = True
    ema_decay: float = 0.0
    sync_batch_norm: bool = True
    host_fed: bool = False
    compiler: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    accumulate: int = 1


@flax.struct.dataclass
class Inputs:
    """Inputs of the steps of a chunk; all but `data` are the same in all chunks, on every device.

    `data` are what the steps' rows point into, see `StepSettings.host_fed`. `key` is the phase's root key,
    `class_counts` [C] those of the phase's own training list.
    """

    data: OnDevice
    class_counts: jax.Array
    teachers: dict[str, Teacher]
    key: jax.Array


def train_step(
    state: TrainState, inputs: Inputs, rows: jax.Array, epoch: jax.Array, *, settings: StepSettings
) -> TrainState:
    """One update on the examples at `rows`, this device's share of the batch.

    Every random draw of an example is keyed by (phase key, step, position in the whole batch), so that the number of
    devices does not matter. The gradient is that of the mean over the whole batch.

    Args:
      rows: int32 [B / devices], positions in `inputs.data`.
      epoch: int32 scalar, counted from 1.
    """
    method = settings.method
    learner = make_learner(state.weights, state.method_state, inputs, epoch, settings)
    batch = make_batch(method, learner, *make_examples(state.step, inputs, rows, settings))
    parts = settings.accumulate
    adv = accumulation.attack(lambda batch: checked_attack(method, learner, batch), batch, parts)

    def gradient_of_part(learner: Learner, batch: Batch, adv: Any):
        of_params = lambda params: checked_loss(method, dataclasses.replace(learner, params=params), batch, adv)  # noqa: E731
        (value, outcome), gradients = jax.value_and_grad(of_params, has_aux=True)(learner.params)
        return value, outcome, gradients

    def gradient(params):
        moved = dataclasses.replace(learner, params=params)
        value, outcome, gradients = accumulation.gradient(gradient_of_part, moved, batch, adv, parts)
        # The mean of the devices' losses: a quantity that all of them compute alike counts once. A device that computes
        # its own part of a sum over the whole batch returns it times the number of devices (`reat.tail_term`).
        return value, outcome, jax.lax.pmean(gradients, devices.AXIS)

    params, direction = learner.params, None
    if method.perturb_weights is not None:
        update = lambda gradients: settings.optimizer.update(gradients, state.opt_state, learner.params)[0]  # noqa: E731
        # Of this pass only the gradient is used. Its running statistics would count the batch twice.
        direction = method.perturb_weights(learner, gradient(params)[2], update)
        params = jax.tree.map(jnp.add, params, direction)
    value, outcome, gradients = gradient(params)
    updates, opt_state = settings.optimizer.update(gradients, state.opt_state, params)
    params = optax.apply_updates(params, updates)
    if direction is not None:
        params = jax.tree.map(jnp.subtract, params, direction)

    batch_stats = outcome.batch_stats
    if not settings.sync_batch_norm:
        # Each device saw its own share. State must be the same on all devices.
        batch_stats = jax.lax.pmean(batch_stats, devices.AXIS)
    weights = Weights(params, batch_stats)
    mean_value = jax.lax.pmean(value, devices.AXIS)
    # The update too: a finite loss may have an infinite gradient, and its weights must not be saved as good.
    finite = jnp.isfinite(mean_value) & jnp.isfinite(optax.tree_utils.tree_norm(updates))
    return TrainState(
        step=state.step + 1,
        weights=weights,
        opt_state=opt_state,
        averaged=average(state.averaged, weights, settings.ema_decay) if settings.ema_decay else state.averaged,
        method_state=outcome.method_state,
        sums=_add_metrics(state.sums, mean_value, outcome, batch.labels),
        bad_step=jnp.where((state.bad_step < 0) & ~finite, state.step, state.bad_step),
    )


def checked_attack(method: Method, learner: Learner, batch: Batch) -> Any:
    """What the method's attack returns, without a gradient.

    Raises:
      ValueError: radii or adversarial images of another shape, while the step is traced.
    """
    adv = jax.lax.stop_gradient(method.attack(learner, batch))
    for what, result in (("radii", batch.radius), ("step sizes", batch.step_size)):
        _check_shape(method, what, result, batch.labels.shape)
    _check_shape(method, "adversarial images", method.adv_images(adv), batch.images.shape)
    return adv


def checked_loss(method: Method, learner: Learner, batch: Batch, adv: Any) -> tuple[jax.Array, Outcome]:
    """The method's loss, a scalar, and its outcome.

    Raises:
      ValueError: no pair of loss and outcome, a loss or metric that is no scalar, logits of another shape, a metric
        with a name of the step's own, or state of another structure, shape or type than was given; while the
        step is traced.
    """
    result = method.loss(learner, batch, adv)
    if not (isinstance(result, tuple | list) and len(result) == 2 and isinstance(result[1], Outcome)):
        raise ValueError(
            f"method {method.name!r}: its loss returns a {type(result).__name__}; give a scalar and an Outcome."
        )
    value, outcome = result
    _check_shape(method, "its loss", value, ())
    _check_shape(method, "Outcome.adv_logits", outcome.adv_logits, (len(batch.labels), len(learner.class_counts)))
    for name, metric in outcome.metrics.items():
        if name in OWN_SUMS:
            raise ValueError(
                f"method {method.name!r}: a metric is called {name!r}, as one that every method has; give it another "
                f"name than {', '.join(OWN_SUMS)}."
            )
        _check_shape(method, f"metric {name!r}", metric, ())
    for kept in ("batch_stats", "method_state"):
        given, returned = _kinds(getattr(learner, kept)), _kinds(getattr(outcome, kept))
        if changed := sorted(path for path in {*given, *returned} if given.get(path) != returned.get(path)):
            before, after = (kinds.get(changed[0], "nothing") for kinds in (given, returned))
            raise ValueError(
                f"method {method.name!r}: its loss changed {kept}{changed[0].strip('~')} from {before} to {after}; "
                "return what was given, with other values alone."
            )
    return value, outcome


def _check_shape(method: Method, what: str, found: Any, shape: tuple[int, ...]) -> None:
    """Refuses what a method returns if it has another shape; one device's share is traced."""
    if jnp.shape(found) != shape:
        allowed = str(shape) if shape else "a scalar"
        raise ValueError(f"method {method.name!r}: the shape of {what} is {jnp.shape(found)}; give {allowed}.")


def _kinds(tree: Any) -> dict[str, str]:
    """Path -> shape and type of each leaf of a state, and its structure, which empty parts belong to."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    result = {
        jax.tree_util.keystr(path): f"{getattr(leaf, 'dtype', None) or jnp.result_type(leaf)}{list(jnp.shape(leaf))}"
        for path, leaf in leaves
    }
    # Last in the order of paths: it is named where all leaves agree.
    return result | {"~": str(jax.tree.structure(tree))}


def metric_names(
    weights: Weights, method_state: Any, inputs: Inputs, *, settings: StepSettings, mesh: Mesh, batch_size: int
) -> tuple[str, ...]:
    """Names of the metrics that the method's loss returns.

    Attack and loss are traced for that, once before a phase; nothing is compiled or computed.

    Args:
      batch_size: B, over all devices.
    """

    def metrics(weights: Weights, method_state: Any, inputs: Inputs, rows: jax.Array) -> dict[str, jax.Array]:
        learner = make_learner(weights, method_state, inputs, jnp.int32(1), settings)
        batch = make_batch(settings.method, learner, *make_examples(jnp.int32(0), inputs, rows, settings))
        adv = checked_attack(settings.method, learner, batch)
        return checked_loss(settings.method, learner, batch, adv)[1].metrics

    whole = devices.REPLICATED
    specs = (whole, whole, input_specs(settings), devices.divided())
    mapped = devices.map_over_devices(metrics, mesh, in_specs=specs)
    rows = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    return tuple(jax.eval_shape(mapped, weights, method_state, inputs, rows))


def make_learner(
    weights: Weights, method_state: Any, inputs: Inputs, epoch: jax.Array, settings: StepSettings
) -> Learner:
    """The learner that the method receives, with these weights and its state."""
    return Learner(
        module=settings.module,
        axis_name=devices.AXIS,
        params=weights.params,
        batch_stats=weights.batch_stats,
        method_state=method_state,
        teachers=inputs.teachers,
        class_counts=inputs.class_counts,
        epoch=epoch,
        epochs=jnp.float32(settings.epochs),
        centers=weights.batch_stats if settings.sync_batch_norm else None,
    )


def train_chunk(
    state: TrainState,
    inputs: Inputs,
    order: jax.Array,
    count: jax.Array,
    epoch: jax.Array,
    *,
    settings: StepSettings,
) -> TrainState:
    """`count` steps in one dispatch, on `order[0]` to `order[count - 1]`; stops early at a non-finite loss.

    The trip count is a traced value: chunks of every length are one compiled program.

    Args:
      order: int32 [capacity, B / devices].
    """

    def unfinished(carry: tuple[jax.Array, TrainState]):
        return (carry[0] < count) & (carry[1].bad_step < 0)

    def body(carry: tuple[jax.Array, TrainState]):
        done, state = carry
        return done + 1, train_step(state, inputs, order[done], epoch, settings=settings)

    return jax.lax.while_loop(unfinished, body, (jnp.int32(0), state))[1]


def compile_chunk(settings: StepSettings, mesh: Mesh) -> Any:
    """`train_chunk` mapped over the mesh: `(state, inputs, order, count, epoch) -> state`, the state donated."""

    def chunk(state, inputs, order, count, epoch):
        return train_chunk(state, inputs, order, count, epoch, settings=settings)

    whole = devices.REPLICATED
    specs = (whole, input_specs(settings), devices.divided(1), whole, whole)
    return devices.map_over_devices(chunk, mesh, in_specs=specs, donate=(0,), compiler=settings.compiler)


def input_specs(settings: StepSettings) -> Inputs:
    """How the parts of `Inputs` lie on the devices, as specifications for `devices.map_over_devices`."""
    whole: Any = devices.REPLICATED
    data: Any = devices.divided() if settings.host_fed else whole
    return Inputs(data=data, class_counts=whole, teachers=whole, key=whole)


def make_examples(
    step: jax.Array, inputs: Inputs, rows: jax.Array, settings: StepSettings
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gathers, augments and scales this device's examples of a step; inside the map over devices.

    Returns:
      Images [B / devices, H, W, C] in [0,1], labels [B / devices], and one key each for the attack.
    """
    share = rows.shape[0]
    positions = jax.lax.axis_index(devices.AXIS) * share + jnp.arange(share)
    keys = example_keys(inputs.key, step, positions)
    images = augment(
        inputs.data.images(rows),
        keys[:, 0],
        policy=settings.augmentation,
        crop_padding=settings.crop_padding,
        flip=settings.flip,
        jitter=settings.jitter,
        gather=settings.gather,
    )
    return to_unit(images, gather=settings.gather), inputs.data.labels[rows], keys[:, 1]


def average(averaged: Weights | None, weights: Weights, decay: float) -> Weights | None:
    """`decay averaged + (1 - decay) weights`, of parameters and running statistics; None stays None."""
    if averaged is None:
        return None
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, averaged, weights)


def _add_metrics(sums: dict[str, jax.Array], value, outcome, labels: jax.Array) -> dict[str, jax.Array]:
    """The epoch's sums after this batch, over all devices. `value` is the whole batch's mean already."""
    share = float(labels.shape[0])
    correct = jnp.sum(jnp.argmax(outcome.adv_logits, axis=-1) == labels).astype(jnp.float32)
    local = {"robust_correct": correct} | {name: mean * share for name, mean in outcome.metrics.items()}
    summed = jax.lax.psum(local, devices.AXIS)
    # Known when tracing; a sum over devices would be one more message in every step.
    summed["examples"] = jnp.float32(share * jax.lax.axis_size(devices.AXIS))
    summed["loss"] = value * summed["examples"]
    return {name: sums[name] + summed[name] for name in sums}
