"""Finds images that two parts of a data set share: exact copies, and near-duplicates by a perceptual hash.

A near-duplicate is the same picture encoded, scaled, brightened or disturbed a little. Shifted, cropped, mirrored and
recoloured copies are not found. Two images count as near-duplicates only if their hashes differ in at most `BITS` of 63
bits and their pixels correlate by at least `CORRELATION`. Both were set on CIFAR-10 and digits: of
CIFAR-10's images more than 90 % are found again after JPEG at quality 75, scaling to 28x28 and back, 10 % more
brightness, or noise of 4/255. Images in files are not decoded for it: copies are found among files that were all read.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ltrobust.data.images import FileImages, Images
from ltrobust.runtime.typed_json import Count

BITS = 4
CORRELATION = 0.97
# Standard deviation of grey, in 1/255, below which an image has too little in it to be recognised: exact copies only.
CONTRAST = 4.0
# How many pairs are named.
NAMED = 20
# At a time: pixels as float32, pairs whose pixels are compared, and rows of the table of hash distances.
_PIXELS, _CHUNK, _ROWS = 1 << 24, 2000, 64
# Of images with nearly the same hash, as many are looked at: where a thousand look alike, 20 are enough to find one.
CANDIDATES = 20


class Pairs(NamedTuple):
    """Images of one part that are in another: positions int64 [K] in `first` and `second`, ascending in `second`.

    `exact` bool [K] tells copies from near-duplicates. Each image of `second` occurs once, with its closest partner.
    """

    first: np.ndarray
    second: np.ndarray
    exact: np.ndarray


@dataclasses.dataclass(frozen=True)
class SharedImages:
    """Images of one part that are also in another part.

    Attributes:
      part, other: names of the two, such as `test` and `training`.
      exact, near: how many images of `part` are copies, and near-duplicates, of one of `other`.
      other_label: how many of both have another label there.
      named: the first pairs, copies first: name, name in `other`, and `exact` or `near`.
    """

    part: str
    other: str
    exact: Count
    near: Count
    other_label: Count
    named: Sequence[tuple[str, str, str]]


@dataclasses.dataclass(frozen=True)
class Overlap:
    """Images that the parts of a data set share.

    Attributes:
      images: part -> number of images.
      pairs: one entry for every two parts.
      repeated: images of the last part that are copies of others in it.
      warnings, remarks: sentences, on what spoils a result and on what does not.
    """

    images: Mapping[str, Count]
    pairs: Sequence[SharedImages]
    repeated: Count
    warnings: Sequence[str]
    remarks: Sequence[str]


class _Part(NamedTuple):
    """Images uint8 [N, H, W, C] with what is compared of them: digests [N]; `codes` and `contrast` of `hashes`, [N]."""

    images: Images
    digests: Sequence[Any]
    codes: np.ndarray
    contrast: np.ndarray


def find(first: np.ndarray, second: np.ndarray) -> Pairs:
    """Pairs of images of `second` that are in `first`. About 2.5 ns for each pair of images, on one core.

    Args:
      first, second: uint8 [N, H, W, C] and [M, H, W, C].
    """
    return _find(_prepare(first), _prepare(second))


def _prepare(images: Images) -> _Part:
    """Digests and hashes of a part, once for all of its comparisons. Those of files that were not read equal none."""
    if isinstance(images, FileImages):
        number = len(images)
        unlike = images.contents or [object() for _ in range(number)]
        return _Part(images, unlike, np.zeros(number, np.uint64), np.zeros(number, np.float32))
    assert isinstance(images, np.ndarray)
    digests = [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in images]
    return _Part(images, digests, *hashes(images))


def _find(first: _Part, second: _Part) -> Pairs:
    """`find` of parts that were prepared."""
    known: dict[Any, int] = {}
    for position, key in enumerate(first.digests):
        known.setdefault(key, position)
    # Exact copies first. They are cheap to find, and the rest is compared by hash and then by pixels.
    partners = np.array([known.get(key, -1) for key in second.digests], np.int64)
    exact = partners >= 0
    rest = np.flatnonzero(~exact)
    partners[rest] = _nearest(first, second, rest)
    result = np.flatnonzero(partners >= 0)
    return Pairs(partners[result], result, exact[result])


def describe(
    images: Mapping[str, Images],
    labels: Mapping[str, np.ndarray],
    names: Callable[[str, np.ndarray], Sequence[str]],
    *,
    official: bool,
) -> Overlap:
    """Compares every part with those before it, and the last one with itself; for the card.

    Args:
      images, labels: part such as `training`, `validation` and `test` -> uint8 [N, H, W, C], int64 [N]. In files, whole
        contents are compared, where they were read.
      names: the names of a part's images, from the part and positions in it.
      official: whether these are known to be the official data: their near-duplicates are recorded without a warning.
    """
    parts = list(images)
    remarks = _remarks(list(images.values()))
    prepared = {part: _prepare(images[part]) for part in parts}
    entries: list[SharedImages] = []
    warnings: list[str] = []
    compared = [part for part in parts if not _unread(images[part])]
    for part, other in [(part, other) for position, part in enumerate(compared) for other in compared[:position]]:
        pairs = _find(prepared[other], prepared[part])
        entry = SharedImages(
            part=part,
            other=other,
            exact=int(pairs.exact.sum()),
            near=int((~pairs.exact).sum()),
            other_label=int((labels[other][pairs.first] != labels[part][pairs.second]).sum()),
            named=_named(pairs, names, part, other),
        )
        entries.append(entry)
        if entry.named:
            sentences = remarks if official and not entry.exact else warnings
            sentences.append(_sentence(entry, len(images[part]), len(images[other])))
    last = parts[-1]
    if again := len(images[last]) - len(set(prepared[last].digests)):
        warnings.append(f"{again:,} {last} images are copies of other {last} images and count again")
    return Overlap({part: len(images[part]) for part in parts}, entries, again, warnings, remarks)


def _unread(images: Images) -> bool:
    """Whether these are files of whose contents not all were read."""
    return isinstance(images, FileImages) and len(images) > 0 and not images.contents


def _remarks(parts: Sequence[Images]) -> list[str]:
    """What is not compared of images in files."""
    files = [part for part in parts if isinstance(part, FileImages) and len(part)]
    if not files:
        return []
    if not any(map(_unread, files)):
        return ["files were compared by their whole contents; near-duplicates were not looked for"]
    return ["files were compared by path, not by contents (data.cache_check=full compares them)"]


def _named(
    pairs: Pairs, names: Callable[[str, np.ndarray], Sequence[str]], part: str, other: str
) -> list[tuple[str, str, str]]:
    """`(name, name in the other part, exact or near)` of the first pairs, copies first."""
    order = np.argsort(~pairs.exact, kind="stable")[:NAMED]
    if not len(order):
        return []
    kinds = np.where(pairs.exact[order], "exact", "near").tolist()
    return list(zip(names(part, pairs.second[order]), names(other, pairs.first[order]), kinds, strict=True))


def _sentence(entry: SharedImages, number: int, others: int) -> str:
    counts = ((entry.exact, "copy", "copies"), (entry.near, "near-duplicate", "near-duplicates"))
    held = " and ".join(f"{count:,} {one if count == 1 else many}" for count, one, many in counts if count)
    label = f", {entry.other_label:,} of them with another label" if entry.other_label else ""
    own, partner, _ = entry.named[0]
    return (
        f"the {number:,} {entry.part} images hold {held} of the {others:,} {entry.other} images{label}, such as "
        f"{own} of {partner}"
    )


def hashes(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Perceptual hashes, uint64 [N], and the standard deviation of grey, float32 [N].

    A bit says whether one of the 63 lowest frequencies (8x8 cosine transform of the grey image, without the mean) is
    above the image's median.
    """
    if not len(images):
        return np.zeros(0, np.uint64), np.zeros(0, np.float32)
    height, width, channels = images.shape[1:]
    down, across = _cosines(height), _cosines(width)
    weights = np.full(channels, 1 / channels, np.float32)
    result, contrast = [], []
    step = max(1, _PIXELS // images[0].size)
    for start in range(0, len(images), step):
        grey = images[start : start + step].astype(np.float32) @ weights
        frequencies = (down @ (grey @ across.T)).reshape(len(grey), -1)[:, 1:]
        # Relative to the image's own median, so that brightness and contrast do not matter.
        above = frequencies > np.median(frequencies, axis=1, keepdims=True)
        result.append(np.packbits(np.insert(above, 63, False, axis=1), axis=1).view(np.uint64)[:, 0])
        contrast.append(grey.std(axis=(1, 2)))
    return np.concatenate(result), np.concatenate(contrast)


def _cosines(size: int) -> np.ndarray:
    """The first 8 cosines over a side of `size` pixels, float32 [8, size]."""
    return np.cos(np.pi * np.arange(8)[:, None] * (2 * np.arange(size) + 1) / (2 * size)).astype(np.float32)


def _nearest(first: _Part, second: _Part, rest: np.ndarray) -> np.ndarray:
    """The near-duplicate in `first` of each image of `second` at the positions `rest`, int64 [len(rest)]; -1: none."""
    best = np.full(len(rest), -1)
    # The hash of an image that is almost one colour is noise.
    candidates = np.flatnonzero(first.contrast >= CONTRAST)
    rows = np.flatnonzero(second.contrast[rest] >= CONTRAST)
    codes = first.codes[candidates]
    for start in range(0, len(rows), _ROWS):
        block = rows[start : start + _ROWS]
        apart = np.bitwise_count(second.codes[rest[block], None] ^ codes[None])
        row, column = _closest(apart)
        highest = np.full(len(block), CORRELATION)
        for i in range(0, len(row), _CHUNK):
            r, c = row[i : i + _CHUNK], column[i : i + _CHUNK]
            own, others = second.images[rest[block[r]]], first.images[candidates[c]]
            alike = (centred(own) * centred(others)).sum(axis=1)
            for k in np.flatnonzero(alike >= CORRELATION):
                if alike[k] >= highest[r[k]]:
                    highest[r[k]], best[block[r[k]]] = alike[k], candidates[c[k]]
    return best


def _closest(apart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of distances up to `BITS`; the smallest of each row where there are very many."""
    row, column = np.nonzero(apart <= BITS)
    # Data sets of drawings may have thousands of images with one hash; comparing the pixels of all of them would take
    # too long.
    if len(row) <= CANDIDATES * len(apart) or apart.shape[1] <= CANDIDATES:
        return row, column
    column = np.argpartition(apart, CANDIDATES, axis=1)[:, :CANDIDATES]
    row, rank = np.nonzero(np.take_along_axis(apart, column, axis=1) <= BITS)
    return row, column[row, rank]


def centred(images: np.ndarray) -> np.ndarray:
    """float32 [N, H*W*C] of mean 0 and length 1."""
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
