"""Whether the device computes what the CPU does: golden verdicts, repeated training, batch sizes, bfloat16 search."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import golden
import jax
import jax.numpy as jnp
import numpy as np
import training

from benchmarks.accelerator import dry
from benchmarks.accelerator.jobs import Part
from benchmarks.accelerator.part import Context
from ltrobust import Threat
from ltrobust.analysis.evaluation import Evaluation
from ltrobust.evaluation import protocols
from ltrobust.evaluation.judge import Apply
from ltrobust.evaluator import make_evaluator
from ltrobust.training import devices

IMAGES = 200
# Of a dry run. The verdicts of `golden` do not depend on the queries, which add nothing on these networks.
_DRY_IMAGES, _DRY_QUERIES = 12, {"queries": 20}
_DRY_SHORT = {"steps": 5, "targets": 2} | _DRY_QUERIES
_STEPS, _DRY_STEPS = 20, 2  # of the repeated training


def run(context: Context, part: Part) -> dict[str, Any]:
    """Does one part; the summary also lies in the part's folder."""
    parts = {"golden": golden_verdicts, "repeat": repeated_training, "batches": batch_sizes, "bfloat16": low_precision}
    with context.clock.span():
        result = parts[part.name](context)
    (context.folder / f"{part.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def golden_verdicts(context: Context) -> dict[str, Any]:
    """The four attacks in order on both networks, image by image, against the public AutoAttack on a CPU."""
    result = {}
    for name in golden.NAMES[:1] if context.dry else golden.NAMES:
        subject = Golden.load(context, name)
        evaluation = subject.evaluate(subject.logits, short=_DRY_QUERIES)
        reference = subject.record["robust_standard"][: len(subject.labels)]
        clean = np.asarray(jax.jit(subject.logits)(subject.images))
        result[name] = {
            "images": len(subject.labels),
            "robust": int(evaluation.robust.sum()),
            "robust_by_the_reference": int(reference.sum()),
            "images_that_differ": np.flatnonzero(evaluation.robust != reference).tolist(),
            "largest_difference_of_clean_logits": float(np.abs(clean - subject.record["logits"][: len(clean)]).max()),
            "claims_refuted_in_float32": evaluation.rejected_claims,
        }
    return result


def batch_sizes(context: Context) -> dict[str, Any]:
    """Images whose verdicts, and whose margins, differ between two batch sizes."""
    subject = Golden.load(context, golden.NAMES[0])
    whole, parts = (subject.evaluate(subject.logits, batch_size=size) for size in (subject.batch, subject.batch // 3))
    return compared(whole, parts) | {"batch_sizes": [subject.batch, subject.batch // 3]}


def low_precision(context: Context) -> dict[str, Any]:
    """Images whose verdicts differ where attacks search in bfloat16; float32 judges in both."""
    subject = Golden.load(context, golden.NAMES[0])

    def rounded(images: jax.Array) -> jax.Array:
        """The network with weights, input and every layer in bfloat16."""
        return subject.logits_in(jnp.bfloat16)(images).astype(jnp.float32)

    exact, low = subject.evaluate(subject.logits), subject.evaluate(rounded, exact=subject.logits)
    return compared(exact, low) | {"claims_refuted_in_float32": [exact.rejected_claims, low.rejected_claims]}


def compared(first: Evaluation, second: Evaluation) -> dict[str, Any]:
    """Robust images of both, and the images in which they differ: in the end, and in any attack's record."""
    paths = [
        np.nan_to_num(first.records[name]["margin"]) != np.nan_to_num(second.records[name]["margin"])
        for name in first.records
    ]
    return {
        "images": len(first.labels),
        "robust": [int(first.robust.sum()), int(second.robust.sum())],
        "verdicts_that_differ": np.flatnonzero(first.robust != second.robust).tolist(),
        "images_with_another_margin": int(np.any(paths, axis=0).sum()),
    }


@dataclasses.dataclass(frozen=True)
class Golden:
    """A golden network with its images and the reference's record; a network of another type by `logits_in`."""

    images: np.ndarray
    labels: np.ndarray
    logits: Callable[[jax.Array], jax.Array]
    record: dict[str, np.ndarray]
    name: str
    dry: bool

    @staticmethod
    def load(context: Context, name: str) -> "Golden":
        """The network, and as many images as the context wants."""
        assert context.golden is not None
        images, labels, logits, record = golden.load(context.golden, name)
        number = _DRY_IMAGES if context.dry else IMAGES
        return Golden(np.asarray(images)[:number], np.asarray(labels)[:number], logits, record, name, context.dry)

    @property
    def batch(self) -> int:
        """Images in a batch, all of them; of at least 192 rows, since the CPU takes no fewer than 64."""
        return max(len(self.labels), 192)

    def logits_in(self, dtype: Any) -> Callable[[jax.Array], jax.Array]:
        """The network computed in another type."""
        return golden.network(self.record, self.name, dtype)

    def evaluate(
        self,
        apply: Callable[[jax.Array], jax.Array],
        *,
        exact: Callable[[jax.Array], jax.Array] | None = None,
        batch_size: int = 0,
        short: Mapping[str, int] = _DRY_SHORT,
    ) -> Evaluation:
        """The four attacks of `standard`, without its panel; in a dry run with the settings in `short`."""
        standard = protocols.get("standard")
        names = dict(standard.combined)["autoattack"]
        attacks = tuple(attack for attack in standard.attacks if attack.name in names)
        if self.dry:
            attacks = tuple(dry.shortened(attack, short) for attack in attacks)
        evaluator = make_evaluator(
            _of_images(apply),
            protocol=protocols.Protocol("four", attacks, combined=(("autoattack", names),)),
            threat=Threat("linf", float(self.record["radius_255"])),
            num_classes=10,
            batch_size=batch_size or self.batch,
            exact_apply=None if exact is None else _of_images(exact),
        )
        return evaluator((), self.images, self.labels)


def _of_images(logits: Callable[[jax.Array], jax.Array]) -> Apply:
    """A logits function as the evaluator calls it, with variables that it has none of."""
    return lambda _, images: logits(images)


def repeated_training(context: Context) -> dict[str, Any]:
    """One seed trained twice by one program: whether the weights have the same bits, by default and with deterministic
    operations, and how much longer those take.
    """
    steps, network = (_DRY_STEPS, "small_resnet") if context.dry else (_STEPS, "resnet18")
    settings = {"model__dtype": "bfloat16", "student__attack__steps": 2 if context.dry else 10}
    config = training.configuration(network, "at_bsl", 128, **settings)
    mesh = devices.make_mesh(jax.devices()[:1])
    lowered = training.prepare(config, mesh, steps_at_once=steps).lower()
    result: dict[str, Any] = {"network": network, "batch": 128, "steps": steps, "dtype": "bfloat16"}
    for name, options in (("default", {}), ("deterministic", {"xla_gpu_deterministic_ops": True})):
        try:
            program = lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:  # not every compiler has deterministic forms of all operations
            result[name] = {"does_not_compile": str(error)[:500]}
            continue
        digests, seconds = [], []
        for _ in range(2):
            phase = training.prepare(config, mesh, steps_at_once=steps)
            jax.block_until_ready(phase.run(program, 1))
            took = _timed(lambda: phase.run(program, steps - 1))  # noqa: B023
            seconds.append(round(took / (steps - 1), 5))
            digests.append(_digest(phase.state.weights))
        result[name] = {"same_bits": digests[0] == digests[1], "seconds_a_step": seconds, "weights_sha256": digests}
    return result


def _timed(call: Callable[[], Any]) -> float:
    """Seconds until the call's result is there."""
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def _digest(tree: Any) -> str:
    """SHA-256 over the bits of all arrays."""
    leaves = (np.ascontiguousarray(leaf).tobytes() for leaf in jax.tree.leaves(jax.device_get(tree)))
    return hashlib.sha256(b"".join(leaves)).hexdigest()
