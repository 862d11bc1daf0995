"""One step on 1, 2, 4 and 8 devices: seconds, and the collectives of the compiled program with their bytes.

    python benchmarks/scaling.py [--network=small_resnet] [--method=at_bsl] [--batch=128] [--devices=1,2,4,8]

The batch is that of each device (weak scaling), or of all together (--strong). On the CPU devices are forced: they
share the cores, so that seconds say what dividing costs, not what devices gain. Collectives and bytes are those of any
backend up to how it groups them.
"""

import argparse
from typing import Any

import collectives
import flops
import jax
import measure
import training

from ltrobust.compilation import hlo
from ltrobust.training import devices
from ltrobust.training.state import OWN_SUMS


def main() -> None:
    """Compiles all programs, times them in turn, prints one row for each."""
    parser = measure.parser(__doc__)
    parser.add_argument("--network", default="small_resnet")
    parser.add_argument("--width", type=int, default=16, help="channels of small_resnet")
    parser.add_argument("--method", default="at_bsl", choices=sorted(flops.PASSES))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--devices", default="1,2,4,8")
    parser.add_argument("--attack_steps", type=int, default=10)
    parser.add_argument("--strong", action="store_true", help="one batch, divided over the devices")
    given = parser.parse_args()
    counts = [int(count) for count in given.devices.split(",")]
    jax.config.update("jax_num_cpu_devices", max(counts))
    path, rows, calls = measure.begin(given, "scaling"), {}, {}
    with measure.compile_cache():
        for count in counts:
            for synchronised in (True, False) if count > 1 else (True,):
                name = f"{count}, {synchronised}"
                calls[name], rows[name] = divided(given, count, synchronised)
        times = measure.interleave(calls, given.repeats)
    for name, row in rows.items():
        row["seconds_a_step"] = measure.spread(times[name])
        row["images_per_second"] = measure.spread([row["batch"] / seconds for seconds in times[name]])
    measure.finish(path, given, list(rows.values()))


def divided(given: argparse.Namespace, count: int, synchronised: bool) -> tuple[Any, dict[str, Any]]:
    """A call of one step on so many devices, and what its program sends.

    Raises:
      RuntimeError: the program sends other numbers than gradients, statistics and metrics, or sends inside the attack.
    """
    batch = given.batch if given.strong else given.batch * count
    config = training.configuration(
        given.network,
        given.method,
        batch,
        model__width=given.width,
        model__sync_batch_norm=synchronised,
        student__attack__steps=given.attack_steps,
    )
    result = training.prepare(config, devices.make_mesh(jax.devices()[:count]))
    program, seconds = measure.compiled(result.lower)
    sent = hlo.Program(program.as_text()).collectives()
    row = {"devices": count, "batch": batch, "synchronised": synchronised} | collectives.summarise(sent)
    if count > 1:
        weights = result.state.weights
        row["expected_bytes"] = 4 * collectives.expected(
            weights.params,
            weights.batch_stats,
            result.phase.settings.method,
            metrics=len(result.state.sums) - len(OWN_SUMS),
            synchronised=synchronised,
            differentiated=flops.PASSES[given.method].differentiated,
        )
        if row["bytes"] != row["expected_bytes"] or row["deepest"] > 1:
            raise RuntimeError(f"the step sends something else than gradients, statistics and metrics once: {row}")
    return lambda: result.run(program), row | seconds


if __name__ == "__main__":
    main()
