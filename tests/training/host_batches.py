"""What the devices of one process get of a phase's batches that are sent from the host; several processes as a program.

python host_batches.py FOLDER PORT NUMBER INDEX

Writes what they get of arrays, `INDEX.npz`, and of random crops of the same images in files, `INDEX.crops.npz`.
"""

import dataclasses
import pathlib
import sys
from typing import Any

import jax
import listed
import numpy as np
import planned
from one_phase import phase_with

from configs import digits
from ltrobust.data.run_data import Examples
from ltrobust.runtime import processes
from ltrobust.training import devices, feeds


class Watched:
    """Images that remember which of them were read."""

    def __init__(self, images: np.ndarray):
        self.images, self.rows = images, []
        self.shape, self.dtype = images.shape, images.dtype

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Any) -> np.ndarray:
        self.rows.append(np.asarray(rows))
        return self.images[rows]


def collect(files: pathlib.Path | None = None) -> dict[str, np.ndarray]:
    """`rows` [S, L] that were read for all steps, and by the position of each device its pixels [S, share, H*W*C].

    With a folder for `files`, images are in files and cropped at random, and there are no `rows`.
    """
    config = digits.get_config()
    config.data.imbalance_ratio, config.model.width = 4.0, 4
    config.student.method, config.student.epochs, config.student.batch_size = "pgd_at", 2, 64
    config.student.remainder = "carry"
    run_data, mesh = planned.load_run_data(config), devices.make_mesh(jax.devices())
    phase = phase_with(planned.make_phase(config, "student", run_data, mesh), host_fed=True)
    if files:
        phase = phase_with(phase, augmentation="random_resized_crop")
        images = listed.as_files(files, run_data.training.images)
    else:
        images = Watched(run_data.training.images)
    data: Any = Examples(images, run_data.training.labels)  # pyright: ignore[reportArgumentType]
    place = {device: str(number) for number, device in enumerate(mesh.devices.flat)}
    result: dict[str, list[np.ndarray]] = {}
    run_data = dataclasses.replace(run_data, training=data)
    with feeds.open_feed(phase, run_data, mesh, capacity=3, workers=1) as feed:
        for step in range(phase.total_steps):
            inputs, order = feed.take(step, 1)
            rows = {shard.device: np.asarray(shard.data)[0] for shard in order.addressable_shards}
            for shard in inputs.data.pixels.addressable_shards:
                result.setdefault(place[shard.device], []).append(np.asarray(shard.data)[rows[shard.device]])
    pixels = {name: np.stack(parts) for name, parts in result.items()}
    return pixels | ({"rows": np.stack(images.rows)} if isinstance(images, Watched) else {})


def main(folder: str, port: str, number: str, index: str) -> None:
    """Joins the others and writes what `collect` returns."""
    processes.start(f"127.0.0.1:{port}", int(number), int(index), 30)
    files = pathlib.Path(folder) / index
    files.mkdir()
    np.savez(f"{files}.npz", **collect())  # pyright: ignore[reportArgumentType]
    np.savez(f"{files}.crops.npz", **collect(files))  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    main(*sys.argv[1:])
