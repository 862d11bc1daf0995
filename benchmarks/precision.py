"""Is bfloat16 safe? Training in it against training in float32, and whether PGD in it is a weaker attack.

    python benchmarks/precision.py [--config=digits|cifar10_cpu] [--seeds=0,1,2,3,4] [--steps=20]
        [--teacher_epochs=N] [--student_epochs=N]

Training: the run of configs/digits.py, or CIFAR-10-LT as configs/sweeps/cifar10_cpu.py trains it (TFDS_DATA_DIR says
where), with `model.dtype` float32 and bfloat16, every seed with both; verdicts are float32 in both. Printed are the
numbers of both over seeds, and their difference by seed, with 95 % t-intervals.

Attack: PGD on the images that are evaluated, on each float32 student, from the same starts, with gradients computed in
float32 and in bfloat16. What the attacks reach is judged in float32: the mean loss, its paired difference over images,
and the robust images. A bfloat16 attack that reaches less loss would make every robust accuracy trained or measured
with it look too high.
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import measure
import numpy as np

from configs import cifar10_cpu, digits
from configs.sweeps import cifar10_cpu as sweep
from ltrobust import models
from ltrobust import run as runs
from ltrobust.analysis import cards, intervals, seeds
from ltrobust.analysis.schema.network import Column
from ltrobust.attacks import objectives
from ltrobust.attacks.algorithms.pgd import pgd
from ltrobust.data import batches
from ltrobust.data.run_data import DataPlan, first_of_each_class
from ltrobust.models.model_plan import make_model_plan
from ltrobust.report.numbers import NUMBERS, over_seeds
from ltrobust.runtime import typed_json
from ltrobust.threat import Threat
from ltrobust.training.checkpoints import Checkpoints
from ltrobust.training.state import Weights

CONFIGS = {"digits": (digits, {}), "cifar10_cpu": (cifar10_cpu, sweep.SHORT)}
DTYPES = ("float32", "bfloat16")


def main() -> None:
    """Trains every seed in both types, attacks every float32 student in both, prints one table."""
    parser = measure.parser(__doc__)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--config", choices=sorted(CONFIGS), default="digits")
    parser.add_argument("--teacher_epochs", type=int, default=0, help="0: the configuration's")
    parser.add_argument("--student_epochs", type=int, default=0, help="0: the configuration's")
    parser.add_argument("--steps", type=int, default=20, help="of PGD")
    given = parser.parse_args()
    path, numbers_of_seeds = measure.begin(given, "precision"), given.seeds.split(",")
    result: dict[str, list[Mapping[str, Column]]] = {dtype: [] for dtype in DTYPES}
    reached, counts = [], ()
    for seed in numbers_of_seeds:
        for dtype in DTYPES:
            with tempfile.TemporaryDirectory() as folder:
                config = configuration(given, int(seed), dtype)
                card = cards.read(Path(runs.train(config, Path(folder))))
                result[dtype].append(card.networks["student/last"].columns)
                counts = card.data.class_counts
                if dtype == "float32":
                    reached.append(attacked(config, Path(folder), given.steps))
    rows = [numbers(title, result, column, view, counts) for title, column, view in NUMBERS]
    measure.finish(path, given, rows + losses(reached), columns=typed_json.plain(result), attacks=reached)


def configuration(given: argparse.Namespace, seed: int, dtype: str) -> Any:
    """The run with that seed and type."""
    module, changes = CONFIGS[given.config]
    config = module.get_config()
    config.update_from_flattened_dict(changes)
    config.seed = seed
    config.model.dtype = dtype
    config.eval.also = ()
    for phase, epochs in ((config.teacher, given.teacher_epochs), (config.student, given.student_epochs)):
        phase.epochs = epochs or phase.epochs
    return config.lock()


def numbers(
    title: str, found: dict[str, list[Mapping[str, Column]]], column: str, view: str, training_counts: Sequence[int]
) -> dict[str, Any]:
    """One number in both types, and their difference by seed, in percent."""
    columns = {dtype: [run[column] for run in found[dtype]] for dtype in DTYPES}
    pairs = list(zip(columns["bfloat16"], columns["float32"], strict=True))
    if len(pairs) > 1:
        row = {dtype: over_seeds(seeds.of_columns(own, view, training_counts)) for dtype, own in columns.items()}
        difference = over_seeds(seeds.of_differences(pairs, view, training_counts))
    else:
        row = {dtype: f"{100 * own[0].value(view):.2f}" for dtype, own in columns.items()}
        difference = f"{100 * (pairs[0][0].value(view) - pairs[0][1].value(view)):.2f}"
    return {"number": title} | row | {"bfloat16 minus float32": difference}


def attacked(config: Any, workdir: Path, steps: int) -> dict[str, Any]:
    """What PGD reaches on the student's last network with gradients in both types, judged in float32."""
    test = DataPlan(**config.data.to_dict()).open("test")
    ids = first_of_each_class(test.labels, config.eval.limit)
    images, labels = jnp.asarray(batches.to_unit(test.images[ids])), jnp.asarray(test.labels[ids], jnp.int32)
    threat, exact = Threat(**config.threat.to_dict()), network("float32", config)
    with Checkpoints(workdir / "checkpoints" / "student", read_only=True) as checkpoints:
        template = Weights(*models.initialise(exact, jax.random.key(0), test.images.shape[1:]))
        weights = checkpoints.restore_weights(template)["last"]

    def logits(dtype: str, points: jax.Array) -> jax.Array:
        return models.forward(network(dtype, config), weights.params, weights.batch_stats, points, bn="eval")[0]

    result: dict[str, Any] = {}
    for dtype in DTYPES:
        attack = jax.jit(
            lambda images, keys, dtype=dtype: pgd(
                lambda points: objectives.cross_entropy(logits(dtype, points), labels),
                images,
                keys,
                threat=threat,
                steps=steps,
                step_size=threat.epsilon / 4,
            )
        )
        final = logits("float32", attack(images, jax.random.split(jax.random.key(0), len(images))))
        result[dtype] = np.asarray(objectives.cross_entropy(final, labels)).astype(float).tolist()
        result[f"robust, {dtype}"] = float(jnp.mean((jnp.argmax(final, axis=1) == labels).astype(jnp.float32)))
    return result


def network(dtype: str, config: Any) -> Any:
    """The configured network in a type; both have the same weights."""
    plan = dataclasses.replace(make_model_plan(config.model.to_dict()), dtype=dtype)
    return plan.create(10, head=models.Head())


def losses(reached: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean loss that PGD reached and robust accuracy, over all images of all seeds, with a paired interval."""
    exact, low = (np.concatenate([one[dtype] for one in reached]) for dtype in DTYPES)
    difference = intervals.t_interval(low - exact)
    robust = [float(np.mean([one[f"robust, {dtype}"] for one in reached])) for dtype in DTYPES]
    return [
        {
            "number": "loss that PGD reaches",
            "float32": f"{np.mean(exact):.5f}",
            "bfloat16": f"{np.mean(low):.5f}",
            "bfloat16 minus float32": f"{difference.mean:.6f} [{difference.low:.6f}, {difference.high:.6f}]",
        },
        {
            "number": "robust to that PGD, %",
            "float32": f"{100 * robust[0]:.2f}",
            "bfloat16": f"{100 * robust[1]:.2f}",
            "bfloat16 minus float32": f"{100 * (robust[1] - robust[0]):.2f}",
        },
    ]


if __name__ == "__main__":
    main()
