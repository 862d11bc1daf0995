"""Tiny-ImageNet: official layout, archive or folder, partial copies, refusals that say why."""

import io
import pathlib
import warnings
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from prepared import prepare

from ltrobust.data import sources, tiny_imagenet

CLASSES = ("n03", "n01", "n02")
TRAIN_IMAGES = 3
VAL_IMAGES = 2


def jpeg(grey: int, *, mode: str = "RGB", size: tuple[int, int] = (64, 64), kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, grey if mode == "L" else (grey, grey, grey)).save(file, kind)
    return file.getvalue()


def miniature() -> dict[str, bytes]:
    """Path -> content of a small official layout: 3 classes, unsorted; grey values tell the images apart."""
    files = {"wnids.txt": "\n".join(CLASSES).encode()}
    lines = []
    for position, class_id in enumerate(CLASSES):
        for number in range(TRAIN_IMAGES):
            path = f"train/{class_id}/images/{class_id}_{number}.JPEG"
            files[path] = jpeg(50 * position + 10 * number, mode="L" if number == 1 else "RGB")
        files[f"train/{class_id}/{class_id}_boxes.txt"] = b""
        for number in range(VAL_IMAGES):
            name = f"val_{len(lines)}.JPEG"
            files[f"val/images/{name}"] = jpeg(200 + 10 * position + number)
            lines.append(f"{name}\t{class_id}\t0\t0\t63\t63")
    # The official lists interleave classes; so does this one.
    files["val/val_annotations.txt"] = "\n".join(lines[::2] + lines[1::2]).encode()
    files["test/images/test_0.JPEG"] = jpeg(0)
    return files


def write_folder(files: dict[str, bytes], place: pathlib.Path) -> None:
    for path, content in files.items():
        target = place / tiny_imagenet.FOLDER / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def write_archive(files: dict[str, bytes], place: pathlib.Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(place / tiny_imagenet.ARCHIVE, "w") as archive:
        for path, content in files.items():
            archive.writestr(f"{tiny_imagenet.FOLDER}/{path}", content)


def load(split, data_dir: pathlib.Path, cache_dir: pathlib.Path | str = "") -> sources.Split:
    """Loads without the warning about the partial copy, which a separate test covers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*partial copy", category=UserWarning)
        return sources.load("tiny_imagenet", split, data_dir=data_dir, cache_dir=cache_dir)


@pytest.mark.parametrize("write", [write_archive, write_folder])
@pytest.mark.parametrize("place", ["downloads/manual", "."])
def test_archive_and_folder_are_read_in_official_order(tmp_path, write, place):
    write(miniature(), tmp_path / place)
    train = load("train", tmp_path)
    assert train.images.shape == (9, 64, 64, 3)
    assert train.class_names == ("n01", "n02", "n03")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    greys = train.images[:, 0, 0, 0].tolist()
    assert greys == pytest.approx([50, 60, 70, 100, 110, 120, 0, 10, 20], abs=2)
    np.testing.assert_array_equal(train.images[..., 0], train.images[..., 2])


def test_the_official_val_is_the_test_split(tmp_path):
    write_archive(miniature(), tmp_path)
    test = load("test", tmp_path)
    assert test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert test.images[:, 0, 0, 0].tolist() == pytest.approx([210, 211, 220, 221, 200, 201], abs=2)


def test_a_class_is_ordered_by_file_name(tmp_path):
    files = miniature()
    files["train/n01/images/n01_10.JPEG"] = jpeg(250)
    write_archive(files, tmp_path)
    greys = load("train", tmp_path).images[:4, 0, 0, 0].tolist()
    assert greys == pytest.approx([50, 60, 250, 70], abs=2)


def test_a_partial_copy_warns_with_its_counts(tmp_path):
    write_archive(miniature(), tmp_path)
    note = ("partial copy: 9 of 100,000 train images, 3 to 3 per class (official 500), 3 of 200 classes",)
    for _ in range(2):  # Also from the cache.
        with pytest.warns(UserWarning, match="partial copy: 9 of 100,000 train images"):
            train = sources.load("tiny_imagenet", "train", data_dir=tmp_path, cache_dir=tmp_path / "cache")
        assert train.notes == note


def test_records_of_earlier_versions_need_no_archive(tmp_path):
    """They lie in `data_dir`, where an earlier version of this project wrote them."""
    files = miniature()
    write_archive(files, tmp_path / "archive")
    first = load("test", tmp_path / "archive")
    lines = files["val/val_annotations.txt"].decode().splitlines()
    names = {line.split("\t")[0]: line.split("\t")[1] for line in lines}
    features = {
        "image": tfds.features.Image(shape=(64, 64, 3), encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=sorted(CLASSES)),
        "id": tfds.features.Text(),
    }
    examples = [
        {"image": files[f"val/images/{name}"], "label": label, "id": f"{label}/{name}"} for name, label in names.items()
    ]
    prepare("tiny_imagenet", features, examples, tmp_path / "records", "array_record", version="1.0.0")
    second = load("test", tmp_path / "records")
    np.testing.assert_array_equal(second.images, first.images)
    np.testing.assert_array_equal(second.labels, first.labels)
    assert second.class_names == first.class_names


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("write", [write_archive, write_folder])
def test_nothing_is_written_into_data_dir(tmp_path, write, cached):
    data_dir = tmp_path / "data"
    write(miniature(), data_dir)
    before = sorted(data_dir.rglob("*"))
    for split in sources.SPLITS:
        load(split, data_dir, tmp_path / "cache" if cached else "")
    assert sorted(data_dir.rglob("*")) == before
    names = [path.name for path in sorted((tmp_path / "cache").glob("*"))]
    assert [name.rpartition("-")[0] for name in names] == ["tiny_imagenet-archive-test", "tiny_imagenet-archive-train"][
        : 2 * cached
    ]


def test_entries_of_the_cache_belong_to_one_archive(tmp_path):
    data_dir, cache_dir = tmp_path / "data", tmp_path / "cache"
    for extra in (0, 1):
        files = miniature()
        files.update({f"train/n01/images/n01_extra{extra}.JPEG": jpeg(9) for extra in range(extra)})
        if data_dir.exists():
            data_dir.chmod(0o755)
        write_archive(files, data_dir)
        data_dir.chmod(0o555)
        assert len(load("train", data_dir, cache_dir).labels) == 9 + extra
    data_dir.chmod(0o755)


def without(path: str) -> dict[str, bytes]:
    return {name: content for name, content in miniature().items() if not name.startswith(path)}


def annotated(line: str) -> dict[str, bytes]:
    files = miniature()
    files["val/val_annotations.txt"] += f"\n{line}".encode()
    return files


BAD_LAYOUTS = {
    "no class list": (without("wnids.txt"), "wnids.txt is missing"),
    "empty class list": ({**miniature(), "wnids.txt": b""}, "wnids.txt is empty"),
    "class twice": ({**miniature(), "wnids.txt": b"n01 n01 n02 n03"}, "names a class twice"),
    "no class folder": (without("train/n02"), "train/n02/images has no JPEG"),
    "unlisted class": ({**miniature(), "train/n09/images/n09_0.JPEG": jpeg(0)}, "train/n09 is a class"),
    "no annotations": (without("val/val_annotations.txt"), "val/val_annotations.txt is missing"),
    "unknown label": (
        annotated("val_9.JPEG\tn77\t0\t0\t1\t1"),
        "line 7 of val/val_annotations.txt gives 'n77'",
    ),
    "no tab": (annotated("val_9.JPEG n01"), "line 7 of val/val_annotations.txt gives ''"),
    "image absent": (without("val/images/val_3"), "val/images/val_3.JPEG is not both"),
    "image unlisted": (
        {**miniature(), "val/images/val_8.JPEG": jpeg(0)},
        "val/images/val_8.JPEG is not both",
    ),
    "wrong size": (
        {**miniature(), "train/n01/images/n01_0.JPEG": jpeg(0, size=(64, 32))},
        "n01_0.JPEG is a JPEG of 64x32 pixels, not a JPEG of 64x64",
    ),
    "png": (
        {**miniature(), "train/n01/images/n01_0.JPEG": jpeg(0, kind="PNG")},
        "n01_0.JPEG is a PNG of 64x64 pixels",
    ),
    "no val images": ({**without("val/images"), "val/val_annotations.txt": b""}, "val/val_annotations.txt is empty"),
    "image cut off": (
        {**miniature(), "train/n01/images/n01_0.JPEG": jpeg(0)[:-20]},
        r"n01_0.JPEG is damaged \(.*truncated",
    ),
    "no image": ({**miniature(), "val/images/val_0.JPEG": b"text"}, r"val_0.JPEG is not an image \(4 bytes\)"),
}


@pytest.mark.parametrize("case", BAD_LAYOUTS)
def test_a_wrong_layout_names_the_file_and_what_is_expected(tmp_path, case):
    files, message = BAD_LAYOUTS[case]
    write_archive(files, tmp_path)
    with pytest.raises(ValueError, match=f"{tiny_imagenet.ARCHIVE} does not have.*{message}.*Expected.*Get"):
        load("train", tmp_path)
    assert not list(tmp_path.glob("tiny_imagenet/1.0.0"))


def test_a_wrong_folder_is_named_too(tmp_path):
    write_folder(without("wnids.txt"), tmp_path)
    with pytest.raises(ValueError, match=f"{tiny_imagenet.FOLDER} does not have.*wnids.txt is missing"):
        load("train", tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_archive_is_refused(tmp_path, share):
    write_archive(miniature(), tmp_path)
    path = tmp_path / tiny_imagenet.ARCHIVE
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    problem = "is no complete zip archive" if share else "is an empty file"
    with pytest.raises(ValueError, match=f"{tiny_imagenet.ARCHIVE} {problem}.*MD5"):
        load("train", tmp_path)


def test_a_flipped_byte_in_an_archived_image_is_noticed(tmp_path):
    files = miniature()
    write_archive(files, tmp_path)
    path = tmp_path / tiny_imagenet.ARCHIVE
    image = files["train/n02/images/n02_2.JPEG"]
    damaged = image[:-10] + bytes([image[-10] ^ 1]) + image[-9:]
    path.write_bytes(path.read_bytes().replace(image, damaged))
    with pytest.raises(ValueError, match=r"is no complete zip archive.*CRC.*n02_2.JPEG"):
        load("train", tmp_path)


def test_nothing_there_says_what_to_put_where(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither archive nor prepared records of tiny_imagenet") as raised:
        load("train", tmp_path)
    assert "http://cs231n.stanford.edu/tiny-imagenet-200.zip" in str(raised.value)
    assert str(raised.value).endswith(f"put it into {tmp_path} as it is; see ltrobust data tiny_imagenet.")


@pytest.mark.slow
def test_the_real_sample_has_its_documented_counts(shared_data, tmp_path):
    (tmp_path / tiny_imagenet.ARCHIVE).symlink_to(shared_data / "data" / tiny_imagenet.ARCHIVE)
    train = load("train", tmp_path, tmp_path / "cache")
    counts = np.bincount(train.labels).tolist()
    assert counts == [int(100 * 0.1 ** (position / 199)) for position in range(200)]
    assert train.images.shape == (7741, 64, 64, 3)
    assert list(train.class_names) == sorted(train.class_names)
    test = load("test", tmp_path, tmp_path / "cache")
    assert np.bincount(test.labels).tolist() == [10] * 200
    assert test.class_names == train.class_names
    # Real photographs, not padding: pixels of every image vary.
    assert (train.images.reshape(7741, -1).std(axis=1) > 1).all()
