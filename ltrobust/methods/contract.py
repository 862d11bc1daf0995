"""What a training method is: data plus pure functions, called by one step and one loop that know nothing of it.

In one step of the learner the method's functions are called in this order, inside the mapped and jitted step:

    radius, step_size = radii(learner, labels)         per-example radii (class-wise methods, RobustLT)
    adv               = attack(learner, batch)         inner maximisation, any pytree, gradient stopped
    direction         = perturb_weights(...)           optional: weights moved before the gradient (AWP)
    loss, outcome     = loss(learner, batch, adv)      outer minimisation, differentiated by the step

and once an epoch, outside of it:

    observed          = observe(learner, batch)        optional: per-example numbers on the validation part
    method_state      = end_epoch(learner, observed)   optional: class weights, radii, whether to average ...
    kept              = averaging(method_state)        optional: averaged <- kept averaged + (1 - kept) weights

A wrapper is a function from a method to a method (`dataclasses.replace`). If a method needs an edit in
`training/steps.py` or `training/loop.py`, this file is what must change.
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
    """One device's share of a batch. `radius` and `step_size` are [B] in pixel units, `keys` feed the attack.

    `weights` [B] are what a wrapper lets each example count for in the loss, `factors` [B] what it multiplies each
    example's regularization by; None: all the same.
    """

    images: jax.Array
    labels: jax.Array
    keys: jax.Array
    radius: jax.Array
    step_size: jax.Array
    weights: jax.Array | None = None
    factors: jax.Array | None = None

    def scaled(self, values: jax.Array) -> jax.Array:
        """`f_i v_i` of values [B], the form in which a method with a `regularization` adds its second term."""
        return values if self.factors is None else self.factors * values

    def mean(self, values: jax.Array) -> jax.Array:
        """`mean_i w_i v_i` of values [B], the form in which a method that honours `weights` adds up its loss."""
        return jnp.mean(values if self.weights is None else self.weights * values)


@flax.struct.dataclass
class Learner:
    """Everything that a method may read in one step.

    `epoch` counts from 1, `epochs` is the length of the phase, `class_counts` [C] are those of the images trained on.
    `axis_name` names the device axis, for quantities of the whole batch (`jax.lax.psum`).
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

    def forward(self, images: jax.Array, *, bn: models.BatchNormMode) -> tuple[jax.Array, "Learner"]:
        """Logits [B, C], and the learner with the running statistics that this pass left behind."""
        # The caller continues with the returned learner, so that passes update the statistics in the order of the code.
        logits, stats = models.forward(self.module, self.params, self.batch_stats, images, bn=bn)
        return logits, dataclasses.replace(self, batch_stats=stats)

    def forward_if(self, condition: jax.Array, images: jax.Array) -> tuple[jax.Array, "Learner"]:
        """A train-mode pass that changes the running statistics only where the condition, a boolean scalar, holds."""
        logits, passed = self.forward(images, bn="train")
        kept = jax.tree.map(lambda new, old: jnp.where(condition, new, old), passed.batch_stats, self.batch_stats)
        return logits, dataclasses.replace(self, batch_stats=kept)

    def forward_features(
        self, images: jax.Array, *, bn: models.BatchNormMode
    ) -> tuple[jax.Array, jax.Array, "Learner"]:
        """As `forward`, with the pooled features [B, F] after the logits."""
        logits, features, stats = models.forward_features(self.module, self.params, self.batch_stats, images, bn=bn)
        return logits, features, dataclasses.replace(self, batch_stats=stats)

    def last_epoch_of(self, fraction: float) -> jax.Array:
        """The last epoch of that fraction of the phase, `floor(fraction * epochs)`, int32."""
        # The small addition keeps 0.29 * 100 = 28.999999 at epoch 29.
        return jnp.floor(fraction * self.epochs + 1e-3).astype(jnp.int32)

    @property
    def inside(self) -> "Learner":
        """The learner as a wrapped method knows it, whose state the wrapper keeps as `method` beside its own."""
        return dataclasses.replace(self, method_state=self.method_state["method"])

    @property
    def progress(self) -> jax.Array:
        """The linear ramp `epoch / epochs`, in (0, 1]."""
        return self.epoch.astype(jnp.float32) / self.epochs


@flax.struct.dataclass
class Outcome:
    """What a loss leaves behind besides its value.

    `metrics` are batch means under any names, which records hold too; `adv_logits` [B, C] are the outer logits on the
    adversarial images, for wrappers and for the training accuracy.
    """

    batch_stats: PyTree
    method_state: PyTree
    adv_logits: jax.Array
    metrics: dict[str, jax.Array]


# A step size in pixel units is 255 times too small. Recipes reach the radius; none stays below a 20th of it.
_UNIT_MISTAKEN = 20


@dataclasses.dataclass(frozen=True)
class InnerAttack:
    """The PGD settings of an inner maximisation; `step_size` in 1/255 units.

    `bn` is the BatchNorm mode of its passes. The default keeps examples apart; `batch_frozen` is what code does that
    attacks in train mode without updating the statistics. Attacks that do update them are not offered.

    Raises:
      ValueError: negative steps or step size; steps that reach less than a 20th of the radius, as with a step size in
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
        """Adversarial images for a per-example objective, with the batch's radii and step sizes."""
        return self._run(pgd, objective, batch)

    def tallied(
        self, objective: Callable[[jax.Array], tuple[jax.Array, jax.Array]], batch: Batch
    ) -> tuple[jax.Array, jax.Array]:
        """The same images, and sums over the iterates, for an objective that returns values [B] and counts [B]."""
        return self._run(pgd_with_tally, objective, batch)

    def _run(self, search: Callable[..., Any], objective: Callable[[jax.Array], Any], batch: Batch) -> Any:
        """One of the two searches with these settings."""
        return search(
            objective,
            batch.images,
            batch.keys,
            threat=self.threat,
            steps=self.steps,
            step_size=batch.step_size,
            radius=batch.radius,
            start=self.start,
        )


Objective = Callable[[Learner, Batch], Callable[[jax.Array], tuple[jax.Array, jax.Array]]]


def attack_on(inner: InnerAttack, objective: Objective) -> Callable[[Learner, Batch], jax.Array]:
    """The inner maximisation of an objective: `(learner, batch) -> images -> (values [B], the learner's logits)`."""

    def attack(learner: Learner, batch: Batch) -> jax.Array:
        ascended = objective(learner, batch)
        return inner(lambda images: ascended(images)[0], batch)

    return attack


@dataclasses.dataclass(frozen=True)
class Method:
    """A training method.

    Attributes:
      attack: `(learner, batch) -> adv`, any pytree; the step stops its gradient.
      loss: `(learner, batch, adv) -> (scalar, Outcome)`; BatchNorm's mode is written at each of its passes.
      inner: the attack settings, from which the default radii come.
      teachers: names of the frozen teachers that it needs.
      passes: what its train-mode passes see, in order: `adv`, `clean`, `minus` (x - d); for wrappers that add passes of
        their own. None: not said, and such wrappers refuse it.
      objective: what the attack ascends, where the attack is `attack_on(inner, objective)`; for wrappers that watch it.
      weighted: whether the loss is `batch.mean` of something per example, so that `batch.weights` are honoured.
      matches_gradients: whether the loss holds the term of `igdm` already.
      regularization: the weight of a second term of such a loss, if that term of each example is `batch.scaled`.
      head: how the network's pooled features become outputs.
      test_logits: `(outputs [B, C + extra], class_counts [C]) -> logits [B, C]`, what is attacked and judged at test
        and validation time; default: the outputs.
      adv_images: `adv -> images`, where the attack returns more than adversarial images; for wrappers.
      check: `class_counts -> None`, raises a ValueError where the method cannot work on such data.
      initial_state: `(params, class_counts [C]) -> method_state`.
      radii: `(learner, labels [B]) -> (radius [B], step_size [B])` in pixel units; default: the threat's.
      perturb_weights: `(learner, gradients, update) -> direction`, a pytree like the parameters. The gradient is then
        taken, and the optimiser applied, at `params + direction`, and the direction subtracted again.
        `update(gradients)` is what the optimiser would add to the parameters.
      observe: `(learner, batch) -> {name: [B]}`, run over the validation part after each epoch.
      end_epoch: `(learner, observed) -> method_state`; `observed` holds class means [C] (NaN for a class without
        validation images) of what `observe` returned and of `clean` and `robust` accuracy.
      averaging: `method_state -> kept` in [0, 1], asked after `end_epoch`: averaged weights and running statistics are
        then `kept averaged + (1 - kept) weights`. They are saved and reported as `averaged`.

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
        """Whether the network's outputs are the logits of test time, as a teacher's are."""
        return not self.head.extra and self.test_logits is None


def decision_rule(method: Method, class_counts: np.ndarray) -> DecisionRule:
    """The method's rule for networks trained on images of those class counts."""
    if method.test_logits is None:
        return DecisionRule()
    return DecisionRule(method.test_logits, tuple(int(count) for count in class_counts))


def make_batch(method: Method, learner: Learner, images: jax.Array, labels: jax.Array, keys: jax.Array) -> Batch:
    """A batch of these examples, with the radii and step sizes that the method gives them.

    Args:
      images: [B,H,W,C] in [0,1].
      labels: int32 [B].
      keys: [B], for the attack.
    """
    if method.radii is None:
        ones = jnp.ones(labels.shape, jnp.float32)
        radius, step_size = ones * method.inner.threat.epsilon, ones * pixels(method.inner.step_size)
    else:
        radius, step_size = method.radii(learner, labels)
    return Batch(images, labels, keys, radius, step_size)
