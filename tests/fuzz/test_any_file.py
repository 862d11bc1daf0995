"""Files with bytes cut off or flipped anywhere: what is read is right, or a message comes."""

import io
import json
import pathlib
import tempfile

import numpy as np
from absl import logging
from budget import says, tries
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from ltrobust.data import cache, pack, sources
from ltrobust.evaluation import lines, store
from ltrobust.runtime import workdir
from ltrobust.training import records

VERDICTS = [
    lines.Line(
        attack="pgd20",
        image=number,
        label=3,
        prediction=number % 10,
        margin=number / 7,
        probability=0.5,
        confidence=0.5,
        norm=1e-3,
    )
    for number in range(12)
]
LINES = b"".join(lines.encode(line) for line in VERDICTS)
METRICS = [{"phase": phase, "epoch": epoch, "train": {"loss": epoch / 3}} for phase in "ab" for epoch in (1, 2, 3)]
METRIC_LINES = b"".join(json.dumps(record, sort_keys=True).encode() + b"\n" for record in METRICS)
CONFIG = ConfigDict({"seed": 0, "data": {"name": "digits", "imbalance_ratio": 10.0}, "student": {"drops": (0.5, 0.75)}})
ENTRY = cache.Entry(
    np.arange(48, dtype=np.uint8).reshape(4, 2, 2, 3), np.arange(4), ("a", "b", "c", "d"), "toy/1 test", "f" * 64
)
FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="ltrobust-tests-files-"))


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """The content, cut off, with bytes flipped, or with some left out."""
    for _ in range(draw(st.integers(1, 3))):
        if not content:
            break
        at = draw(st.integers(0, len(content) - 1))
        kind = draw(st.sampled_from(["cut", "flip", "drop", "noise"]))
        if kind == "cut":
            content = content[:at]
        elif kind == "flip":
            content = content[:at] + bytes([content[at] ^ draw(st.integers(1, 255))]) + content[at + 1 :]
        elif kind == "drop":
            content = content[:at] + content[at + draw(st.integers(1, 20)) :]
        else:
            content = content[:at] + draw(st.binary(max_size=20)) + content[at:]
    return content


def file(name: str, content: bytes) -> pathlib.Path:
    (FOLDER / name).write_bytes(content)
    return FOLDER / name


@tries(200)
@given(damaged(LINES))
def test_verdicts(content):
    result, broken, _ = lines.parse(io.BytesIO(content))
    assert set(result) <= {"pgd20"}
    for number, record in result.get("pgd20", {}).items():
        assert record == VERDICTS[number], "a damaged verdict was believed"
    written = [line for line in content.split(b"\n") if line]
    assert broken >= len(written) - len(VERDICTS)
    assert broken + len(result.get("pgd20", {})) <= len(written)


@tries(150)
@given(damaged(METRIC_LINES))
def test_metrics(content):
    path = file("metrics.jsonl", content)
    records.read(path)
    # A resumed run writes whole lines and begins on a new one, whatever was there before.
    records.end_line(path)
    with path.open("a") as lines:
        lines.write(json.dumps({"phase": "c", "epoch": 9, "train": {"loss": 0.5}}) + "\n")
    assert records.read(path)[-1] == {"phase": "c", "epoch": 9, "train": {"loss": 0.5}}
    assert path.read_bytes().startswith(content)
    whole = set(content.split(b"\n")) & set(METRIC_LINES.split(b"\n"))
    known = {(record["phase"], record["epoch"]) for record in records.read(path)}
    assert {(json.loads(line)["phase"], json.loads(line)["epoch"]) for line in whole if line} <= known


@tries(150)
@given(damaged(json.dumps(workdir.plain(CONFIG), indent=1).encode()))
def test_the_configuration_of_a_workdir(content):
    path = file("config.json", content)
    try:
        workdir.claim(FOLDER, workdir.plain(CONFIG))
    except ValueError as error:
        says(error, "is damaged", "another configuration", "is not the configuration of a run")
    else:
        assert json.loads(content) == workdir.plain(CONFIG)
    assert path.read_bytes() == content


@tries(100)
@given(damaged(json.dumps({"format": store.FORMAT, "seed": 0, "network": {"logits": [[1.0, 2.0]]}}).encode()))
def test_the_provenance_of_a_store(content):
    folder = FOLDER / "store"
    folder.mkdir(exist_ok=True)
    (folder / "provenance.json").write_bytes(content)
    try:
        store.Store(folder, {"seed": 0, "network": {"logits": [[1.0, 2.0]]}}).close()
    except ValueError as error:
        says(error, "is damaged", "another evaluation")
    assert (folder / "provenance.json").read_bytes() == content


PACK = FOLDER / "pack"
pack.write(PACK, name="digits", data_dir="", cache_dir="", imbalance_ratio=80)
PACKED = {split: sources.load("digits", split, data_dir=PACK) for split in sources.SPLITS}
PACK_FILES = {path.name: path.read_bytes() for path in sorted(PACK.iterdir())}


@tries(100)
@given(st.data(), st.sampled_from(sorted(PACK_FILES)), st.sampled_from(sources.SPLITS))
def test_a_pack(data, name, split):
    content = data.draw(damaged(PACK_FILES[name]))
    (PACK / name).write_bytes(content)
    try:
        result = sources.load("digits", split, data_dir=PACK)
    except ValueError as error:
        says(error, f"{PACK / name} is damaged", f"{PACK / name} (", "has format")
    else:
        np.testing.assert_array_equal(result.images, PACKED[split].images)
        np.testing.assert_array_equal(result.labels, PACKED[split].labels)
        assert result.class_names == PACKED[split].class_names
    finally:
        (PACK / name).write_bytes(PACK_FILES[name])


cache.write(FOLDER / "whole.npz", ENTRY)


@tries(100)
@given(damaged((FOLDER / "whole.npz").read_bytes()))
def test_the_cache(content):
    before = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
        result = cache.read(file("damaged.npz", content), ENTRY.fingerprint)
    finally:
        logging.set_verbosity(before)
    if result is not None:
        np.testing.assert_array_equal(result.images, ENTRY.images)
        np.testing.assert_array_equal(result.labels, ENTRY.labels)
        assert (result.class_names, result.source) == (ENTRY.class_names, ENTRY.source)
