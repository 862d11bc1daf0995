"""Items of the sanity panel that ask the network itself: P17, P20, P21, P28, P29.

Two programs are compiled for them: one with the gradients of three losses, and the exact network on a single image.
Everything else runs in the programs of the evaluation.
"""

import zlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.attacks import ball, objectives
from ltrobust.data.batches import chunks
from ltrobust.data.images import take
from ltrobust.evaluation.drive import Subject
from ltrobust.runtime import processes
from ltrobust.sanity.rules import (
    BATCH_DIFFERENCE,
    RANDOMISED_DISTANCE,
    Item,
    joined,
    measured,
    stated,
)
from ltrobust.sanity.runs import Runs

FORWARDS, FORWARD_IMAGES = 5, 250  # P20
BATCH_IMAGES = 64  # P21
REPEATED_IMAGES = 256  # P28, at most
REPEATED_ATTACKS = ("pgd20", "apgd-ce")  # P28


class Probe(NamedTuple):
    """The network as attacks use it, at some points: predictions [N], and whether a loss's gradient is 0, {loss: [N]}.

    A gradient that is not finite counts as 0, which is what attacks make of it.
    """

    predictions: np.ndarray
    zero: dict[str, np.ndarray]


def items(runs: Runs) -> list[Item]:
    """P17, P20, P21, P28, P29."""
    program = _gradient_program(runs)
    clean, started = _probe(runs, program, 0.0), _probe(runs, program, runs.session.driver.threat.epsilon)
    return [_zero_gradients(runs, started), randomised(runs), batches(runs), _repeated(runs), precision(runs, clean)]


def _losses(num_classes: int) -> dict[str, Callable[[jax.Array, jax.Array], jax.Array]]:
    """The losses whose gradients are looked at; DLR needs three classes."""
    losses = {"cross-entropy": objectives.cross_entropy, "margin": objectives.true_margin}
    return losses | ({"DLR": objectives.dlr} if num_classes >= 3 else {})


def _gradient_program(runs: Runs) -> Callable:
    """`(variables, images, labels, ids, radius) -> (predictions [B], zero [losses, B])` at a random start."""
    driver, losses = runs.session.driver, _losses(runs.num_classes).values()
    root = jax.random.fold_in(jax.random.key(driver.seed), zlib.crc32(b"panel/gradients"))

    def program(variables, images, labels, ids, radius):
        keys = jax.vmap(lambda identity: jax.random.fold_in(root, identity))(ids)
        points = ball.random_start(images, keys, radius, start="uniform", threat=driver.threat)
        # One forward pass, then one backward pass per loss.
        logits, pull = jax.vjp(lambda points: driver.apply(variables, points), points)
        slopes = [jax.grad(lambda z, f=loss: jnp.sum(f(z, labels)))(logits) for loss in losses]
        gradients = jax.lax.map(lambda slope: pull(slope)[0], jnp.stack(slopes))
        some = jnp.any(jnp.isfinite(gradients) & (gradients != 0), axis=(2, 3, 4))
        return jnp.argmax(logits, axis=-1), ~some

    return jax.jit(program)


def _probe(runs: Runs, program: Callable, radius: float) -> Probe:
    """The network at a uniform random start within the radius (pixel units) of each image."""
    driver, subject, losses = runs.session.driver, runs.session.subject, _losses(runs.num_classes)
    number = len(runs.labels)
    predictions, zero = np.zeros(number, int), np.zeros((len(losses), number), bool)
    for rows, valid in chunks(np.arange(number), driver.batch_size):
        parts = (subject.gather(rows), subject.labels[rows].astype(np.int32), subject.ids[rows].astype(np.uint32))
        result = processes.fetch(program(subject.variables, *driver.place(parts), np.float32(radius)))
        predictions[rows[:valid]], zero[:, rows[:valid]] = result[0][:valid], result[1][:, :valid]
    return Probe(predictions, dict(zip(losses, zero, strict=True)))


def _zero_gradients(runs: Runs, probe: Probe) -> Item:
    """P17: of the images that attacks see; a zero gradient of the cross-entropy alone may be saturation."""
    totals = runs.per_class(runs.clean)
    return joined(
        measured(
            "P17",
            runs.per_class(zero & runs.clean),
            totals,
            rule="P17 ce" if loss == "cross-entropy" else "P17",
            label=loss,
        )
        for loss, zero in probe.zero.items()
    )


def _part(runs: Runs, rows: np.ndarray) -> Subject:
    """The images at `rows` as a separate subject."""
    whole = runs.session.subject
    return Subject(whole.variables, take(whole.images, rows), whole.labels[rows], whole.ids[rows])


def exact_logits(runs: Runs, rows: np.ndarray) -> np.ndarray:
    """Logits [len(rows), K] of the exact network, in batches of these images in this order."""
    return np.asarray(runs.session.driver.clean(_part(runs, rows)).logits)


def _without_infinities(logits: np.ndarray) -> np.ndarray:
    """Logits with 0 for those that are infinite, such as minus infinity for masked classes."""
    return np.where(np.isfinite(logits), logits, 0)


def _distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """`|first - second|`, where equal infinities are 0 apart."""
    with np.errstate(invalid="ignore"):
        return np.where(first == second, 0, np.abs(first - second))


def randomised(runs: Runs, logits_of: Callable[[Runs, np.ndarray], np.ndarray] = exact_logits) -> Item:
    """P20: forwards of the same batch, predictions and directions of the logits compared image by image."""
    rows = runs.sample(FORWARD_IMAGES)
    logits = np.array([logits_of(runs, rows) for _ in range(FORWARDS)])
    # A masked class has logit -inf, and infinity minus infinity would hide every other difference.
    bounded = _without_infinities(logits)
    unit = bounded / (np.linalg.norm(bounded, axis=-1, keepdims=True) + 1e-10)
    distance = np.max([np.linalg.norm(unit - other, axis=-1).max(axis=0) for other in unit], axis=0)
    predictions = np.argmax(logits, axis=-1)
    infinite = np.any(
        np.where(np.isfinite(logits), 0, logits) != np.where(np.isfinite(logits[0]), 0, logits[0]), (0, 2)
    )
    changed = np.any(predictions != predictions[0], axis=0) | (distance > RANDOMISED_DISTANCE) | infinite
    note = f"{FORWARDS} forwards, largest distance {np.max(distance):.1e}"
    return measured("P20", runs.per_class(rows[changed]), runs.per_class(rows), note=note)


def batches(runs: Runs) -> Item:
    """P21: an image in its batch, alone, and among others in another order; relative to its largest logit."""
    rows = runs.sample(BATCH_IMAGES)
    subject, reference = runs.session.subject, np.asarray(runs.session.clean.logits)[rows]

    @jax.jit
    def exact(variables, images):
        with jax.default_matmul_precision("highest"):
            return runs.session.driver.exact_apply(variables, images).astype(jnp.float32)

    # Outside of the driver, which would pad a single image to a batch.
    alone = np.concatenate([exact(subject.variables, subject.gather(rows[[k]])) for k in range(len(rows))])
    # Another order than that of the evaluation: neighbours and positions both change.
    order = np.random.RandomState(1).permutation(len(rows))
    shuffled = np.empty_like(reference)
    shuffled[order] = exact_logits(runs, rows[order])
    same, largest = np.ones(len(rows), bool), np.zeros(len(rows))
    for other in (alone, shuffled):
        same &= np.argmax(other, axis=-1) == np.argmax(reference, axis=-1)
        scale = np.maximum(np.max(np.abs(_without_infinities(reference)), axis=-1), np.finfo(np.float32).tiny)
        largest = np.maximum(largest, np.max(_distance(other, reference), axis=-1) / scale)
    allowed, tolerated = BATCH_DIFFERENCE
    status = np.where(same & (largest <= allowed), "pass", np.where(same & (largest <= tolerated), "warn", "fail"))
    per_class = [
        (int(number), worse, f"{np.sum(hit)} of {np.sum(runs.labels[rows] == number)} images")
        for number in np.unique(runs.labels[rows])
        for worse in ("fail", "warn")
        if np.any(hit := (status == worse) & (runs.labels[rows] == number))
    ]
    evidence = (
        f"{len(rows)} images alone and shuffled: {np.sum(~same)} predictions change, largest relative difference "
        f"{np.max(largest):.1e} (limit {allowed:g}/{tolerated:g})"
    )
    return stated("P21", "pass", evidence, per_class)


def _repeated(runs: Runs) -> Item:
    """P28: attacked again, past the store, in another order and among other neighbours."""
    session = runs.session
    attacks = [attack for attack in runs.protocol.attacks if attack.name in REPEATED_ATTACKS]
    rows = runs.sample(len(runs.labels))
    # Another order than that of the evaluation.
    rows = np.random.RandomState(2).permutation(rows[runs.clean[rows]])
    # A part of them, so that the rest is missing among the neighbours.
    rows = rows[: min(REPEATED_IMAGES, -(-len(rows) // 2))]
    if not attacks or not len(rows):
        return stated("P28", "skipped", "nothing was attacked" if attacks else "the protocol has neither attack")
    changed = np.zeros(len(runs.labels), bool)
    for attack in attacks:
        before = session.records[attack.name]["prediction"] == runs.labels
        for judged in session.driver.attack(session.subject, attack, rows, session.clean.logits):
            right = judged.verdicts["prediction"] == runs.labels[judged.rows]
            changed[judged.rows] |= right != before[judged.rows]
    note = f"{' and '.join(attack.name for attack in attacks)} in another order, among other images"
    return measured("P28", runs.per_class(changed), runs.per_class(rows), note=note)


def precision(runs: Runs, clean: Probe) -> Item:
    """P29: clean predictions that differ between search and exact network, and robust images that a claim was made of.

    A rejected claim changes nothing where the search continued and found a point that the exact network confirms.
    """
    differ = clean.predictions != runs.session.predictions["clean"]
    claims = np.any([record["rejected_claims"] > 0 for record in runs.session.records.values()], axis=0)
    saved = claims & runs.robust
    claimed = f"of {np.sum(claims)} images with a rejected claim {np.sum(saved)} robust"
    note = f"{np.sum(differ)} clean predictions; {claimed}"
    return measured("P29", runs.per_class(differ | saved), runs.per_class(runs.labels >= 0), note=note)
