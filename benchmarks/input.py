"""What the input costs: on-device images, gathered and augmented on the device, against batches that the host sends.

    python benchmarks/input.py [--network=small_resnet] [--method=at_bsl] [--batch=128] [--policies=base,randaugment]

The cost of on-device input is the share of a step that gathering, augmenting and scaling take: the same function alone
over the whole step. For host-fed batches a lower bound is timed: gathering rows with NumPy and copying them to the
device, without augmentation and with nothing hidden behind the step.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import measure
import numpy as np
import training
from jax.sharding import PartitionSpec

from ltrobust.training import devices, steps


def main() -> None:
    """Times step and input of each policy in turn."""
    parser = measure.parser(__doc__)
    parser.add_argument("--network", default="small_resnet")
    parser.add_argument("--method", default="at_bsl")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--attack_steps", type=int, default=10)
    parser.add_argument("--policies", default="none,base", help="augmentations, by commas; two of them need colours")
    given = parser.parse_args()
    path, calls, names = measure.begin(given, "input"), {}, given.policies.split(",")
    with measure.compile_cache():
        for policy in names:
            calls[f"step, {policy}"], calls[f"input, {policy}"], calls["host"] = make(given, policy)
        times = measure.interleave(calls, given.repeats)
    rows = []
    for policy in names:
        step, share = times[f"step, {policy}"], times[f"input, {policy}"]
        rows.append(
            {
                "augmentation": policy,
                "seconds_a_step": measure.spread(step),
                "resident_seconds": measure.spread(share),
                "resident_share": measure.spread([one / whole for one, whole in zip(share, step, strict=True)]),
                "host_seconds": measure.spread(times["host"]),
            }
        )
    measure.finish(path, given, rows)


def make(given: argparse.Namespace, policy: str) -> tuple[Any, Any, Any]:
    """Calls of a step, of its input alone, and of a batch's way from the host."""
    settings = {"student__augmentation__policy": policy, "student__attack__steps": given.attack_steps}
    result = training.prepare(training.configuration(given.network, given.method, given.batch, **settings))
    program = result.lower().compile()
    gather = jax.jit(
        jax.shard_map(
            lambda step, inputs, rows: steps.make_examples(step, inputs, rows, result.phase.settings),
            mesh=result.mesh,
            in_specs=(PartitionSpec(), PartitionSpec(), devices.divided()),
            out_specs=devices.divided(),
            check_vma=False,
        )
    )
    rows, pixels = np.asarray(result.order)[0], np.asarray(result.inputs.data.pixels)
    place = devices.sharding(result.mesh, devices.divided())
    return (
        lambda: result.run(program),
        lambda: gather(jnp.int32(0), result.inputs, result.order[0]),
        lambda: jax.device_put(pixels[rows], place),
    )


if __name__ == "__main__":
    main()
