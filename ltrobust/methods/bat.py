"""BAT: two points on the way of an attack, before and behind the decision boundary (Sun et al., AAAI 2023)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ltrobust.attacks import ball, objectives
from ltrobust.methods.contract import Batch, InnerAttack, Learner, Method, Outcome
from ltrobust.methods.settings import check_variant, check_weights


def bat(inner: InnerAttack, *, beta: float = 6.0, variant: str = "as_described") -> Method:
    """`L = CE(z(x_lc), y) + beta KL(p(x) || p(x_fa)) + KL(p(x_lc) || U) + KL(p(x_fa) || U)`, U uniform over classes.

    x_lc, the last clean, and x_fa, the first adversarial, are `boundary_points` of two PGD runs on `KL(p(x) || p(.))`,
    p(x) constant there; each run has its own start. In the loss nothing is detached. Train-mode passes: x_lc, x_fa, x.
    Recorded training accuracy is on x_fa.

    Args:
      beta: weight of the KL.
      variant: with `as_released` the last iterate x_K counts as x_lc unless one before it is misclassified.

    Raises:
      ValueError: negative beta, unknown variant, or a start at which the KL has no gradient.
    """
    check_weights("bat", beta=beta)
    check_variant("bat", variant)
    if inner.start == "none" and inner.steps:
        raise ValueError("bat cannot start its attack at the image: its KL has no gradient there; use 'gauss'.")

    def attack(learner: Learner, batch: Batch):
        clean_logits, _ = learner.forward(batch.images, bn=inner.bn)

        def ascended(images: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits, _ = learner.forward(images, bn=inner.bn)
            return objectives.kl_divergence(clean_logits, logits), jnp.argmax(logits, axis=-1) != batch.labels

        keys = jax.vmap(lambda key: jax.random.split(key))(batch.keys)
        last_clean, _ = boundary_points(ascended, batch, keys[:, 0], inner, unseen_end=variant == "as_released")
        _, first_adversarial = boundary_points(ascended, batch, keys[:, 1], inner)
        return last_clean, first_adversarial

    def loss(learner: Learner, batch: Batch, adv):
        last_clean, first_adversarial = adv
        last_logits, learner = learner.forward(last_clean, bn="train")
        adv_logits, learner = learner.forward(first_adversarial, bn="train")
        clean_logits, learner = learner.forward(batch.images, bn="train")
        label_loss = jnp.mean(objectives.cross_entropy(last_logits, batch.labels))
        robust_loss = jnp.mean(objectives.kl_divergence(clean_logits, adv_logits))
        uniform_loss = sum(
            jnp.mean(objectives.kl_divergence(logits, jnp.zeros_like(logits))) for logits in (last_logits, adv_logits)
        )
        metrics = {"label_loss": label_loss, "robust_loss": robust_loss, "uniform_loss": uniform_loss}
        outcome = Outcome(learner.batch_stats, learner.method_state, adv_logits, metrics)
        return label_loss + beta * robust_loss + uniform_loss, outcome

    return Method(
        name="bat",
        attack=attack,
        loss=loss,
        inner=inner,
        separable=True,
        adv_images=lambda adv: adv[1],
    )


def boundary_points(
    objective: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    batch: Batch,
    keys: jax.Array,
    inner: InnerAttack,
    *,
    unseen_end: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """The last iterate before the first that is misclassified, and the second that is misclassified, [B,H,W,C] each.

    The iterates x_0 .. x_K are those of PGD with the batch's radii. An image whose x_0 is misclassified has x_0 as its
    first point; one that never is has x_K as both, and one that is only once has x_K as its second point.

    Args:
      objective: images -> values [B], which are ascended, and whether they are misclassified, [B].
      batch: gives images, radii and step sizes.
      keys: [B], for the start.
      inner: the attack's settings.
      unseen_end: whether x_K counts as classified correctly, however it is.
    """
    threat, step_size = inner.threat, ball.per_example(batch.step_size, batch.images)

    def masked(condition: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(condition[:, None, None, None], new, old)

    def watched(points: jax.Array, wrong: jax.Array, kept: tuple[jax.Array, jax.Array, jax.Array]):
        last, first, crossings = kept
        later = crossings + wrong
        return masked(later == 0, points, last), masked(crossings < 2, points, first), later

    def total(points: jax.Array) -> tuple[jax.Array, jax.Array]:
        values, wrong = objective(points)
        return jnp.sum(values), wrong

    def step(_, carry):
        points, kept = carry
        gradient, wrong = jax.grad(total, has_aux=True)(points)
        moved = points + step_size * ball.direction(gradient, threat.norm)
        return ball.project(moved, batch.images, batch.radius, threat), watched(points, wrong.astype(jnp.int32), kept)

    start = ball.random_start(batch.images, keys, batch.radius, start=inner.start, threat=threat)
    start = ball.project(start, batch.images, batch.radius, threat)
    initial = start, start, jnp.zeros(len(start), jnp.int32)
    points, kept = jax.lax.fori_loop(0, inner.steps, step, (start, initial))
    wrong = objective(points)[1] & (not unseen_end)
    last, first, _ = watched(points, wrong.astype(jnp.int32), kept)
    return jax.lax.stop_gradient((last, first))
