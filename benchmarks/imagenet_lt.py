"""What ImageNet-LT's recipe costs by arithmetic: FLOPs of an epoch of each phase; writes results/imagenet_lt.json.

    python benchmarks/imagenet_lt.py [--overwrite]

Passes of the methods times FLOPs of the layers (`flops.py`), and the hours that these take at the peak of each kind of
chip, which nothing reaches. Nothing is timed and no image is read. What the compilers say of the same programs:
`compile_ahead.py --only=imagenet_lt`.
"""

import argparse
import importlib.metadata
import pathlib
from typing import Any

import compile_ahead
import flops
import measure

from ltrobust import models, recipes
from ltrobust.analysis import cards
from ltrobust.compilation import chips
from ltrobust.data import blank
from ltrobust.plan import PhasePlan, make_plan
from ltrobust.runtime.files import write_json
from ltrobust.training import devices, phases

PATH = measure.ROOT / "benchmarks" / "results" / "imagenet_lt.json"
TOPOLOGIES = compile_ahead.IMAGENET


def cost() -> dict[str, Any]:
    """Everything in the file."""
    plan = make_plan(recipes.load("imagenet_lt"), pathlib.Path("none"))
    data, mesh = blank.make_run_data(plan.data), devices.make_mesh()
    # Not for the CPU, whose convolutions have other forms.
    module = models.create(plan.model.name, num_classes=data.num_classes, platform="tpu")
    network = flops.network(module, data.image_shape)
    result = {
        plan_of.name: _phase(plan_of, network, phases.make_phase(plan_of, plan.model, data, mesh, platform="tpu"))
        for plan_of in plan.phases
    }
    total = sum(phase["flops"] for phase in result.values())
    return {
        "commit": cards.commit(),
        "jax": importlib.metadata.version("jax"),
        "network": plan.model.name,
        "image": list(data.image_shape),
        "parameters": network.parameters,
        "forward_flops": network.forward,
        "phases": result,
        "flops": total,
        "hours_at_peak": {name: _hours(total, name) for name in TOPOLOGIES},
    }


def _phase(plan: PhasePlan, network: flops.Network, phase: phases.Phase) -> dict[str, Any]:
    """Numbers of one phase, without validation."""
    steps, size = phase.total_steps, phase.schedule.batch_size
    image = flops.step_flops(network, plan.method.name, plan.method.inner.steps)
    return {
        "method": plan.method.name,
        "attack_steps": plan.method.inner.steps,
        "forward_equivalents": flops.PASSES[plan.method.name].equivalents(plan.method.inner.steps),
        "epochs": phase.settings.epochs,
        "steps": steps,
        "images": steps * size,
        "image_flops": image,
        "epoch_flops": image * size * phase.schedule.first_step(1),
        "flops": image * size * steps,
    }


def _hours(total: int, topology: str) -> float:
    wanted = chips.parse(topology)
    return round(total / (wanted.chip.peak * wanted.size * 3600), 3)


def main() -> None:
    """Writes the file, if it is not there or may be replaced."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--overwrite", action="store_true")
    if PATH.exists() and not parser.parse_args().overwrite:
        raise SystemExit(f"{PATH.name} exists; give --overwrite if it may be replaced.")
    write_json(PATH, cost())
    print(f"written: {PATH.name}")


if __name__ == "__main__":
    main()
