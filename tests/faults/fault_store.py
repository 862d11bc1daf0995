"""Faults of a verdict store."""

import dataclasses
import functools
import json

import jax
import numpy as np
from injection import TINY, Place, Reported, fault, raised
from linear import apply, fixture

import ltrobust
from ltrobust.analysis import compare_runs
from ltrobust.evaluation import protocols, store, verdict
from ltrobust.evaluator import make_evaluator
from ltrobust.runtime.files import hold

BUSY = ("wait for it", "another folder")  # what to do about another process
ROWS = np.arange(0, 1000, 25)
SHORT = protocols.Protocol("short", (protocols.PGD20,))
_PROGRAMS = make_evaluator(apply, protocol=SHORT, threat=ltrobust.Threat(), num_classes=10, batch_size=64)


def run(folder, factor: float = 1.0):
    """PGD-20 on 40 images of the linear network, times a factor."""
    weights, images, labels = fixture()
    return _PROGRAMS(weights * np.float32(factor), images[ROWS], labels[ROWS], ids=ROWS, store=folder)


def goes_on(place: Place, damage) -> Reported:
    """Evaluates again after `damage(bytes of verdicts.jsonl)`, and compares the verdicts."""
    folder = place.folder / "store"
    first = run(folder)
    file = folder / "verdicts.jsonl"
    file.write_bytes(damage(file.read_bytes()))
    before = file.read_bytes()
    second = run(folder)
    assert file.read_bytes().startswith(before)
    for column, predictions in first.predictions.items():
        np.testing.assert_array_equal(predictions, second.predictions[column])
    opened = store.Store(folder, store.read(folder)[0])
    opened.close()
    return Reported("those images are attacked again: the same verdicts", opened.notes[0])


@fault(
    "verdict store cut off",
    "in the middle of a record",
    value=("DIR/store/verdicts.jsonl", "1 incomplete or damaged"),
    remedy="attacked again",
)
def cut(place: Place) -> Reported:
    return goes_on(place, lambda content: content[: content.rindex(b"\n", 0, -2) + 30])


@fault(
    "verdict changed by a damaged disk",
    "another digit in one `prediction`",
    value=("DIR/store/verdicts.jsonl", "1 incomplete or damaged"),
    remedy="attacked again",
)
def flipped(place: Place) -> Reported:
    def damage(content: bytes) -> bytes:
        at = content.rindex(b'"prediction":') + len(b'"prediction":')
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    return goes_on(place, damage)


@fault(
    "verdict store of another network",
    "weights 1 % larger",
    value=("DIR/store", "network.logits", "8.614", "8.7"),
    remedy="another folder",
)
def another_network(place: Place) -> Reported:
    run(place.folder / "store")
    return place.raised(ValueError, lambda: run(place.folder / "store", 1.01))


@fault(
    "verdict store of a network with the same answers",
    "its gradients are another network's",
    value=("DIR/store", "network.gradients", "-> [0, 0", "network.gradient_norms", "-> [0"),
    remedy="another folder",
)
def other_gradients(place: Place) -> Reported:
    weights, images, labels = fixture()
    settings = {"protocol": SHORT, "threat": ltrobust.Threat(), "num_classes": 10, "batch_size": 64}
    for gradients in (1.0, 0.0):
        network = lambda weights, images, gradients=gradients: (  # noqa: E731
            gradients * apply(weights, images) + (1 - gradients) * jax.lax.stop_gradient(apply(weights, images))
        )
        call = functools.partial(make_evaluator(network, **settings), weights, images[ROWS], labels[ROWS])
        if gradients:
            call(store=place.folder / "store")
    return place.raised(ValueError, lambda: call(store=place.folder / "store"))


@fault(
    "verdict store of a network with another answer",
    "one clean prediction in it is another class",
    value=("DIR/store", "1 of 40", "image 0", "class 7", "class 0"),
    remedy="another folder",
)
def other_answer(place: Place) -> Reported:
    run(place.folder / "store")
    opened = store.Store(place.folder / "store", store.read(place.folder / "store")[0])
    line = opened.verdicts("clean")[0]
    other = np.array([verdict.row(dataclasses.replace(line, prediction=7))], verdict.DTYPE)
    file = place.folder / "store" / "verdicts.jsonl"
    file.write_bytes(file.read_bytes().split(b"\n", 1)[1])
    opened.append("clean", [line.image], [line.label], other)
    opened.close()
    return place.raised(ValueError, lambda: run(place.folder / "store"))


@fault(
    "JAX draws otherwise",
    "`JAX_DEFAULT_PRNG_IMPL=rbg`",
    value=("setting jax_default_prng_impl", "'rbg'"),
    allowed="'threefry2x32'",
    remedy=("JAX_DEFAULT_PRNG_IMPL", "jax.config.update"),
)
def other_generator(place: Place) -> Reported:
    with jax.default_prng_impl("rbg"):
        return raised(
            ValueError,
            lambda: make_evaluator(apply, protocol=SHORT, threat=ltrobust.Threat(), num_classes=10, batch_size=64),
        )


@fault(
    "verdict store whose provenance is damaged",
    "cut in the middle",
    value=("DIR/store/provenance.json", "damaged"),
    remedy=("copy of it", "another folder"),
)
def provenance_damaged(place: Place) -> Reported:
    run(place.folder / "store")
    file = place.folder / "store" / "provenance.json"
    file.write_bytes(file.read_bytes()[:200])
    return place.raised(ValueError, lambda: run(place.folder / "store"))


@fault(
    "verdict store of another version",
    "`format` 1 in its provenance",
    value=("DIR/store", "format 1"),
    allowed="reads 5",
    remedy=("evaluate again", "version that wrote it"),
)
def older_store(place: Place) -> Reported:
    run(place.folder / "store")
    file = place.folder / "store" / "provenance.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 1}))
    stores = [str(place.folder / name) for name in ("store", "other")]
    return place.raised(ValueError, lambda: compare_runs.compare_all(stores))


@fault(
    "second writer on a verdict store",
    "another holder of the folder's lock",
    value=("DIR/store", "process N on HOST"),
    remedy=BUSY,
)
def second_writer(place: Place) -> Reported:
    run(place.folder / "store")
    with hold(place.folder / "store"):
        return place.raised(ValueError, lambda: run(place.folder / "store"))


@fault(
    "folder that is no verdict store",
    "a folder with another file in it",
    value=("DIR/store", "neither empty nor a verdict store"),
    remedy="another folder",
)
def no_store(place: Place) -> Reported:
    (place.folder / "store").mkdir()
    (place.folder / "store" / "thesis.txt").write_text("years of work")
    reported = place.raised(ValueError, lambda: run(place.folder / "store"))
    assert (place.folder / "store" / "thesis.txt").read_text() == "years of work"
    return reported


@fault(
    "verdict store that cannot be written",
    "its folder lies under a file",
    value=("verdict store DIR/file/store", "Not a directory"),
    remedy="another folder",
)
def read_only_store(place: Place) -> Reported:
    (place.folder / "file").write_text("")
    return place.raised(ValueError, lambda: run(place.folder / "file" / "store"))


@fault(
    "second writer on the verdicts of a run",
    "`--mode=evaluate` while another process evaluates the same network",
    value=("DIR/run/verdicts/STORE", "process N on HOST"),
    remedy=BUSY,
)
def second_evaluation(place: Place) -> Reported:
    workdir = place.finished()
    folder = next((workdir / "verdicts").glob("validation-student-last-*"))
    with hold(folder):
        reported = place.refused(*TINY, "--mode=evaluate", workdir=workdir)
    return Reported(reported.happens, reported.message.replace(folder.name, "STORE"))
