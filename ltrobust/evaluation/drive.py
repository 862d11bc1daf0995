"""Runs one attack over many images: full batches, exact verdicts, random draws that depend on the image alone."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from ltrobust.attacks.search import Lanes, Search, draws
from ltrobust.data.batches import chunks, to_unit
from ltrobust.data.images import Images
from ltrobust.evaluation import judge, padding, width
from ltrobust.evaluation.judge import Apply, Judgement, check, check_logits
from ltrobust.evaluation.programs import Programs
from ltrobust.evaluation.protocols import Attack, radius_of
from ltrobust.evaluation.schedule import Schedule, decide
from ltrobust.runtime import processes
from ltrobust.threat import Threat

# Long compared with the overhead of a call, short compared with what a kill may lose.
_DISPATCH_SECONDS = 2.0


class Judged(NamedTuple):
    """Images whose attack is over; all arrays have one entry per image.

    Attributes:
      rows: positions in the evaluated images.
      verdicts: of type `verdict.DTYPE`.
      images: the adversarial images, float32.
    """

    rows: np.ndarray
    verdicts: np.ndarray
    images: np.ndarray


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network with the images that it is evaluated on.

    Attributes:
      variables: of the network, any pytree.
      images: uint8 or float32 [N,H,W,C]; an array or files.
      labels: int64 [N].
      ids: [N], of each image in its test set; keys of all draws.
    """

    variables: Any
    images: Images
    labels: np.ndarray
    ids: np.ndarray

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Images as float32 in [0,1]."""
        batch = self.images[rows]
        return to_unit(batch) if batch.dtype == np.uint8 else batch


class Driver:
    """Compiled programs of one network, and the loop that keeps their lanes full.

    Programs are compiled once for each kind of attack; radius, steps, scales and losses are traced. The only state is
    the compiled programs and the batch size, which halves when memory runs out.
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
        platform: str | None = None,
    ) -> None:
        self._on_cpu = (platform or jax.default_backend()) == "cpu"
        self.threat, self.num_classes, self.seed, self.place, self.devices = threat, num_classes, seed, place, devices
        self.apply, self.exact_apply = apply, exact_apply
        self._wanted, self._least = batch_size, padding.ROWS
        self.batch_size = self._even(batch_size)
        # Search -> numbers of lanes of the programs that exist.
        self._widths: dict[Search, set[int]] = {}
        # Lanes and guesses of the programs that exist.
        self._guesses: set[tuple[int, int]] = set()
        self._programs = Programs(apply, exact_apply, threat, num_classes)

    def pad_as_needed(self, subject: Subject) -> None:
        """Makes a batch of few images on the CPU as small as its bits allow (`padding`), where it has 64 rows else."""
        # Batches of 64 rows and more have the same bits; only smaller ones are looked at.
        share, least = -(-min(self._wanted, len(subject.labels)) // self.devices), padding.ROWS
        if self._on_cpu and share < least:
            functions = (self.apply,) if self.exact_apply is self.apply else (self.apply, self.exact_apply)
            shape = subject.images.shape[1:]
            least = padding.rows(functions, subject.variables, shape, self.num_classes, share)
        if least != self._least:
            self._least = least
            self.batch_size = self._even(share * self.devices)

    @property
    def programs(self) -> Programs:
        """The compiled programs, for who lowers them without running them."""
        return self._programs

    @property
    def smallest_batch(self) -> int:
        """The fewest images in a call that divide over the devices and keep bits on the CPU."""
        return self._even(1)

    def clean(self, subject: Subject, report: Callable[[int, int], None] = lambda images, wrong: None) -> Judgement:
        """The exact network on every image, as host arrays [N, ...]; `report` gets images done and wrong."""
        parts, left = [], np.arange(len(subject.labels))
        while len(left):
            try:
                for rows, valid in chunks(left, self.batch_size):
                    images, labels = self.place((subject.gather(rows), subject.labels[rows]))
                    judgement = self._programs.judge(subject.variables, images, images, labels, np.float32(np.inf))
                    parts.append(jax.tree.map(lambda leaf: leaf[:valid], processes.fetch(judgement)))  # noqa: B023
                    left = left[valid:]
                    check_logits(parts[-1].logits)
                    report(valid, int(np.sum(parts[-1].predictions != subject.labels[rows[:valid]])))
            except jax.errors.JaxRuntimeError as error:
                self._narrow(error)
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    def attack(self, subject: Subject, attack: Attack, rows: np.ndarray, logits: np.ndarray) -> Iterator[Judged]:
        """Verdicts on the images at `rows`, in the order in which their searches end.

        Args:
          subject: the network and its images.
          attack: from a protocol.
          rows: positions in `subject.images`.
          logits: [N, K] of all clean images; what targets are ordered by.

        Raises:
          FloatingPointError: an adversarial image outside of ball or bounds, or NaN logits.
          MemoryError: the smallest batch does not fit on the device.
        """
        left = np.asarray(rows)
        while len(left):
            try:
                for judged in self._drive(subject, attack, left, logits):
                    # After a lack of memory only the images without a verdict are attacked again.
                    left = np.setdiff1d(left, judged.rows, assume_unique=True)
                    yield judged
            except jax.errors.JaxRuntimeError as error:
                self._narrow(error)

    def _narrow(self, error: Exception) -> None:
        """Halves the batch after running out of memory; raises other errors, and if no smaller batch is possible."""
        if not out_of_memory(error) or processes.several():  # of several, none can halve its batch alone
            raise error
        if self.batch_size <= self._even(1):
            raise MemoryError(
                f"the device has no memory left for {self.batch_size} images, the smallest batch of an evaluation; end "
                "other programs that use the device, use model.dtype=bfloat16, or evaluate on a larger device."
            ) from error
        self.batch_size = self._even(self.batch_size // 2)
        print(f"out of memory: continuing with {self.batch_size} images per batch")

    def _drive(self, subject: Subject, attack: Attack, rows: np.ndarray, logits: np.ndarray) -> Iterator[Judged]:
        """`attack` at one batch size."""
        search, settings = attack.build(self.threat, self.num_classes, subject.images.shape[1:])
        # Runs are independent, so that those of few images can fill many lanes.
        runs = int(settings["runs"]) if search.restart else 1
        search, number = self._lanes(search, len(rows), runs)
        # A lane makes several runs in turn only while images wait.
        fill, advance = self._programs.begin(search), self._programs.work(search, restarts=len(rows) > number)
        root = draws(self.seed, attack.name)
        radius = np.float32(radius_of(attack, self.threat))
        schedule, rejected, current = Schedule(rows, runs, number), np.zeros(number, int), np.zeros(number, int)
        lanes: Any = None
        # Few at first, because the first call also compiles; then what fits into two seconds.
        limit = 32
        while schedule.unfinished:
            fresh = schedule.fill(current)
            if np.any(fresh):
                rejected[fresh], current = 0, np.where(fresh, schedule.first, current)
                problems = self._problems(subject, schedule.owners, logits, fresh)
                new = fill(*problems, root, settings, fresh, schedule.first.astype(np.int32))
                lanes = new if lanes is None else self._programs.refill(lanes, new, fresh)
            lanes, limit = self._dispatch(advance, subject, lanes, settings, schedule, current, limit, search.guesses)
            state = lanes.state
            current = processes.fetch(state.run) if search.restart else current
            claimed, finished = processes.fetch((state.claimed, state.finished))
            over = finished | (current >= schedule.until)
            stopped = (schedule.owners >= 0) & (claimed | over)
            if not np.any(stopped):
                continue
            judgement = self._judge_lanes(subject, lanes, schedule.owners, radius)
            right = judgement.predictions == subject.labels[np.maximum(schedule.owners, 0)]
            # A rejected claim does not end a search: it continues until it finds better or its budget ends.
            pending = stopped & claimed & right
            rejected += pending
            leave = stopped & (over | ~pending)
            if np.any(leave):
                check(judgement, leave)
                results = _read(lanes, judgement, leave, subject.labels, schedule.owners, rejected)
                decided = decide(schedule, np.flatnonzero(leave), results, claimed & ~right, search.forgets)
                if decided:
                    yield jax.tree.map(lambda *leaves: np.stack(leaves), *decided)
            lanes = self._programs.release(lanes, schedule.owners < 0, pending & ~leave)

    def _lanes(self, search: Search, images: int, runs: int) -> tuple[Search, int]:
        """The search, with guesses where there are few images, and its number of lanes."""
        if search.wider and images < self.batch_size:
            lanes, guesses = width.guesses(images, self.batch_size, self.devices, self._guesses, self._even)
            self._guesses.add((lanes, guesses))
            return search.wider(guesses), lanes
        known = self._widths.setdefault(self._programs.shared(search, restarts=False), set())
        rounds = width.ROUNDS if runs > 1 and self._on_cpu else 1
        lanes = width.lanes(images * runs, self.batch_size, known, self._even, rounds=rounds)
        known.add(lanes)
        return search, lanes

    def _dispatch(
        self,
        advance: Callable,
        subject: Subject,
        lanes: Lanes,
        settings: Any,
        schedule: Schedule,
        current: np.ndarray,
        limit: int,
        guesses: int,
    ) -> tuple[Lanes, int]:
        """About two seconds of the compiled loop; while more work waits it ends once an eighth of lanes rests."""
        occupied = int(np.sum(schedule.owners >= 0))
        # Refilling costs two transfers and a judgement; one per free lane would cost more than the idle lanes.
        min_resting = max(1, occupied // 8) if schedule.more(current) else occupied
        until = schedule.until.astype(np.int32)
        before, began = processes.fetch(lanes.evaluations), time.monotonic()
        lanes = advance(subject.variables, lanes, settings, np.int32(limit), np.int32(min_resting), until)
        done = int(np.max(processes.fetch(lanes.evaluations) - before)) / guesses
        seconds = time.monotonic() - began
        # All processes must make the same number of passes, so process 0's clock decides.
        limit = int(np.clip(done * _DISPATCH_SECONDS / seconds, 8, min(4 * limit, 4096)))
        return lanes, processes.share(limit) if processes.spans(lanes.evaluations) else limit

    def _judge_lanes(self, subject: Subject, lanes: Lanes, owners: np.ndarray, radius: np.float32) -> Judgement:
        """The exact network on every lane's candidate, on the host."""
        points, images, labels = lanes.state.candidate, lanes.problem.image, subject.labels[np.maximum(owners, 0)]
        missing = self._even(len(owners)) - len(owners)
        if missing:  # lanes with several guesses are fewer than the rows that keep bits
            repeat = np.arange(len(owners) + missing) % len(owners)
            points, images = (leaf[repeat] for leaf in processes.fetch((points, images)))
            points, images, labels = self.place((points, images, labels[repeat]))
        else:
            labels = self.place(labels)
        judged = processes.fetch(self._programs.judge(subject.variables, points, images, labels, radius))
        return jax.tree.map(lambda leaf: leaf[: len(owners)], judged)

    def _problems(
        self, subject: Subject, owners: np.ndarray, logits: np.ndarray, fresh: np.ndarray
    ) -> tuple[Any, Any, Any, Any]:
        """Images, labels, clean logits and ids of the lanes that are `fresh`, on the devices; of others anything."""
        # Images in files are decoded, which the lanes that go on do not need.
        rows = np.where(fresh, owners, owners[fresh][0])
        ids = subject.ids[rows].astype(np.uint32)
        return self.place((subject.gather(rows), subject.labels[rows].astype(np.int32), logits[rows], ids))

    def _even(self, images: int) -> int:
        """The next larger number of lanes that divides over the devices, and that keeps bits on the CPU."""
        return width.even(images, self.devices, self._least, cpu=self._on_cpu)


def out_of_memory(error: Exception) -> bool:
    """Whether an error of the runtime says that the device's memory is used up."""
    return "RESOURCE_EXHAUSTED" in str(error)


def _read(
    lanes: Lanes, judgement: Judgement, which: np.ndarray, labels: np.ndarray, owners: np.ndarray, rejected: np.ndarray
) -> Judged:
    """Host arrays of the lanes at `which`."""
    # A run that broke its image with its last step has made way for the next one, with another target.
    target = getattr(lanes.state, "candidate_target", lanes.state.target)
    evaluations, targets, non_finite, images = processes.fetch(
        (lanes.evaluations, target, lanes.non_finite, lanes.state.candidate)
    )
    rows, result = owners[which], jax.tree.map(lambda leaf: leaf[which], judgement)
    verdicts = judge.verdicts(
        result,
        labels[rows],
        evaluations=evaluations[which],
        # A target is named only where the image was broken.
        target=np.where(result.predictions != labels[rows], targets[which], -1),
        non_finite=non_finite[which],
        rejected_claims=rejected[which],
    )
    return Judged(rows, verdicts, images[which])
