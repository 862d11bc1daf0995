"""What a step must cost at least: FLOPs, bytes and bytes between devices, by arithmetic; writes results/floors.json.

    python benchmarks/floors.py [--overwrite]

Nothing is timed and no network is computed. docs/results/speed.md shows the numbers.
"""

import argparse
from typing import Any

import flops
import measure

from ltrobust import models
from ltrobust.runtime.files import write_json

PATH = measure.ROOT / "benchmarks" / "results" / "floors.json"
NETWORKS = {
    "resnet18": (32, 32, 3),
    "preact_resnet18": (64, 64, 3),
    "wrn_34_10": (32, 32, 3),
    "small_resnet": (8, 8, 1),
}
METHODS = ("at_bsl", "self_distillation")
ATTACK_STEPS, BATCH, SIDES = 10, 128, {"float32": 4, "bfloat16": 2}


def floors() -> dict[str, Any]:
    """Everything in the file."""
    return {
        "attack_steps": ATTACK_STEPS,
        "batch": BATCH,
        "forward_equivalents": {name: passes.equivalents(ATTACK_STEPS) for name, passes in flops.PASSES.items()},
        "networks": {name: _network(name, shape) for name, shape in NETWORKS.items()},
    }


def _network(name: str, shape: tuple[int, int, int]) -> dict[str, Any]:
    """One network's numbers; per image where nothing else is said."""
    result = flops.network(models.create(name, num_classes=10), shape)
    return {
        "image": list(shape),
        "parameters": result.parameters,
        "statistics": result.statistics,
        "activations": result.activations,
        "forward_flops": result.forward,
        "pgd20_flops": (1 + 20 * 2 + 1) * result.forward,  # clean, attack, judgement
        "step_flops": {method: flops.step_flops(result, method, ATTACK_STEPS) for method in METHODS},
        "step_bytes": {
            method: {
                dtype: flops.step_bytes(result, method, ATTACK_STEPS, batch=BATCH, number_bytes=size)
                for dtype, size in SIDES.items()
            }
            for method in METHODS
        },
        "exchanged_bytes_a_step": {method: exchanged(result, method) for method in METHODS},
    }


def exchanged(found: flops.Network, method: str) -> dict[str, int]:
    """Bytes that a device gives to sums over devices in one step: gradients and batch norm's, without a few scalars."""
    passes = flops.PASSES[method]
    rounds = 2 * passes.differentiated + passes.statistics
    return {
        "synchronised": 4 * (found.parameters + rounds * found.statistics),
        "not synchronised": 4 * (found.parameters + found.statistics),
    }


def main() -> None:
    """Writes the file, if it is not there or may be replaced."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--overwrite", action="store_true")
    if PATH.exists() and not parser.parse_args().overwrite:
        raise SystemExit(f"{PATH.name} exists; give --overwrite if it may be replaced.")
    PATH.parent.mkdir(parents=True, exist_ok=True)
    write_json(PATH, floors())
    print(f"written: {PATH.name}")


if __name__ == "__main__":
    main()
