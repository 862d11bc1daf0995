"""The real programs of the digits recipe, compiled for TPUs and GPUs that are not there: what they may and may not do.

Skipped where a compiler is not installed (extras `tpu-compile` and `cuda-compile`).
"""

import importlib.metadata
from typing import Any, NamedTuple

import collectives
import flops
import pytest

from ltrobust import recipes
from ltrobust.compilation import chips, topologies
from ltrobust.compilation.programs import Program, programs
from ltrobust.compilation.record import PASS, STEP, Row
from ltrobust.compilation.rows import compile_row
from ltrobust.data import blank
from ltrobust.plan import make_plan
from ltrobust.training import devices, placement, teacher_student

MIB = 1 << 20
# Numbers that a method's loss records.
METRICS = {"teacher": 0, "student": 4}


def needs(name: str) -> chips.Topology:
    """The topology, or a skip where its compiler is missing."""
    topology = chips.parse(name)
    package, extra = topologies.PACKAGES[topology.chip.platform]
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"needs {package}: pip install -e '.[{extra}]'")
    return topology


class Compiled(NamedTuple):
    """Programs and their rows by name, and what a step of each phase should sum over devices."""

    programs: dict[str, Program]
    rows: dict[str, Row]
    expected: dict[str, int]


def compiled(name: str, tmp_path: Any, *wanted: str) -> Compiled:
    """The digits recipe's programs under `standard`, or those whose names begin so."""
    topology = needs(name)
    config = recipes.load("digits")
    config.eval.protocol = "standard"
    plan = make_plan(config, tmp_path)
    mesh = devices.make_mesh(topologies.make_devices(topology))
    chosen = {one.name: one for one in programs(plan, mesh) if one.name.startswith(wanted or "")}
    data = blank.make_run_data(plan.data)
    expected = {}
    for phase in teacher_student.make_phases(plan, data, mesh).values():
        weights, method = placement.weight_shapes(phase, data), phase.settings.method
        expected[phase.name] = collectives.expected(
            weights.params,
            weights.batch_stats,
            method,
            metrics=METRICS[phase.name],
            synchronised=True,
            differentiated=flops.PASSES[method.name].differentiated,
        )
    return Compiled(chosen, {name: compile_row(one, topology) for name, one in chosen.items()}, expected)


@pytest.fixture(scope="module")
def tpu(tmp_path_factory) -> Compiled:
    """For eight v5e chips."""
    return compiled("v5e:2x4", tmp_path_factory.mktemp("run"))


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize("phase", ["teacher", "student"])
def test_a_step_on_eight_chips_sums_gradients_and_statistics_and_gathers_little(tpu, phase):
    row = tpu.rows[f"{phase} step"]
    assert not row.problem
    assert row.unit == STEP
    assert {one.kind for one in row.collectives} == {"all-reduce"}
    # One loop is that over steps. A second one would be the attack's, where no chip may wait for another.
    assert row.depth() == 1
    assert sum(one.bytes for one in row.collectives) == 4 * tpu.expected[phase]
    # Two for each of the seven norms, whose passes send together, one for the gradients, one for the loss.
    assert sum(one.count for one in row.collectives) <= 16
    assert not row.float64
    assert 0 < row.memory < 32 * MIB
    assert row.cycles > 0
    assert row.share_of_peak < 1
    # Rows of the data set, one for each image. A gather of single pixels takes longer than a step of the attack.
    assert sum(one.bytes for one in row.unpriced if one.kind == "gather") <= GATHERED


# Bytes that a chip gathers in a step: 16 images of 64 pixels, and their labels.
GATHERED = 2048


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize("kind", ["judge", "pgd", "apgd", "fab", "square", "start of pgd", "start of square"])
def test_attacks_on_eight_chips_compile_and_send_no_image(tpu, kind):
    result = [row for name, row in tpu.rows.items() if f": {kind}" in name]
    assert result
    for row in result:
        assert not row.problem
        # FAB-T's projection ends when no slot of any chip needs another pass, and asks after each.
        assert row.depth() <= (2 if kind == "fab" else 1)
        # Whether a slot is still at work, and how many rest.
        assert sum(one.bytes for one in row.collectives) <= 64
        assert not row.float64
        assert 0 < row.memory < 32 * MIB
        assert (row.unit == PASS) == (kind in ("pgd", "apgd", "fab", "square"))


@pytest.mark.slow
@pytest.mark.optimized
def test_images_of_attacks_stay_divided_over_the_chips(tpu):
    """The loops are traced for divided slots, so their starts must leave them so; zeros may lie anywhere."""
    for name, program in tpu.programs.items():
        if "start of" not in name:
            continue
        shardings = program.trace().lower().compile().output_shardings
        for leaf in [*shardings.problem[:3], shardings.state.candidate]:
            assert leaf.spec == devices.divided(), name


@pytest.mark.slow
@pytest.mark.optimized
def test_a_step_on_eight_gpus_sums_gradients_and_statistics(tmp_path):
    result = compiled("h100:8", tmp_path, "student step")
    (row,) = result.rows.values()
    assert not row.problem
    assert {one.kind for one in row.collectives} == {"all-reduce"}
    assert row.depth() == 1
    assert sum(one.bytes for one in row.collectives) == 4 * result.expected["student"]
    # 19 by jax-cuda13-plugin 0.10.2, whose passes join fewer of them than those for TPUs.
    assert sum(one.count for one in row.collectives) <= 20
    assert not row.float64
    assert 0 < row.memory < 32 * MIB
    assert row.cycles is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "chip", [chip for chip in chips.CHIPS.values() if chip.platform == "tpu"], ids=lambda c: c.name
)
def test_every_listed_topology_exists(chip):
    for shape in chip.shapes:
        topology = needs(f"{chip.name}:{shape}")
        result = topologies.make_devices(topology)
        assert len(result) == topology.size
        assert result[0].platform == "tpu"


@pytest.mark.slow
@pytest.mark.optimized
def test_steps_in_parts_and_with_rematerialised_blocks_need_less_memory(tmp_path):
    topology = needs("v5e:1x1")
    mesh = devices.make_mesh(topologies.make_devices(topology))

    def memory(**changes: Any) -> int:
        config: Any = recipes.load("digits")
        settings = {"model.depth": 3, "model.width": 32, "student.method": "at_bsl", "student.batch_size": 256}
        config.update_from_flattened_dict(settings | {key.replace("__", "."): value for key, value in changes.items()})
        (step,) = (one for one in programs(make_plan(config, tmp_path), mesh) if one.name == "student step")
        row = compile_row(step, topology)
        assert not row.problem
        assert row.memory is not None
        return row.memory

    plain = memory()
    assert memory(student__accumulate=4) < 0.7 * plain
    assert memory(model__remat=True) < 0.9 * plain
