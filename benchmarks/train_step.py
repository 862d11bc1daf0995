"""The training step: images per second, FLOP per second and what share of a measured matrix product that is.

    python benchmarks/train_step.py [--networks=resnet18,wrn_34_10,small_resnet] [--methods=at_bsl,self_distillation]
        [--batches=128] [--dtypes=float32] [--devices=1,2] [--against=torch] [--steps=1] [--memory]

With --against=torch the same step in PyTorch is timed in the same rounds on the same threads, as peers release it and
tuned (`torch_step.py`; a test holds it to our result). A row's share refers to the matrix product in its own type.
With --devices=1,2 our step is timed on one device and divided over two; on the CPU, devices share the process's cores.
FLOPs are those of convolutions and matrix products by layer shapes; XLA's own count stands beside them. --memory starts
each of them once more, alone, and asks how much memory the process held.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import flops
import jax
import measure
import training

from ltrobust.training.devices import make_mesh

FORMS = ("ours", "torch released", "torch tuned")


def main() -> None:
    """Times what is asked for, one network, method and batch after another."""
    given = flags().parse_args()
    jax.config.update("jax_num_cpu_devices", max(map(int, given.devices.split(","))))
    if given.alone:
        alone(given)
        return
    path, rows = measure.begin(given, "train_step"), []
    with measure.compile_cache():
        for network in given.networks.split(","):
            for method in given.methods.split(","):
                for batch in given.batches.split(","):
                    rows += compare(given, network, method, int(batch))
    measure.finish(path, given, rows)


def flags() -> argparse.ArgumentParser:
    """The flags that `compare` reads."""
    parser = measure.parser(__doc__)
    parser.add_argument("--networks", default="resnet18,wrn_34_10,small_resnet")
    parser.add_argument("--methods", default="at_bsl,self_distillation")
    parser.add_argument("--batches", default="128", help="images in a step, several by commas")
    parser.add_argument("--dtypes", default="float32", help="of ours: float32, tf32, bfloat16, by commas")
    parser.add_argument("--torch_dtypes", default="", help="of the tuned form: float32, bfloat16; default: --dtypes")
    parser.add_argument("--devices", default="1", help="devices that our batch is divided over, several by commas")
    parser.add_argument("--steps", type=int, default=1, help="steps in one timed dispatch")
    parser.add_argument("--attack_steps", type=int, default=10)
    parser.add_argument("--against", choices=["", "torch"], default="")
    parser.add_argument("--lean", action="store_true", help="compile once, and leave out what XLA counts")
    parser.add_argument("--memory", action="store_true", help="ask each form's own process how much it holds (CPU)")
    parser.add_argument("--alone", choices=["", *FORMS], default="", help="make one call of this form and end")
    return parser


def compare(given: argparse.Namespace, network: str, method: str, batch: int) -> list[dict[str, Any]]:
    """One row for each form and type, timed in turn with a matrix product of each type."""
    config = configuration(given, network, method, batch)
    shape = flops.network(training.prepare(config).phase.settings.module, training.image_shape(network))
    work = flops.step_flops(shape, method, given.attack_steps) * batch * given.steps
    calls, rows, peaks = {}, {}, {}
    for dtype in dict.fromkeys(dtype for _, dtype, _ in forms(given)):
        calls[f"{measure.PEAK}, {dtype}"], peaks[dtype] = measure.matrix_product(dtype)
    for form, dtype, devices in forms(given):
        name = f"{form}, {dtype}, {devices}"
        call, row = (ours if form == "ours" else theirs)(given, network, method, batch, form, dtype, devices)
        what = {"network": network, "method": method, "batch": batch, "form": form, "dtype": dtype, "devices": devices}
        rows[name] = what | row
        calls[name] = call
    times = measure.interleave(calls, given.repeats)
    for name, row in rows.items():
        rates = [work / seconds for seconds in times[name]]
        peak = peaks[row["dtype"]] / min(times[f"{measure.PEAK}, {row['dtype']}"])
        row["seconds_a_step"] = measure.spread([seconds / given.steps for seconds in times[name]])
        row["images_per_second"] = measure.spread([batch * given.steps / seconds for seconds in times[name]])
        row["gflop_per_second"] = measure.spread([rate / 1e9 for rate in rates])
        row["share_of_matrix_product"] = measure.spread([rate / peak for rate in rates])
        row["matrix_product_gflop_per_second"] = peak / 1e9
        row["gflop_per_image"] = work / batch / given.steps / 1e9
        if row["form"] == "ours":
            for other in (other for other in rows if other.startswith("torch")):
                pairs = zip(times[other], times[name], strict=True)
                row[f"speed over {other.rsplit(',', 1)[0]}"] = measure.spread([theirs / ours for theirs, ours in pairs])
        if given.memory:
            row["process_bytes"] = measure.process_memory([*sys.argv, *only(network, method, batch, row)])
    return list(rows.values())


def forms(given: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """What is compared, with its compute type and devices; the released form is float32 only."""
    dtypes, devices = given.dtypes.split(","), [int(count) for count in given.devices.split(",")]
    yield from (("ours", dtype, count) for dtype in dtypes for count in devices)
    if given.against:
        yield "torch released", "float32", 1
        yield from (("torch tuned", dtype, 1) for dtype in (given.torch_dtypes or given.dtypes).split(","))


def configuration(given: argparse.Namespace, network: str, method: str, batch: int, dtype: str = "float32") -> Any:
    """The default recipe with what the flags say."""
    settings = {"student__attack__steps": given.attack_steps, "model__dtype": measure.PRECISIONS[dtype][0]}
    return training.configuration(network, method, batch, **settings)


def ours(
    given: argparse.Namespace, network: str, method: str, batch: int, form: str, dtype: str, devices: int
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """A call of our compiled chunk, and what is known of it without timing."""
    del form
    mesh = make_mesh(jax.devices()[:devices])
    with jax.default_matmul_precision(measure.PRECISIONS[dtype][1]):
        result = training.prepare(configuration(given, network, method, batch, dtype), mesh, steps_at_once=given.steps)
        program, row = measure.compiled(result.lower, again=not given.lean)
        if not given.lean:
            plain = configuration(given, network, method, batch, dtype)
            plain.student.attack.steps = 0
            without = training.prepare(plain, mesh, steps_at_once=given.steps)
            with flops.direct_convolutions():
                counted = flops.counted(result.lower().compile(), without.lower().compile(), given.attack_steps)
            row["gflop_per_image_by_xla"] = counted * devices / batch / 1e9
    row["program_bytes"] = measure.program_memory(program)
    return lambda: result.run(program, given.steps), row


def theirs(
    given: argparse.Namespace, network: str, method: str, batch: int, form: str, dtype: str, devices: int
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """A call of PyTorch's step from the same weights, and seconds until its first result, compilation included.

    On a GPU also the most bytes that PyTorch held, as `program_bytes`.
    """
    del devices
    import torch
    import torch_step

    torch.set_num_threads(given.threads)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    result = training.prepare(configuration(given, network, method, batch))
    call = torch_step.of_ours(
        result,
        network,
        form=form.removeprefix("torch "),
        device="cuda" if torch.cuda.is_available() else "cpu",
        dtype=getattr(torch, dtype),
    )
    began = time.perf_counter()
    call()
    row: dict[str, Any] = {"compile_cold": time.perf_counter() - began} if form == "torch tuned" else {}
    if torch.cuda.is_available():
        row["program_bytes"] = torch.cuda.max_memory_allocated()

    def run() -> None:
        for _ in range(given.steps):
            call()

    return run, row


def only(network: str, method: str, batch: int, row: dict[str, Any]) -> list[str]:
    """Flags that make this script call one form once."""
    return [
        f"--alone={row['form']}",
        f"--networks={network}",
        f"--methods={method}",
        f"--batches={batch}",
        f"--dtypes={row['dtype']}",
        f"--devices={row['devices']}",
    ]


def alone(given: argparse.Namespace) -> None:
    """One call of one form."""
    measure.hold(given)
    make = ours if given.alone == "ours" else theirs
    with measure.compile_cache():
        call, _ = make(
            given, given.networks, given.methods, int(given.batches), given.alone, given.dtypes, int(given.devices)
        )
        jax.block_until_ready(call())


if __name__ == "__main__":
    main()
