"""`config.compiler` reaches the compiler of training chunks: what it does not know is refused there.

A run refuses such an option before (`devices.check_compiler`), by a program that is not the chunk.
"""

from typing import Any

import jax
import planned
import pytest
from one_phase import NETWORK, mesh_of, phase_with

from ltrobust.compilation import chips, record, rows
from ltrobust.compilation.programs import Program
from ltrobust.training import loop, placement, steps
from ltrobust.training.phases import Phase

OPTION = "xla_no_such_option"
REFUSED = rf"No such compile option: '{OPTION}'"


def configured(config: Any, **changes: Any) -> Any:
    """The configuration with the option and one step of the attack."""
    with config.unlocked():
        config.compiler[OPTION] = True
        for phase in (config.teacher, config.student):
            phase.method, phase.attack.steps = "pgd_at", 1
        config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


def made(config: Any, name: str, run_data: Any, mesh: Any) -> Phase:
    return phase_with(planned.make_phase(config, name, run_data, mesh), module=NETWORK)


@pytest.mark.parametrize(
    ("name", "devices", "changes"),
    [
        ("teacher", 1, {}),
        ("student", 1, {}),
        ("student", 2, {}),
        ("student", 1, {"student__accumulate": 2}),
    ],
)
def test_the_loop_of_a_phase_compiles_with_the_options(tiny, name, devices, changes):
    config, mesh = configured(tiny, **changes), mesh_of(devices)
    run_data = planned.load_run_data(config)
    with pytest.raises(jax.errors.JaxRuntimeError, match=REFUSED):
        loop.run_phase(made(config, name, run_data, mesh), run_data, mesh=mesh)


@pytest.mark.parametrize("topology", ["v5e:1x1", "h100:1"])
def test_compiling_ahead_has_the_options_beside_those_of_the_topology(tiny, topology):
    config, mesh = configured(tiny), mesh_of(1)
    run_data = planned.load_run_data(config)
    phase = made(config, "student", run_data, mesh)
    shapes = placement.argument_shapes(phase, run_data, mesh, {}, loop.CAPACITY)
    trace = lambda: steps.compile_chunk(phase.settings, mesh).trace(*shapes)  # noqa: E731
    program = Program("student step", (), 64, run_data.image_shape, record.STEP, True, "student.batch_size", trace)
    problem = rows.compile_row(program, chips.parse(topology)).problem
    assert f"student step does not compile for {topology}: " in problem
    assert f"No such compile option: '{OPTION}'" in problem
