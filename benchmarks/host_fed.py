"""A run on an image list at 224 pixels: files that workers decode against the same pixels on the device.

    python benchmarks/host_fed.py --archive=tiny-imagenet-200.zip [--classes=10] [--largest=80] [--epochs=2]

Photographs of Tiny-ImageNet are written to files, with a long-tailed training list, a validation list and a test list.
Both phases are trained twice: with `data.residence=host`, where workers decode the files for every step, and with
`device`, on arrays of all images decoded once. Stops with an error, and writes nothing, unless weights, records and
verdicts are the same, bit for bit.

Images a second of an epoch include validation, and compilation in the first epoch of a phase; they need an idle
machine. Memory is that of the feed of `--feed_epochs` epochs alone, on which no compiler has a part: resident sets of
this process and of all that it started, after every step, in each quarter of the steps (Linux).
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import measure
import numpy as np

from configs import default
from ltrobust import run
from ltrobust.data import run_data
from ltrobust.data.run_data import Examples
from ltrobust.evaluation import store
from ltrobust.plan import make_plan
from ltrobust.runtime.preemption import Preemption
from ltrobust.training import devices, feeds, records, teacher_student

SIDE, RESIZE = 224, 256
# Images of each class in the lists of validation and test, and least number in the training list.
HELD_OUT, RAREST = 8, 8


def main() -> None:
    """Trains from both places, compares and measures."""
    parser = measure.parser(__doc__)
    parser.add_argument("--archive", type=Path, required=True, help="tiny-imagenet-200.zip")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--largest", type=int, default=80, help="training images of the most frequent class")
    parser.add_argument("--epochs", type=int, default=2, help="of each phase")
    parser.add_argument("--batch", type=int, default=16, help="images of a step")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--feed_epochs", type=int, default=20, help="of the feed whose memory is looked at")
    given = parser.parse_args()
    path = measure.begin(given, "host_fed")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        counts = write_lists(given.archive, folder / "images", given.classes, given.largest)
        feed = memory_of_feed(given, folder / "images")
        rows, ends = [], []
        for residence in ("host", "device"):
            settings = configuration(given, folder / "images", residence)
            row, end = train(settings, folder / residence)
            rows += row
            ends.append(end)
    if changed := differences(*ends):
        sys.exit("files and arrays differ in: " + ", ".join(changed))
    equal = {kind: sum(name.startswith(f"{kind} ") for name in ends[0]) for kind in ("weights", "record", "verdicts")}
    measure.finish(path, given, rows, class_counts=counts, equal_bit_for_bit=equal, feed=feed)


def write_lists(archive: Path, folder: Path, classes: int, largest: int) -> list[int]:
    """Writes the files of the classes with the most photographs, and the lists. Returns training images of each class.

    Counts fall exponentially from `largest` to `RAREST`, as in long-tailed CIFAR.
    """
    shares = np.linspace(0, 1, classes)
    counts = np.round(largest * (RAREST / largest) ** shares).astype(int).tolist()
    folder.mkdir()
    with zipfile.ZipFile(archive) as source:
        photographs = sorted(name for name in source.namelist() if "/train/" in name and name.endswith(".JPEG"))
        groups = [list(group) for _, group in itertools.groupby(photographs, lambda name: name.split("/")[2])]
        groups = sorted(groups, key=len, reverse=True)[:classes]
        lines: dict[str, list[str]] = {"validation": [], "test": [], "train": []}
        for label, (group, count) in enumerate(zip(groups, counts, strict=True)):
            if len(group) < count + 2 * HELD_OUT:
                sys.exit(f"class {label} has {len(group)} photographs; --largest may be {len(group) - 2 * HELD_OUT}.")
            sizes = {"validation": HELD_OUT, "test": HELD_OUT, "train": count}
            names = iter(group)
            for part, size in sizes.items():
                for name in itertools.islice(names, size):
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


def train(config: Any, workdir: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Trains and evaluates; returns a row for each epoch, and what the run ended with (`results`)."""
    plan, mesh = make_plan(config, workdir), devices.make_mesh()
    data = run_data.load(plan.data)
    if plan.data.residence == "device":
        data = dataclasses.replace(data, training=decoded(data.training))
    phases = teacher_student.make_phases(plan, data, mesh)
    ready = teacher_student.prepare(plan, data, mesh, phases)
    workdir.mkdir()
    trained = teacher_student.train(ready, Preemption())
    run.write_card(plan, plan.recorded, plan.evaluation.protocol.name, trained, time.monotonic())
    rows = []
    for record in records.read(workdir / "metrics.jsonl"):
        schedule, epoch = phases[record["phase"]].schedule, record["epoch"]
        steps = schedule.first_step(epoch) - schedule.first_step(epoch - 1)
        rows.append(
            {
                "residence": plan.data.residence,
                "phase": record["phase"],
                "epoch": epoch,
                "steps": steps,
                "images_a_second": steps * schedule.batch_size / record["seconds"],
            }
        )
    return rows, results(workdir, trained)


def decoded(examples: Examples) -> Examples:
    """The same images as an array."""
    return dataclasses.replace(examples, images=examples.images[:])


def memory_of_feed(given: argparse.Namespace, images: Path) -> dict[str, Any]:
    """Reads the student's steps through the feed, without training: images a second, and memory of each quarter."""
    config = configuration(given, images, "host")
    config.student.epochs = given.feed_epochs
    plan, mesh = make_plan(config, images), devices.make_mesh()
    data = run_data.load(plan.data)
    phase = teacher_student.make_phases(plan, data, mesh)["student"]
    samples = []
    with feeds.open_feed(phase, data, mesh, workers=given.workers) as feed:
        jax.block_until_ready(feed.take(0, 1))  # starts the workers
        began = time.perf_counter()
        for step in range(1, phase.total_steps):
            jax.block_until_ready(feed.take(step, 1))
            samples.append((resident(os.getpid()), sum(map(resident, started()))))
        seconds = time.perf_counter() - began
    own, workers = (
        [measure.spread(quarter.tolist()) for quarter in np.array_split(column, 4)]
        for column in zip(*samples, strict=True)
    )
    rate = len(samples) * phase.schedule.batch_size / seconds
    return {"steps": len(samples), "images_a_second": rate, "process_bytes": own, "worker_bytes": workers}


def resident(process: int) -> int:
    """Bytes of a process in memory; 0 if it has ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def started() -> list[int]:
    """Processes that this one has started and that are still there."""
    result = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                result.append(int(path.parent.name))
    return result


def results(workdir: Path, trained: teacher_student.Trained) -> dict[str, Any]:
    """What a run ended with, by name: weights, records without seconds, and verdicts."""
    result: dict[str, Any] = {
        f"weights {name}": jax.device_get(network.weights) for name, network in trained.networks.items()
    }
    for record in records.read(workdir / "metrics.jsonl"):
        result[f"record {record['phase']}/{record['epoch']}"] = {**record, "seconds": None}
    for folder in sorted((workdir / "verdicts").iterdir()):
        for attack, verdicts in store.read(folder)[1].items():
            # Where an image lies in its file follows from the order in which verdicts arrived.
            lines = {image: vars(line) | {"adversarial_at": None} for image, line in verdicts.items()}
            result[f"verdicts {folder.name}/{attack}"] = lines
    return result


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> Sequence[str]:
    """Names of the results that are not the same, bit for bit."""
    return [
        name
        for name in sorted(first.keys() | second.keys())
        if not (name in first and name in second and same(first[name], second[name]))
    ]


def same(first: Any, second: Any) -> bool:
    """Whether two trees have the same structure and the same bits."""
    (leaves, structure), (others, other_structure) = jax.tree.flatten(first), jax.tree.flatten(second)
    return structure == other_structure and all(
        np.asarray(leaf).tobytes() == np.asarray(other).tobytes() for leaf, other in zip(leaves, others, strict=True)
    )


if __name__ == "__main__":
    main()
