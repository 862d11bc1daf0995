"""Speed on this device, against PyTorch on the same device in turn. Files have the form of `benchmarks/results`."""

import argparse
import contextlib
import importlib.util
import itertools
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import evaluate
import measure
import profile_step
import train_step

from benchmarks.accelerator import dry
from benchmarks.accelerator.jobs import Part
from benchmarks.accelerator.part import Context
from ltrobust.runtime.files import write_json
from tools import speed

METHODS = "at_bsl,self_distillation"
# One thread, because PyTorch's threads wait for one another at full load, which takes minutes beside other work.
_DRY_THREADS = "--threads=1"
_DRY = (
    "--networks=small_resnet",
    "--methods=at_bsl",
    "--batches=16",
    "--attack_steps=2",
    "--repeats=1",
    "--dtypes=bfloat16",
    _DRY_THREADS,
)


def run(context: Context, part: Part) -> dict[str, Any]:
    """Does one part, writes its table and leaves the rows."""
    parts = {
        "steps": ("train_step", steps),
        "precision": ("train_step", precisions),
        "larger": ("train_step", larger_batches),
        "pgd20": ("evaluate_pgd20", pgd20),
        "standard": ("evaluate_standard", standard),
        "profile": ("profile_step", profile),
    }
    benchmark, measured = parts[part.name]
    with context.clock.span():
        given, rows, left_out = measured(context)
    result = measure.result(benchmark, given, rows, left_out=left_out)
    write_json(context.folder / f"{benchmark}-{part.name}.json", result)
    if not rows:
        raise RuntimeError("; ".join(left_out))
    table = speed.plain(rows)
    (context.folder / f"{part.name}.md").write_text(table)
    print(table, flush=True)
    return {"rows": len(rows), "left_out": left_out} | rate(rows)


def rate(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """TFLOP/s of our AT-BSL step in bfloat16 at the recipe's batch, which the queue plans with."""
    wanted = {"method": "at_bsl", "form": "ours", "dtype": "bfloat16", "batch": 128}
    for row in rows:
        if all(row.get(key) == value for key, value in wanted.items()):
            return {"at_bsl_tflops": row["gflop_per_second"]["median"] / 1e3}
    return {}


Measured = tuple[argparse.Namespace, list[dict[str, Any]], list[str]]


def steps(context: Context) -> Measured:
    """The recipe's step, batch 128, in bfloat16, against PyTorch as released and tuned."""
    words = [f"--methods={METHODS}", "--batches=128", "--dtypes=bfloat16", "--torch_dtypes=bfloat16"]
    return training_steps(context, words + ["--against=torch"] * _has("torch"))


def precisions(context: Context) -> Measured:
    """The same step in float32 and TensorFloat-32."""
    return training_steps(context, [f"--methods={METHODS}", "--batches=128", "--dtypes=tf32,float32"])


def larger_batches(context: Context) -> Measured:
    """The step in bfloat16 at larger batches."""
    return training_steps(context, [f"--methods={METHODS}", "--batches=512,1024", "--dtypes=bfloat16"])


def training_steps(context: Context, words: Sequence[str]) -> Measured:
    """Training steps, a network, method and batch after another, as long as there is time for one more."""
    given = train_step.flags().parse_args(
        ["--networks=resnet18", "--steps=5", "--lean", "--repeats=5", *words, *(_DRY if context.dry else ())]
    )
    measure.hold(given)
    rows, left_out, longest = [], [], 0.0
    for batch, method in itertools.product(given.batches.split(","), given.methods.split(",")):
        before = context.left()
        if before < longest:
            left_out.append(f"{method}, batch {batch}: {before:.0f} s left")
            continue
        # Empty, so that the seconds of compiling are those of a cold start.
        with contextlib.nullcontext() if context.dry else measure.compile_cache():
            rows += _compared(
                lambda given, batch=batch, method=method: train_step.compare(given, given.networks, method, int(batch)),
                given,
                f"{method}, batch {batch}",
                left_out,
            )
        longest = max(longest, before - context.left())
    return given, rows, left_out


def _compared(
    compare: Callable[[argparse.Namespace], list[dict[str, Any]]],
    given: argparse.Namespace,
    case: str,
    left_out: list[str],
) -> list[dict[str, Any]]:
    """The rows of one case: without PyTorch where it fails, none where ours does. `left_out` gets the reasons."""
    for against in dict.fromkeys((given.against, "")):
        try:
            return compare(argparse.Namespace(**{**vars(given), "against": against}))
        except Exception as error:  # such as a missing library, or memory that a larger batch does not find
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            left_out.append(f"{case}{' against PyTorch' if against else ''}: {reason}")
            print(f"left out: {left_out[-1]}\n{traceback.format_exc()}", flush=True)
    return []


def pgd20(context: Context) -> Measured:
    """PGD-20 on ResNet-18 with drawn weights, 200 images, its own answers as labels."""
    return _evaluation(context, "pgd20", "conv_small" if context.dry else "resnet18")


def standard(context: Context) -> Measured:
    """The four attacks on a golden network, against the public code."""
    return _evaluation(context, "standard", "cnn_a")


def _evaluation(context: Context, what: str, network: str) -> Measured:
    reference = {"pgd20": "torch", "standard": "pyautoattack"}[what]
    if context.dry and what == "standard":
        evaluate.PROTOCOLS[what] = dry.protocol(what)
    words = [f"--what={what}", f"--data={context.golden}"]
    words += ["--images=2", "--repeats=1", _DRY_THREADS] if context.dry else ["--images=200", "--repeats=2"]
    compared = _has("torch") and _has(reference)
    given = evaluate.flags().parse_args(words + ["--against=torch"] * compared)
    measure.hold(given)
    left_out = [] if compared else [f"the comparison with {reference}, which is not installed"]
    rows = _compared(lambda given: evaluate.compare(given, network), given, f"{what}, {network}", left_out)
    return given, rows, left_out


def profile(context: Context) -> Measured:
    """Where the time of an AT-BSL step goes, by layer and operation."""
    words = _DRY if context.dry else ("--networks=resnet18", "--methods=at_bsl", "--dtypes=bfloat16")
    given = train_step.flags().parse_args(list(words))
    measure.hold(given)
    batch, dtype = int(given.batches), measure.PRECISIONS[given.dtypes][0]
    rows = profile_step.rows(given.networks, given.methods, batch, given.attack_steps, 25, dtype=dtype)
    return given, rows, []


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
