"""Compiles the input of one training step for a TPU, with single pixels indexed and without, and keeps what it costs.

    python benchmarks/compiled_input.py

The input is the recipe of CIFAR-10-LT's: 128 images of 32x32x3 are picked out of the training images on the device,
augmented and scaled (`steps.make_examples`), on one v5e chip. Training on a TPU does it without indexing, other
platforms with it (`gather` of `phases.make_phase`). The compiler's model does not price operations that index, so those
are counted and their bytes added up. Result:
`benchmarks/results/compiled_input-v5e-1x1.json`, rows as of `ltrobust compile`.
"""

import functools
import pathlib
from typing import Any

import compile_ahead

from ltrobust.compilation import chips, record, rows, topologies
from ltrobust.compilation.programs import Program
from ltrobust.compilation.record import CALL

RESULTS = pathlib.Path(__file__).parent / "results"
TOPOLOGY = "v5e:1x1"
POLICIES = ("base", "randaugment", "autoaugment")
# Whether pixels are indexed -> how a row says it.
FORMS = {True: "pixels indexed", False: "no pixel indexed"}


def main() -> None:
    """Compiles every policy in both forms."""
    source, topology = compile_ahead.commit("benchmarks/compiled_input.py"), chips.parse(TOPOLOGY)
    found = topologies.make_devices(topology)
    compiled = []
    for policy in POLICIES:
        plan = make_plan(policy)
        for gather, form in FORMS.items():
            row = rows.compile_row(make_program(plan, found, f"{policy}, {form}", gather=gather), topology)
            compiled.append(row)
            print(f"{row.program}: {row.cycles} cycles, {row.cpu_seconds} CPU seconds {row.problem}", flush=True)
    path = RESULTS / f"compiled_input-{TOPOLOGY.replace(':', '-')}.json"
    record.write(path, rows.make_record(make_plan(POLICIES[0]), topology, source, compiled))
    print(path)


def make_plan(policy: str) -> Any:
    """The recipe of CIFAR-10-LT with an augmentation of the student."""
    from ltrobust import plan, recipes

    config: Any = recipes.load("cifar10")
    config.student.method = "at_bsl"  # needs no teacher; the input is the same
    config.student.augmentation.policy = policy
    return plan.make_plan(config, RESULTS / "none")


def make_program(plan: Any, found: list[Any], name: str, *, gather: bool) -> Program:
    """The input of a step of the student.

    Args:
      plan: of the run.
      found: devices of the topology.
      name: of the row.
      gather: whether single pixels are indexed.
    """
    import jax
    import jax.numpy as jnp

    from ltrobust.data import blank
    from ltrobust.training import devices, loop, phases, placement, steps

    data, mesh = blank.make_run_data(plan.data), devices.make_mesh(found)
    phase = phases.make_phase(plan.phases[-1], plan.model, data, mesh, platform="cpu" if gather else "tpu")
    _, inputs, *_ = placement.argument_shapes(phase, data, mesh, {}, loop.CAPACITY)
    size = phase.schedule.batch_size
    function = devices.map_over_devices(
        functools.partial(steps.make_examples, settings=phase.settings),
        mesh,
        in_specs=(devices.REPLICATED, steps.input_specs(phase.settings), devices.divided()),
        out_specs=devices.divided(),
    )
    step = jax.ShapeDtypeStruct((), jnp.int32)
    (step,) = devices.shapes((step,), mesh)
    (order,) = devices.shapes((jax.ShapeDtypeStruct((size,), jnp.int32),), mesh, devices.divided())
    return Program(
        name,
        (),
        size,
        data.image_shape,
        CALL,
        True,
        "student.batch_size",
        lambda: function.trace(step, inputs, order),
    )


if __name__ == "__main__":
    main()
