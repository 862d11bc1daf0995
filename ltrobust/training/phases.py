"""A phase as data: what teacher and student are made of, built from the configuration.

Both are the same loop with other values of the same keys.
"""

import contextlib
import dataclasses
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.sharding import Mesh

from ltrobust import methods, models
from ltrobust.data import batches, longtail
from ltrobust.data.augment import augment
from ltrobust.data.run_data import RunData
from ltrobust.models import external
from ltrobust.runtime.names import nearest
from ltrobust.threat import Threat
from ltrobust.training import devices, optimizers
from ltrobust.training.steps import StepSettings

NAMES = ("teacher", "student")
SUBSETS = ("balanced", "all")
# Values of `initialize` that are no path.
INITIAL = ("scratch", "teacher")


@dataclasses.dataclass(frozen=True)
class Phase:
    """One training run of one network.

    Attributes:
      name: `teacher` or `student`.
      settings: of its steps.
      schedule: how its epochs fall into steps.
      total_steps: its length.
      examples_of: epoch from 0 -> rows of the training part that the epoch visits.
      labels: int64 [N] labels of the training part, as this phase sees them.
      class_counts: int64 [C] of the list that it trains on.
      learning_rate: step -> rate.
      init_key, order_key, step_key: roots of its initial weights, of its epochs' permutations, and of its steps.
      validate_every: epochs between validations.
      selects: whether weights are selected by validation, for which every class needs enough images there.
      rule: how its network's outputs become the logits that are attacked and judged.
    """

    name: str
    settings: StepSettings
    schedule: batches.Schedule
    total_steps: int
    examples_of: Callable[[int], np.ndarray]
    labels: np.ndarray
    class_counts: np.ndarray
    learning_rate: optax.Schedule
    init_key: jax.Array
    order_key: jax.Array
    step_key: jax.Array
    validate_every: int
    selects: bool
    rule: methods.DecisionRule

    def stretch(self, done: int, longest: int) -> tuple[int, int, bool]:
        """After `done` steps: the epoch (from 0), how many steps to go at once, and whether they end the epoch."""
        epoch = self.schedule.epoch_of(done)
        end = min(self.schedule.first_step(epoch + 1), self.total_steps)
        count = min(longest, end - done)
        return epoch, count, done + count == end


def make_threat(config: Any) -> Threat:
    """The threat model of evaluation, and of training where a phase sets none of its own."""
    return Threat(norm=config.threat.norm, radius=config.threat.radius)


def make_method(config: Any, name: str) -> methods.Method:
    """The method of phase `name` with its settings, inner attack and wrappers, the first wrapper innermost."""
    with _told_of(name):
        return _make_method(config, config[name])


def _make_method(config: Any, phase: Any) -> methods.Method:
    """The same, without the phase's name in what it raises."""
    threat = make_threat(config)
    if phase.attack.radius >= 0:
        threat = dataclasses.replace(threat, radius=phase.attack.radius)
    inner = methods.InnerAttack(
        threat, phase.attack.steps, phase.attack.step_size, phase.attack.start, phase.attack.get("bn", "eval")
    )

    def settings(of: str) -> dict[str, Any]:
        return config.methods[of].to_dict() if of in config.methods else {}

    method = methods.create(phase.method, inner, **settings(phase.method))
    for wrapper in phase.get("wrappers", ()):
        method = methods.wrap(method, wrapper, **settings(wrapper))
    return method


def make_module(
    config: Any,
    num_classes: int,
    *,
    head: models.Head,
    mesh: Mesh | None = None,
    exact: bool = False,
    platform: str | None = None,
) -> nn.Module:
    """The network with its method's head, for programs that are compiled for `platform` (`models.create`).

    With a mesh, its train-mode statistics are those of the whole batch if the configuration says so.
    """
    sync = mesh is not None and mesh.size > 1 and config.model.sync_batch_norm
    return models.create(
        config.model.name,
        num_classes=num_classes,
        dtype="float32" if exact else config.model.dtype,
        sync_axis=devices.AXIS if sync else None,
        width=config.model.width,
        depth=config.model.depth,
        stem_stride=config.model.stem_stride,
        head=head,
        activation=config.model.get("activation", "relu"),
        options=config.model.get(config.model.name, {}),
        platform=platform,
    )


def describe_model(model: Any) -> dict[str, Any]:
    """The keys of `config.model` that the network depends on, as JSON; not those of other registered networks."""
    plain = json.loads(json.dumps(model.to_dict()))
    return {key: value for key, value in plain.items() if not isinstance(value, dict) or key == model.name}


def make_phase(config: Any, name: str, run_data: RunData, mesh: Mesh, *, platform: str | None = None) -> Phase:
    """Everything about a phase that its configuration fixes.

    Its programs are compiled for `platform`, by default that of the mesh.

    Raises:
      ValueError: any setting that makes no sense, named.
    """
    with _told_of(name):
        return _make_phase(config, name, run_data, mesh, platform or devices.platform(mesh))


def _make_phase(config: Any, name: str, run_data: RunData, mesh: Mesh, platform: str) -> Phase:
    """The same, without the phase's name in what it raises."""
    phase = config[name]
    devices.check_batch_size(phase.batch_size, mesh, f"{name}.batch_size")
    if phase.validate_every < 1:
        raise ValueError(f"{name}.validate_every is {phase.validate_every}; give a number of epochs, at least 1.")
    if phase.selection_floor < 0:
        raise ValueError(f"{name}.selection_floor is {phase.selection_floor}; give a number of images, or 0 for none.")
    key = jax.random.fold_in(jax.random.key(config.seed), zlib.crc32(name.encode()))
    if not 0 <= phase.ema_decay < 1:
        raise ValueError(f"{name}.ema_decay is {phase.ema_decay}; give 0 for no average, or a number below 1.")
    labels = run_data.training.labels
    if phase.shuffle_labels:
        labels = np.random.RandomState(config.seed).permutation(labels)
    examples_of, class_counts = _make_examples(config, name, labels, run_data.num_classes)
    schedule = batches.make_schedule(len(examples_of(0)), phase.batch_size, phase.remainder)
    total_steps, epochs = _duration(name, phase, schedule)
    learning_rate = optimizers.make_schedule(
        name=phase.optimizer.schedule,
        learning_rate=phase.optimizer.learning_rate,
        steps=total_steps,
        first_step=schedule.first_step,
        epochs=epochs,
        drops=phase.optimizer.drops,
        drop_factor=phase.optimizer.drop_factor,
        warmup_epochs=phase.optimizer.warmup_epochs,
    )
    method = make_method(config, name)
    method.check(class_counts)
    settings = StepSettings(
        module=make_module(config, run_data.num_classes, head=method.head, mesh=mesh, platform=platform),
        method=method,
        optimizer=_make_optimizer(phase.optimizer, learning_rate),
        epochs=epochs,
        augmentation=phase.augmentation.policy,
        crop_padding=phase.augmentation.crop_padding,
        flip=phase.augmentation.flip,
        ema_decay=phase.ema_decay,
        sync_batch_norm=bool(config.model.sync_batch_norm),
    )
    _check_augmentation(settings, run_data)
    _check_network(config.model.name, settings, run_data, mesh)
    if settings.method.end_epoch is not None and len(run_data.validation.labels) == 0:
        raise ValueError(
            f"{name}: {settings.method.name} updates its state by validation, but there is no validation part; "
            "raise data.validation_fraction."
        )
    if settings.method.averaging is not None and phase.ema_decay:
        raise ValueError(
            f"{name}.ema_decay is {phase.ema_decay}, but {settings.method.name} averages weights itself; give 0."
        )
    return Phase(
        name,
        settings,
        schedule,
        total_steps,
        examples_of,
        labels,
        class_counts,
        learning_rate,
        *jax.random.split(key, 3),
        validate_every=phase.validate_every,
        selects=len(run_data.validation.labels) > 0 and int(run_data.validation_counts.min()) >= phase.selection_floor,
        rule=methods.decision_rule(method, class_counts),
    )


@contextlib.contextmanager
def _told_of(name: str) -> Iterator[None]:
    """Around what a phase is made of: a ValueError says of which phase it speaks."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith(name):
            raise
        raise ValueError(f"{name}: {error}") from error


def _make_examples(
    config: Any, name: str, labels: np.ndarray, num_classes: int
) -> tuple[Callable[[int], np.ndarray], np.ndarray]:
    """Epoch -> rows of the training part, and the class counts of that list, by the labels that the phase sees."""
    phase = config[name]
    counts = longtail.count_classes(labels, num_classes)
    if phase.subset not in SUBSETS:
        raise ValueError(
            f"{name}.subset is {phase.subset!r}; {nearest(phase.subset, SUBSETS)}known subsets: {', '.join(SUBSETS)}."
        )
    if phase.subset == "all":
        everything = np.arange(len(labels))
        return lambda epoch: everything, counts
    count = longtail.balanced_count(counts, gamma=phase.balanced.gamma, count=phase.balanced.count)

    def draw(epoch: int) -> np.ndarray:
        return longtail.balanced_subset(
            labels, count=count, seed=phase.balanced.seed + epoch, up_sample=phase.balanced.up_sample
        )

    fixed = draw(0)
    return (draw if phase.balanced.redraw else lambda epoch: fixed), np.full(num_classes, count)


def _check_augmentation(settings: StepSettings, run_data: RunData) -> None:
    """Traces the augmentation, which refuses what it cannot do to these images."""
    images = jax.ShapeDtypeStruct((1, *run_data.image_shape), np.uint8)
    policy = {"policy": settings.augmentation, "crop_padding": settings.crop_padding, "flip": settings.flip}
    jax.eval_shape(lambda pixels: augment(pixels, jax.random.split(jax.random.key(0), 1), **policy), images)


def _check_network(name: str, settings: StepSettings, run_data: RunData, mesh: Mesh) -> None:
    """Traces a network that is not of this package, which refuses what cannot be trained.

    The name decides: a function of the user may return a class of this package with other outputs or another axis.
    """
    if name not in models.NAMES and models.parse(name) is None:
        external.check(
            settings.module,
            run_data.image_shape,
            outputs=run_data.num_classes + settings.method.head.extra,
            synchronised=settings.sync_batch_norm and mesh.size > 1,
        )


def _duration(name: str, phase: Any, schedule: batches.Schedule) -> tuple[int, int]:
    """Steps and (begun) epochs of the phase; `steps` wins over `epochs` where it is set."""
    longest = np.iinfo(np.int32).max
    if schedule.first_step(max(phase.epochs, 0)) > longest:
        raise ValueError(f"{name}.epochs is {phase.epochs}, more than {longest} steps; give fewer.")
    if phase.steps > 0:
        return phase.steps, schedule.epoch_of(phase.steps - 1) + 1
    if phase.steps < 0 or phase.epochs < 1:
        raise ValueError(
            f"{name}.epochs is {phase.epochs} and {name}.steps is {phase.steps}; give at least one epoch or step."
        )
    return schedule.first_step(phase.epochs), phase.epochs


def _make_optimizer(settings: Any, learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """The phase's optimiser; momentum and Nesterov are options of sgd alone."""
    options = {"momentum": settings.momentum, "nesterov": settings.nesterov} if settings.name == "sgd" else {}
    return optimizers.make_optimizer(
        settings.name,
        learning_rate,
        weight_decay=settings.weight_decay,
        options=options | settings.options.to_dict(),
    )
