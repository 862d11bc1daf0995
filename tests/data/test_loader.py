"""Which images a step reads from the host, in which parts, and how a failure of a worker reaches the user."""

import contextlib
import errno
import pathlib
import re
import time

import listed
import numpy as np
import pytest

from ltrobust.data import images, loader
from ltrobust.data.loader import Parts, Visits


def noise(count: int, side: int = 8) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (count, side, side, 3)).astype(np.uint8)


ROWS = np.random.RandomState(1).randint(0, 50, (3, 10)).astype(np.int32)


@pytest.mark.parametrize("size", [1, 3, 5, 10, 32])
def test_parts_of_any_size_are_the_steps_positions_in_order(size):
    pixels, visits = noise(50), Visits(ROWS)
    parts = Parts(pixels, visits, size)
    assert len(parts) == 3 * parts.in_a_step
    joined = np.concatenate([parts[number] for number in range(len(parts))])
    np.testing.assert_array_equal(joined, pixels[ROWS.ravel()])
    # Any part can be asked for alone.
    np.testing.assert_array_equal(parts[parts.in_a_step], pixels[ROWS[1, :size]])


def test_an_array_is_read_step_by_step():
    pixels = noise(50)
    steps = list(loader.read(pixels, Visits(ROWS)))
    np.testing.assert_array_equal(steps, pixels[ROWS])


def test_files_are_cropped_under_the_key_of_their_visit(tmp_path):
    files = listed.as_files(tmp_path, noise(50))
    keys = np.random.RandomState(2).randint(0, 2**32, (3, 10, 2), np.uint32)
    parts = Parts(files, Visits(ROWS, keys), 4)
    expected = [files.random_crop(ROWS[1, place], keys[1, place]) for place in range(4, 8)]
    np.testing.assert_array_equal(parts[parts.in_a_step + 1], expected)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_workers_decode_files_in_the_order_of_the_steps(tmp_path, workers):
    pixels = noise(50)
    rows = np.tile(ROWS, (1, 7))  # more than one part in a step
    with contextlib.closing(loader.read(listed.as_files(tmp_path, pixels), Visits(rows), workers)) as steps:
        np.testing.assert_array_equal(next(steps), pixels[rows[0]])
        np.testing.assert_array_equal(next(steps), pixels[rows[1]])


@pytest.mark.slow
def test_a_file_that_a_worker_cannot_decode_is_named(tmp_path):
    files = listed.as_files(tmp_path, noise(50))
    (tmp_path / f"{ROWS[1, 4]}.png").write_bytes(b"no image")
    steps = loader.read(files, Visits(ROWS), workers=2)
    next(steps)
    with pytest.raises(images.UnreadableImage, match=rf"{ROWS[1, 4]}\.png .*data\.skip_unreadable"):
        next(steps)


MAPS = pathlib.Path("/proc/self/maps")


def shared_memory() -> set[str]:
    """Blocks of shared memory that this process has mapped, without semaphores and the heap of multiprocessing."""
    return set(re.findall(r"/dev/shm/(?!sem\.|pym-)\S+", MAPS.read_text()))


DAMAGED = images.UnreadableImage("damaged")
DISK = OSError(errno.EIO, "no answer", "a.png")
MEMORY = MemoryError("short")


@pytest.mark.slow
@pytest.mark.skipif(not MAPS.exists(), reason="no /proc/self/maps on this system")
@pytest.mark.parametrize(
    ("error", "row"), [(None, 0), (DAMAGED, 3), (DAMAGED, 40), (DAMAGED, 90), (DISK, 40), (MEMORY, 40)]
)
def test_shared_memory_is_freed_when_all_is_read_and_when_an_image_is_not(tmp_path, monkeypatch, error, row):
    files = listed.as_files(tmp_path, noise(96, side=64))  # large enough for shared memory
    if error is not None:
        files = listed.Failing(**vars(files), row=row, error=error)
    before, seen, concatenate = shared_memory(), set(), np.concatenate

    def joined(parts, *arguments, **options):
        seen.update(shared_memory() - before)
        return concatenate(parts, *arguments, **options)

    monkeypatch.setattr(np, "concatenate", joined)
    # The first step reads no image that fails, so that its parts are seen in shared memory.
    visits = Visits(np.stack([np.zeros(96, np.int32), np.arange(96, dtype=np.int32)]))
    steps = loader.read(files, visits, workers=2)
    next(steps)
    with contextlib.nullcontext() if error is None else pytest.raises(type(error), match=re.escape(str(error))):
        list(steps)
    assert seen
    until = time.monotonic() + 20  # a thread of grain does it
    while (left := shared_memory() - before) and time.monotonic() < until:
        time.sleep(0.01)
    assert not left


@pytest.mark.slow
def test_a_worker_that_dies_is_an_error_that_says_what_to_do(tmp_path):
    files = listed.as_files(tmp_path, noise(50))
    deadly = listed.Deadly(**{name: getattr(files, name) for name in files.__dataclass_fields__})
    steps = loader.read(deadly, Visits(np.array([[0, 1], [2, 49]], np.int32)), workers=1)
    # The worker reads ahead, so that it may die before the first step is taken.
    with pytest.raises(ChildProcessError, match=r"exit code -9: it was killed.*lower data\.workers"):
        list(steps)
