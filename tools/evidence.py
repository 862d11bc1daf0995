"""Final weights and verdicts of headline networks, kept in `results/evidence/` so that others can attack them.

    python -m tools.evidence results/evidence/controls_digits/at_bsl-seed0 [--data_dir=DIR] [--limit=N]
    python -m tools.evidence --keep=DIR [--without_weights] results/evidence/controls_digits/at_bsl-seed0

The first evaluates the weights again as their card says (`results/sweeps/controls_digits/at_bsl-seed0.json`), compares
every prediction with the kept ones, and prints how many differ; on the same platform and versions none should. The
second keeps those of a finished run. A folder holds `weights.safetensors`, arrays by their names in the network, and
`predictions.csv`: of each test image its position, its label, and the prediction that counts in each column. Controls
are kept without weights: their predictions give differences from other networks the error of the verdicts.
"""

import argparse
import csv
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from ltrobust import recipes
from ltrobust import run as runs
from ltrobust.analysis import cards
from ltrobust.analysis.schema.card import Card
from ltrobust.data.run_data import first_of_each_class
from ltrobust.evaluation import store
from ltrobust.methods import decision_rule
from ltrobust.models import torch_files
from ltrobust.plan import make_method, make_plan
from ltrobust.training import devices, networks, teachers
from ltrobust.training.networks import Network
from ltrobust.training.state import Weights
from tools.evidence_files import COLUMNS, NETWORK, PARTS, PREDICTIONS, WEIGHTS, card_of, parsed, read_predictions


def keep(run: Path, folder: Path, *, with_weights: bool = True) -> None:
    """Writes the last weights of a finished run's student and its predictions into a new folder.

    Args:
      run: workdir.
      folder: `results/evidence/SWEEP/CELL`, which is not there yet.
      with_weights: or the predictions alone.

    Raises:
      ValueError: the run is not that of the card, or its verdicts are not those that the card was made from.
    """
    card = cards.read(card_of(folder))
    result = card.networks[NETWORK]
    assert result.verdicts is not None
    found = teachers.from_checkpoints(
        str(run), "last", num_classes=len(card.data.class_counts), image_shape=tuple(card.data.image_shape or ())
    ).teacher
    weights = Weights(found.params, found.batch_stats)
    _check(weights, card, run)
    provenance, verdicts = store.read(run / result.verdicts.folder, result.verdicts.sha256)
    folder.mkdir(parents=True)
    if with_weights:
        flat = traverse_util.flatten_dict({part: getattr(weights, part) for part in PARTS}, sep=".")
        torch_files.write(folder / WEIGHTS, {name: np.asarray(array) for name, array in flat.items()})
    (folder / PREDICTIONS).write_text(_table(provenance, verdicts))


def _check(weights: Weights, card: Card, source: Path) -> None:
    """Refuses weights that are not the card's."""
    result, found = card.networks[NETWORK], networks.fingerprints_of(weights)
    if found != {part: getattr(result, part) for part in found}:
        raise ValueError(f"{source} holds other weights than the card is of; give the run that wrote the card.")


def _table(provenance: Any, verdicts: Any) -> str:
    """The content of `predictions.csv`, from a store. Its images are in the order of their positions."""
    ids, labels, _ = store.final(provenance, verdicts, "clean")
    predictions = [store.final(provenance, verdicts, column)[2] for column in COLUMNS]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "label", *COLUMNS])
    writer.writerows(np.stack([ids, labels, *predictions], axis=1).tolist())
    return text.getvalue()


def configuration(card: Card, data_dir: str) -> Any:
    """The configuration of a card, with the folder of the data, which cards do not have."""
    config: Any = recipes.load("default")
    settings = {key: value for key, value in card.config.items() if key not in ("teachers", "eval")}
    plain: Any = ConfigDict({**config.to_dict(), **settings})
    plain.data = {**config.data.to_dict(), **card.config["data"], "dir": data_dir}
    kept = {key: card.config["eval"][key] for key in ("limit", "batch_size", "seed")}
    plain.eval = {**config.eval.to_dict(), **kept, "protocol": card.protocol.name}
    plain.checkpoint = config.checkpoint
    return plain


def evaluate(folder: Path, out: Path, *, data_dir: str = "", limit: int | None = None) -> dict[str, int]:
    """Column -> test images whose prediction differs from the kept one, after the same evaluation as the card's.

    Args:
      folder: of `keep`.
      out: of the verdicts; the same call resumes.
      data_dir: of the data set.
      limit: test images of each class; None for as many as the card has.

    Raises:
      ValueError: the folder has no weights, or others than the card's, or the data are not those of the card.
    """
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder} holds predictions alone; only networks whose {WEIGHTS} are kept can be evaluated.")
    card = cards.read(card_of(folder))
    config = configuration(card, data_dir)
    config.eval.limit = config.eval.limit if limit is None else limit
    plan = make_plan(config, out, training=False)
    data = runs.load_run_data(plan.data)
    method = make_method(card.config, "student")
    nested: Any = traverse_util.unflatten_dict(torch_files.read(folder / WEIGHTS), sep=".")
    weights = Weights(*(nested.get(part, {}) for part in PARTS))
    _check(weights, card, folder)
    mesh = devices.make_mesh()
    network = Network(devices.replicate(weights, mesh), method.head, decision_rule(method, data.class_counts))
    test = plan.data.open("test")
    if test.fingerprint != card.data.test_images_sha256:
        raise ValueError(f"the test images are not those of {card_of(folder)}; name their folder by --data_dir.")
    ids = first_of_each_class(test.labels, plan.evaluation.limit)
    result = networks.evaluate(plan, data, {NETWORK: network}, test, ids, mesh)[NETWORK]
    assert result.verdicts is not None
    again = parsed(_table(*store.read(out / result.verdicts.folder)), "the new evaluation")
    kept = read_predictions(folder / PREDICTIONS)
    same = np.isin(kept["image"], again["image"])
    return {column: int(np.sum(kept[column][same] != again[column])) for column in COLUMNS}


def main(words: list[str]) -> int:
    """Keeps, or evaluates again; returns the exit status, 1 where a prediction differs."""
    parser = argparse.ArgumentParser(
        "tools.evidence", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="workdir of the run to keep")
    parser.add_argument("--without_weights", action="store_true", help="keep predictions alone")
    parser.add_argument("--data_dir", default="", metavar="DIR", help="of the data set")
    parser.add_argument("--limit", type=int, metavar="N", help="test images of each class; default: the card's")
    parser.add_argument("--out", type=Path, metavar="DIR", help="of the new verdicts; default: a temporary folder")
    given = parser.parse_args(words)
    folder = given.folder.resolve()
    if given.keep:
        keep(given.keep, folder, with_weights=not given.without_weights)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        result = evaluate(folder, given.out or Path(temporary), data_dir=given.data_dir, limit=given.limit)
    for column, number in result.items():
        print(f"{column}: {number} predictions differ")
    return 1 if any(result.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
