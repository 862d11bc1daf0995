"""Runs one attack over many images: full lanes, exact verdicts, everything keyed by the image and not by its batch."""

import dataclasses
import functools
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.attacks import ball, objectives
from ltrobust.attacks.search import Lanes, Problem, Search, begin, refill, work
from ltrobust.data.batches import to_unit
from ltrobust.evaluation.protocols import Attack, radius_of
from ltrobust.threat import Threat

# Allowed excess over ball and bounds, pixel units: float32 rounding of x + delta, not 1 %.
TOLERANCE = 1e-6
# Matrix products of fewer rows are computed in another order on the CPU, which changes last bits and so verdicts.
_CPU_ROWS = 64
_DISPATCH_SECONDS = 2.0

Apply = Callable[[Any, jax.Array], jax.Array]


class Verdicts(NamedTuple):
    """Images whose attack is over, as the exact network sees them; all arrays have one entry per image.

    Attributes:
      rows: positions in the evaluated images.
      predictions: of the adversarial image; the label where none was found.
      rounded: prediction of the adversarial image rounded to 8 bits and brought back into the ball.
      evaluations: passes (forward, or forward and backward) until the attack was over.
      targets: class aimed at when it was broken, -1 for none.
      margins: `z_y - max_{j != y} z_j` on the adversarial image.
      norms: of the perturbation, in the threat's norm, pixel units.
      tied: whether the label shares the highest logit with another class.
      undefined: whether a gradient was not finite.
      refuted: how many claims of the search the exact network did not confirm.
      violations: excess over ball and bounds, pixel units; at most `TOLERANCE`.
      images: the adversarial images, float32.
    """

    rows: np.ndarray
    predictions: np.ndarray
    rounded: np.ndarray
    evaluations: np.ndarray
    targets: np.ndarray
    margins: np.ndarray
    norms: np.ndarray
    tied: np.ndarray
    undefined: np.ndarray
    refuted: np.ndarray
    violations: np.ndarray
    images: np.ndarray


class Judgement(NamedTuple):
    """The exact network on a batch of points; the first five per image, [B]."""

    predictions: jax.Array
    rounded: jax.Array
    margins: jax.Array
    norms: jax.Array
    violations: jax.Array
    tied: jax.Array
    logits: jax.Array


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is evaluated.

    Attributes:
      variables: of the network, any pytree.
      images: uint8 or float32 [N,H,W,C].
      labels: int64 [N].
      ids: [N], of each image in its test set; keys of all draws.
    """

    variables: Any
    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Images as float32 in [0,1]."""
        batch = self.images[rows]
        return to_unit(batch) if batch.dtype == np.uint8 else batch


class Driver:
    """Compiled programs of one network, and the loop that keeps their lanes full.

    Programs are compiled once for each kind of attack; radius, steps, scales and losses are traced. The state that
    this object holds is nothing but compiled programs and the batch size, which halves when memory runs out.
    """

    def __init__(
        self,
        apply: Apply,
        exact_apply: Apply,
        *,
        threat: Threat,
        num_classes: int,
        batch_size: int,
        seed: int,
        place: Callable[[Any], Any],
        devices: int,
    ) -> None:
        self.threat, self.num_classes, self.seed, self.place, self.devices = threat, num_classes, seed, place, devices
        self._apply, self._exact_apply = apply, exact_apply
        self.batch_size = self._even(batch_size)
        self._judge = jax.jit(self._judge_batch)
        self._begin = functools.cache(self._compile_begin)
        self._work = functools.cache(self._compile_work)
        self._refill = jax.jit(refill, donate_argnums=0)
        self._release = jax.jit(_release, donate_argnums=0)

    def clean(self, subject: Subject, report: Callable[[int], None]) -> Judgement:
        """The exact network on every image itself, as host arrays [N, ...]."""
        parts = []
        for rows in _chunks(np.arange(len(subject.labels)), self.batch_size):
            padded = np.resize(rows, self.batch_size)
            images = self.place(subject.gather(padded))
            judgement = self._judge(subject.variables, images, images, subject.labels[padded], np.float32(np.inf))
            parts.append(jax.tree.map(lambda leaf, used=len(rows): np.asarray(leaf)[:used], judgement))
            self._check_logits(parts[-1].logits)
            report(len(rows))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    def attack(self, subject: Subject, attack: Attack, rows: np.ndarray, logits: np.ndarray) -> Iterator[Verdicts]:
        """Verdicts on the images at `rows`, in the order in which their searches end.

        Args:
          subject: the network and its images.
          attack: from a protocol.
          rows: positions in `subject.images`.
          logits: [N, K] of all clean images; what targets are ordered by.

        Raises:
          FloatingPointError: an adversarial image outside of ball or bounds, or NaN logits.
        """
        left = np.asarray(rows)
        while len(left):
            try:
                for verdicts in self._drive(subject, attack, left, logits):
                    left = np.setdiff1d(left, verdicts.rows, assume_unique=True)
                    yield verdicts
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error) or self.batch_size <= self._even(1):
                    raise
                self.batch_size = self._even(self.batch_size // 2)
                print(f"out of memory: going on with {self.batch_size} images per batch")

    def _drive(self, subject: Subject, attack: Attack, rows: np.ndarray, logits: np.ndarray) -> Iterator[Verdicts]:
        """The same at one batch size."""
        search, settings = attack.build(self.threat, self.num_classes, subject.images.shape[1:])
        fill, advance = self._begin(search), self._work(dataclasses.replace(search, start=_no_start))
        root = jax.random.fold_in(jax.random.key(self.seed), zlib.crc32(attack.name.encode()))
        radius = np.float32(radius_of(attack, self.threat))
        size = self.batch_size
        owners, waiting, refuted = np.full(size, -1), rows, np.zeros(size, int)
        lanes, limit = None, 32
        while True:
            free = np.flatnonzero(owners < 0)
            entering, waiting = waiting[: len(free)], waiting[len(free) :]
            owners[free[: len(entering)]], refuted[free] = entering, 0
            if not np.any(owners >= 0):
                return
            fresh = np.zeros(size, bool)
            fresh[free[: len(entering)]] = True
            if len(entering):
                new = fill(*self._problems(subject, np.where(fresh, owners, rows[0]), logits, root), settings, fresh)
                lanes = new if lanes is None else self._refill(lanes, new, fresh)
            occupied = int(np.sum(owners >= 0))
            enough = max(1, occupied // 8) if len(waiting) else occupied
            began = time.monotonic()
            before = np.asarray(lanes.evaluations)
            lanes = advance(subject.variables, lanes, settings, np.int32(limit), np.int32(enough))
            claimed, finished, evaluations = jax.device_get(
                (lanes.state.claimed, lanes.state.finished, lanes.evaluations)
            )
            limit = _next_limit(limit, int(np.max(evaluations - before)), time.monotonic() - began)
            stopped = (owners >= 0) & (claimed | finished)
            if np.any(stopped):
                labels = self.place(subject.labels[np.maximum(owners, 0)])
                state, images = lanes.state, lanes.problem.image
                judgement = jax.device_get(self._judge(subject.variables, state.candidate, images, labels, radius))
                right = judgement.predictions == subject.labels[np.maximum(owners, 0)]
                # A refuted claim does not end a search: it goes on until it finds better or its budget ends.
                resume = stopped & claimed & right & ~finished
                leave = stopped & ~resume
                refuted += stopped & claimed & right
                if np.any(leave):
                    self._check(judgement, leave)
                    verdicts = _read(lanes, judgement, leave, owners, refuted)
                    owners = np.where(leave, -1, owners)
                    yield verdicts
                lanes = self._release(lanes, leave, resume)

    def _problems(
        self, subject: Subject, rows: np.ndarray, logits: np.ndarray, root: jax.Array
    ) -> tuple[Any, Any, Any, Any, jax.Array]:
        """What `begin` needs of images at `rows`, on the devices."""
        parts = (
            subject.gather(rows),
            subject.labels[rows].astype(np.int32),
            logits[rows],
            subject.ids[rows].astype(np.uint32),
        )
        return (*self.place(parts), root)

    def _compile_begin(self, search: Search) -> Callable:
        """`(images, labels, logits, ids, root, settings, occupied) -> Lanes`."""

        def start(images, labels, logits, ids, root, settings, occupied) -> Lanes:
            keys = jax.vmap(lambda identity: jax.random.fold_in(root, identity))(ids)
            return begin(search, Problem(images, labels, logits, keys), settings, self.threat, occupied)

        return jax.jit(start)

    def _compile_work(self, search: Search) -> Callable:
        """`(variables, lanes, settings, limit, enough) -> lanes`; one program for all starts of a kind of attack."""

        def run(variables, lanes, settings, limit, enough) -> Lanes:
            return work(
                search,
                lambda points: self._apply(variables, points),
                lanes,
                settings,
                self.threat,
                evaluations=limit,
                enough=enough,
            )

        return jax.jit(run, donate_argnums=1)

    def _judge_batch(self, variables: Any, points: jax.Array, images: jax.Array, labels: jax.Array, radius: Any):
        """The exact network on the points, and on the points as 8-bit images."""
        rounded = jnp.round(255 * points) / 255
        rounded = ball.project(rounded, images, radius, self.threat)

        def exact(points: jax.Array) -> jax.Array:
            with jax.default_matmul_precision("highest"):
                return self._exact_apply(variables, points).astype(jnp.float32)

        logits, rounded_logits = jax.lax.map(exact, jnp.stack([points, rounded]))
        if logits.ndim != 2 or logits.shape[1] != self.num_classes:
            raise ValueError(
                f"the network gives logits {list(logits.shape)}, but the data have {self.num_classes} classes."
            )
        margins = objectives.true_margin(logits, labels.astype(jnp.int32))
        return Judgement(
            predictions=jnp.argmax(logits, axis=-1),
            rounded=jnp.argmax(rounded_logits, axis=-1),
            margins=margins,
            norms=ball.norms(points - images, self.threat.norm),
            violations=ball.violation(points, images, radius, self.threat),
            tied=margins == 0,
            logits=logits,
        )

    def _even(self, batch_size: int) -> int:
        """The next larger batch size that divides over the devices, and that keeps bits on the CPU."""
        multiple = self.devices * (_CPU_ROWS if jax.default_backend() == "cpu" else 1)
        return -(-batch_size // multiple) * multiple

    def _check(self, judgement: Judgement, which: np.ndarray) -> None:
        """Stops on an invalid adversarial image or NaN logits."""
        self._check_logits(np.asarray(judgement.logits)[which])
        violations = np.asarray(judgement.violations)[which]
        if not np.all(violations <= TOLERANCE):
            raise FloatingPointError(
                f"an attack left its ball or the pixel bounds by {violations.max()} (allowed: {TOLERANCE}); "
                "this is a bug in the attack, and no number from it counts."
            )

    def _check_logits(self, logits: np.ndarray) -> None:
        """Stops on NaN logits."""
        if np.isnan(logits).any():
            raise FloatingPointError("the network gives NaN logits; its weights or its input normalisation are broken.")


def _release(lanes: Lanes, leave: jax.Array, resume: jax.Array) -> Lanes:
    """Lanes after the verdicts: some empty, some searching on."""
    claimed = lanes.state.claimed & ~resume
    return lanes._replace(occupied=lanes.occupied & ~leave, state=lanes.state._replace(claimed=claimed))


def _read(
    lanes: Lanes, judgement: Judgement, which: np.ndarray, owners: np.ndarray, refuted: np.ndarray
) -> Verdicts:
    """Host arrays of the lanes at `which`."""
    evaluations, targets, undefined, images = jax.device_get(
        (lanes.evaluations, lanes.state.target, lanes.undefined, lanes.state.candidate)
    )
    judgement = jax.tree.map(np.asarray, judgement)
    return Verdicts(
        rows=owners[which],
        predictions=judgement.predictions[which],
        rounded=judgement.rounded[which],
        evaluations=evaluations[which],
        targets=targets[which],
        margins=judgement.margins[which],
        norms=judgement.norms[which],
        tied=judgement.tied[which],
        undefined=undefined[which],
        refuted=refuted[which],
        violations=judgement.violations[which],
        images=images[which],
    )


def _next_limit(limit: int, done: int, seconds: float) -> int:
    """Passes per dispatch that take about two seconds."""
    if done < 1 or seconds <= 0:
        return limit
    return int(np.clip(done * _DISPATCH_SECONDS / seconds, 8, min(4 * limit, 4096)))


def _chunks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The rows in pieces of `size`, the last one shorter."""
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def _no_start(problem: Problem, settings: Any, threat: Threat) -> Any:
    """Never called: `work` begins no search."""
    raise NotImplementedError
