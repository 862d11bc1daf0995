"""Invented images in files of the forms in which data sets are published."""

import gzip
import io
import pathlib
import struct
import tarfile

import numpy as np
import python2
from PIL import Image
from scipy import io as scipy_io

from ltrobust.data import imagenet, published

TAR = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary", "stl10": "stl10_binary"}
SIZES = {
    **{"cifar10": 32, "cifar100": 32, "mnist": 28, "fashion_mnist": 28, "emnist_letters": 28, "emnist_balanced": 28},
    **{"svhn_cropped": 32, "stl10": 96},
}
CLASSES = {"cifar100": 100, "emnist_letters": 26, "emnist_balanced": 47}
# Images per class that tests invent.
NUMBERS = {"train": 5, "test": 2}


def invent(name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels of both splits."""
    random, classes = np.random.RandomState(0), CLASSES.get(name, 10)
    shape = (SIZES[name], SIZES[name], 1 if "mnist" in name else 3)
    result = {}
    for split, number in NUMBERS.items():
        labels = random.permutation(np.repeat(np.arange(classes), number))
        result[split] = random.randint(0, 256, (len(labels), *shape)).astype(np.uint8), labels
    return result


def publish(name: str, data: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, bytes]:
    """The files as they are published, byte by byte; for the data sets in `TAR` what is in the archive's folder."""
    files: dict[str, bytes] = {}
    for split, (images, labels) in data.items():
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        numbers = labels.astype(np.uint8)[:, None]
        if name == "cifar10":
            rows = np.concatenate([numbers, planes], axis=1)
            parts = np.array_split(rows, 5) if split == "train" else [rows]
            names = [f"data_batch_{number}.bin" for number in range(1, 6)] if split == "train" else ["test_batch.bin"]
            files |= {name: part.tobytes() for name, part in zip(names, parts, strict=True)}
        elif name == "cifar100":
            files[f"{split}.bin"] = np.concatenate([numbers // 5, numbers, planes], axis=1).tobytes()
        elif name == "stl10":
            files[f"{split}_X.bin"] = images.transpose(0, 3, 2, 1).tobytes()
            files[f"{split}_y.bin"] = (numbers + 1).tobytes()
        elif name == "svhn_cropped":
            file = io.BytesIO()
            scipy_io.savemat(file, {"X": np.moveaxis(images, 0, -1), "y": np.where(numbers == 0, 10, numbers)})
            files[f"{split}_32x32.mat"] = file.getvalue()
        else:
            prefix = "train" if split == "train" else "t10k"
            if name.startswith("emnist"):
                prefix, numbers = f"emnist-{name.removeprefix('emnist_')}-{split}", numbers + (name == "emnist_letters")
            header = struct.pack(">4I", 0x0803, len(images), 28, 28)
            files[f"{prefix}-images-idx3-ubyte.gz"] = gzip.compress(header + images.tobytes())
            header = struct.pack(">2I", 0x0801, len(labels))
            files[f"{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(header + numbers.astype(np.uint8).tobytes())
    if name in TAR:
        list_of_names = {"cifar10": "batches.meta.txt", "cifar100": "fine_label_names.txt", "stl10": "class_names.txt"}
        classes = 100 if name == "cifar100" else 10
        files[list_of_names[name]] = "".join(f"name {number}\n" for number in range(classes)).encode() + b"\n"
    return files


def place(name: str, files: dict[str, bytes], folder: pathlib.Path, packed: bool = True) -> pathlib.Path:
    """Puts the published files, or what they unpack to, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if name in TAR and packed:
        archive_file = folder / published.DATA[name].files[0].name
        with tarfile.open(archive_file, "w:gz") as archive:
            for member, content in {"readme.html": b"text", **files}.items():
                entry = tarfile.TarInfo(f"{TAR[name]}/{member}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return archive_file
    target = folder / TAR.get(name, "")
    target.mkdir(exist_ok=True)
    for member, content in files.items():
        (target / member).write_bytes(content)
    return target


def python_form(name: str, data: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, bytes]:
    """The members of CIFAR's Python archive, pickled dicts."""
    files: dict[str, object] = {}
    for split, (images, labels) in data.items():
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        if name == "cifar10":
            numbers = [f"data_batch_{number}" for number in range(1, 6)] if split == "train" else ["test_batch"]
            for member, rows, part in zip(
                numbers, np.array_split(planes, len(numbers)), np.array_split(labels, len(numbers)), strict=True
            ):
                files[member] = {"batch_label": member, "labels": part.tolist(), "data": rows, "filenames": ["a.png"]}
        else:
            coarse = (labels // 5).tolist()
            files[split] = {"fine_labels": labels.tolist(), "coarse_labels": coarse, "data": planes}
    names = [f"name {number}" for number in range(CLASSES.get(name, 10))]
    meta = {"batches.meta": {"label_names": names}} if name == "cifar10" else {"meta": {"fine_label_names": names}}
    return {member: python2.dumps(content) for member, content in {**files, **meta}.items()}


def pack_python_form(name: str, files: dict[str, bytes], folder: pathlib.Path) -> pathlib.Path:
    """Packs them as they are published."""
    form = published.DATA[name].forms[1]
    folder.mkdir(parents=True, exist_ok=True)
    return tar(folder / form.files[0].name, {f"{form.folder}/{member}": content for member, content in files.items()})


def tar(path: pathlib.Path, members: dict[str, bytes]) -> pathlib.Path:
    """Writes a `.tar.gz`."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for member, content in members.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


IMAGENET = ("n01440764", "n02102040", "n03888257")


def jpeg(seed: int) -> bytes:
    """A JPEG file of noise, wider than high."""
    file = io.BytesIO()
    pixels = np.random.RandomState(seed).randint(0, 256, (10, 14, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def packed(files: dict[str, bytes], mode: str = "w") -> bytes:
    """An archive of these files."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return content.getvalue()


IMAGENET_TRAIN = {
    name: {f"{name}_{number}.JPEG": jpeg(100 * index + number) for number in (3, 10, 1)}
    for index, name in enumerate(IMAGENET)
}
IMAGENET_VAL = {f"ILSVRC2012_val_{number:08d}.JPEG": jpeg(1000 + number) for number in range(1, 7)}
IMAGENET_LABELS = [IMAGENET[index] for index in (2, 0, 1, 1, 0, 2)]


def devkit() -> bytes:
    """The files of the development kit with the classes of val. Ids are not in the order of names."""
    ids = {name: number for number, name in enumerate(reversed(IMAGENET), start=1)}
    rows = np.array([(ids[name], name) for name in IMAGENET], dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")])
    meta = io.BytesIO()
    scipy_io.savemat(meta, {"synsets": rows})
    truth = "".join(f"{ids[name]}\n" for name in IMAGENET_LABELS).encode()
    where = "ILSVRC2012_devkit_t12/data"
    return packed(
        {f"{where}/meta.mat": meta.getvalue(), f"{where}/ILSVRC2012_validation_ground_truth.txt": truth}, "w:gz"
    )


def place_imagenet(folder: pathlib.Path) -> None:
    """Puts ImageNet's three files into a folder."""
    (folder / imagenet.TRAIN).write_bytes(
        packed({f"{name}.tar": packed(part) for name, part in IMAGENET_TRAIN.items()})
    )
    (folder / imagenet.VAL).write_bytes(packed(IMAGENET_VAL))
    (folder / imagenet.LABELS).write_bytes(devkit())
