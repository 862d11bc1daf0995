"""Training with images that are sent from the host: the same bits as with images on the devices."""

import dataclasses
import multiprocessing
import os
import pathlib
import socket
import subprocess
import sys
import threading
from typing import Any

import host_batches
import jax
import jax.numpy as jnp
import listed
import numpy as np
import planned
import pytest
from jax.sharding import Mesh
from one_phase import NETWORK, mesh_of, phase_with

from ltrobust.data import batches
from ltrobust.data.images import FileImages
from ltrobust.data.run_data import Examples, RunData
from ltrobust.runtime import processes
from ltrobust.runtime.preemption import Preempted, Preemption
from ltrobust.training import feeds, loop, placement
from ltrobust.training.phases import Phase
from ltrobust.training.state import TrainState


@pytest.fixture
def make(tiny):
    """`make(remainder, redraw, devices, host_fed)`: a student's phase of two epochs, its data and devices."""

    def make(remainder: str = "drop", redraw: bool = False, devices: int = 1, host_fed: bool = True) -> Any:
        with tiny.unlocked():
            tiny.student.method = "pgd_at"
            tiny.student.attack.steps = 1
            tiny.student.remainder = remainder
            if redraw:
                tiny.student.subset, tiny.student.balanced.redraw = "balanced", True
        run_data, mesh = planned.load_run_data(tiny), mesh_of(devices)
        phase = planned.make_phase(tiny, "student", run_data, mesh)
        axis = NETWORK if devices == 1 else NETWORK.clone(layers=phase.settings.module.layers)
        return phase_with(phase, module=axis, host_fed=host_fed), run_data, mesh

    return make


class Memory:
    """A checkpoint in memory."""

    saved: Any = None

    def latest(self) -> int | None:
        return None if self.saved is None else int(self.saved[0].step)

    def save(self, state: Any, selection: Any, metadata: Any) -> None:
        self.saved = jax.tree.map(jnp.copy, (state, selection))

    def restore(self, state: Any, selection: Any) -> Any:
        return self.saved

    def wait(self) -> None:
        pass


def train(phase: Phase, run_data: RunData, mesh: Mesh, **settings: Any) -> TrainState:
    return loop.run_phase(phase, run_data, mesh=mesh, **settings)[0]


def assert_same(first: Any, second: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("capacity", [1, 3, 1024])
def test_a_chunk_gets_the_examples_of_its_steps(make, capacity):
    phase, run_data, mesh = make("carry", devices=4)
    whole = batches.order(phase.schedule, phase.order_key, 0, phase.total_steps, phase.examples_of)
    with feeds.open_feed(phase, run_data, mesh, capacity=capacity) as feed:
        done = 2  # as after a restart
        while done < phase.total_steps:
            count = min(feed.capacity, phase.total_steps - done)
            inputs, order = feed.take(done, count)
            for step in range(count):
                for device, shard in enumerate(order.addressable_shards):
                    pixels, labels = (
                        part.addressable_shards[device].data for part in (inputs.data.pixels, inputs.data.labels)
                    )
                    rows = whole[done + step].reshape(4, -1)[device]
                    local = np.asarray(shard.data)[step]
                    np.testing.assert_array_equal(np.asarray(labels)[local], phase.labels[rows])
                    images = run_data.training.images[rows].reshape(len(rows), -1)
                    np.testing.assert_array_equal(np.asarray(pixels)[local], images)
            done += count


def test_a_step_out_of_order_is_given_or_refused_but_never_another_one(make):
    phase, run_data, mesh = make(host_fed=False)
    with feeds.open_feed(phase, run_data, mesh, capacity=2) as feed:
        orders = [feed.take(step, 1)[1] for step in (0, 3, 0)]
    expected = [batches.order(phase.schedule, phase.order_key, step, 1, phase.examples_of) for step in (0, 3, 0)]
    np.testing.assert_array_equal([order[:1] for order in orders], expected)
    with feeds.open_feed(*make()[:2], mesh, capacity=2) as feed:
        feed.take(1, 2)
        for step in (1, 4):
            with pytest.raises(
                ValueError, match=rf"step {step} is asked for, but the next is step 3; open another feed"
            ):
                feed.take(step, 1)
        feed.take(3, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("remainder", "redraw", "devices", "capacity"),
    [("drop", False, 1, 1024), ("carry", False, 1, 3), ("drop", True, 1, 2), ("carry", True, 4, 1024)],
)
def test_training_ends_with_the_same_bits(make, remainder, redraw, devices, capacity):
    expected = train(*make(remainder, redraw, devices, host_fed=False))
    assert_same(train(*make(remainder, redraw, devices), capacity=capacity), expected)


@pytest.mark.slow
def test_stopped_inside_an_epoch_it_ends_with_the_same_bits_from_either_place(make):
    checkpoints, preemption = Memory(), Preemption()
    expected = train(*make("carry", host_fed=False))
    # Chunks have one step until their time is known, so that it stops after the first one, and then the second.
    preemption.requested = "SIGTERM"
    for host_fed in (True, False):
        with pytest.raises(Preempted):
            train(*make("carry", host_fed=host_fed), services=loop.Services(checkpoints, preemption=preemption))
    assert checkpoints.latest() == 2
    assert_same(train(*make("carry"), services=loop.Services(checkpoints)), expected)


def in_files(run_data: RunData, folder: pathlib.Path) -> RunData:
    """The same training images as PNG files, which keep their pixels."""
    files = listed.as_files(folder, run_data.training.images)
    return dataclasses.replace(run_data, training=Examples(files, run_data.training.labels))


@pytest.mark.slow
def test_files_that_workers_decode_train_to_the_same_bits_as_their_pixels(make, tmp_path):
    phase, run_data, mesh = make("carry")
    files = in_files(run_data, tmp_path)
    services = loop.Services(workers=2)
    assert_same(train(phase, files, mesh, services=services, capacity=2), train(*make("carry", host_fed=False)))


@pytest.mark.slow
def test_random_crops_have_the_augmentation_key_of_their_step_and_position(make, tmp_path):
    phase, run_data, mesh = make(devices=4)
    files = in_files(run_data, tmp_path)
    phase = phase_with(phase, augmentation="random_resized_crop")
    with feeds.open_feed(phase, files, mesh, workers=1) as feed:
        inputs, _ = feed.take(3, 1)
    row = batches.order(phase.schedule, phase.order_key, 3, 1, phase.examples_of)[0, 37]
    key, _ = jax.random.split(jax.random.fold_in(jax.random.fold_in(phase.step_key, 3), 37))
    expected = files.training.images.random_crop(row, np.asarray(jax.random.key_data(key)))
    np.testing.assert_array_equal(np.asarray(inputs.data.pixels)[37], expected.ravel())


@pytest.mark.slow
def test_an_image_list_with_crops_and_jitter_stopped_inside_an_epoch_ends_with_the_same_bits(tiny, tmp_path):
    with tiny.unlocked():
        tiny.data.lists.update(listed.write(tmp_path, train=[20, 16, 12], test=[1, 1, 1]))
        tiny.data.name, tiny.data.dir, tiny.data.image_size, tiny.data.channels = "image_list", str(tmp_path), 8, 3
        tiny.data.imbalance_ratio = tiny.data.validation_fraction = 0.0
        tiny.student.method, tiny.student.attack.steps = "pgd_at", 1
        tiny.student.epochs, tiny.student.batch_size = 2, 16
        tiny.student.augmentation.policy, tiny.student.augmentation.jitter = "random_resized_crop", (0.4, 0.4, 0.4)
    run_data, mesh = planned.load_run_data(tiny), mesh_of(1)
    phase = planned.make_phase(tiny, "student", run_data, mesh)
    phase = phase_with(phase, module=NETWORK.clone(num_classes=3), host_fed=True)
    expected = train(phase, run_data, mesh, services=loop.Services(workers=1))
    checkpoints, preemption = Memory(), Preemption()
    preemption.requested = "SIGTERM"
    with pytest.raises(Preempted):
        train(phase, run_data, mesh, services=loop.Services(checkpoints, preemption=preemption, workers=1))
    assert checkpoints.latest() == 1 < phase.total_steps // 2
    assert_same(train(phase, run_data, mesh, services=loop.Services(checkpoints, workers=2)), expected)


def test_where_images_are_kept_follows_from_their_size_and_kind(tiny):
    run_data = planned.load_run_data(tiny)
    size = run_data.training.images.nbytes
    assert not feeds.host_fed("auto", run_data, None)
    assert not feeds.host_fed("auto", run_data, 2 * size)
    assert feeds.host_fed("auto", run_data, 2 * size - 1)
    assert feeds.host_fed("host", run_data, None)
    assert not feeds.host_fed("device", run_data, 1)
    files = FileImages("", ("a.png",), np.ones(1, np.int64), 8, 8)
    of_list = dataclasses.replace(run_data, training=Examples(files, np.zeros(1, np.int64)))
    assert feeds.host_fed("auto", of_list, None)
    with pytest.raises(
        ValueError, match=r"data\.residence is 'device', but the images are files.*use 'auto' or 'host'"
    ):
        feeds.host_fed("device", of_list, None)


def test_a_chunk_holds_as_many_steps_as_its_bytes_and_an_epoch_allow(make, monkeypatch):
    phase, run_data, mesh = make("carry", devices=4)
    share = phase.schedule.batch_size // 4 * 64
    assert placement.most_steps(phase, run_data, mesh, 1024) == -(-phase.schedule.examples // phase.schedule.batch_size)
    assert placement.most_steps(phase, run_data, mesh, 2) == 2
    monkeypatch.setattr(placement, "CHUNK_BYTES", 3 * share + 1)
    assert placement.most_steps(phase, run_data, mesh, 1024) == 3
    monkeypatch.setattr(placement, "CHUNK_BYTES", share - 1)
    assert placement.most_steps(phase, run_data, mesh, 1024) == 1
    assert placement.most_steps(phase_with(phase, host_fed=False), run_data, mesh, 1024) == 1024


@pytest.mark.parametrize("host_fed", [False, True])
def test_programs_are_compiled_ahead_for_what_a_run_gives_them(make, host_fed):
    phase, run_data, mesh = make(devices=4, host_fed=host_fed)
    with feeds.open_feed(phase, run_data, mesh, capacity=loop.CAPACITY) as feed:
        given = feed.take(0, 1)
    _, *ahead, _, _ = placement.argument_shapes(phase, run_data, mesh, {}, loop.CAPACITY)
    describe = lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding)  # noqa: E731
    assert jax.tree.map(describe, tuple(ahead)) == jax.tree.map(describe, given)


def test_a_failure_to_read_in_another_process_is_raised_here(make, monkeypatch):
    def gather(value: Any) -> list[Any]:
        return [value, "b.jpg is cut off" if value is None else value]

    monkeypatch.setattr(processes, "several", lambda: True)
    monkeypatch.setattr(processes, "gather", gather)
    with pytest.raises(ValueError, match=r"^process 1 of 2: b\.jpg is cut off"):
        train(*make())


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("reader")]


def test_a_failure_to_read_ends_the_phase_and_the_reader(make):
    class Failing:
        shape, dtype = (700, 8, 8, 1), np.dtype(np.uint8)

        def __getitem__(self, rows: Any) -> Any:
            raise OSError("disk")

    phase, run_data, mesh = make()
    run_data = dataclasses.replace(run_data, training=Examples(Failing(), run_data.training.labels))  # pyright: ignore
    with feeds.open_feed(phase, run_data, mesh, capacity=4) as feed, pytest.raises(OSError, match="disk"):
        feed.take(0, 1)
    assert not readers()
    with pytest.raises(OSError, match="disk"):
        train(phase, run_data, mesh, capacity=4)
    assert not readers()


@pytest.mark.slow
def test_a_feed_of_files_that_is_left_inside_an_epoch_ends_its_reader_and_workers(make, tmp_path):
    phase, run_data, mesh = make()
    before = set(multiprocessing.active_children())
    with feeds.open_feed(phase, in_files(run_data, tmp_path), mesh, capacity=2, workers=2) as feed:
        feed.take(0, 1)
        assert readers()
        assert set(multiprocessing.active_children()) - before
    assert not readers()
    assert not set(multiprocessing.active_children()) - before


@pytest.mark.slow
@pytest.mark.ci
def test_two_processes_read_their_shares_of_the_batches_of_one(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    tests = pathlib.Path(host_batches.__file__).parents[1]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
        "PYTHONPATH": os.pathsep.join(map(str, (tests.parent, tests, tests / "training"))),
    }
    command = [sys.executable, host_batches.__file__, str(tmp_path), str(port), "2"]
    started = [subprocess.Popen([*command, str(index)], env=environment) for index in range(2)]
    assert [process.wait(120) for process in started] == [0, 0]
    one = host_batches.collect()
    first, second = (dict(np.load(tmp_path / f"{index}.npz")) for index in range(2))
    np.testing.assert_array_equal(np.concatenate([first.pop("rows"), second.pop("rows")], axis=1), one.pop("rows"))
    assert (sorted(first), sorted(second), sorted(one)) == (["0", "1"], ["2", "3"], ["0", "1", "2", "3"])
    for device, pixels in (first | second).items():
        np.testing.assert_array_equal(pixels, one[device])
    (tmp_path / "one").mkdir()
    cropped = host_batches.collect(tmp_path / "one")
    first, second = (dict(np.load(tmp_path / f"{index}.crops.npz")) for index in range(2))
    assert sorted(first | second) == sorted(cropped)
    for device, pixels in (first | second).items():
        np.testing.assert_array_equal(pixels, cropped[device])
        assert (pixels != one[device]).any()
