"""Clean and robust predictions of a network, image by image, under a named protocol."""

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any
from typing import Protocol as TypingProtocol

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ltrobust.attacks import ball, pgd
from ltrobust.data.batches import Chunk, chunks, to_unit
from ltrobust.evaluation import metrics, protocols
from ltrobust.threat import Threat

# Allowed excess over ball and bounds, pixel units: float32 rounding of x + delta, not 1 %.
_TOLERANCE = 1e-6

Apply = Callable[[Any, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Verdicts on N images.

    Attributes:
      labels: int64 [N].
      num_classes: C.
      predictions: column -> int64 [N]; `clean`, then each attack. An image that is wrong when clean is never attacked;
        its clean prediction stands in every column.
      worst: names of the attacks behind the `worst` column, possibly none.
      max_violation: the largest excess over ball or bounds that was measured, pixel units.
    """

    labels: np.ndarray
    num_classes: int
    predictions: dict[str, np.ndarray]
    worst: tuple[str, ...]
    max_violation: float

    @property
    def columns(self) -> tuple[str, ...]:
        """`clean`, each attack, and `worst` where the protocol has one."""
        return (*self.predictions, *(("worst",) if self.worst else ()))

    def correct(self, column: str) -> np.ndarray:
        """Whether each image is (still) predicted right, bool [N]; `worst`: under each of the named attacks."""
        names = self.worst if column == "worst" else (column,)
        return np.all([self.predictions[name] == self.labels for name in names], axis=0)

    def counts(self, column: str) -> metrics.ClassCounts:
        """Correct and all images per class."""
        return metrics.count(self.correct(column), self.labels, self.num_classes)


class Evaluator(TypingProtocol):
    """What `make_evaluator` returns."""

    def __call__(
        self,
        variables: Any,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        ids: np.ndarray | None = None,
        progress: str = "",
    ) -> Evaluation: ...


def make_evaluator(
    apply: Apply,
    *,
    protocol: protocols.Protocol,
    threat: Threat,
    num_classes: int,
    batch_size: int,
    seed: int = 0,
    exact_apply: Apply | None = None,
    place: Callable[[Any], Any] = jax.device_put,
) -> Evaluator:
    """A compiled evaluation: `(variables, images, labels, *, ids=None, progress="") -> Evaluation`.

    Attacks search with `apply`; a verdict is the prediction of `exact_apply` (default: `apply`) at highest matmul
    precision. Only images that are right when clean are attacked, packed into full batches. Every random draw is keyed
    by (seed, attack, id of the image), so a verdict does not depend on batch size or order of work. Ids are positions
    in the test set; default: positions in `images`.

    Args:
      apply: `(variables, images float32 [B,H,W,C]) -> logits [B, C]`, each image for itself.
      protocol: from `protocols.get`.
      threat: of every attack.
      num_classes: C, checked against the logits.
      batch_size: images per compiled call.
      seed: of the attacks' random starts.
      exact_apply: the same function in float32, where `apply` computes in less.
      place: puts one batch (a pytree of arrays with leading axis B) on the devices.

    Raises (when called):
      ValueError: images or labels of a wrong type or range, or logits of another number of classes.
      FloatingPointError: an adversarial image outside of ball or bounds, or not finite, which is a bug in an attack.
    """
    exact_apply = exact_apply or apply
    attack_functions = {attack.name: _compile_attack(apply, attack, threat, seed) for attack in protocol.attacks}

    @jax.jit
    def judge(variables: Any, points: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        with jax.default_matmul_precision("highest"):
            logits = exact_apply(variables, points)
        if logits.ndim != 2 or logits.shape[1] != num_classes:
            raise ValueError(f"the network gives logits {list(logits.shape)}, but the data have {num_classes} classes.")
        return (
            jnp.argmax(logits, axis=-1),
            ball.violation(points, images, threat.epsilon, threat),
            jnp.isnan(logits).any(),
        )

    def evaluate(variables, images, labels, *, ids=None, progress="") -> Evaluation:
        images, labels = _check(images, labels, num_classes, threat)
        ids = np.arange(len(labels)) if ids is None else ids
        bar = tqdm(total=len(labels), desc=progress, unit="img", disable=not progress, leave=False)
        worst_violation = 0.0

        def run(rows: np.ndarray, attack: Callable | None, column: np.ndarray) -> None:
            nonlocal worst_violation
            for chunk in chunks(rows, batch_size):
                batch = place(_gather(images, labels, ids, chunk))
                points = batch["images"] if attack is None else attack(variables, batch)
                prediction, violation, undefined = jax.device_get(judge(variables, points, batch["images"]))
                _check_verdicts(violation[: chunk.valid], bool(undefined))
                worst_violation = max(worst_violation, float(violation[: chunk.valid].max()))
                column[chunk.rows[: chunk.valid]] = prediction[: chunk.valid]
                bar.update(chunk.valid)

        clean = np.full(len(labels), -1, np.int64)
        run(np.arange(len(labels)), None, clean)
        predictions = {"clean": clean}
        attackable = np.flatnonzero(clean == labels)
        for name, attack in attack_functions.items():
            bar.set_postfix_str(name)
            bar.total += len(attackable)
            predictions[name] = clean.copy()
            run(attackable, attack, predictions[name])
        bar.close()
        return Evaluation(labels, num_classes, predictions, protocol.worst, worst_violation)

    return evaluate


def _compile_attack(apply: Apply, attack: protocols.Attack, threat: Threat, seed: int) -> Callable:
    """`(variables, batch) -> adversarial images`, jitted."""
    objective = protocols.OBJECTIVES[attack.objective]
    root = jax.random.fold_in(jax.random.key(seed), zlib.crc32(attack.name.encode()))

    @jax.jit
    def run(variables: Any, batch: dict[str, jax.Array]) -> jax.Array:
        keys = jax.vmap(lambda identity: jax.random.fold_in(root, identity))(batch["ids"])
        return pgd(
            lambda points: objective(apply(variables, points), batch["labels"]),
            batch["images"],
            keys,
            threat=threat,
            steps=attack.steps,
            step_size=attack.step * threat.epsilon,
            start=attack.start,
        )

    return run


def _gather(images: np.ndarray, labels: np.ndarray, ids: np.ndarray, chunk: Chunk) -> dict[str, np.ndarray]:
    """One padded batch on the host."""
    batch = images[chunk.rows]
    return {
        "images": to_unit(batch) if batch.dtype == np.uint8 else batch,
        "labels": labels[chunk.rows].astype(np.int32),
        "ids": ids[chunk.rows].astype(np.uint32),
    }


def _check(images: Any, labels: Any, num_classes: int, threat: Threat) -> tuple[np.ndarray, np.ndarray]:
    """Host arrays of the right kind, or an error that says what is wrong."""
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8:
        ball.check_images(images, threat)
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu" or labels.size == 0:
        raise ValueError(f"labels must be integers [{len(images)}], got {labels.dtype} {list(labels.shape)}.")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels lie in [{labels.min()}, {labels.max()}]; {num_classes} classes allow 0 to {num_classes - 1}."
        )
    return images, labels.astype(np.int64)


def _check_verdicts(violation: np.ndarray, undefined: bool) -> None:
    """Stops on an invalid adversarial image or NaN logits."""
    if undefined:
        raise FloatingPointError("the network gives NaN logits; its weights or its input normalisation are broken.")
    if not np.all(violation <= _TOLERANCE):
        raise FloatingPointError(
            f"an attack left its ball or the pixel bounds by {violation.max()} (allowed: {_TOLERANCE}); "
            "this is a bug in the attack, and no number from it counts."
        )
