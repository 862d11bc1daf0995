"""A run on an image list at 224 pixels: files that workers decode against the same pixels as arrays on the device.

    python benchmarks/host_fed.py --archive=tiny-imagenet-200.zip [--classes=10] [--largest=80] [--epochs=2]

Photographs of Tiny-ImageNet are written to files, with a long-tailed training list, a validation list and a test list.
Both phases are trained and evaluated twice: with `data.residence=host`, where workers decode training images for every
step, and with `device`, where the images of all lists are arrays, decoded once. Stops with an error, and writes
nothing, unless weights, records and verdicts are the same, bit for bit.

Before that, the student's steps of `--feed_epochs` epochs are read through the feed without training, in which no
compiler takes part. Memory is of one pass: resident sets of this process and of all that it started, after every step,
in each quarter of the steps (Linux). Images a CPU second of all these processes are of `--repeats` other passes, after
the workers started; seconds by the clock, which need an idle machine, are in `loader.py`.
"""

import argparse
import contextlib
import dataclasses
import itertools
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import measure
import numpy as np

from configs import default
from ltrobust import run
from ltrobust.data import run_data
from ltrobust.data.run_data import DataPlan, RunData
from ltrobust.plan import make_plan
from ltrobust.runtime.preemption import Preemption
from ltrobust.training import devices, feeds, teacher_student
from tools import run_digests

SIDE, RESIZE = 224, 256
# Images of each class in the lists of validation and test, and least number in the training list.
HELD_OUT, RAREST = 8, 8


def main() -> None:
    """Measures the feed; then trains from both places and compares."""
    parser = measure.parser(__doc__)
    parser.add_argument("--archive", type=Path, required=True, help="tiny-imagenet-200.zip")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--largest", type=int, default=80, help="training images of the most frequent class")
    parser.add_argument("--epochs", type=int, default=2, help="of each phase")
    parser.add_argument("--batch", type=int, default=16, help="images of a step")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--feed_epochs", type=int, default=20, help="that are read through the feed in each pass")
    given = parser.parse_args()
    path = measure.begin(given, "host_fed")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        counts = write_lists(given.archive, folder / "images", given.classes, given.largest)
        rows = memory_of_feed(given, folder / "images")  # first, because programs that are compiled take memory
        rates = [read_feed(given, folder / "images") for _ in range(given.repeats)]
        host, device = (
            train(configuration(given, folder / "images", residence), folder / residence)
            for residence in ("host", "device")
        )
    if changed := run_digests.differences(host, device):
        sys.exit("files and arrays differ in: " + ", ".join(changed))
    equal = {kind: len(parts) for kind, parts in run_digests.by_kind(host).items()}
    rate = measure.spread(rates)
    measure.finish(path, given, rows, class_counts=counts, equal_bit_for_bit=equal, feed_images_a_cpu_second=rate)


def choose(photographs: Sequence[str], classes: int, largest: int) -> tuple[list[list[str]], list[int]]:
    """The photographs of the classes that have the most, and how many of each class are for training.

    Raises:
      SystemExit: there are not so many classes or photographs; names what is allowed.
    """
    groups = [list(group) for _, group in itertools.groupby(sorted(photographs), lambda name: name.split("/")[2])]
    groups = [group for group in groups if len(group) >= RAREST + 2 * HELD_OUT]
    if len(groups) < 2:
        sys.exit(
            f"--archive holds {len(groups)} classes with {RAREST + 2 * HELD_OUT} photographs or more, "
            "and two are needed; give tiny-imagenet-200.zip."
        )
    if not 2 <= classes <= len(groups):
        sys.exit(f"--classes is {classes}; give 2 to {len(groups)}.")
    groups = sorted(groups, key=len, reverse=True)[:classes]

    def fits(number: int) -> bool:
        counts = long_tail(number, classes)
        return all(len(group) >= count + 2 * HELD_OUT for group, count in zip(groups, counts, strict=True))

    most = max(filter(fits, range(RAREST, len(groups[0]))))
    if not RAREST <= largest <= most:
        sys.exit(f"--largest is {largest}; with {classes} classes give {RAREST} to {most}.")
    return groups, long_tail(largest, classes)


def long_tail(largest: int, classes: int) -> list[int]:
    """Training images of each class: they fall exponentially from `largest` to `RAREST`, as in long-tailed CIFAR."""
    return np.round(largest * (RAREST / largest) ** np.linspace(0, 1, classes)).astype(int).tolist()


def write_lists(archive: Path, folder: Path, classes: int, largest: int) -> list[int]:
    """Writes the files and the lists. Returns training images of each class.

    Raises:
      SystemExit: see `choose`.
    """
    lines: dict[str, list[str]] = {"validation": [], "test": [], "train": []}
    with zipfile.ZipFile(archive) as source:
        names = [name for name in source.namelist() if "/train/" in name and name.endswith(".JPEG")]
        groups, counts = choose(names, classes, largest)
        folder.mkdir()
        for label, (group, count) in enumerate(zip(groups, counts, strict=True)):
            left = iter(group)
            for part, size in {"validation": HELD_OUT, "test": HELD_OUT, "train": count}.items():
                for name in itertools.islice(left, size):
                    file = folder / Path(name).name
                    file.write_bytes(source.read(name))
                    lines[part].append(f"{file.name} {label}\n")
    for part, text in lines.items():
        (folder / f"{part}.txt").write_text("".join(text))
    return counts


def configuration(given: argparse.Namespace, images: Path, residence: str) -> Any:
    """Self-distillation from a balanced teacher with a small network and one step of the attacks."""
    config: Any = default.get_config()
    config.data.name, config.data.dir, config.data.cache_dir = "image_list", str(images), ""
    config.data.lists.update({part: f"{part}.txt" for part in ("train", "validation", "test")})
    config.data.image_size, config.data.resize, config.data.imbalance_ratio = SIDE, RESIZE, 0.0
    config.data.residence, config.data.workers = residence, given.workers
    config.model.name, config.model.width, config.model.stem_stride = "small_resnet", 8, 4
    for phase in (config.teacher, config.student):
        phase.epochs, phase.batch_size, phase.ema_decay = given.epochs, given.batch, 0.9
        phase.attack.steps, phase.selection_floor, phase.augmentation.crop_padding = 1, HELD_OUT, 16
        phase.augmentation.jitter = (0.4, 0.4, 0.4)
    config.eval.protocol = "validation"
    return config


def train(config: Any, workdir: Path) -> dict[str, str]:
    """Trains and evaluates; returns digests of weights, records and verdicts."""
    began = time.monotonic()
    plan, mesh = make_plan(config, workdir), devices.make_mesh()
    data, test = load(plan.data)
    ready = teacher_student.prepare(plan, data, mesh, teacher_student.make_phases(plan, data, mesh))
    workdir.mkdir()
    trained = teacher_student.train(ready, Preemption())
    run.write_card(plan, plan.recorded, plan.evaluation.protocol.name, trained, began, test)
    # Cards name the residence.
    return {name: digest for name, digest in run_digests.of_run(workdir).items() if not name.startswith("card ")}


def load(plan: DataPlan) -> tuple[RunData, run.TestSet]:
    """The images of all lists: files, or arrays of the same pixels for the device."""
    data = run_data.load(plan)
    test = run.open_test(plan, data)
    if plan.residence == "host":
        return data, test
    training, validation, split = (
        dataclasses.replace(part, images=part.images[:]) for part in (data.training, data.validation, test.split)
    )
    data = dataclasses.replace(data, training=training, validation=validation)
    return data, dataclasses.replace(test, split=split)


def read_feed(given: argparse.Namespace, images: Path, after_step: Callable[[], object] = lambda: None) -> float:
    """Reads the student's steps, without training; returns images a CPU second. `after_step` is called after each."""
    config = configuration(given, images, "host")
    config.student.epochs = given.feed_epochs
    plan, mesh = make_plan(config, images), devices.make_mesh()
    data = run_data.load(plan.data)
    phase = teacher_student.make_phases(plan, data, mesh)["student"]
    with feeds.open_feed(phase, data, mesh, workers=given.workers) as feed:
        jax.block_until_ready(feed.take(0, 1))  # starts the workers
        before = processor_seconds()
        for step in range(1, phase.total_steps):
            jax.block_until_ready(feed.take(step, 1))
            after_step()
        seconds = processor_seconds() - before
    return (phase.total_steps - 1) * phase.schedule.batch_size / seconds


def memory_of_feed(given: argparse.Namespace, images: Path) -> list[dict[str, Any]]:
    """A row for each quarter of the steps: bytes in memory of this process and of those that it started."""
    samples = []
    read_feed(given, images, lambda: samples.append((resident(os.getpid()), sum(map(resident, started())))))
    rows = []
    for number, quarter in enumerate(np.array_split(np.array(samples), 4), 1):
        own, workers = (measure.spread(column.tolist()) for column in quarter.T)
        rows.append({"quarter": number, "steps": len(quarter), "process_bytes": own, "worker_bytes": workers})
    return rows


def resident(process: int) -> int:
    """Bytes of a process in memory; 0 if it has ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def processor_seconds() -> float:
    """What this process and those that it started have used until now."""
    fields = [stat(process) for process in (os.getpid(), *started())]
    return sum(int(field) for each in fields for field in each[11:13]) / os.sysconf("SC_CLK_TCK")


def started() -> list[int]:
    """Processes that this one has started and that are still there."""
    processes = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [process for process in processes if stat(process)[1:2] == [str(os.getpid())]]


def stat(process: int) -> list[str]:
    """What the system says of a process, from its state on; empty if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return []


if __name__ == "__main__":
    main()
