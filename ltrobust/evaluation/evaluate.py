"""Clean and robust predictions of a network, image by image, under a named protocol."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from typing import Protocol as TypingProtocol

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.attacks import ball
from ltrobust.evaluation import metrics, protocols, sanity
from ltrobust.evaluation.drive import Driver, Subject
from ltrobust.evaluation.judge import Apply
from ltrobust.evaluation.progress import Progress
from ltrobust.evaluation.sanity import Item
from ltrobust.evaluation.session import Session
from ltrobust.evaluation.store import Store
from ltrobust.evaluation.summary import summarise
from ltrobust.threat import Threat

_PROBE_IMAGES = 8  # whose clean logits tell one network from another


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Verdicts on N images.

    Attributes:
      labels: int64 [N].
      num_classes: C.
      protocol: what was run.
      threat: at which radius.
      predictions: column -> int64 [N]; `clean`, then each attack. An image that is wrong when clean is never attacked,
        and one that an earlier attack of a sequence broke is not attacked again: that prediction stands in the column.
      records: attack -> field of `drive.Verdicts` -> [N]; NaN or -1 where the attack did not see the image.
      clean_tied: bool [N], whether the label shares the highest clean logit with another class.
      sanity: items of the sanity panel (see `sanity.py`), where it was run.
    """

    labels: np.ndarray
    num_classes: int
    protocol: protocols.Protocol
    threat: Threat
    predictions: dict[str, np.ndarray]
    records: dict[str, dict[str, np.ndarray]]
    clean_tied: np.ndarray
    sanity: tuple[Item, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """`clean`, each attack, and each combination."""
        return (*self.predictions, *(name for name, _ in self.protocol.combined))

    @property
    def clean(self) -> np.ndarray:
        """Whether each image is predicted right, bool [N]."""
        return self.correct("clean")

    @property
    def robust(self) -> np.ndarray:
        """Whether each image is still predicted right under the protocol's headline column, bool [N]."""
        return self.correct(self.protocol.headline)

    @property
    def per_attack(self) -> dict[str, np.ndarray]:
        """`correct` of every column but `clean`."""
        return {column: self.correct(column) for column in self.columns if column != "clean"}

    def correct(self, column: str) -> np.ndarray:
        """Whether each image is (still) predicted right, bool [N]; a combination: under each of its attacks."""
        names = dict(self.protocol.combined).get(column, (column,))
        return np.all([self.predictions[name] == self.labels for name in names], axis=0)

    def counts(self, column: str) -> metrics.ClassCounts:
        """Correct and all images per class."""
        return metrics.count(self.correct(column), self.labels, self.num_classes)

    @property
    def max_violation(self) -> float:
        """The largest excess over ball or bounds that was measured, pixel units."""
        return max((float(np.nanmax(record["violation"], initial=0)) for record in self.records.values()), default=0.0)

    @property
    def refuted(self) -> int:
        """How many images had a claim of an attack that the exact network did not confirm."""
        return int(sum(np.sum(record["refuted"] > 0) for record in self.records.values()))

    def final_predictions(self, column: str) -> np.ndarray:
        """The prediction that counts in a column, int64 [N]; a combination: of the first attack that broke the image."""
        final = self.predictions["clean"].copy()
        for name in dict(self.protocol.combined).get(column, (column,)):
            final = np.where(final == self.labels, self.predictions[name], final)
        return final

    def correct_after_rounding(self, column: str) -> np.ndarray:
        """`correct`, where a broken image counts only if its adversarial image rounded to 8 bits still breaks it."""
        attacks = {attack.name: attack for attack in self.protocol.attacks}
        members = dict(self.protocol.combined).get(column, (column,))
        robust = self.clean
        for name in {before for member in members for before in (*attacks[member].after, member)}:
            rounded = self.records[name]["rounded"]
            robust = robust & ((rounded < 0) | (rounded == self.labels))
        return robust

    def summary(self) -> str:
        """A readable table: every column overall, balanced and in the worst class, and what the sanity panel says."""
        return summarise(self)


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
        store: str | Path | None = None,
        network: Mapping[str, Any] | None = None,
        selected_on: str | None = None,
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
    devices: int = 1,
    keep_images: bool = False,
) -> Evaluator:
    """A compiled evaluation, see `Evaluator`.

    Attacks search with `apply`; a verdict is the prediction of `exact_apply` (default: `apply`) at highest matmul
    precision. Only images that are right when clean are attacked, packed into full batches. Every random draw is keyed
    by (seed, attack, id of the image), so a verdict does not depend on batch size or order of work. Ids are positions
    in the test set; default: positions in `images`. `store` is a folder of verdicts (`store.py`), `network` what else
    tells this network from others; `selected_on`, for the sanity panel, by what its weights were selected.

    Args:
      apply: `(variables, images float32 [B,H,W,C]) -> logits [B, C]`, each image for itself.
      protocol: from `protocols.get`.
      threat: of every attack that has no radius of its own.
      num_classes: C, checked against the logits.
      batch_size: images per compiled call; on the CPU the next multiple of 64 per device, since other sizes change
        last bits. Halved when memory runs out.
      seed: of the attacks' random draws.
      exact_apply: the same function in float32, where `apply` computes in less.
      place: puts a pytree of arrays with leading axis B on the devices.
      devices: over how many devices `place` divides.
      keep_images: whether a store keeps the adversarial images.

    Raises:
      ValueError: the protocol does not exist at this threat. When called: images or labels of a wrong type or range,
        logits of another number of classes, a store of something else.
      FloatingPointError (when called): an adversarial image outside of ball or bounds, or not finite, which is a bug in
        an attack; NaN logits.
    """
    protocols.check_threat(protocol, threat)
    driver = Driver(
        apply,
        exact_apply or apply,
        threat=threat,
        num_classes=num_classes,
        batch_size=batch_size,
        seed=seed,
        place=place,
        devices=devices,
    )

    def evaluate(
        variables, images, labels, *, ids=None, progress="", store=None, network=None, selected_on=None
    ) -> Evaluation:
        images, labels = check_inputs(images, labels, num_classes, threat)
        ids = np.arange(len(labels)) if ids is None else np.asarray(ids)
        subject = Subject(variables, images, labels, ids)
        bar = Progress(progress, len(labels))
        bar.begin("clean", len(labels), len(labels))
        clean = driver.clean(subject, lambda number: bar.advance(number, 0))
        with contextlib.ExitStack() as closing:
            closing.callback(bar.close)
            opened = None
            if store is not None:
                passport = describe(protocol, threat, seed, subject, num_classes, clean.logits)
                passport["network"] |= network or {}
                opened = Store(store, passport, keep_images=keep_images)
                closing.callback(opened.close)
                for note in opened.notes:
                    bar.say(note)
            session = Session(driver, subject, clean, opened, bar)
            for attack in protocol.attacks:
                session.run(attack)
            items = sanity.panel(session, protocol, selected_on=selected_on) if protocol.sanity else ()
        return Evaluation(
            labels=labels,
            num_classes=num_classes,
            protocol=protocol,
            threat=threat,
            predictions=session.predictions,
            records=session.records,
            clean_tied=np.asarray(clean.tied),
            sanity=items,
        )

    return evaluate


def describe(
    protocol: protocols.Protocol, threat: Threat, seed: int, subject: Subject, num_classes: int, logits: np.ndarray
) -> dict[str, Any]:
    """What verdicts belong to: the passport of a store. The network is told by its logits on a few images."""
    return {
        "protocol": dataclasses.asdict(protocol),
        "threat": dataclasses.asdict(threat),
        "seed": seed,
        "num_classes": num_classes,
        "images": {
            "number": len(subject.labels),
            "shape": list(subject.images.shape[1:]),
            "dtype": str(subject.images.dtype),
            "sha256": _digest(subject.images),
            "labels_sha256": _digest(subject.labels.astype("<i8")),
            "ids_sha256": _digest(subject.ids.astype("<i8")),
        },
        "network": {"probe": np.asarray(logits[:_PROBE_IMAGES], float).round(6).tolist()},
    }


def check_inputs(images: Any, labels: Any, num_classes: int, threat: Threat) -> tuple[np.ndarray, np.ndarray]:
    """Host arrays of the right kind.

    Raises:
      ValueError: images or labels of a wrong type, shape or range, or fewer than two classes.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if num_classes < 2:
        raise ValueError(f"the network has {num_classes} class(es); an attack needs at least 2.")
    if images.dtype != np.uint8:
        ball.check_images(images, threat)
    elif images.ndim != 4:
        raise ValueError(f"images must have shape [number, height, width, channel], got {list(images.shape)}.")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu" or labels.size == 0:
        raise ValueError(f"labels must be integers [{len(images)}], got {labels.dtype} {list(labels.shape)}.")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels lie in [{labels.min()}, {labels.max()}]; {num_classes} classes allow 0 to {num_classes - 1}."
        )
    return images, labels.astype(np.int64)


def evaluate(
    logits_fn: Callable[[jax.Array], jax.Array],
    images: Any,
    labels: Any,
    *,
    protocol: str = "standard",
    threat: Threat = Threat(),  # noqa: B008 - frozen
    seed: int = 0,
    batch_size: int = 128,
    store: str | Path | None = None,
    keep_images: bool = False,
    progress: bool = True,
) -> Evaluation:
    """Evaluates any JAX function from images to logits.

    Args:
      logits_fn: float32 [B,H,W,C] in [0,1] -> logits [B,K], each image for itself; what it needs besides (input
        normalisation, an evaluation-time head) belongs inside.
      images: uint8 or float32 [N,H,W,C], float32 in [0,1].
      labels: integers [N].
      protocol: a name from `protocols.PROTOCOLS`; `standard` is AutoAttack with its sanity panel.
      threat: norm and radius, in 1/255.
      seed: of the attacks' random draws.
      batch_size: images per compiled call.
      store: a folder for verdicts; the same call goes on from what is there.
      keep_images: whether the store keeps adversarial images.
      progress: whether a progress line is shown.

    Raises:
      ValueError: arguments that do not fit together; a store of another evaluation.
      FloatingPointError: NaN logits, or an attack outside of its ball.
    """
    shape = (1, *np.shape(images)[1:])
    logits = jax.eval_shape(logits_fn, jax.ShapeDtypeStruct(shape, jnp.float32))
    if getattr(logits, "ndim", 0) != 2 or logits.shape[0] != 1:
        raise ValueError(f"logits_fn gives {logits} for images {list(shape)}; it must give an array [batch, classes].")
    evaluator = make_evaluator(
        lambda variables, points: logits_fn(points),
        protocol=protocols.get(protocol),
        threat=threat,
        num_classes=logits.shape[1],
        batch_size=min(batch_size, len(images)),
        seed=seed,
        keep_images=keep_images,
    )
    return evaluator((), images, labels, progress="evaluating" if progress else "", store=store)


def _digest(array: np.ndarray) -> str:
    """SHA-256 of the raw bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
