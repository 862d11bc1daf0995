"""The interface between training methods and the training loop: a method is data plus pure functions.

A training step calls the method's functions in this order, inside of `jit` and of the map over devices:

    radius, step_size = radii(learner, labels)         per-example radii (class-wise methods, RobustLT)
    adv               = attack(learner, batch)         inner maximisation, any pytree, gradient stopped
    direction         = perturb_weights(...)           optional: weights moved before the gradient (AWP)
    loss, outcome     = loss(learner, batch, adv)      outer minimisation, differentiated by the step

and once per epoch, outside of the step:

    observed          = observe(learner, batch)        optional: per-example numbers on the validation part
    method_state      = end_epoch(learner, observed)   optional: class weights, radii, whether to average ...
    kept              = averaging(method_state)        optional: averaged <- kept averaged + (1 - kept) weights

A wrapper is a function from a method to a method (`dataclasses.replace`). If a method needs a change of
`training/steps.py` or `training/loop.py`, change this interface instead.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ltrobust import models
from ltrobust.attacks import ball
from ltrobust.attacks.algorithms.pgd import pgd, pgd_with_tally
from ltrobust.methods.teacher import DecisionRule, Teacher
from ltrobust.threat import Threat, pixels

PyTree = Any


@flax.struct.dataclass
class Batch:
    """One device's share of a batch.

    Attributes:
      images: float32 [B,H,W,C] in [0,1].
      labels: int32 [B].
      keys: [B], random keys of the attack.
      radius: float32 [B], in pixel units.
      step_size: float32 [B], in pixel units.
      weights: [B], weight of each example in the loss, set by wrappers; None: all 1.
      factors: [B], factor of each example's regularisation, set by wrappers; None: all 1.
    """

    images: jax.Array
    labels: jax.Array
    keys: jax.Array
    radius: jax.Array
    step_size: jax.Array
    weights: jax.Array | None = None
    factors: jax.Array | None = None

    def scaled(self, values: jax.Array) -> jax.Array:
        """Multiplies `values` [B] by `factors`; methods with a `regularization` apply it to their second term."""
        return values if self.factors is None else self.factors * values

    def mean(self, values: jax.Array) -> jax.Array:
        """Computes `mean_i w_i v_i` of `values` [B]; methods with `weighted=True` average their loss with it."""
        return jnp.mean(values if self.weights is None else self.weights * values)


@flax.struct.dataclass
class Learner:
    """Everything that a method can read in one step.

    Attributes:
      module: the network.
      axis_name: axis of the devices, for sums over the whole batch (`jax.lax.psum`).
      params: parameters of the network.
      batch_stats, centers: running statistics, and those at the start of the step if devices share statistics.
      method_state: any pytree.
      teachers: frozen networks by name.
      class_counts: float32 [K], training images per class.
      epoch: current epoch, starting at 1.
      epochs: number of epochs of the phase.
    """

    module: nn.Module = flax.struct.field(pytree_node=False)
    axis_name: str = flax.struct.field(pytree_node=False)
    params: PyTree
    batch_stats: PyTree
    method_state: PyTree
    teachers: Mapping[str, Teacher]
    class_counts: jax.Array
    epoch: jax.Array
    epochs: jax.Array
    centers: PyTree = None

    def forward(self, images: jax.Array, *, bn: models.BatchNormMode) -> tuple[jax.Array, "Learner"]:
        """Computes logits [B, K] of `images` in BatchNorm mode `bn`; returns them and the updated learner."""
        # Callers continue with the returned learner, so that passes update the statistics in the order of the code.
        logits, stats = models.forward(self.module, self.params, self.batch_stats, images, bn=bn, centers=self.centers)
        return logits, dataclasses.replace(self, batch_stats=stats)

    def forward_if(self, condition: jax.Array, images: jax.Array) -> tuple[jax.Array, "Learner"]:
        """Runs a train-mode pass on `images` that updates running statistics only if `condition` (scalar) is true."""
        logits, passed = self.forward(images, bn="train")
        kept = jax.tree.map(lambda new, old: jnp.where(condition, new, old), passed.batch_stats, self.batch_stats)
        return logits, dataclasses.replace(self, batch_stats=kept)

    def forward_features(
        self, images: jax.Array, *, bn: models.BatchNormMode
    ) -> tuple[jax.Array, jax.Array, "Learner"]:
        """Computes logits [B, K] and pooled features [B, F] of `images` in BatchNorm mode `bn`; else as `forward`."""
        found = models.forward_features(self.module, self.params, self.batch_stats, images, bn=bn, centers=self.centers)
        return found[0], found[1], dataclasses.replace(self, batch_stats=found[2])

    def last_epoch_of(self, fraction: float) -> jax.Array:
        """Last epoch of a `fraction` of the phase, `floor(fraction * epochs)`, int32."""
        return jnp.floor(fraction * self.epochs + 1e-3).astype(jnp.int32)  # 0.29 * 100 = 28.999999 is epoch 29

    @property
    def inside(self) -> "Learner":
        """Learner with the state of the wrapped method, which a wrapper stores as `method` in its own state."""
        return dataclasses.replace(self, method_state=self.method_state["method"])

    @property
    def progress(self) -> jax.Array:
        """Linear ramp `epoch / epochs`, in (0, 1]."""
        return self.epoch.astype(jnp.float32) / self.epochs


@flax.struct.dataclass
class Outcome:
    """Results of a loss besides its value: running statistics after all passes, and the method's new state.

    `adv_logits` [B, K] are the logits on the adversarial images, for wrappers and the training accuracy. `metrics` are
    batch means by any name; they are recorded per epoch.
    """

    batch_stats: PyTree
    method_state: PyTree
    adv_logits: jax.Array
    metrics: dict[str, jax.Array]


# A step size given in pixel units by mistake is 255 times too small. All recipes reach at least 1/20 of the radius.
_UNIT_MISTAKEN = 20


@dataclasses.dataclass(frozen=True)
class InnerAttack:
    """PGD settings of the inner maximisation of adversarial training.

    Attributes:
      threat: norm, radius and bounds.
      steps: number of steps, at least 0.
      step_size: in units of 1/255.
      start: starting point, one of `ball.STARTS`.
      bn: BatchNorm mode of the attack's passes: `eval` treats examples separately; `batch_frozen` normalises by the
        batch without updating running statistics.

    Raises:
      ValueError: negative steps or step size; steps that reach less than 1/20 of the radius, as with a step size in
        pixel units; another mode; or a start that does not exist in the threat's norm.
    """

    threat: Threat = dataclasses.field(default_factory=Threat)
    steps: int = 10
    step_size: float = 2.0
    start: str = "gauss"
    bn: models.BatchNormMode = "eval"

    def __post_init__(self) -> None:
        if self.bn not in ("eval", "batch_frozen"):
            raise ValueError(f"attack bn is {self.bn!r}; known: eval, batch_frozen.")
        if self.steps < 0 or not self.step_size >= 0:
            raise ValueError(f"attack steps is {self.steps}, step size {self.step_size}/255; both must be at least 0.")
        if 0 < self.steps * self.step_size < self.threat.radius / _UNIT_MISTAKEN:
            raise ValueError(
                f"attack step size is {self.step_size:.6g}, in units of 1/255: {self.steps} steps reach "
                f"{self.steps * self.step_size:.3g} of a radius of {self.threat.radius:g}. For {self.step_size:.6g} in "
                f"pixel units give {255 * self.step_size:.4g}."
            )
        ball.check_start(self.start, self.threat)

    def __call__(self, objective: Callable[[jax.Array], jax.Array], batch: Batch) -> jax.Array:
        """Finds adversarial images [B,H,W,C] of a `batch` for an `objective` from images to values [B]."""
        return self._run(pgd, objective, batch)

    def tallied(
        self, objective: Callable[[jax.Array], tuple[jax.Array, jax.Array]], batch: Batch
    ) -> tuple[jax.Array, jax.Array]:
        """Finds the same images of a `batch`, and sums over iterates of the counts [B] that `objective` returns too."""
        return self._run(pgd_with_tally, objective, batch)

    def _run(self, search: Callable[..., Any], objective: Callable[[jax.Array], Any], batch: Batch) -> Any:
        """Runs one of the two searches with these settings."""
        settings: dict[str, Any] = {"steps": self.steps, "step_size": batch.step_size, "start": self.start}
        return search(objective, batch.images, batch.keys, threat=self.threat, radius=batch.radius, **settings)


Objective = Callable[[Learner, Batch], Callable[[jax.Array], tuple[jax.Array, jax.Array]]]


def attack_on(inner: InnerAttack, objective: Objective) -> Callable[[Learner, Batch], jax.Array]:
    """Builds the inner maximisation of an objective.

    Args:
      inner: settings of PGD.
      objective: `(learner, batch) -> (images -> (values [B], logits [B, K]))`; the values are ascended.

    Returns:
      A function `(learner, batch) -> adversarial images [B,H,W,C]`, for `Method.attack`.
    """

    def attack(learner: Learner, batch: Batch) -> jax.Array:
        ascended = objective(learner, batch)
        return inner(lambda images: ascended(images)[0], batch)

    return attack


@dataclasses.dataclass(frozen=True)
class Method:
    """A training method.

    Attributes:
      name: of the method and its wrappers, as in `trades+awp`.
      attack: `(learner, batch) -> adv`, any pytree; the step stops its gradient.
      loss: `(learner, batch, adv) -> (scalar, Outcome)`; each pass names its BatchNorm mode.
      inner: the attack settings; they give the default radii.
      teachers: names of the frozen teachers that it needs.
      passes: inputs of its train-mode passes, in order: `adv`, `clean`, `minus` (x - d); for wrappers that add passes.
        None: unknown, and such wrappers refuse it.
      objective: the attack's objective, if the attack is `attack_on(inner, objective)`; for wrappers that observe it.
      weighted: whether the loss is a `batch.mean` over examples, so that `batch.weights` have effect.
      separable: whether loss and metrics are means over examples of terms that depend on no other example of the batch,
        but for BatchNorm, and the state at most sums over examples. A batch of such a method can be computed in parts.
      matches_gradients: whether the loss contains the term of `igdm`.
      regularization: weight of a second term of such a loss, if `batch.scaled` is applied to that term.
      head: last layer, from pooled features to outputs.
      test_logits: `(outputs [B, K + extra], class_counts [K]) -> logits [B, K]`, for test and validation; default: the
        outputs.
      adv_images: `adv -> images`, if the attack returns more than adversarial images; for wrappers.
      check: `class_counts -> None`, raises a ValueError if the method cannot work on such data.
      initial_state: `(params, class_counts [K]) -> method_state`.
      radii: `(learner, labels [B]) -> (radius [B], step_size [B])` in pixel units; default: the threat's.
      perturb_weights: `(learner, gradients, update) -> direction`, a pytree like the parameters. The gradient is then
        taken, and the optimiser applied, at `params + direction`, and the direction subtracted again.
        `update(gradients)` is the update that the optimiser would add to the parameters.
      observe: `(learner, batch) -> {name: [B]}`, run over the validation part after each epoch.
      end_epoch: `(learner, observed) -> method_state`; `observed` holds class means [K] (NaN for a class without
        validation images) of the results of `observe` and of `clean` and `robust` accuracy.
      averaging: `method_state -> kept` in [0, 1], called after `end_epoch`: averaged weights and running statistics
        become `kept averaged + (1 - kept) weights`. They are saved and reported as `averaged`.

    Raises:
      ValueError: `averaging` without `end_epoch`.
    """

    name: str
    attack: Callable[[Learner, Batch], PyTree]
    loss: Callable[[Learner, Batch, PyTree], tuple[jax.Array, Outcome]]
    inner: InnerAttack
    teachers: tuple[str, ...] = ()
    passes: tuple[str, ...] | None = None
    objective: Objective | None = None
    weighted: bool = False
    separable: bool = False
    matches_gradients: bool = False
    regularization: float | None = None
    head: models.Head = dataclasses.field(default_factory=models.Head)
    test_logits: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    adv_images: Callable[[PyTree], jax.Array] = lambda adv: adv
    check: Callable[[np.ndarray], None] = lambda class_counts: None
    initial_state: Callable[[PyTree, jax.Array], PyTree] = lambda params, class_counts: {}
    radii: Callable[[Learner, jax.Array], tuple[jax.Array, jax.Array]] | None = None
    perturb_weights: Callable[[Learner, PyTree, Callable[[PyTree], PyTree]], PyTree] | None = None
    observe: Callable[[Learner, Batch], dict[str, jax.Array]] | None = None
    end_epoch: Callable[[Learner, Mapping[str, jax.Array]], PyTree] | None = None
    averaging: Callable[[PyTree], jax.Array | float] | None = None

    def __post_init__(self) -> None:
        if self.averaging is not None and self.end_epoch is None:
            # The averaged weights would stay the first ones, and would be reported.
            raise ValueError(f"method {self.name} has averaging, which is asked after end_epoch; give it an end_epoch.")

    @property
    def plain_outputs(self) -> bool:
        """Whether the network's outputs are the test-time logits, as required of a teacher."""
        return not self.head.extra and self.test_logits is None


def decision_rule(method: Method, class_counts: np.ndarray) -> DecisionRule:
    """The test-time rule of a `method` for a network trained with these `class_counts` [K]."""
    if method.test_logits is None:
        return DecisionRule()
    return DecisionRule(method.test_logits, tuple(int(count) for count in class_counts))


def make_batch(method: Method, learner: Learner, images: jax.Array, labels: jax.Array, keys: jax.Array) -> Batch:
    """Builds a batch with the method's radii and step sizes.

    Args:
      method: the method.
      learner: state that the radii may depend on.
      images: float32 [B,H,W,C] in [0,1].
      labels: int32 [B].
      keys: [B], random keys of the attack.
    """
    if method.radii is None:
        ones = jnp.ones(labels.shape, jnp.float32)
        radius, step_size = ones * method.inner.threat.epsilon, ones * pixels(method.inner.step_size)
    else:
        radius, step_size = method.radii(learner, labels)
    return Batch(images, labels, keys, radius, step_size)
