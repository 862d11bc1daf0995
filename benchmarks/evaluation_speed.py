"""Our evaluation against PyTorch's, interleaved in one run: the same network, the same images, the same threads.

    python benchmarks/evaluation_speed.py --data=DIR [--what=standard|quick|compile] [--images=200] [--rounds=3]

With --devices=2 the CPU counts as two devices, over which batches are divided: for networks with 32 or 64 channels,
whose convolutions XLA otherwise computes on one core.

`standard`: the four attacks of ours against `AutoAttack.run_standard_evaluation` of the public code (fra31/auto-attack,
importable as `autoattack`, or `pip install pyautoattack`), on the small robust networks of DIR/golden. `quick`: PGD-20
against a plain PyTorch loop with frozen parameters, on ResNet-18 and the small networks. `compile`: how long the
protocol takes to compile for ResNet-18, cold and with the persistent cache.

Needs torch (not for `compile`). Absolute times depend on the machine; what counts is the ratio.
"""

import argparse
import dataclasses
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "models")]

import golden  # noqa: E402

import ltrobust  # noqa: E402
from ltrobust import models  # noqa: E402
from ltrobust.evaluation import evaluate, protocols  # noqa: E402
from ltrobust.models import torch_weights  # noqa: E402


def main() -> None:
    """Runs what is asked for and prints ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder that holds golden/")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--what", choices=["standard", "quick", "compile"], default="standard")
    parser.add_argument("--devices", type=int, default=1, help="CPU devices that batches are divided over")
    given = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", given.devices)
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {len(jax.devices())} device(s)")
    {"standard": standard, "quick": quick, "compile": compile_time}[given.what](given)


def standard(given: Any) -> None:
    """The whole four-attack sequence on both golden networks."""
    try:
        from autoattack import AutoAttack
    except ImportError:
        from pyautoattack import AutoAttack  # the same code as a package

    for name in golden.NAMES:
        images, labels, logits_fn, record = golden.load(given.data, name)
        images, labels = np.asarray(images)[: given.images], np.asarray(labels)[: given.images]
        threat = ltrobust.Threat("linf", float(record["radius_255"]))
        network = torch_golden(record, name)
        evaluator = make(lambda _, points, fn=logits_fn: fn(points), "standard", threat)

        def ours(evaluator: Any = evaluator, images: Any = images, labels: Any = labels) -> np.ndarray:
            return evaluator((), images, labels).robust

        def theirs(network: Any = network, images: Any = images, labels: Any = labels, threat: Any = threat) -> Any:
            import torch

            attack = AutoAttack(network, norm="Linf", eps=threat.epsilon, seed=0, verbose=False, device="cpu")
            x, y = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels.astype(np.int64))
            adversarial = attack.run_standard_evaluation(x, y, bs=len(y))
            return (network(adversarial).argmax(1) == y).numpy()

        interleave(f"standard, {name}, {len(labels)} images", ours, theirs, given.rounds)


def quick(given: Any) -> None:
    """PGD-20 on the golden networks and on ResNet-18 (random weights: every step costs the same)."""
    for name in (*golden.NAMES, "resnet18"):
        images, labels, logits_fn, record = golden.load(given.data, golden.NAMES[0] if name == "resnet18" else name)
        number = 128 if name == "resnet18" else given.images // 64 * 64
        images, labels = np.asarray(images)[:number], np.asarray(labels)[:number]
        network: Any
        if name == "resnet18":
            module = models.create("resnet18", num_classes=10)
            weights = models.initialise(module, jax.random.key(0), (32, 32, 3))
            network = torch_resnet18(*weights)
            logits_fn = _forward(module, weights)
            labels = np.asarray(jnp.argmax(jax.jit(logits_fn)(images), axis=1))
        else:
            network = torch_golden(record, name)
            labels = np.asarray(jnp.argmax(jax.jit(logits_fn)(images), axis=1))
        threat = ltrobust.Threat("linf", 8)
        evaluator = make(lambda _, points, fn=logits_fn: fn(points), "validation", threat)

        def ours(evaluator: Any = evaluator, images: Any = images, labels: Any = labels) -> np.ndarray:
            return evaluator((), images, labels).robust

        def theirs(network: Any = network, images: Any = images, labels: Any = labels) -> np.ndarray:
            return torch_pgd20(network, images, labels)

        interleave(f"PGD-20, {name}, {number} images", ours, theirs, given.rounds)


def _forward(module: Any, weights: Any) -> Any:
    """A logits function of a module with its weights."""
    return lambda points: models.forward(module, *weights, points, bn="eval")[0]


def interleave(title: str, ours: Any, theirs: Any, rounds: int) -> None:
    """Times both in turn, after one warm-up of each, and prints medians and the ratio of each round."""
    first, second = ours(), theirs()
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        pair = []
        for function in (ours, theirs):
            began = time.monotonic()
            function()
            pair.append(time.monotonic() - began)
        times.append((pair[0], pair[1]))
    ratios = sorted(second / first for first, second in times)
    print(
        f"{title}: ours {statistics.median(t[0] for t in times):.2f} s, PyTorch "
        f"{statistics.median(t[1] for t in times):.2f} s; PyTorch/ours {statistics.median(ratios):.2f} "
        f"[{ratios[0]:.2f}, {ratios[-1]:.2f}] over {rounds} rounds; robust {np.mean(first):.3f} and "
        f"{np.mean(second):.3f}, {int(np.sum(first != second))} images differ",
        flush=True,
    )


def make(apply: Any, protocol: str, threat: Any) -> Any:
    """An evaluator of a protocol without its sanity panel and, for `standard`, of the four attacks alone."""
    chosen = protocols.get(protocol)
    if protocol == "standard":
        names = dict(chosen.combined)["autoattack"]
        attacks = tuple(attack for attack in chosen.attacks if attack.name in names)
        chosen = dataclasses.replace(chosen, attacks=attacks, combined=(("autoattack", names),), sanity=False)
    where = NamedSharding(Mesh(np.array(jax.devices()), ("devices",)), PartitionSpec("devices"))
    return evaluate.make_evaluator(
        apply,
        protocol=chosen,
        threat=threat,
        num_classes=10,
        batch_size=128,
        place=lambda batch: jax.device_put(batch, where),
        devices=jax.device_count(),
    )


def torch_golden(record: Any, name: str) -> Any:
    """The golden network in PyTorch, frozen."""
    import torch
    from torch import nn

    pad = {"cnn_a": 1, "conv_small": 0}[name]
    layers = [nn.Conv2d(3, 16, 4, 2, pad), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, pad), nn.ReLU(), nn.Flatten()]
    hidden = record["weight/5.weight"].shape
    network = nn.Sequential(*layers, nn.Linear(hidden[1], hidden[0]), nn.ReLU(), nn.Linear(hidden[0], 10))
    state = {key.removeprefix("weight/"): torch.from_numpy(record[key]) for key in record if key.startswith("weight/")}
    network.load_state_dict(state)
    mean, deviation = (torch.from_numpy(record[key].astype(np.float32)).reshape(3, 1, 1) for key in ("mean", "std"))

    class Normalised(nn.Module):
        """The network on standardised pixels."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Any) -> Any:
            return self.network((x - mean) / deviation)

    return Normalised().eval().requires_grad_(False)


def torch_resnet18(params: Any, batch_stats: Any) -> Any:
    """ResNet-18 in PyTorch with our weights, frozen."""
    import test_torch_weights
    import torch

    network = test_torch_weights.torch_network(torch, "resnet18")
    state = torch_weights.to_torch(params, batch_stats, "resnet18")
    network.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in state.items()})
    return network.eval().requires_grad_(False)


def torch_pgd20(network: Any, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A plain PGD-20 at 8/255 in batches of 64."""
    import torch

    robust = []
    for first in range(0, len(labels), 64):
        x = torch.from_numpy(images[first : first + 64].transpose(0, 3, 1, 2).copy())
        y = torch.from_numpy(labels[first : first + 64].astype(np.int64))
        point = x + torch.empty_like(x).uniform_(-8 / 255, 8 / 255)
        for _ in range(20):
            point.requires_grad_(True)
            loss = torch.nn.functional.cross_entropy(network(point), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, point)
            moved = point.detach() + 2 / 255 * gradient.sign()
            point = torch.clamp(torch.clamp(moved, x - 8 / 255, x + 8 / 255), 0, 1)
        robust.append((network(point).argmax(1) == y).numpy())
    return np.concatenate(robust)


COMPILE = """
import dataclasses, jax, numpy as np
from ltrobust import Threat, models
from ltrobust.evaluation import evaluate, protocols

seconds = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **_: seconds.append(duration) if event.startswith("/jax/core/compile") else None
)
module = models.create("resnet18", num_classes=10)
weights = models.initialise(module, jax.random.key(0), (32, 32, 3))
seconds.clear()
protocol = dataclasses.replace(protocols.get("standard"), sanity=False)
tiny = {"steps": 1, "queries": 1, "targets": 1}
attacks = [
    dataclasses.replace(attack, **{key: 1 for key in tiny if getattr(attack, key, 0)}) for attack in protocol.attacks
]
evaluator = evaluate.make_evaluator(
    lambda weights, points: models.forward(module, *weights, points, bn="eval")[0],
    protocol=dataclasses.replace(protocol, attacks=tuple(attacks)),
    threat=Threat(radius=1e-3),
    num_classes=10,
    batch_size=64,
)
images = np.random.RandomState(0).rand(64, 32, 32, 3).astype(np.float32)
evaluator(weights, images, np.arange(64) % 10)
print(sum(seconds))
"""


def compile_time(given: Any) -> None:
    """Seconds of tracing, lowering and compiling that `standard` costs for ResNet-18: cold, then with a cache."""
    del given
    with tempfile.TemporaryDirectory() as cache:
        wanted = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        for name in ("cold", "persistent cache"):
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-c", COMPILE], env=os.environ | wanted, cwd=ROOT, capture_output=True, text=True
            )
            if done.returncode:
                sys.exit(done.stderr)
            print(
                f"standard for ResNet-18, {name}: {float(done.stdout.split()[-1]):.1f} s of compilation, "
                f"{time.monotonic() - began:.1f} s in all",
                flush=True,
            )


if __name__ == "__main__":
    main()
