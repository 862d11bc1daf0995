"""Convolutions on the CPU: directly, as one product of patches, and in the form that the project chooses.

    python benchmarks/convolution.py [--batch=64] [--networks=small_resnet,resnet18]

First single layers inside a loop, as attacks run them: the pass itself and both gradients. Then whole networks: an
iteration of PGD and a training pass. `chosen` is the rule of `models/cpu/convolution.py`: patches where the output is
smaller than the kernel, two columns at once where there are few outputs, Winograd's form where there are many channels,
direct otherwise.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import measure

from ltrobust import models
from ltrobust.attacks import objectives
from ltrobust.attacks.algorithms.pgd import pgd
from ltrobust.models.cpu import convolution, winograd
from ltrobust.threat import Threat

# Side of the image, channels in and out, side of the kernel, stride.
SHAPES = (
    (2, 64, 64, 3, 1),
    (4, 32, 64, 3, 2),
    (4, 32, 32, 3, 1),
    (8, 16, 16, 3, 1),
    (16, 16, 16, 3, 1),
    (4, 64, 64, 3, 1),
    (32, 64, 64, 3, 1),
    (16, 128, 128, 3, 1),
    (8, 256, 256, 3, 1),
    (4, 512, 512, 3, 1),
)
NETWORKS = {"small_resnet": (8, 8, 1), "resnet18": (32, 32, 3)}
LOOP = 10
PAD = ((1, 1), (1, 1))


@contextlib.contextmanager
def rule(form: str) -> Iterator[None]:
    """Convolutions that are traced meanwhile are `direct`, `patches` or as `chosen`."""
    convolve = convolution.convolve
    plain = lambda x, w, strides, padding, **_: convolution._convolve(x, w, tuple(strides), tuple(padding))  # noqa: E731
    patches = lambda x, w, strides, padding, **_: convolution._multiply_patches(x, w, strides, padding)  # noqa: E731
    taken = {"direct": plain, "patches": patches, "chosen": convolve}[form]
    with contextlib.ExitStack() as patched:
        if form == "direct":
            patched.enter_context(mock.patch.object(convolution, "_FEW_OUTPUTS", 0))
            patched.enter_context(mock.patch.object(winograd, "pays", return_value=False))
        patched.enter_context(mock.patch.object(convolution, "convolve", taken))
        patched.enter_context(mock.patch("ltrobust.models.convolve", taken))
        jax.clear_caches()  # of traces of the other forms
        yield


def main() -> None:
    """Times all pairs in turn."""
    parser = measure.parser(__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    given = parser.parse_args()
    path = measure.begin(given, "convolution")
    calls: dict[str, Callable[[], Any]] = {}
    for form in ("direct", "patches", "chosen"):
        with rule(form):
            made = {(str(shape), name): call for shape in SHAPES for name, call in layer(given.batch, shape)}
            if form != "patches":
                names = given.networks.split(",")
                made |= {(title, name): call for title in names for name, call in network(title, given.batch).items()}
            for (what, name), call in made.items():
                jax.block_until_ready(call())  # traced while the rule holds
                calls[f"{what}|{name}|{form}"] = call
    times = measure.interleave(calls, given.repeats)
    measure.finish(path, given, rows(times))


def rows(times: dict[str, list[float]]) -> list[dict[str, Any]]:
    """One row for each shape and pass, milliseconds of one of its iterations."""
    result: dict[tuple[str, str], dict[str, Any]] = {}
    for key, seconds in times.items():
        shape, name, form = key.split("|")
        row = result.setdefault((shape, name), {"what": shape, "pass": name})
        row[f"{form}_ms"] = measure.spread([1e3 * second / LOOP for second in seconds])
    for row in result.values():
        row["direct_over_chosen"] = row["direct_ms"]["median"] / row["chosen_ms"]["median"]
    return list(result.values())


def layer(batch: int, shape: tuple[int, ...]) -> Iterator[tuple[str, Callable]]:
    """Calls of one layer's three passes, each `LOOP` times in a loop whose rounds depend on one another."""
    side, before, after, size, stride = shape
    images = jax.random.normal(jax.random.key(0), (batch, side, side, before))
    kernel = 0.05 * jax.random.normal(jax.random.key(1), (size, size, before, after))
    apply = lambda x, w: convolution.convolve(x, w, (stride, stride), PAD)  # noqa: E731
    cotangent = apply(images, kernel)
    passes = {
        "forward": lambda x, w: jnp.sum(apply(x, w)),
        "image gradient": lambda x, w: jnp.sum(jax.vjp(lambda y: apply(y, w), x)[1](cotangent * w[0, 0, 0, 0])[0]),
        "kernel gradient": lambda x, w: jnp.sum(jax.vjp(lambda y: apply(x, y), w)[1](cotangent * x[0, 0, 0, 0])[0]),
    }
    for name, once in passes.items():
        again = lambda _, both, once=once: jax.tree.map(lambda one: one + 1e-9 * once(*both), both)  # noqa: E731
        loop = jax.jit(lambda x, w, again=again: jax.lax.fori_loop(0, LOOP, again, (x, w)))
        yield name, lambda loop=loop: loop(images, kernel)


def network(title: str, batch: int) -> dict[str, Callable[[], Any]]:
    """Calls of PGD and of training passes of a network, `LOOP` iterations each."""
    module = models.create(title, num_classes=10)
    params, stats = models.initialise(module, jax.random.key(0), NETWORKS[title])
    images = jax.random.uniform(jax.random.key(1), (batch, *NETWORKS[title]))
    labels, keys = jnp.arange(batch) % 10, jax.random.split(jax.random.key(2), batch)

    def loss(params: Any, points: jax.Array, bn: models.BatchNormMode) -> jax.Array:
        return objectives.cross_entropy(models.forward(module, params, stats, points, bn=bn)[0], labels)

    attack = jax.jit(
        lambda params, images: pgd(
            lambda points: loss(params, points, "eval"), images, keys, threat=Threat(), steps=LOOP, step_size=2 / 255
        )
    )
    descend = lambda params, images: jax.tree.map(  # noqa: E731
        lambda one, gradient: one - 1e-3 * gradient,
        params,
        jax.grad(lambda params: jnp.mean(loss(params, images, "train")))(params),
    )
    train = jax.jit(lambda params, images: jax.lax.fori_loop(0, LOOP, lambda _, p: descend(p, images), params))
    return {"PGD iteration": lambda: attack(params, images), "training pass": lambda: train(params, images)}


if __name__ == "__main__":
    main()
