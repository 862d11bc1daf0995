"""`standard` from start to end against the public AutoAttack: fresh processes in turn, CPU seconds and seconds.

    python benchmarks/autoattack.py --data=DIR [--networks=cnn_a,conv_small] [--images=32,64,192] [--against=torch]
        [--before=CHECKOUT] [--repeats=3]

Each measurement is a separate process: `cold` compiles everything, `cached` finds its programs in a persistent compile
cache, and `compiled` is the second evaluation of such a process. PyTorch's is `AutoAttack.run_standard_evaluation` of
the public code (importable as `autoattack`, or `pip install pyautoattack`). `--before` is another checkout of this
project, measured in the same rounds. Imports are not counted. CPU seconds are those of all threads: they depend less on
what else the machine does than seconds do. PyTorch's threads spend some waiting for one another, so compare them with
--threads=1.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections import defaultdict
from typing import Any

import golden
import measure
import numpy as np

PROCESS = """
import json, pathlib, resource, sys, time
root, data, form, name, chosen, threads = sys.argv[1:]
sys.path[:0] = [root, root + "/benchmarks"]
import evaluate, golden
import numpy as np

_, _, logits_fn, record = golden.load(pathlib.Path(data), name)
with np.load(chosen) as file:
    images, labels = file["images"], file["labels"]
if form == "torch":
    import torch

    torch.set_num_threads(int(threads))
    network = evaluate.torch_golden(record, name)
    calls = [lambda: evaluate.torch_standard(network, images, labels, float(record["radius_255"]) / 255)]
else:
    import ltrobust

    threat = ltrobust.Threat("linf", float(record["radius_255"]))
    evaluator = evaluate.make(lambda _, points: logits_fn(points), "standard", threat)
    calls = [lambda: evaluator((), images, labels).robust] * (1 if form == "cold" else 2)

def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

found = []
for call in calls:
    began, before = time.perf_counter(), cpu()
    robust = call()
    found.append([time.perf_counter() - began, cpu() - before, np.asarray(robust, int).tolist()])
print("FOUND" + json.dumps(found))
"""


def main() -> None:
    """Measures everything that is asked for and prints one row for each network, number of images and form."""
    given = flags().parse_args()
    path = measure.begin(given, "evaluate_start")
    given.data = given.data.resolve()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cases = [
            (name, number, write_images(given.data, name, number, pathlib.Path(folder)))
            for name in given.networks.split(",")
            for number in map(int, given.images.split(","))
        ]
        for name, number, chosen in cases:
            rows += compare(given, name, number, chosen)
    measure.finish(path, given, rows)


def flags() -> argparse.ArgumentParser:
    """The flags of this script."""
    parser = measure.parser(__doc__)
    parser.set_defaults(repeats=3)
    parser.add_argument(
        "--data", type=pathlib.Path, required=True, help="folder that holds golden/, and tfds/ for more"
    )
    parser.add_argument("--networks", default="cnn_a,conv_small", help="cnn_a, conv_small, by commas")
    parser.add_argument("--images", default="32,64,192", help="numbers of images, by commas; golden/ has 200")
    parser.add_argument("--against", choices=["", "torch"], default="")
    parser.add_argument("--before", type=pathlib.Path, default=None, help="another checkout of this project")
    return parser


def write_images(data: pathlib.Path, name: str, number: int, folder: pathlib.Path) -> pathlib.Path:
    """The file with images and labels that every process of a case reads.

    Raises:
      SystemExit: there are not so many images.
    """
    path = folder / f"{name}-{number}.npz"
    try:
        images, labels = golden.first_images(data, golden.load(data, name)[-1], number)
    except ValueError as error:
        sys.exit(str(error))
    np.savez(path, images=images, labels=labels)
    return path


def compare(given: argparse.Namespace, name: str, number: int, chosen: pathlib.Path) -> list[dict[str, Any]]:
    """A row for each form, of processes that took turns; `chosen` is the file of the images."""
    roots = {"": measure.ROOT} | ({"before, ": given.before.resolve()} if given.before else {})
    forms = [(label, root, form) for form in ("cold", "cached") for label, root in roots.items()]
    forms += [("", measure.ROOT, "torch")] if given.against else []
    times, answers = defaultdict(list), {}
    # The first round fills the caches, and does not count.
    for repeat in range(given.repeats + 1):
        shift = repeat % len(forms)
        for label, root, form in forms[shift:] + forms[:shift]:
            if repeat == 0 and form != "cached":
                continue
            cache = chosen.with_name(f"{name}-{number}-{label.strip(', ')}") if form == "cached" else None
            for seconds, cpu, robust in process(given, root, form, name, chosen, cache):
                key = label + ("compiled" if form == "cached" and answers.get((repeat, label)) else form)
                if form == "cached":
                    answers[repeat, label] = True
                if repeat:
                    times[key].append((seconds, cpu))
                answers[key] = robust
    return [row(name, number, key, times, answers) for key in times]


def process(
    given: argparse.Namespace,
    root: pathlib.Path,
    form: str,
    name: str,
    chosen: pathlib.Path,
    cache: pathlib.Path | None,
) -> list[tuple[float, float, list[int]]]:
    """Seconds, CPU seconds and answers of each evaluation of one fresh process."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JAX_COMPILATION_CACHE")}
    if cache:
        environment |= {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-c", PROCESS, str(root), str(given.data), form, name, str(chosen), str(given.threads)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.partition("FOUND")[2])


def row(name: str, number: int, key: str, times: Any, answers: Any) -> dict[str, Any]:
    """A row of the table: seconds and CPU seconds, and how many times PyTorch and the checkout before take."""
    made: dict[str, Any] = {"network": name, "images": number, "form": key}
    for position, unit in enumerate(("seconds", "cpu_seconds")):
        ours = [one[position] for one in times[key]]
        made[unit] = measure.spread(ours)
        for other in ("torch", f"before, {key}"):
            if other in times and key != "torch" and not key.startswith("before"):
                theirs = [one[position] for one in times[other]]
                ratios = [there / here for there, here in zip(theirs, ours, strict=True)]
                made[f"{unit} of {other.split(',')[0]} over these"] = measure.spread(ratios)
    made["robust"] = sum(answers[key])
    if "torch" in answers and key != "torch":
        made["answers_that_differ"] = sum(
            one != other for one, other in zip(answers[key], answers["torch"], strict=True)
        )
    return made


if __name__ == "__main__":
    main()
