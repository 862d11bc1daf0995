"""Agreement with the public PyTorch AutoAttack, image by image: writes the tables of docs/project/parity.md.

    python benchmarks/parity.py --data=DIR [--write=docs/project/parity.md] [--seeds=3] [--tables=verdicts,paths]

DIR/golden holds small robust networks, real CIFAR-10 test images and what fra31/auto-attack decided for each.
"""

import argparse
import dataclasses
import datetime
import sys
from collections.abc import Collection
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

# Draws of a change that moves logits as far as two implementations differ; more, up to the second number, while a point
# that differs is not explained. A point can be so near a tie that one draw in thirty decides it otherwise.
CHANGES, MOST_CHANGES = 8, 256
SAME = 1e-4  # in 1/255: points that are nearer than this are equal
EQUAL, REACHED, MOVED, UNEXPLAINED = "equal", "reached by rounding", "moved by rounding", "UNEXPLAINED"
PATH_HEADER = (
    "network",
    "image",
    "same verdict",
    "loss differs by",
    "best differs by",
    "rounding moves it by",
    "nearest draw",
    "explanation",
)
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
    parser.add_argument("--tables", type=lambda text: text.split(","), default=["verdicts", "paths"])
    given = parser.parse_args()
    cards.software()  # of the code as it is now, not as it may be edited by the end
    tables_of = {"verdicts": verdicts_table, "paths": paths_table}
    if unknown := set(given.tables) - set(tables_of):
        parser.error(f"unknown tables: {', '.join(sorted(unknown))}; there are {', '.join(tables_of)}")
    text = given.write.read_text()
    for table in given.tables:
        text = summary.inserted(text, f"{_made()}\n\n{tables_of[table](given)}", f"parity_{table}")
    given.write.write_text(text)
    print(given.write.read_text())


def verdicts_table(given: argparse.Namespace) -> str:
    """Verdicts of both implementations, and the images that differ."""
    rows, notes = [["network", "attack", "reference", "ours", "images that differ"]], []
    for name in golden.NAMES:
        more, found = compare_verdicts(name, *golden.load(given.data, name), given.seeds)
        rows += more
        notes += found
    differ = "\n".join(notes) if notes else "No image differs."
    title = f"Robust images of 200; ours for seeds 0 to {given.seeds - 1}."
    return f"{title}\n\n```text\n{tables.align(rows)}\n```\n\n{differ}"


def paths_table(given: argparse.Namespace) -> str:
    """The recorded paths of APGD-CE."""
    rows, drawn = [list(PATH_HEADER)], []
    for name in golden.NAMES:
        more, draws = compare_paths(name, *golden.load(given.data, name), (EQUAL, REACHED))
        rows += more
        drawn.append(f"{name} {draws}")
    return f"Draws of rounding: {', '.join(drawn)}.\n\n```text\n{tables.align(rows)}\n```"


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


def compare_paths(
    name: str, images: Any, labels: Any, logits_fn: Any, record: Any, enough: Collection[str]
) -> tuple[list[list[str]], int]:
    """Compares our APGD-CE with the recorded paths: the same start, 100 iterations, the best point.

    Args:
      name: of the network.
      images, labels, logits_fn, record: see `golden.load`.
      enough: of `EQUAL`, `REACHED`, `MOVED`: what ends the draws when it holds for every path.

    Returns:
      One row of `PATH_HEADER` for each path, and the number of draws.
    """
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

    ours, reference = path(0, 0.0), record["traj_best"]
    away = _distances(reference, ours.best)
    moved, nearest, draws, reasons = np.zeros_like(away), np.full_like(away, np.inf), 0, [UNEXPLAINED]
    while draws < CHANGES or (draws < MOST_CHANGES and not set(reasons) <= set(enough)):
        draws += 1
        drawn = path(draws, 1e-6).best
        moved = np.maximum(moved, _distances(drawn, ours.best))
        nearest = np.minimum(nearest, _distances(drawn, reference))
        reasons = list(map(explanation, away, moved, nearest))
    same = ~np.asarray(ours.claimed) == record["traj_robust"]
    losses = np.abs(np.asarray(ours.best_loss) - record["traj_best_loss"])
    rows = []
    for place, index in enumerate(places):
        agreement = "yes" if same[place] else "NO"
        figures = [f"{losses[place]:.1e}", *(f"{each[place]:.4f}" for each in (away, moved, nearest))]
        rows.append([name, str(int(index)), agreement, *figures, reasons[place]])
    return rows, draws


def explanation(away: float, moved: float, nearest: float) -> str:
    """Why a best point differs from the reference's, if it does.

    Args:
      away: its distance from the reference's, in 1/255.
      moved: largest distance between it and that of any draw.
      nearest: smallest distance between the reference's and that of any draw.

    Returns:
      `EQUAL`; `REACHED` where a draw gives the reference's point; `MOVED` where draws give other points, but not that
      one; `UNEXPLAINED` where no draw changes anything.
    """
    if away < SAME:
        return EQUAL
    return REACHED if nearest < SAME else MOVED if moved > SAME else UNEXPLAINED


def _distances(first: Any, second: Any) -> np.ndarray:
    """Largest pixel difference of each image, in 1/255."""
    return 255 * np.abs(np.asarray(first) - np.asarray(second)).max(axis=(1, 2, 3))


def _made() -> str:
    """Where a table comes from."""
    software = cards.software()
    commit, plus, changes = software["commit"].partition("+")
    return (
        f"Generated on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}; commit {commit[:12]}{plus}{changes}, "
        f"jax {software['jax']}, {jax.devices()[0].device_kind}, float32."
    )


if __name__ == "__main__":
    main()
