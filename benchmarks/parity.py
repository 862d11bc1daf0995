"""Agreement with the public PyTorch AutoAttack, image by image: writes the tables of docs/project/parity.md.

    python benchmarks/parity.py --data=DIR [--write=docs/project/parity.md] [--seeds=3]

DIR/golden holds small robust networks, real CIFAR-10 test images and what fra31/auto-attack decided for each.
"""

import argparse
import dataclasses
import datetime
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

import golden  # noqa: E402

import ltrobust  # noqa: E402
from ltrobust.analysis import cards  # noqa: E402
from ltrobust.attacks import search  # noqa: E402
from ltrobust.attacks.algorithms import apgd  # noqa: E402
from ltrobust.evaluation import protocols  # noqa: E402
from ltrobust.evaluator import make_evaluator  # noqa: E402
from ltrobust.report import tables  # noqa: E402
from tools import summary  # noqa: E402

# Draws of a change that moves logits as far as two implementations differ; more, up to the second number, while they do
# not move an image whose point differs. A point can be so near a tie that one draw in thirty decides it otherwise.
CHANGES, MOST_CHANGES = 8, 256
SAME = 1e-4  # in 1/255: points that are nearer than this are equal
ALONE = {
    "apgd_ce": protocols.Apgd("apgd-ce", "ce"),
    "apgd_t": protocols.Apgd("apgd-t", "targeted_dlr", targets=9),
    "fab_t": protocols.Fab("fab-t"),
    "square": protocols.Square("square"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--write", type=Path, default=ROOT / "docs" / "project" / "parity.md")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    cards.software()  # of the code as it is now, not as it may be edited by the end
    verdicts, notes, paths = [], [], []
    for name in golden.NAMES:
        images, labels, logits_fn, record = golden.load(given.data, name)
        rows, result = compare_verdicts(name, images, labels, logits_fn, record, given.seeds)
        verdicts += rows
        notes += result
        paths += compare_paths(name, images, labels, logits_fn, record)
    text = summary.inserted(given.write.read_text(), render(verdicts, notes, paths, given.seeds), "parity")
    given.write.write_text(text)
    print(given.write.read_text())


def compare_verdicts(
    name: str, images: Any, labels: Any, logits_fn: Any, record: Any, seeds: int
) -> tuple[list[list[str]], list[str]]:
    """Rows of the table of verdicts, and one note for each image that differs."""
    threat = ltrobust.Threat("linf", float(record["radius_255"]))
    difference = float(np.abs(np.asarray(jax.jit(logits_fn)(images)) - record["logits"]).max())
    rows, notes = [[name, "clean logits", "", "", f"largest difference {difference:.1e}"]], []
    robust = {}
    for seed in range(seeds):
        protocol = protocols.Protocol("alone", tuple(ALONE.values()))
        evaluation = run(protocol, threat, seed, logits_fn, images, labels)
        robust[seed] = {key: evaluation.correct(attack.name) for key, attack in ALONE.items()}
        # Draws are keyed by attack and image, so the sequence decides as its attacks alone; it is run for seed 0.
        robust[seed]["standard"] = np.all([robust[seed][key] for key in ALONE], axis=0)
        if seed == 0:
            standard = run(protocols.get("standard"), threat, seed, logits_fn, images, labels)
            np.testing.assert_array_equal(standard.robust, robust[seed]["standard"])
        print(f"{name}, seed {seed}: " + ", ".join(f"{key} {value.mean():.3f}" for key, value in robust[seed].items()))
    for key in (*ALONE, "standard"):
        reference = record[f"robust_{key}"]
        differing = [np.flatnonzero(robust[seed][key] != reference) for seed in range(seeds)]
        counts = [int(robust[seed][key].sum()) for seed in range(seeds)]
        rows.append(
            [
                name,
                key,
                str(int(reference.sum())),
                " ".join(map(str, counts)),
                " ".join(str(len(places)) for places in differing),
            ]
        )
        for image in sorted({int(place) for places in differing for place in places}):
            ours = [bool(robust[seed][key][image]) for seed in range(seeds)]
            depends = "our verdict depends on the seed, so both outcomes occur" if len(set(ours)) > 1 else "UNEXPLAINED"
            notes.append(
                f"- {name}, {key}, image {image}: reference {'robust' if reference[image] else 'broken'}; ours, by "
                f"seed: {' '.join('robust' if value else 'broken' for value in ours)}. {depends}."
            )
    return rows, notes


def run(protocol: Any, threat: Any, seed: int, logits_fn: Any, images: Any, labels: Any) -> Any:
    """One evaluation, without the sanity panel."""
    evaluator = make_evaluator(
        lambda _, points: logits_fn(points),
        protocol=dataclasses.replace(protocol, sanity=False),
        threat=threat,
        num_classes=10,
        batch_size=64,
        seed=seed,
    )
    return evaluator((), images, labels)


def compare_paths(name: str, images: Any, labels: Any, logits_fn: Any, record: Any) -> list[list[str]]:
    """One row for each recorded APGD-CE path: the same start, 100 iterations, compared at its best point."""
    places, starts = record["traj_index"], jnp.asarray(record["traj_start"])
    threat = ltrobust.Threat("linf", float(record["radius_255"]))
    settings = apgd.settings(loss="ce", radius=threat.epsilon, num_classes=10)

    @jax.jit
    def path(key: jax.typing.ArrayLike, change: jax.typing.ArrayLike) -> Any:
        """Our path where the network sees every pixel changed by a relative `change` at most."""
        # A constant added to all logits changes no loss but the rounding of it.
        shift = jnp.where(change > 0, 4.0, 0.0) * jax.random.uniform(jax.random.key(1000 + key))
        factor = 1 + change * jax.random.uniform(jax.random.key(key), starts.shape, minval=-1, maxval=1)
        return search.run(
            apgd.APGD,
            lambda points: logits_fn(points * factor) + shift,
            images[places],
            labels[places],
            jax.random.split(jax.random.key(0), len(places)),
            settings=settings,
            threat=threat,
            rest_on_claims=False,
            prepare=lambda state: state._replace(point=starts, previous=starts, best=starts),
        ).state

    ours = path(0, 0.0)
    away = _distances(record["traj_best"], ours.best)
    moved = np.zeros_like(away)
    for key in range(1, 1 + MOST_CHANGES):
        if key > CHANGES and np.all((away < SAME) | (moved > SAME)):
            break
        moved = np.maximum(moved, _distances(path(key, 1e-6).best, ours.best))
    same = ~np.asarray(ours.claimed) == record["traj_robust"]
    losses = np.abs(np.asarray(ours.best_loss) - record["traj_best_loss"])
    rows = []
    for place, index in enumerate(places):
        reason = "equal" if away[place] < SAME else "rounding decides it" if moved[place] > SAME else "UNEXPLAINED"
        agreement = "yes" if same[place] else "NO"
        figures = [f"{losses[place]:.1e}", f"{away[place]:.4f}", f"{moved[place]:.4f}"]
        rows.append([name, str(int(index)), agreement, *figures, reason])
    return rows


def _distances(first: Any, second: Any) -> np.ndarray:
    """Largest pixel difference of each image, in 1/255."""
    return 255 * np.abs(np.asarray(first) - np.asarray(second)).max(axis=(1, 2, 3))


def render(verdicts: list[list[str]], notes: list[str], paths: list[list[str]], seeds: int) -> str:
    """Everything between the page's markers."""
    software = cards.software()
    made = (
        f"Generated on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}; commit {software['commit'][:12]}, "
        f"jax {software['jax']}, {jax.devices()[0].device_kind}, float32. At least {CHANGES} draws of rounding."
    )
    images_that_differ = "\n".join(notes) if notes else "No image differs."
    header = ["network", "attack", "reference", "ours", "images that differ"]
    path_header = ["network", "image", "same verdict", "loss differs by", "best differs by", "moved by rounding", ""]
    parts = [
        made,
        f"Robust images of 200; ours for seeds 0 to {seeds - 1}.",
        f"```text\n{tables.align([header, *verdicts])}\n```",
        images_that_differ,
        f"```text\n{tables.align([path_header, *paths])}\n```",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
