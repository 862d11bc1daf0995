"""Evaluation: images per second of a protocol, alone or against PyTorch in the same rounds on the same threads.

    python benchmarks/evaluate.py [--what=pgd20|standard] [--networks=resnet18] [--against=torch] [--data=DIR]
    python benchmarks/evaluate.py --what=compile

`pgd20`: PGD-20, against a plain PyTorch loop with frozen parameters. `standard`: the four attacks, against
`AutoAttack.run_standard_evaluation` of the public code (fra31/auto-attack, importable as `autoattack`, or `pip install
pyautoattack`). Networks are `resnet18` with drawn weights (every PGD step costs the same; its own answers are the
labels) and the small robust ones of DIR/golden, `cnn_a` and `conv_small`. How long `standard` takes depends on how
robust a network is, so only the robust ones say something there. `compile`: how long the protocol takes to compile for
ResNet-18, cold and with the persistent cache.

With --devices=2 the CPU counts as two devices, over which batches are divided: for networks with 32 or 64 channels,
whose convolutions XLA otherwise computes on one core.
"""

import argparse
import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import golden
import jax
import jax.numpy as jnp
import measure
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import ltrobust
from ltrobust import models
from ltrobust.evaluation import protocols
from ltrobust.evaluator import make_evaluator

PROTOCOLS = {"pgd20": "validation", "standard": "standard"}


def main() -> None:
    """Runs what is asked for and prints one row for each network and implementation."""
    given = flags().parse_args()
    jax.config.update("jax_num_cpu_devices", given.devices)
    path = measure.begin(given, f"evaluate_{given.what}")
    if given.what == "compile":
        measure.finish(path, given, compile_times())
        return
    rows = []
    for name in given.networks.split(","):
        rows += compare(given, name)
    measure.finish(path, given, rows)


def flags() -> argparse.ArgumentParser:
    """The flags that `compare` reads."""
    parser = measure.parser(__doc__)
    parser.add_argument("--data", type=pathlib.Path, default=None, help="folder that holds golden/")
    parser.add_argument("--networks", default="resnet18", help="resnet18, cnn_a, conv_small, by commas")
    parser.add_argument("--images", type=int, default=192, help="on the CPU from 64 on a multiple of 64 of them")
    parser.add_argument("--what", choices=[*PROTOCOLS, "compile"], default="pgd20")
    parser.add_argument("--against", choices=["", "torch"], default="")
    parser.add_argument("--devices", type=int, default=1, help="CPU devices that batches are divided over")
    return parser


def compare(given: argparse.Namespace, name: str) -> list[dict[str, Any]]:
    """A row for ours and, where asked for, one for PyTorch's, on one network."""
    images, labels, logits_fn, threat, build = subject(given, name)
    evaluator = make(lambda _, points: logits_fn(points), PROTOCOLS[given.what], threat)
    answers: dict[str, np.ndarray] = {}

    def ours() -> None:
        answers["ours"] = evaluator((), images, labels).robust

    calls = {"ours": ours}
    if given.against:
        import torch

        torch.set_num_threads(given.threads)
        network = build()
        attack = torch_standard if given.what == "standard" else torch_pgd20

        def theirs() -> None:
            answers["torch"] = attack(network, images, labels, threat.epsilon)

        calls["torch"] = theirs
    times = measure.interleave(calls, given.repeats)
    rows = [
        {
            "network": name,
            "protocol": given.what,
            "images": len(labels),
            "form": form,
            "seconds": measure.spread(seconds),
            "images_per_second": measure.spread([len(labels) / second for second in seconds]),
            "robust": float(np.mean(answers[form])),
        }
        for form, seconds in times.items()
    ]
    for row in rows[1:]:
        row["times_ours"] = measure.spread([b / a for a, b in zip(times["ours"], times["torch"], strict=True)])
        row["answers_that_differ"] = int(np.sum(answers["ours"] != answers["torch"]))
    return rows


def subject(given: argparse.Namespace, name: str) -> tuple[np.ndarray, np.ndarray, Any, Any, Any]:
    """Images, labels, logits function and threat, and what builds the same network in PyTorch."""
    whole = jax.default_backend() == "cpu" and given.images >= 64
    number = given.images // 64 * 64 if whole else given.images
    if name == "resnet18":
        module = models.create(name, num_classes=10)
        weights = models.initialise(module, jax.random.key(0), (32, 32, 3))
        images = np.random.RandomState(0).rand(number, 32, 32, 3).astype(np.float32)
        logits_fn, threat = _forward(module, weights), ltrobust.Threat("linf", 8)
        build = lambda: torch_resnet18(*weights)  # noqa: E731
    else:
        if given.data is None:
            sys.exit(f"{name} needs --data=DIR, the folder that holds golden/.")
        _, _, logits_fn, record = golden.load(given.data, name)
        try:
            images, labels = golden.first_images(given.data, record, number)
        except ValueError as error:
            sys.exit(str(error))
        threat = ltrobust.Threat("linf", float(record["radius_255"]))
        build = lambda: torch_golden(record, name)  # noqa: E731
        if given.what == "standard":
            return images, labels, logits_fn, threat, build
        threat = ltrobust.Threat("linf", 8)
    # Its own answers as labels: every image is right when clean, so that all of them are attacked.
    return images, np.asarray(jnp.argmax(jax.jit(logits_fn)(images), axis=1)), logits_fn, threat, build


def _forward(module: Any, weights: Any) -> Any:
    """A logits function of a module with its weights."""
    return lambda points: models.forward(module, *weights, points, bn="eval")[0]


def make(apply: Any, protocol: str, threat: Any) -> Any:
    """An evaluator of a protocol without its sanity panel and, for `standard`, of the four attacks alone."""
    chosen = protocols.get(protocol)
    if names := dict(chosen.combined).get("autoattack"):
        attacks = tuple(attack for attack in chosen.attacks if attack.name in names)
        chosen = dataclasses.replace(chosen, attacks=attacks, combined=(("autoattack", names),), sanity=False)
    where = NamedSharding(Mesh(np.array(jax.devices()), ("devices",)), PartitionSpec("devices"))
    return make_evaluator(
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
            self.register_buffer("mean", mean)
            self.register_buffer("deviation", deviation)

        def forward(self, x: Any) -> Any:
            return self.network((x - self.mean) / self.deviation)

    return Normalised().eval().requires_grad_(False)


def torch_resnet18(params: Any, batch_stats: Any) -> Any:
    """ResNet-18 in PyTorch with our weights, frozen."""
    import torch_networks

    network = torch_networks.load(torch_networks.create("resnet18", channels=3), params, batch_stats)
    return network.eval().requires_grad_(False)


def torch_device() -> str:
    """Where PyTorch computes."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def torch_standard(network: Any, images: np.ndarray, labels: np.ndarray, radius: float) -> np.ndarray:
    """The public sequence of four attacks."""
    import torch

    device = torch_device()
    network = network.to(device)
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(device)
    y = torch.from_numpy(labels.astype(np.int64)).to(device)
    try:
        from autoattack import AutoAttack
    except ImportError:  # the same attacks as a package, with other names
        from pyautoattack import AutoAttack

        attack = AutoAttack(network, norm="Linf", eps=radius, seed=0, device=device)
        adversarial, _ = attack.run_standard_evaluation(x, y, batch_size=len(y))
    else:
        attack = AutoAttack(network, norm="Linf", eps=radius, seed=0, verbose=False, device=device)
        adversarial = attack.run_standard_evaluation(x, y, bs=len(y))
    return (network(adversarial).argmax(1) == y).cpu().numpy()


def torch_pgd20(network: Any, images: np.ndarray, labels: np.ndarray, radius: float) -> np.ndarray:
    """A plain PGD-20, in batches of 64 on the CPU and of 256 on a GPU."""
    import torch

    device, robust = torch_device(), []
    network = network.to(device)
    size = 64 if device == "cpu" else 256
    for first in range(0, len(labels), size):
        x = torch.from_numpy(images[first : first + size].transpose(0, 3, 1, 2).copy()).to(device)
        y = torch.from_numpy(labels[first : first + size].astype(np.int64)).to(device)
        point = x + torch.empty_like(x).uniform_(-radius, radius)
        for _ in range(20):
            point.requires_grad_(True)
            loss = torch.nn.functional.cross_entropy(network(point), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, point)
            moved = point.detach() + radius / 4 * gradient.sign()
            point = torch.clamp(torch.clamp(moved, x - radius, x + radius), 0, 1)
        robust.append((network(point).argmax(1) == y).cpu().numpy())
    return np.concatenate(robust)


COMPILE = """
import dataclasses, jax, numpy as np
from ltrobust import Threat, models
from ltrobust.evaluation import protocols
from ltrobust.evaluator import make_evaluator

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
evaluator = make_evaluator(
    lambda weights, points: models.forward(module, *weights, points, bn="eval")[0],
    protocol=dataclasses.replace(protocol, attacks=tuple(attacks)),
    threat=Threat.in_255ths("linf", 1e-3),
    num_classes=10,
    batch_size=64,
)
images = np.random.RandomState(0).rand(64, 32, 32, 3).astype(np.float32)
evaluator(weights, images, np.arange(64) % 10)
print(sum(seconds))
"""


def compile_times() -> list[dict[str, Any]]:
    """Seconds of tracing, lowering and compiling that `standard` costs for ResNet-18: cold, then with a cache."""
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        wanted = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        for name in ("cold", "persistent cache"):
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", COMPILE],
                env=os.environ | wanted,
                cwd=measure.ROOT,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                sys.exit(done.stderr)
            seconds = time.perf_counter() - began
            rows.append({"start": name, "compile_seconds": float(done.stdout.split()[-1]), "process_seconds": seconds})
    return rows


if __name__ == "__main__":
    main()
