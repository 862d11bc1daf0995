"""Images a second that host-fed training reads: decoding and random resized crops to 224 pixels, without a network.

    python benchmarks/loader.py --archive=tiny-imagenet-200.zip [--images=512] [--workers=1,2]

JPEGs of about ImageNet's size are made of Tiny-ImageNet's: 64 x 64 pixels resized to 500 x 375, with grey noise that
makes a file about 110 KB, as ImageNet's are on average. A core's rate is images over CPU seconds of this process; the
loader's is images over seconds by the clock, after its workers started, which needs an idle machine, and
`of_the_main_process` is images over CPU seconds of the process that trains.

The share of a step is arithmetic: reading overlaps the step, so it adds only what it lasts longer. FLOPs of a step are
those of PGD-AT with ResNet-50, at `--utilisation` of the peak of one H100.
"""

import argparse
import io
import itertools
import tempfile
import time
import zipfile
from pathlib import Path

import measure
import numpy as np
from PIL import Image

from ltrobust.compilation.chips import CHIPS
from ltrobust.data import loader
from ltrobust.data.images import FileImages

SIZE, SIDE, QUALITY, NOISE = (500, 375), 224, 90, 28.0
# Multiplications with their additions of one image's forward pass: torchvision's table has 4.09 G for ResNet-50.
FORWARD = 2 * 4.09e9
# Input gradients cost as much as a forward pass, those of weights as much again.
ATTACK_STEP, TRAINING = 2 * FORWARD, 3 * FORWARD


def main() -> None:
    """Times one core, then the loader with each number of workers."""
    parser = measure.parser(__doc__)
    parser.add_argument("--archive", type=Path, required=True, help="tiny-imagenet-200.zip")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--batch", type=int, default=128, help="images of a step")
    parser.add_argument(
        "--workers", default="1,2", help="numbers of worker processes, by commas; none where it is empty"
    )
    parser.add_argument("--attack_steps", type=int, default=3)
    parser.add_argument("--utilisation", type=float, default=0.4, help="of the accelerator's peak in bfloat16")
    given = parser.parse_args()
    path = measure.begin(given, "loader")
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(given.archive, Path(folder), given.images)
        size = sum(file.stat().st_size for file in Path(folder).iterdir()) / len(files)
        core = measure.spread([one_core(files) for _ in range(given.repeats)])
        rows = [{"reader": "one core", "workers": 0, "images_a_second": core}]
        for workers in map(int, filter(None, given.workers.split(","))):
            rates = [through_loader(files, given.batch, workers) for _ in range(given.repeats)]
            names = ("images_a_second", "of_the_main_process")
            rows.append(
                {"reader": "loader", "workers": workers}
                | dict(zip(names, map(measure.spread, zip(*rates, strict=True)), strict=True))
            )
    measure.finish(path, given, rows, file_bytes=round(size), arithmetic=arithmetic(given, core["median"]))


def write_files(archive: Path, folder: Path, count: int) -> FileImages:
    """Photographs of Tiny-ImageNet as JPEGs of ImageNet's size."""
    names, generator = [], np.random.RandomState(0)
    with zipfile.ZipFile(archive) as source:
        photographs = sorted(name for name in source.namelist() if "/train/" in name and name.endswith(".JPEG"))
        for number, name in enumerate(photographs[:: max(1, len(photographs) // count)][:count]):
            image = Image.open(io.BytesIO(source.read(name))).convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)
            pixels = np.asarray(image) + generator.normal(0, NOISE, (*SIZE[::-1], 1))
            names.append(f"{number}.jpg")
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / names[-1], quality=QUALITY)
    sizes = np.array([(folder / name).stat().st_size for name in names], np.int64)
    return FileImages(str(folder), tuple(names), sizes, SIDE, 256)


def draw(images: int, count: int, batch: int) -> loader.Visits:
    """Rows and keys of the steps that visit about `count` images."""
    generator = np.random.RandomState(0)
    shape = (count // batch, batch)
    rows = generator.randint(0, images, shape).astype(np.int32)
    return loader.Visits(rows, generator.randint(0, 2**32, (*shape, 2), np.uint32))


def one_core(files: FileImages) -> float:
    """Images a CPU second of this process."""
    visits = draw(len(files), len(files), len(files))
    parts = loader.Parts(files, visits, loader.PART)
    began = time.process_time()
    for number in range(len(parts)):
        parts[number]
    return len(files) / (time.process_time() - began)


def through_loader(files: FileImages, batch: int, workers: int) -> tuple[float, float]:
    """Images a second of the loader, and a CPU second of this process. The first steps start the workers."""
    steps = loader.read(files, draw(len(files), 4 * len(files), batch), workers)
    for _ in itertools.islice(steps, 4):
        pass
    began, worked = time.perf_counter(), time.process_time()
    count = sum(len(images) for images in steps)
    return count / (time.perf_counter() - began), count / (time.process_time() - worked)


def arithmetic(given: argparse.Namespace, rate: float) -> dict[str, object]:
    """What a step of one H100 asks for, and what reading adds to it with some numbers of cores."""
    chip = CHIPS["h100"]
    needed = given.utilisation * chip.peak / (given.attack_steps * ATTACK_STEP + TRAINING)
    return {
        "accelerator": chip.name,
        "images_a_second_of_the_steps": needed,
        "cores_that_keep_up": needed / rate,
        "added_to_a_step": {str(cores): added(needed, rate * cores) for cores in (8, 16, 32, 64)},
    }


def added(needed: float, read: float) -> float:
    """What reading adds to a step, as a share of it."""
    return max(0.0, needed / read - 1)


if __name__ == "__main__":
    main()
