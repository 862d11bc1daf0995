"""Evaluations of images in files: the verdicts of the decoded images, in batches."""

import jax.numpy as jnp
import listed
import numpy as np
import pytest

import ltrobust as lt
from ltrobust.data import sources
from ltrobust.data.image_list import Lists
from ltrobust.data.images import FileImages, UnreadableImage

BATCH = 16


@pytest.fixture(scope="module")
def test_split(tmp_path_factory):
    """40 files in 3 classes, and the folder that they lie in."""
    place = tmp_path_factory.mktemp("listed")
    lists = listed.write(place, train=[1, 1, 1], test=[20, 12, 8])
    return place, sources.load("image_list", "test", data_dir=place, image_size=6, lists=Lists(**lists))


def network(images):
    """Distances from the classes' colours, moved by some of the pixels."""
    colours = jnp.array([30.0, 90.0, 150.0]) / 255
    weights = jnp.asarray(np.random.RandomState(0).randn(108, 3), jnp.float32)
    return -20 * jnp.abs(images.mean((1, 2, 3))[:, None] - colours) + images.reshape(len(images), -1) @ weights / 20


def evaluate(split, images, **options):
    options = {
        "protocol": "validation",
        "threat": lt.Threat(radius=4),
        "progress": False,
        "batch_size": BATCH,
    } | options
    return lt.evaluate(network, images, split.labels, **options)


def test_verdicts_are_those_of_the_decoded_images_and_a_store_resumes(test_split, tmp_path, monkeypatch):
    _, split = test_split
    expected = evaluate(split, split.images[:])
    assert 0 < expected.robust.sum() < expected.clean.sum() < 40
    read, decode = [], FileImages.__getitem__

    def counted(files, rows):
        read.append(np.unique(rows))
        return decode(files, rows)

    monkeypatch.setattr(FileImages, "__getitem__", counted)
    result = evaluate(split, split.images, store=tmp_path / "store")
    assert max(map(len, read)) <= 64  # the smallest batch of a CPU
    lines = (tmp_path / "store" / "verdicts.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "store" / "verdicts.jsonl").write_bytes(b"".join(lines[:50]))
    resumed = evaluate(split, split.images, store=tmp_path / "store")
    for other in (result, resumed):
        assert other.records.keys() == expected.records.keys()
        for name, record in expected.records.items():
            np.testing.assert_array_equal(other.records[name], record)
    with pytest.raises(ValueError, match=r"images"):
        evaluate(split, split.images.subset(slice(None, None, -1)), store=tmp_path / "store")


def test_a_file_that_cannot_be_read_ends_it_with_its_name(test_split):
    place, split = test_split
    names = [name for name in split.names if name.endswith("jpg")][:2]
    before = {name: (place / name).read_bytes() for name in names}
    try:
        for name in names:
            listed.truncate(place / name)
        with pytest.raises(UnreadableImage, match=rf"^[12] of \d+ images? in .*: .*{names[0]} \\("):
            evaluate(split, split.images)
    finally:
        for name, content in before.items():
            (place / name).write_bytes(content)
