"""Seconds and memory of a first start on CIFAR-10 from each of its official archives.

    python benchmarks/cold_start.py --data=DIR [--repeats=3]

DIR holds TFDS's records, from which both archives are built again, in the official order and form. Their bytes are not
the published ones, because packing differs, so their checksums lead to the comparison of contents that a mended copy
also meets. Each measurement is a new process that reads both splits: *first* decodes and keeps a decoded copy, *later*
reads that copy. Core-seconds are those of all threads, which other programs on the machine change least.
"""

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import measure
import numpy as np

from ltrobust.data import identity, published, sources

# One pickle of CIFAR's Python archive, as its authors wrote it: protocol 2, which holds bytes as Latin-1 texts.
_PROTOCOL = 2


def main() -> None:
    """Builds the archives and times each form."""
    parser = measure.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of TFDS's records")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)  # what the processes that are timed do
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        read(given.read, given.cache)
        return
    path = measure.begin(given, "cold_start")
    with tempfile.TemporaryDirectory() as folder:
        places = build(given.data, Path(folder))
        rows = [row for name, place in places.items() for row in timed(given, name, place)]
    measure.finish(path, given, rows)


def read(folder: Path, cache: Path) -> None:
    """Reads both splits and prints what it took; the pixels must be the official ones."""
    began, used = time.monotonic(), time.process_time()
    for split in sources.SPLITS:
        result = sources.load("cifar10", split, data_dir=folder, cache_dir=cache)
        if result.fingerprint != identity.PIXELS["cifar10", split]:
            sys.exit(f"{folder} has other {split} images than the official ones.")
    seconds = {"seconds": time.monotonic() - began, "core_seconds": time.process_time() - used}
    peak = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    print(json.dumps({**seconds, "bytes": 1024 * int(peak)}))


def timed(given: argparse.Namespace, name: str, place: Path) -> list[dict[str, Any]]:
    """The rows of one form: the first start and a later one."""
    result: dict[str, list[dict[str, float]]] = {"first": [], "later": []}
    for _ in range(given.repeats):
        with tempfile.TemporaryDirectory() as cache:
            for start in result.values():
                words = [__file__, f"--data={given.data}", f"--read={place}", f"--cache={cache}"]
                done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
                start.append(json.loads(done.stdout.splitlines()[-1]))
    return [
        {"form": name, "start": start, **{key: measure.spread([run[key] for run in runs]) for key in runs[0]}}
        for start, runs in result.items()
    ]


def build(data: Path, folder: Path) -> dict[str, Path]:
    """The official archives, each in a folder."""
    splits = {split: sources.load("cifar10", split, data_dir=data) for split in sources.SPLITS}
    binary, python, names = {}, {}, splits["train"].class_names
    for split, source in splits.items():
        planes = source.images.transpose(0, 3, 1, 2).reshape(len(source.images), -1)
        labels = source.labels.astype(np.uint8)
        parts = [f"data_batch_{number}" for number in range(1, 6)] if split == "train" else ["test_batch"]
        for part, rows, right in zip(
            parts, np.array_split(planes, len(parts)), np.array_split(labels, len(parts)), strict=True
        ):
            binary[f"{part}.bin"] = np.concatenate([right[:, None], rows], axis=1).tobytes()
            python[part] = pickled({"labels": right.tolist(), "data": rows})
    binary["batches.meta.txt"] = "\n".join(names).encode()
    python["batches.meta"] = pickled({"label_names": list(names)})
    result = {}
    for form, files in zip(published.DATA["cifar10"].forms, (binary, python), strict=True):
        name = form.files[0].name
        place = folder / name.removesuffix(".tar.gz")
        place.mkdir()
        with tarfile.open(place / name, "w:gz", compresslevel=1) as archive:
            for member, content in files.items():
                entry = tarfile.TarInfo(f"{form.folder}/{member}")
                entry.size = len(content)
                archive.addfile(entry, BytesIO(content))
        result[name] = place
    return result


def pickled(value: Any) -> bytes:
    """A pickle of the oldest protocol that Python 3 has in common with the archives."""
    import pickle

    return pickle.dumps(value, protocol=_PROTOCOL)


if __name__ == "__main__":
    main()
