"""A phase that was stopped after any step and continues in fresh objects ends with the same bits, for every state."""

import errno
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import planned
import pytest
from one_phase import NETWORK, mesh_of, phase_with
from toy_methods import class_wise, counting

from ltrobust import methods
from ltrobust.evaluation import protocols
from ltrobust.evaluator import Evaluator, make_evaluator
from ltrobust.methods import Teacher
from ltrobust.models import forward, initialise
from ltrobust.runtime.preemption import Preempted, Preemption
from ltrobust.threat import Threat
from ltrobust.training import checksums, loop, steps
from ltrobust.training.checkpoints import Checkpoints
from ltrobust.training.records import Records, read

WRAPPED = {"plain_epochs": 1, "average_after": 0, "threshold": 0.0}
TOYS = {
    "class_wise": class_wise,
    "counting": counting,
    "cfa": lambda method: methods.wrap(method, "cfa", **WRAPPED),
    "fair_ard": lambda method: methods.wrap(methods.create("ard", method.inner), "fair_ard"),
    "weak_class_reweight": lambda method: methods.wrap(method, "weak_class_reweight", plain_fraction=0.0),
}
# The others keep nothing that the phase itself does not keep.
WITH_STATE = [
    name
    for name in methods.REGISTRY
    if methods.create(name, methods.InnerAttack()).initial_state({}, jnp.full(10, 9.0))
]


@functools.cache
def validation(threat: Threat) -> Evaluator:
    """Validation's evaluator, compiled once for all methods."""
    return make_evaluator(
        lambda weights, images: forward(NETWORK, weights.params, weights.batch_stats, images, bn="eval")[0],
        protocol=protocols.get("validation"),
        threat=threat,
        num_classes=10,
        batch_size=64,
    )


@pytest.fixture(params=["self_distillation", *WITH_STATE, *TOYS])
def run(request, tiny):
    """`run(folder, stop_after=0, minutes=10.0)`: trains a student's phase, one step a chunk, or is asked to stop."""
    base = request.param if request.param in methods.REGISTRY else "pgd_at"
    with tiny.unlocked():
        tiny.student.method = base
        tiny.student.ema_decay = 0.9
        tiny.student.attack.steps = 1
    mesh = mesh_of(1)
    method = planned.make_method(tiny, "student")
    method = TOYS[request.param](method) if request.param in TOYS else method
    run_data = planned.load_run_data(tiny)
    phase = planned.make_phase(tiny, "student", run_data, mesh)
    decay = 0.0 if method.averaging else phase.settings.ema_decay
    phase = phase_with(phase, module=NETWORK, method=method, ema_decay=decay)
    teacher = Teacher(NETWORK, *initialise(NETWORK, jax.random.key(1), run_data.image_shape))
    chunk = steps.compile_chunk(phase.settings, mesh)

    def train(folder, stop_after: int = 0, minutes: float = 10.0):
        preemption, left = Preemption(), stop_after

        def counted(*arguments):
            nonlocal left
            left -= 1
            preemption.requested = "SIGTERM" if left == 0 else None
            return chunk(*arguments)

        with Checkpoints(folder / "checkpoints") as checkpoints, Records(folder) as records:
            return loop.run_phase(
                phase,
                run_data,
                mesh=mesh,
                teachers=dict.fromkeys(method.teachers, teacher),
                services=loop.Services(
                    checkpoints, minutes, {}, validation(planned.make_threat(tiny)), records.write, preemption
                ),
                compile_chunk=lambda settings, mesh: counted,
                capacity=1,
            )

    train.phase = phase
    return train


def assert_same(first: Any, second: Any) -> None:
    """Bit for bit: names, types and values, not-a-number included."""
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert [leaf.dtype for leaf in jax.tree.leaves(first)] == [leaf.dtype for leaf in jax.tree.leaves(second)]


def learning_curve(folder) -> list[dict[str, Any]]:
    return [{**record, "seconds": None} for record in read(folder / "metrics.jsonl")]


@pytest.mark.slow
def test_stopped_inside_an_epoch_and_at_its_end_it_ends_with_the_same_bits(run, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir(), stopped.mkdir()
    state, selection = run(whole)
    assert int(selection.epoch) > 0
    assert state.averaged is not None
    an_epoch = run.phase.schedule.first_step(1)
    assert 2 < an_epoch < run.phase.total_steps - 2
    # After 2 steps; from there at the end of the epoch; from there 2 steps into the next one.
    for count in (2, an_epoch - 2, 2):
        with pytest.raises(Preempted):
            run(stopped, count)
    assert_same(run(stopped), (state, selection))
    assert learning_curve(stopped) == learning_curve(whole)
    # What is on disk is what was returned.
    with Checkpoints(whole / "checkpoints", read_only=True) as checkpoints:
        assert_same(checkpoints.restore(state, selection), (state, selection))


@pytest.mark.slow
@pytest.mark.parametrize("run", ["counting"], indirect=True)
def test_saves_that_fail_on_the_way_change_nothing(run, tmp_path, monkeypatch, capsys):
    whole, failing = tmp_path / "whole", tmp_path / "failing"
    whole.mkdir(), failing.mkdir()
    real, tried = checksums.write, []

    def full(folder):
        tried.append(int(folder.name.split(".")[0]))
        if 3 <= tried[-1] < run.phase.total_steps - 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(folder)

    monkeypatch.setattr(checksums, "write", full)
    result = run(failing, minutes=0.0)
    assert tried == list(range(1, run.phase.total_steps + 1))
    said = capsys.readouterr().out
    assert said.count("could not be written ([Errno 28] No space left on device)") == run.phase.total_steps - 4
    assert said.count(f"The newest one is still {failing / 'checkpoints' / '2'}") == run.phase.total_steps - 4
    assert_same(result, run(whole))
    # The last one must be written. If it cannot, the run ends and says where it continues from.
    monkeypatch.setattr(checksums, "write", lambda folder: full(folder.with_name("3.")))
    ends = tmp_path / "ends"
    ends.mkdir()
    with pytest.raises(OSError, match=r"(?s)No space left.*There is no older one.*Then give the same command again"):
        run(ends)
    monkeypatch.setattr(checksums, "write", real)
    assert_same(run(ends), result)
