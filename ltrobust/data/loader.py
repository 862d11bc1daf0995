"""Images of training steps from the host: each step's part of a batch, read ahead by worker processes.

What a step reads follows from its number alone (`Visits`), so a resumed run needs no state of an iterator: it starts to
read at the step of its checkpoint. Which worker reads an image, and when, changes nothing.
"""

import contextlib
import dataclasses
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator
from typing import Any

import numpy as np
from absl import flags

from ltrobust.data.images import FileImages, Images, UnreadableImage
from ltrobust.runtime import cores
from ltrobust.runtime.names import nearest

RESIDENCES = ("auto", "device", "host")
# Images that a worker decodes between two messages: many enough to be worth one, few enough that all workers have a
# part of the next step.
PART = 32
# Exit codes of workers whose reason is known.
_REASONS = {
    "-9": ": it was killed, most often because memory is short; lower data.workers",
    "-7": ": /dev/shm is full; give it more memory, or lower data.workers",
    "1": ': see above; a script must call lt.train under `if __name__ == "__main__":`',
}


def check_settings(residence: str, workers: int) -> None:
    """Refuses values of `data.residence` and `data.workers` that do not exist.

    Args:
      residence: where training images are, one of `RESIDENCES`; see `feeds.host_fed`.
      workers: processes that decode files; see `read`.

    Raises:
      ValueError: names the key, the value and what is allowed.
    """
    if residence not in RESIDENCES:
        known = f"{nearest(residence, RESIDENCES)}known: {', '.join(RESIDENCES)}"
        raise ValueError(f"data.residence is {residence!r}; {known}.")
    if workers < 0:
        raise ValueError(f"data.workers is {workers}; give a number of processes, or 0 for one a core.")


@dataclasses.dataclass(frozen=True)
class Visits:
    """The images that some steps read, those of this process.

    Attributes:
      rows: int32 [S, L] of S steps, rows of the images.
      keys: uint32 [S, L, 2], of the random crops that are made on the host; None where none are made.
    """

    rows: np.ndarray
    keys: np.ndarray | None = None


class Parts:
    """Parts of steps by number, the first step's first: what `grain.MapDataset` reads from.

    Part `p` is the images of the positions from `(p % parts) * size` on of step `p // parts`, uint8 [at most size, H,
    W, C], where `parts` is how many there are in a step.
    """

    def __init__(self, images: Images, visits: Visits, size: int):
        self.images, self._visits, self._size = images, visits, size
        self.in_a_step = -(-visits.rows.shape[1] // size)

    def __len__(self) -> int:
        return len(self._visits.rows) * self.in_a_step

    def __getitem__(self, index: Any) -> np.ndarray:
        step, part = divmod(int(index), self.in_a_step)
        positions = slice(part * self._size, (part + 1) * self._size)
        rows, keys = self._visits.rows[step, positions], self._visits.keys
        if not isinstance(self.images, FileImages):
            return self.images[rows]
        # One image at a time: the workers share the cores already.
        if keys is None:
            return np.stack([self.images[int(row)] for row in rows])
        pairs = zip(rows, keys[step, positions], strict=True)
        return np.stack([self.images.random_crop(int(row), key) for row, key in pairs])


def read(images: Images, visits: Visits, workers: int = 0) -> Generator[np.ndarray, None, None]:
    """The images of one step after another, uint8 [L, H, W, C]. Close it, or exhaust it, to end the workers.

    Arrays are indexed in this process. Files are decoded by worker processes, in the order in which they are needed.

    Args:
      images: all of them.
      visits: which are read.
      workers: processes that decode files; 0 for one a core.

    Raises:
      images.UnreadableImage: a file that cannot be decoded, with its name.
      MemoryError, OSError: what is no property of a file, such as of a disk, with the file's name.
      ChildProcessError: a worker died.
    """
    if not isinstance(images, FileImages):
        yield from map(Parts(images, visits, visits.rows.shape[1]).__getitem__, range(len(visits.rows)))
        return
    parts = Parts(images, visits, PART)
    try:
        with contextlib.closing(_decode(parts, workers or cores.usable())) as decoded:
            for _ in range(len(visits.rows)):
                yield np.concatenate([_next(decoded) for _ in range(parts.in_a_step)])
    finally:
        # Threads of grain that have ended leave their last arrays in cycles of references. Python would warn at its end
        # of shared memory that was not freed.
        gc.collect()


def _decode(parts: Parts, workers: int) -> Any:
    """Grain's iterator over the parts, in their order, with worker processes that are started by the first access."""
    import grain  # here, because it takes seconds that runs with data on the devices need not wait

    # Grain reads its flags, which raises in programs that have not parsed absl's flags, such as notebooks.
    for name in flags.FLAGS:
        if name.startswith("grain_") and not flags.FLAGS[name].present:
            flags.FLAGS[name].present = 1
    dataset = grain.MapDataset.source(parts).to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    options = grain.MultiprocessingOptions(num_workers=min(workers, len(parts)), per_worker_buffer_size=2)
    return iter(dataset.mp_prefetch(options, worker_init_fn=_begin_worker))


def _next(decoded: Any) -> np.ndarray:
    """The next part."""
    try:
        return next(decoded)
    except (UnreadableImage, MemoryError, OSError) as error:
        # Without its traceback, whose frames in grain's thread hold an array in shared memory. The message says it all.
        raise error.with_traceback(None) from None
    except RuntimeError as error:
        # Grain has no class of error for it. Errors of decoding arrive as they were raised.
        if "terminated unexpectedly" not in str(error):
            raise
        code = str(error).partition("exit code ")[2].split(".")[0]
        raise ChildProcessError(
            f"a process that decodes images ended with exit code {code}{_REASONS.get(code, '')}. "
            "The same command resumes; data.workers sets how many of them there are."
        ) from error


def _begin_worker(index: int, count: int) -> None:
    """Leaves requests to stop to the process that trains, and ends this worker when that process has died."""
    del index, count
    # Schedulers and terminals send these to all processes. The one that trains saves first and then ends the workers.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent: Any = multiprocessing.parent_process()

    def wait() -> None:
        parent.join()
        os._exit(1)

    # Killed processes do not end their workers.
    threading.Thread(target=wait, daemon=True).start()
