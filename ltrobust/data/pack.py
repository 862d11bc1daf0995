"""Packs: one long-tailed training subset and the whole test set of a named data set, in few files without loss.

A pack is a folder with `pack.json` (`pack_manifest.py`), `arrays.npz` and WebP files. The arrays are `train_positions`,
the official positions of the training images, ascending, and `train_labels` and `test_labels` of the complete official
splits. Each WebP file (`mosaic.py`) has images of one split, in official order. Reading needs no TFDS or array_record.
"""

import io
import os
import pathlib
import secrets
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ltrobust.data import identity, longtail, mosaic, pack_manifest, sources
from ltrobust.data.pack_manifest import REMEDY, File, Manifest, Part, sha256
from ltrobust.runtime.terminal import Progress

ARRAYS = "arrays.npz"
_ARRAYS = ("train_positions", "train_labels", "test_labels")


def is_pack(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a `pack.json`; an empty path is no pack."""
    return bool(os.fspath(folder)) and os.path.isfile(os.path.join(os.path.expanduser(folder), pack_manifest.NAME))


def write(
    folder: str | os.PathLike[str],
    *,
    name: str,
    data_dir: str | os.PathLike[str],
    cache_dir: str | os.PathLike[str],
    imbalance_ratio: float,
    profile: str = "exp",
    seed: int = 0,
) -> pathlib.Path:
    """Writes a pack and reads it back. The same versions of Pillow, libwebp and zlib always write the same bytes.

    The files are written to a hidden folder beside `folder`, which gets its name at the end.

    Args:
      folder: must not exist, or be empty.
      name: one of `sources.NAMES`, except the user's own.
      data_dir, cache_dir: where the data set lies (`sources.load`); `data_dir` may be a pack.
      imbalance_ratio, profile, seed: the training images (`longtail.choose`).

    Returns:
      The folder, as an absolute path.

    Raises:
      ValueError: `folder` is not empty, `name` is the user's own, Pillow has no WebP; or see `sources.load` and
        `longtail.choose`.
      FileNotFoundError: see `sources.load`.
      OSError: `folder` cannot be written.
    """
    target = pathlib.Path(folder).expanduser().absolute()
    _check_free(target)
    codec = mosaic.codec()
    if name in sources.OWN:
        raise ValueError(f"data set is {name!r}, which cannot be packed. Copy the folder itself, or name a data set.")
    train, test = (sources.load(name, split, data_dir=data_dir, cache_dir=cache_dir) for split in sources.SPLITS)
    choice: Any = {"imbalance_ratio": float(imbalance_ratio), "profile": profile, "seed": seed}
    labels = train.official_labels
    chosen = longtail.choose(labels, **choice)
    positions = np.sort(chosen)
    images = train.images[train.rows_of(positions, longtail.describe_choice(**choice))]
    partial = target.with_name(f".{target.name}.partial-{secrets.token_hex(4)}")
    partial.mkdir(parents=True)
    try:
        arrays = dict(zip(_ARRAYS, (positions, labels, test.labels), strict=True))
        np.savez_compressed(partial / ARRAYS, **arrays)
        manifest = Manifest(
            name=name,
            class_names=train.class_names,
            image_shape=images.shape[1:],
            **choice,
            class_counts=tuple(longtail.count_classes(labels[chosen], train.num_classes).tolist()),
            fingerprints={
                "chosen": longtail.fingerprint(chosen),
                "train_labels": longtail.fingerprint(labels),
                "test_labels": longtail.fingerprint(test.labels),
            },
            arrays=File(ARRAYS, sha256((partial / ARRAYS).read_bytes())),
            train=_write_images(partial, train, images),
            test=_write_images(partial, test, test.images),
            codec=codec,
        )
        pack_manifest.write(partial, manifest)  # last: a folder without it is no pack
        for split in sources.SPLITS:
            # Read back while it has no name yet, so that every pack that has one can be read.
            read(partial, split, name=name)
        _check_free(target)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return target


def check(folder: str | os.PathLike[str]) -> Manifest:
    """Reads the manifest of a pack and checks the SHA-256 of all its files; decodes no image.

    Raises:
      ValueError: damaged files, or another format.
      FileNotFoundError: a file is missing.
    """
    folder = pathlib.Path(folder).expanduser()
    manifest = pack_manifest.read(folder)
    _read_files(folder, manifest)
    return manifest


def read(folder: str | os.PathLike[str], split: str, *, name: str) -> sources.Split:
    """One split of a pack. The checksums of all files are checked, also those of the other split.

    Args:
      folder: holds `pack.json`.
      split: `train` or `test`.
      name: the data set that is asked for.

    Returns:
      A complete test split, or the chosen images of the training split by ascending official position, with `held`.

    Raises:
      ValueError: a pack of another data set, a damaged file, another format, labels that are not the official ones,
        pixels that this Pillow decodes differently, or no WebP.
      FileNotFoundError: a file is missing.
    """
    folder = pathlib.Path(folder).expanduser()
    manifest = pack_manifest.read(folder)
    if name != manifest.name:
        raise ValueError(f"{folder} is a pack of {manifest.name}, not of {name}. Set data.name or data.dir to match.")
    codec = mosaic.codec()
    # Also those of the other split: now, rather than after hours of training.
    contents = _read_files(folder, manifest)
    arrays = _read_arrays(folder, contents[manifest.arrays.name], manifest)
    part: Part = getattr(manifest, split)
    images = np.empty((sum(file.images for file in part.files), *manifest.image_shape), np.uint8)
    try:
        with ThreadPoolExecutor() as pool:
            batches = np.split(images, np.cumsum([file.images for file in part.files])[:-1])
            list(pool.map(mosaic.decode, [contents[file.name] for file in part.files], batches))
        if sha256(images.data) != part.pixels_sha256:
            raise ValueError(f"{codec} decodes other pixels")
    except ValueError as error:
        raise ValueError(
            f"the {split} images in {folder} were packed by {manifest.codec}: {error}. Install those versions, or "
            "make the pack again."
        ) from error
    labels, held = arrays[f"{split}_labels"], None
    if split == "train":
        held = sources.Held(arrays["train_positions"], labels, longtail.describe_choice(**manifest.choice))
        labels = labels[held.positions]
    return sources.Split(name, split, images, labels, manifest.class_names, part.notes, claim=part.claim, held=held)


def _check_free(target: pathlib.Path) -> None:
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ValueError(f"{target} is not an empty folder, and nothing is overwritten. Give another folder.")


def _write_images(folder: pathlib.Path, source: sources.Split, images: np.ndarray) -> Part:
    """Writes images of a split, uint8 [N, H, W, C], into files `<split>-00.webp` and so on."""
    split = source.split
    size = mosaic.capacity(*images.shape[1:3])
    batches = [images[start : start + size] for start in range(0, len(images), size)]
    files = []
    # libwebp does not hold Python's lock.
    with ThreadPoolExecutor() as pool, Progress(f"packing {split}", len(images), "images") as progress:
        for number, (batch, content) in enumerate(zip(batches, pool.map(mosaic.encode, batches), strict=True)):
            file = File(f"{split}-{number:02d}.webp", sha256(content), len(batch))
            (folder / file.name).write_bytes(content)
            files.append(file)
            progress.update(len(batch))
    return Part(tuple(files), sha256(np.ascontiguousarray(images).data), source.notes, source.claim)


def _read_files(folder: pathlib.Path, manifest: Manifest) -> dict[str, bytes]:
    """The bytes of all files by name, if they have the SHA-256 in `pack.json`."""
    contents = {}
    for file in (manifest.arrays, *manifest.train.files, *manifest.test.files):
        path = folder / file.name
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise FileNotFoundError(f"{path} is missing. {REMEDY}") from None
        if sha256(content) != file.sha256:
            raise ValueError(f"{path} ({len(content):,} bytes) is damaged: its SHA-256 differs. {REMEDY}")
        contents[file.name] = content
    return contents


def _read_arrays(folder: pathlib.Path, content: bytes, manifest: Manifest) -> dict[str, np.ndarray]:
    """The arrays, if they are of the official data set and belong to the choice and to the images."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in _ARRAYS}
    images = {}
    for split in sources.SPLITS:
        images[split] = sum(file.images for file in getattr(manifest, split).files)
        result = longtail.fingerprint(arrays[f"{split}_labels"])
        expected = identity.LABELS.get((manifest.name, split), manifest.fingerprints[f"{split}_labels"])
        if result != expected:
            raise ValueError(
                f"{folder} is not of the official {manifest.name}: its {split} labels have SHA-256 {result}, the "
                f"official ones {expected}. {REMEDY}"
            )
    labels = arrays["train_labels"]
    chosen = longtail.choose(labels, **manifest.choice)
    counts = longtail.count_classes(labels[chosen], len(manifest.class_names))
    if (
        longtail.fingerprint(chosen) != manifest.fingerprints["chosen"]
        or not np.array_equal(np.sort(chosen), arrays["train_positions"])
        or tuple(counts.tolist()) != manifest.class_counts
        or images != {"train": len(chosen), "test": len(arrays["test_labels"])}
    ):
        raise ValueError(f"{folder}: its labels, positions and images do not fit together. {REMEDY}")
    return arrays
