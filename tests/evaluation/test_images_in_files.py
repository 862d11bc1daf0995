"""Evaluations of images in files: the verdicts of the decoded images, in batches."""

import dataclasses
import io
import zipfile

import jax
import jax.numpy as jnp
import listed
import numpy as np
import pytest
from PIL import Image

import ltrobust as lt
from ltrobust.analysis import results
from ltrobust.data import sources, to_unit
from ltrobust.data.image_list import Lists
from ltrobust.data.images import FileImages, UnreadableImage
from ltrobust.evaluation import protocols, store
from ltrobust.evaluator import make_evaluator

BATCH = 16
LISTS = Lists(train="train.txt", test="test.txt")
SMALLEST = 64 * jax.device_count()  # images of a batch on CPU devices, at most, where fewer would do


@pytest.fixture(scope="module")
def test_split(tmp_path_factory):
    """320 files in 3 classes, and the folder that they lie in."""
    place = tmp_path_factory.mktemp("listed")
    lists = listed.write(place, train=[1, 1, 1], test=[180, 90, 50])
    return place, sources.load("image_list", "test", data_dir=place, image_size=6, lists=Lists(**lists))


def network(images):
    """Distances from colours that are not quite the classes'."""
    colours = jnp.array([30.0, 90.0, 150.0]) / 255
    weights = jnp.asarray(np.random.RandomState(0).randn(108, 3), jnp.float32)
    return -20 * jnp.abs(images.mean((1, 2, 3))[:, None] - colours) + images.reshape(len(images), -1) @ weights


def evaluate(split, images, **options):
    options = {
        "protocol": "validation",
        "threat": lt.Threat(radius=10),
        "progress": False,
        "batch_size": BATCH,
    } | options
    return lt.evaluate(network, images, split.labels, **options)


def check_equal(first: lt.Evaluation, second: lt.Evaluation) -> None:
    assert first.records.keys() == second.records.keys()
    for name, record in first.records.items():
        for field in record.dtype.names:  # in which NaN equals NaN
            np.testing.assert_array_equal(record[field], second.records[name][field])


def counted_reads(monkeypatch) -> list[int]:
    """How many images each access decodes, from now on."""
    read, decode = [], FileImages.__getitem__

    def counted(files, rows):
        read.append(len(np.unique(rows)))
        return decode(files, rows)

    monkeypatch.setattr(FileImages, "__getitem__", counted)
    return read


def test_verdicts_are_those_of_the_decoded_images_and_a_store_resumes(test_split, tmp_path, monkeypatch):
    _, split = test_split
    expected = evaluate(split, split.images[:])
    assert 0 < expected.robust.sum() < expected.clean.sum()
    read = counted_reads(monkeypatch)
    result = evaluate(split, split.images, store=tmp_path / "store")
    assert max(read) <= SMALLEST < len(split.images)
    # Once for the clean predictions, once for the network's probe, and once for the attack.
    assert sum(read) <= 3 * len(split.images)
    lines = (tmp_path / "store" / "verdicts.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "store" / "verdicts.jsonl").write_bytes(b"".join(lines[:50]))
    resumed = evaluate(split, split.images, store=tmp_path / "store")
    for other in (result, resumed):
        check_equal(other, expected)
    with pytest.raises(ValueError, match=r"images"):
        evaluate(split, split.images.subset(slice(None, None, -1)), store=tmp_path / "store")


def test_whole_contents_tell_stores_apart_where_all_files_were_read(test_split, tmp_path):
    place, split = test_split
    kinds = {
        check: sources.load("image_list", "test", data_dir=place, image_size=6, lists=LISTS, cache_check=check)
        for check in ("sample", "full")
    }
    evaluate(split, kinds["full"].images, store=tmp_path / "store")
    provenance = store.read_provenance(tmp_path / "store")
    # Bytes in the middle of a long file are not seen by a look at its ends.
    other = dataclasses.replace(kinds["full"].images, contents=("0" * 64, *kinds["full"].images.contents[1:]))
    with pytest.raises(ValueError, match=r"belongs to another evaluation.*\n  contents: "):
        evaluate(split, other, store=tmp_path / "store")
    assert not results.are_evaluated(other, provenance)
    for same in (kinds["full"].images, kinds["sample"].images):
        evaluate(split, same, store=tmp_path / "store")
        assert results.are_evaluated(same, provenance)
    evaluate(split, other, store=tmp_path / "other")
    evaluate(split, kinds["sample"].images, store=tmp_path / "sample")
    folders = {name: str(tmp_path / name) for name in ("store", "other", "sample")}
    with pytest.raises(ValueError, match=r"differ in contents; only"):
        results.read_alike([folders["store"], folders["other"]])
    assert len(results.read_alike([folders["store"], folders["sample"]])) == 2


def test_a_file_that_cannot_be_read_ends_it_with_its_name(test_split):
    place, split = test_split
    names = [name for name in split.names if name.endswith("jpg")][:2]
    before = {name: (place / name).read_bytes() for name in names}
    try:
        for name in names:
            listed.truncate(place / name)
        with pytest.raises(UnreadableImage, match=rf"^[12] of \d+ images? in .*: .*{names[0]} \("):
            evaluate(split, split.images)
    finally:
        for name, content in before.items():
            (place / name).write_bytes(content)


@pytest.mark.slow
def test_real_images_of_224_pixels_have_the_verdicts_of_the_decoded_images(shared_data, tmp_path):
    """Tiny-ImageNet's, enlarged as ImageNet's are on disk."""
    with zipfile.ZipFile(shared_data / "data" / "tiny-imagenet-200.zip") as archive:
        names = [name for name in archive.namelist() if "/train/" in name and name.endswith(".JPEG")][::130][:48]
        classes = sorted({name.split("/")[2] for name in names})
        lines: dict[str, list[str]] = {"train": [], "test": []}
        for number, name in enumerate(names):
            image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            file = f"{number:03d}.JPEG"
            image.resize((300, 230) if number % 2 else (240, 320)).save(tmp_path / file)
            lines["test"].append(f"{file} {classes.index(name.split('/')[2])}\n")
        for label in range(len(classes)):
            Image.new("RGB", (300, 250)).save(tmp_path / f"train{label}.png")
            lines["train"].append(f"train{label}.png {label}\n")
    for part, text in lines.items():
        (tmp_path / f"{part}.txt").write_text("".join(text))
    lists = Lists(train="train.txt", test="test.txt")
    split = sources.load("image_list", "test", data_dir=tmp_path, image_size=224, lists=lists)
    assert split.images.shape == (len(names), 224, 224, 3)

    def network(images):
        weights = jnp.asarray(np.random.RandomState(0).randn(192, len(classes)), jnp.float32)
        return images.reshape(-1, 8, 28, 8, 28, 3).mean((2, 4)).reshape(len(images), -1) @ weights

    labels = np.argmax(network(to_unit(split.images[:])), axis=1)
    # Two steps, and one device: on all of them most rows of a batch would be padding.
    attack = dataclasses.replace(protocols.PGD20, steps=2, step=1.0)
    evaluator = make_evaluator(
        lambda _, points: network(points),
        protocol=protocols.Protocol("short", (attack,)),
        threat=lt.Threat(radius=0.5),
        num_classes=len(classes),
        batch_size=32,
    )
    expected, result = (evaluator((), images, labels) for images in (split.images[:], split.images))
    assert 0 < expected.robust.sum() < len(names)
    check_equal(result, expected)
