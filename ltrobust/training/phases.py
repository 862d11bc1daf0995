"""A phase as data: the parts of teacher and student, built from their plans and the images.

Both are the same loop with other values of the same settings.
"""

import dataclasses
import zlib
from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.sharding import Mesh

from ltrobust import methods, models
from ltrobust.data import batches, longtail
from ltrobust.data.augment import augment
from ltrobust.data.images import FileImages
from ltrobust.data.run_data import RunData
from ltrobust.models import external
from ltrobust.models.model_plan import ModelPlan
from ltrobust.plan import OptimizerPlan, PhasePlan, naming_phase
from ltrobust.training import accumulation, devices, optimizers
from ltrobust.training.steps import StepSettings


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
      metrics: names of the metrics that its loss returns; None: not known before its first state is made.
      remedies: settings, as `KEY=VALUE`, under which a step of the same batch takes less memory.
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
    metrics: tuple[str, ...] | None = None
    remedies: tuple[str, ...] = ()

    def chunk(self, done: int, longest: int) -> tuple[int, int, bool]:
        """After `done` steps: the epoch (from 0), how many steps to go at once, and whether they end the epoch."""
        epoch = self.schedule.epoch_of(done)
        end = min(self.schedule.first_step(epoch + 1), self.total_steps)
        count = min(longest, end - done)
        return epoch, count, done + count == end


def make_phase(
    plan: PhasePlan,
    model: ModelPlan,
    run_data: RunData,
    mesh: Mesh,
    *,
    platform: str | None = None,
    host_fed: bool = False,
) -> Phase:
    """Everything about a phase that follows from its plan and the data.

    Its programs are compiled for `platform`, by default that of the mesh. `host_fed` says that images are sent to the
    devices for each chunk of steps (`feeds.HostFeed`), rather than once.

    Raises:
      ValueError: a setting that makes no sense with these data or devices; names it and the phase.
    """
    with naming_phase(plan.name):
        return _make_phase(plan, model, run_data, mesh, platform or devices.platform(mesh), host_fed)


def _make_phase(
    plan: PhasePlan, model: ModelPlan, run_data: RunData, mesh: Mesh, platform: str, host_fed: bool
) -> Phase:
    """The same, without the phase's name in what it raises."""
    devices.check_batch_size(plan.batch_size, mesh, f"{plan.name}.batch_size")
    key = jax.random.fold_in(jax.random.key(plan.seed), zlib.crc32(plan.name.encode()))
    labels = run_data.training.labels
    if plan.shuffle_labels:
        labels = np.random.RandomState(plan.seed).permutation(labels)
    examples_of, class_counts = _make_examples(plan, labels, run_data.num_classes)
    schedule = batches.make_schedule(len(examples_of(0)), plan.batch_size, plan.remainder)
    total_steps, epochs = _duration(plan, schedule)
    learning_rate = _make_learning_rate(plan.optimizer, schedule, total_steps, epochs)
    method = plan.method
    method.check(class_counts)
    accumulation.check(plan.accumulate, plan.batch_size, mesh, f"{plan.name}.accumulate")
    settings = StepSettings(
        module=_make_module(model, method, run_data, mesh, platform),
        method=method,
        optimizer=_make_optimizer(plan.optimizer, learning_rate),
        epochs=epochs,
        augmentation=plan.augmentation.policy,
        crop_padding=plan.augmentation.crop_padding,
        flip=plan.augmentation.flip,
        jitter=plan.augmentation.jitter,
        gather=platform != "tpu",
        ema_decay=plan.ema_decay,
        sync_batch_norm=bool(model.sync_batch_norm),
        host_fed=host_fed,
        compiler=plan.compiler,
        accumulate=plan.accumulate,
    )
    _check_augmentation(settings, run_data)
    _check_network(model.name, settings, run_data, mesh)
    if method.end_epoch is not None and len(run_data.validation.labels) == 0:
        raise ValueError(
            f"{plan.name}: {method.name} updates its state by validation, but there is no validation part; "
            "raise data.validation_fraction."
        )
    return Phase(
        plan.name,
        settings,
        schedule,
        total_steps,
        examples_of,
        labels,
        class_counts,
        learning_rate,
        *jax.random.split(key, 3),
        validate_every=plan.validate_every,
        selects=len(run_data.validation.labels) > 0 and int(run_data.validation_counts.min()) >= plan.selection_floor,
        rule=methods.decision_rule(method, class_counts),
        remedies=_remedies(plan, model, mesh),
    )


def _remedies(plan: PhasePlan, model: ModelPlan, mesh: Mesh) -> tuple[str, ...]:
    """See `Phase.remedies`: none that would be refused, or that is in force."""
    parts = 2 * plan.accumulate
    divides = plan.method.separable and plan.batch_size % (parts * mesh.size) == 0
    settings = {
        f"{plan.name}.accumulate={parts}": divides,
        "model.remat=True": _is_built_in(model.name) and not model.remat,
        "model.dtype=bfloat16": model.dtype != "bfloat16",
    }
    return tuple(setting for setting, helps in settings.items() if helps)


def _is_built_in(name: str) -> bool:
    """By its name: a function of the user may return a class of this package with other outputs or another axis."""
    return name in models.NAMES or models.parse(name) is not None


def _make_examples(
    plan: PhasePlan, labels: np.ndarray, num_classes: int
) -> tuple[Callable[[int], np.ndarray], np.ndarray]:
    """Epoch -> rows of the training part, and the class counts of that list, by the labels that the phase sees."""
    counts, balanced = longtail.count_classes(labels, num_classes), plan.balanced
    if plan.subset == "all":
        everything = np.arange(len(labels))
        return lambda epoch: everything, counts
    count = longtail.balanced_count(counts, gamma=balanced.gamma, count=balanced.count)

    def draw(epoch: int) -> np.ndarray:
        return longtail.balanced_subset(labels, count=count, seed=balanced.seed + epoch, up_sample=balanced.up_sample)

    fixed = draw(0)
    return (draw if balanced.redraw else lambda epoch: fixed), np.full(num_classes, count)


def _make_module(model: ModelPlan, method: methods.Method, run_data: RunData, mesh: Mesh, platform: str) -> nn.Module:
    """The network to train. Its train-mode statistics are those of the whole batch if the plan says so."""
    sync_axis = devices.AXIS if mesh.size > 1 and model.sync_batch_norm else None
    return model.create(run_data.num_classes, head=method.head, sync_axis=sync_axis, platform=platform, training=True)


def _check_augmentation(settings: StepSettings, run_data: RunData) -> None:
    """Traces the augmentation, which refuses what it cannot do to these images."""
    images = jax.ShapeDtypeStruct((1, *run_data.image_shape), np.uint8)
    if settings.augmentation == "random_resized_crop" and not isinstance(run_data.training.images, FileImages):
        raise ValueError(
            "augmentation.policy is 'random_resized_crop', which crops files while they are decoded, but these images "
            "are decoded already; use data.name=image_list, or the policy base."
        )
    policy = {"policy": settings.augmentation, "crop_padding": settings.crop_padding, "flip": settings.flip}
    policy["jitter"] = settings.jitter
    jax.eval_shape(lambda pixels: augment(pixels, jax.random.split(jax.random.key(0), 1), **policy), images)


def _check_network(name: str, settings: StepSettings, run_data: RunData, mesh: Mesh) -> None:
    """Traces an external network and refuses one that cannot be trained."""
    if not _is_built_in(name):
        external.check(
            settings.module,
            run_data.image_shape,
            outputs=run_data.num_classes + settings.method.head.extra,
            synchronised=settings.sync_batch_norm and mesh.size > 1,
        )


def _duration(plan: PhasePlan, schedule: batches.Schedule) -> tuple[int, int]:
    """Steps and (begun) epochs of the phase; `steps` wins over `epochs` where it is set."""
    longest = np.iinfo(np.int32).max
    if schedule.first_step(max(plan.epochs, 0)) > longest:
        raise ValueError(f"{plan.name}.epochs is {plan.epochs}, more than {longest} steps; give fewer.")
    if plan.steps > 0:
        return plan.steps, schedule.epoch_of(plan.steps - 1) + 1
    return schedule.first_step(plan.epochs), plan.epochs


def _make_learning_rate(
    plan: OptimizerPlan, schedule: batches.Schedule, total_steps: int, epochs: int
) -> optax.Schedule:
    """Step -> rate."""
    return optimizers.make_schedule(
        name=plan.schedule,
        learning_rate=plan.learning_rate,
        steps=total_steps,
        first_step=schedule.first_step,
        epochs=epochs,
        drops=plan.drops,
        drop_factor=plan.drop_factor,
        warmup_epochs=plan.warmup_epochs,
    )


def _make_optimizer(plan: OptimizerPlan, learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """The phase's optimiser; momentum and Nesterov are options of sgd alone."""
    options = {"momentum": plan.momentum, "nesterov": plan.nesterov} if plan.name == "sgd" else {}
    return optimizers.make_optimizer(
        plan.name, learning_rate, weight_decay=plan.weight_decay, options=options | dict(plan.options)
    )
