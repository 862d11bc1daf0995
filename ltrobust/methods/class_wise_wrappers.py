"""Wrappers that treat classes differently: CFA, Fair-ARD, and more weight for the weakest class."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.methods.contract import Batch, Learner, Method
from ltrobust.methods.declarations import declares
from ltrobust.methods.settings import check_fractions, check_variant, check_weights
from ltrobust.threat import pixels


@declares(sets=("initial_state", "radii", "end_epoch", "averaging"))
def cfa(
    method: Method,
    *,
    margins: bool = True,
    margin_base: float = 0.5,
    regularization: bool = True,
    regularization_base: float = 0.5,
    normalized: bool = True,
    plain_epochs: int = 10,
    kept: float = 0.85,
    threshold: float = 0.2,
    average_after: int = 49,
) -> Method:
    """Radii `(l_1 + t_c) eps`, regularisation `beta_c = (l_2 + t_c) beta`, and averaging of epochs (arXiv 2303.14460).

    Wei et al., CVPR 2023. t_c is class c's robust accuracy on the training images' x', train-mode logits, in the epoch
    before. Steps keep their size. Where the method has a `regularization` beta, as TRADES has, its loss becomes
    `mean_i [(first_i + beta_{y_i} second_i) / (1 + beta_{y_i})]`. State: t and the sums of the current epoch over all
    devices; which epochs were averaged. Averaging reads the validation part's accuracy under PGD-20.

    Args:
      margins: whether radii differ by class.
      margin_base: l_1 of the radii `(l_1 + t_c) eps`; 0.3 with trades, 0.7 with fat.
      regularization: whether the weight of the regularisation differs by class (trades).
      regularization_base: l_2 of `(l_2 + t_c) beta`.
      normalized: whether each image's loss is divided by `1 + beta_c` (trades).
      plain_epochs: first epochs at eps and beta; epoch 1, which has none before it, always is one.
      kept: of the averaged weights at an epoch that is taken in; 0: no averaging.
      threshold: an epoch is taken in if every class's robust validation accuracy is at least this. The first one is
        copied; until then, the averaged weights are the last ones.
      average_after: epochs before any is taken in.

    Raises:
      ValueError: a setting out of range.
    """
    check_weights("cfa", margin_base=margin_base, regularization_base=regularization_base)
    check_weights("cfa", plain_epochs=plain_epochs, average_after=average_after)
    check_fractions("cfa", kept=kept, threshold=threshold)
    beta = method.regularization

    def by_class(learner: Learner, base: float, wanted: bool) -> jax.Array:
        """`base + t`, [C], or 1 where it is not wanted, too early, or t is not known."""
        accuracy = _of_this_epoch(learner)["accuracy"]
        known = (accuracy >= 0) & (learner.epoch > plain_epochs)
        return jnp.where(known & wanted, base + accuracy, 1.0)

    def radii(learner: Learner, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        factor = by_class(learner, margin_base, margins)[labels]
        return factor * method.inner.threat.epsilon, jnp.full(labels.shape, pixels(method.inner.step_size), jnp.float32)

    def attack(learner: Learner, batch: Batch):
        return method.attack(learner.inside, batch)

    def loss(learner: Learner, batch: Batch, adv):
        own = _of_this_epoch(learner)  # not by `end_epoch`: without `kept` no validation part is needed
        if beta is not None:
            factors = by_class(learner, regularization_base, regularization)[batch.labels]
            weights = 1 / (1 + beta * factors) if normalized else None
            batch = dataclasses.replace(batch, factors=factors, weights=weights)
        value, outcome = method.loss(learner.inside, batch, adv)
        own |= _correct_by_class(learner, batch.labels, outcome.adv_logits, own)
        return value, dataclasses.replace(outcome, method_state=own | {"method": outcome.method_state})

    def initial_state(params: Any, class_counts: jax.Array) -> dict[str, Any]:
        zeros = jnp.zeros(class_counts.shape, jnp.float32)
        counted = {"accuracy": zeros - 1, "correct": zeros, "seen": zeros, "epoch": jnp.int32(1)}
        averaged = {"accepted": jnp.int32(0), "kept": jnp.float32(0)}
        return counted | averaged | {"method": method.initial_state(params, class_counts)}

    def end_epoch(learner: Learner, observed: Mapping[str, Any]) -> dict[str, Any]:
        state = learner.method_state
        accepted = np.nanmin(observed["robust"]) >= threshold and int(learner.epoch) > average_after
        # 0 copies the weights: until the first epoch is taken in, the average is the last epoch.
        keeps = (kept if accepted else 1.0) if int(state["accepted"]) else 0.0
        return state | {"accepted": state["accepted"] + jnp.int32(accepted), "kept": jnp.float32(keeps)}

    return dataclasses.replace(
        method,
        attack=attack,
        loss=loss,
        objective=None,
        weighted=False,
        regularization=None,
        radii=radii,
        initial_state=initial_state,
        end_epoch=end_epoch if kept else None,
        averaging=(lambda state: state["kept"]) if kept else None,
    )


def _of_this_epoch(learner: Learner) -> dict[str, Any]:
    """The state as the step's epoch sees it: at a new epoch, accuracies are those of the one before."""
    state = learner.method_state
    begins, seen = learner.epoch != state["epoch"], state["seen"]
    accuracy = jnp.where(begins & (seen > 0), state["correct"] / jnp.maximum(seen, 1), state["accuracy"])
    sums = {name: jnp.where(begins, 0, state[name]) for name in ("correct", "seen")}
    return state | sums | {"accuracy": accuracy, "epoch": learner.epoch}


def _correct_by_class(
    learner: Learner, labels: jax.Array, logits: jax.Array, own: dict[str, Any]
) -> dict[str, jax.Array]:
    """The sums per class after this batch, over all devices."""
    of_class = jax.nn.one_hot(labels, len(own["seen"]), dtype=jnp.float32)
    correct = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
    added = {"correct": correct @ of_class, "seen": jnp.sum(of_class, axis=0)}
    return jax.tree.map(jnp.add, {name: own[name] for name in added}, jax.lax.psum(added, learner.axis_name))


@declares(needs=("objective", "weighted"), sets=("initial_state",))
def fair_ard(
    method: Method,
    *,
    exponent: float = 2.0,
    lower: float = 5 / 6,
    upper: float = 5 / 2,
    variant: str = "as_described",
) -> Method:
    """`L = mean_i w_{y_i} L_i` of the method's loss per example, with `class_weights` of the epoch before.

    Yue et al., NeurIPS 2023. The attack is the method's own; on its way the iterates x_0 .. x_{K-1} that are still
    classified correctly are counted. The first epoch's weights are 1; later ones are not scaled to a mean of 1. State:
    weights, the sums per class of the current epoch over all devices, and its number; new weights are formed at the
    first step of an epoch.

    Args:
      exponent: how strongly hard classes count (p), at least 0; 0 gives the method itself.
      lower, upper: bounds of the class weights.
      variant: `as_described` divides a class's count by its images; `as_released` by N / C, as if all had as many.

    Raises:
      ValueError: a setting outside of the above.
    """
    if not exponent >= 0 or not 0 < lower <= 1 <= upper:
        raise ValueError(
            f"fair_ard.exponent is {exponent}, lower {lower}, upper {upper}; needed are exponent >= 0 and "
            "0 < lower <= 1 <= upper."
        )
    check_variant("fair_ard", variant)
    objective = method.objective
    assert objective is not None

    def attack(learner: Learner, batch: Batch):
        ascended = objective(learner.inside, batch)

        def counted(images: jax.Array):
            values, logits = ascended(images)
            return values, jnp.argmax(logits, axis=-1) == batch.labels

        return method.inner.tallied(counted, batch)

    def loss(learner: Learner, batch: Batch, adv):
        adv_images, tally = adv
        state = learner.method_state
        own = {name: state[name] for name in ("weights", "tally", "seen", "epoch")}
        own = jax.lax.cond(own["epoch"] == learner.epoch, lambda own: own, renewed, own) | {"epoch": learner.epoch}
        batch = dataclasses.replace(batch, weights=own["weights"][batch.labels])
        value, outcome = method.loss(learner.inside, batch, adv_images)
        own |= _tally_by_class(learner, batch.labels, own, tally)
        return value, dataclasses.replace(outcome, method_state=own | {"method": outcome.method_state})

    def renewed(own: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """At the first step of an epoch: weights from the sums of the one before, and empty sums."""
        seen = own["seen"]
        divisor = seen if variant == "as_described" else jnp.full_like(seen, jnp.mean(seen))
        weights = class_weights(own["tally"], divisor, exponent=exponent, lower=lower, upper=upper)
        return own | {"weights": weights, "tally": jnp.zeros_like(seen), "seen": jnp.zeros_like(seen)}

    def initial_state(params: Any, class_counts: jax.Array) -> dict[str, Any]:
        zeros = jnp.zeros(class_counts.shape, jnp.float32)
        own = {"weights": zeros + 1, "tally": zeros, "seen": zeros, "epoch": jnp.int32(1)}
        return own | {"method": method.initial_state(params, class_counts)}

    return dataclasses.replace(
        method,
        attack=attack,
        loss=loss,
        adv_images=lambda adv: adv[0],
        objective=None,  # its tally is taken; a second count beside it would go unread
        weighted=False,
        initial_state=initial_state,
    )


def class_weights(
    tally: jax.Array, seen: jax.Array, *, exponent: float = 2.0, lower: float = 5 / 6, upper: float = 5 / 2
) -> jax.Array:
    """`clip( C (kappa_c + 1e-5)^-p / sum_j (kappa_j + 1e-5)^-p )`, with kappa_c = tally_c / seen_c; float32 [C].

    kappa_c is the mean number of attack iterates at which an image of class c is still classified correctly. Equal
    kappas give 1. A class that was not seen gets 1 and is left out of C and of the sum.
    """
    kappa = tally / jnp.maximum(seen, 1)
    hardness = jnp.where(seen > 0, (kappa + 1e-5) ** -exponent, 0.0)
    share = hardness / jnp.maximum(jnp.sum(hardness), 1e-30)
    weights = jnp.clip(jnp.sum(seen > 0, dtype=jnp.float32) * share, lower, upper)
    return jnp.where(seen > 0, weights, 1.0)


def _tally_by_class(
    learner: Learner, labels: jax.Array, own: dict[str, jax.Array], tally: jax.Array
) -> dict[str, jax.Array]:
    """The sums per class after this batch, over all devices."""
    of_class = jax.nn.one_hot(labels, len(own["seen"]), dtype=jnp.float32)
    added = {"tally": tally.astype(jnp.float32) @ of_class, "seen": jnp.sum(of_class, axis=0)}
    return jax.tree.map(jnp.add, {name: own[name] for name in added}, jax.lax.psum(added, learner.axis_name))


@declares(needs=("weighted",), sets=("initial_state", "end_epoch"))
def weak_class_reweight(
    method: Method, *, kappa: float = 1.0, kept: float = 0.7, plain_fraction: float = 0.1
) -> Method:
    """`L = mean_i w_{y_i} L_i` of the method's loss per example, with `weak_class_weights` w.

    After "Analysis and Applications of Class-wise Robustness in Adversarial Training" (KDD 2021, arXiv 2105.14240),
    which reports a small change of training that raises the weakest class; its formula is not known, and this one is
    ours. State: a, each class's robust accuracy on the validation part (PGD-20, which validation runs), averaged over
    epochs; -1 for a class of which no validation image was seen; and the method's own.

    Args:
      kappa: what is added to the weakest class's weight of 1; 0 is the method itself.
      kept: of the averaged class accuracies at an epoch; the average starts at the first one.
      plain_fraction: first epochs with w = 1, a fraction of the phase; epoch 1, which has no accuracy yet, always is
        one.

    Raises:
      ValueError: a setting out of range.
    """
    check_weights("weak_class_reweight", kappa=kappa)
    check_fractions("weak_class_reweight", kept=kept, plain_fraction=plain_fraction)
    if kappa == 0:
        return method

    def attack(learner: Learner, batch: Batch):
        return method.attack(learner.inside, batch)

    def loss(learner: Learner, batch: Batch, adv):
        state = learner.method_state
        accuracy = jnp.where(learner.epoch > learner.last_epoch_of(plain_fraction), state["accuracy"], -1.0)
        weights = weak_class_weights(accuracy, learner.class_counts, kappa=kappa)
        batch = dataclasses.replace(batch, weights=weights[batch.labels])
        value, outcome = method.loss(learner.inside, batch, adv)
        return value, dataclasses.replace(outcome, method_state=state | {"method": outcome.method_state})

    def initial_state(params: Any, class_counts: jax.Array) -> dict[str, Any]:
        return {"accuracy": jnp.full(class_counts.shape, -1.0), "method": method.initial_state(params, class_counts)}

    def end_epoch(learner: Learner, observed: Mapping[str, Any]) -> dict[str, Any]:
        state = learner.method_state
        before, now = np.asarray(state["accuracy"]), np.asarray(observed["robust"])
        moved = np.where(before < 0, now, kept * before + (1 - kept) * now)
        return state | {"accuracy": jnp.asarray(np.where(np.isnan(now), before, moved), jnp.float32)}

    return dataclasses.replace(
        method,
        attack=attack,
        loss=loss,
        objective=None,
        weighted=False,
        regularization=None,
        initial_state=initial_state,
        end_epoch=end_epoch,
    )


def weak_class_weights(accuracy: jax.Array, class_counts: jax.Array, *, kappa: float) -> jax.Array:
    """`w_c = (1 + kappa 1[c is weakest]) N / sum_k n_k (1 + kappa 1[k is weakest])`, [C].

    The mean over training images is 1, so that the size of a step stays; with equal counts that is the mean over
    classes. Of equally weak classes all are weakest.

    Args:
      accuracy: a, [C]; below 0 where it is not known: such a class is never the weakest.
      class_counts: n, [C].
      kappa: at least 0.
    """
    known = accuracy >= 0
    lowest = jnp.min(jnp.where(known, accuracy, jnp.inf))
    raised = 1 + kappa * (known & (accuracy == lowest)).astype(jnp.float32)
    return raised * jnp.sum(class_counts) / jnp.sum(class_counts * raised)
