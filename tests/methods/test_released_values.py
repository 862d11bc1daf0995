"""Losses and gradients against values that the methods' released code gave on small fixed inputs.

`released_values.npz` holds the inputs, the weights of a two-layer network without BatchNorm, the results, and under
`provenance` the repository, commit and function of each. None of that code is here; it ran on the CPU, with the point
of the attack given instead of searched for. No released code was at hand of DAFA, WAT, AdaAD, AdaIAD and B-MTARD;
chi2_class_dro, label_aug, self_distillation and weak_class_reweight have none.
"""

import dataclasses
import json
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import on_one_device

from ltrobust import methods
from ltrobust.attacks import objectives
from ltrobust.methods import Batch, Learner, Teacher
from ltrobust.methods.class_wise_trades import limited
from ltrobust.methods.class_wise_wrappers import class_weights
from ltrobust.methods.igdm import indirect_gradient_matching
from ltrobust.methods.reat import attack_weights
from ltrobust.threat import Threat

VALUES = dict(np.load(pathlib.Path(__file__).parent / "released_values.npz"))
NAMES = sorted({key.partition("/")[0] for key in VALUES if key.endswith("/loss")})
COUNTS, LABELS = jnp.asarray(VALUES["inputs/class_counts"], jnp.float32), jnp.asarray(VALUES["inputs/labels"])
IMAGES, ADV = (jnp.asarray(VALUES[f"inputs/{name}"])[..., None] for name in ("images", "adv_images"))
INNER = methods.InnerAttack(Threat(radius=8), steps=10, step_size=2)
ARRAYS = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")


class TwoLayers(nn.Module):
    """tanh in between; its hidden units are the features."""

    @nn.compact
    def __call__(self, images: jax.Array, use_running_average: bool) -> jax.Array:
        shapes = dict(zip(ARRAYS, ((6, 9), (6,), (10, 6), (10,)), strict=True))
        weights = {name: self.param(name, nn.initializers.zeros, shape) for name, shape in shapes.items()}
        flat = images.reshape(len(images), -1)
        with jax.default_matmul_precision("highest"):
            hidden = jnp.tanh(flat @ weights["fc1.weight"].T + weights["fc1.bias"])
            self.sow("intermediates", "features", hidden)
            return hidden @ weights["fc2.weight"].T + weights["fc2.bias"]


def weights_of(network: str) -> dict[str, Any]:
    """The network's arrays, beside a first kernel that says how many channels images have."""
    return {"stem": {"kernel": jnp.zeros((1, 1, 1, 1))}} | {
        name: jnp.asarray(VALUES[f"inputs/{network}/{name}"]) for name in ARRAYS
    }


def learner(epoch: int) -> Learner:
    module = TwoLayers()
    teachers = {name: Teacher(module, weights_of(name), {}) for name in ("teacher", "clean_teacher")}
    args = (weights_of("student"), {}, {}, teachers, COUNTS, jnp.int32(epoch), jnp.float32(200))
    return Learner(module, "devices", *args)


def batch(images: jax.Array = IMAGES, labels: jax.Array = LABELS) -> Batch:
    nothing = jnp.zeros(len(labels))
    return Batch(images, labels, jax.random.split(jax.random.key(0), len(labels)), nothing, nothing)


def logits(params: dict[str, Any], images: jax.Array) -> jax.Array:
    return TwoLayers().apply({"params": params}, images, True)  # pyright: ignore


def close(mine, theirs) -> None:
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5 * max(1.0, float(np.abs(theirs).max())))


def compare(name: str, value_of) -> None:
    """`value_of(params)` and its gradient with the released ones."""
    value, gradient = jax.value_and_grad(value_of)(weights_of("student"))
    close(value, VALUES[f"{name}/loss"])
    for array in ARRAYS:
        close(gradient[array], VALUES[f"{name}/grad/{array}"])


FAIR = {"weights": VALUES["fair_ard/weights"]}
FRL = {name: VALUES[f"frl/{name}"] for name in ("clean", "boundary")}
CFA = {"accuracy": VALUES["cfa/accuracy"]}
ROBAL = {"tau_b": 1.5, "tau_m": 0.3}
TEMPERED = {"temperature": 30.0, "kl_scale": 0.1, "teacher_weight": 0.7}
IAD = {"variant": "as_released"}
# name -> method, its settings, wrappers, epoch from 1, what of its state is given, and points other than x'.
CASES = {
    "trades": ("trades", {}, (), 1, {}, None),
    "mart": ("mart", {"variant": "as_released"}, (), 1, {}, None),
    "at_bsl": ("at_bsl", {}, (), 1, {}, None),
    "robal": ("robal", ROBAL, (), 1, {}, None),
    "reat": ("reat", {"variant": "as_released"}, (), 1, {}, None),
    "taet": ("taet", {"clean_fraction": 0.0, "variant": "as_released"}, (), 1, {}, None),
    "ard": ("ard", TEMPERED, (), 1, {}, None),
    "iad_early": ("iad", IAD, (), 1, {}, None),
    "iad_late": ("iad", IAD, (), 101, {}, None),
    "iad2_early": ("iad2", IAD, (), 1, {}, None),
    "iad2_late": ("iad2", IAD, (), 101, {}, None),
    "rslad": ("rslad", {}, (), 1, {}, None),
    "fair_ard": ("ard", TEMPERED, ("fair_ard",), 1, FAIR, (ADV, jnp.zeros(len(LABELS)))),
    "cfa": ("trades", {}, ("cfa",), 20, CFA, None),
    "frl": ("frl", {}, (), 1, FRL, None),
    "bat": ("bat", {}, (), 1, {}, (IMAGES[::-1], ADV)),
    "faal_at": ("faal", {}, (), 1, {}, None),
    "faal_trades": ("faal", {"base": "trades"}, (), 1, {}, None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_are_those_of_the_released_code(name):
    base, settings, wrappers, epoch, given, points = CASES[name]
    method = methods.create(base, INNER, **settings)
    for wrapper in wrappers:
        method = methods.wrap(method, wrapper)

    def value_of(params):
        own = learner(epoch)
        state = method.initial_state(params, COUNTS)
        state |= {key: jnp.asarray(value, jnp.float32) for key, value in given.items()}
        own = dataclasses.replace(own, params=params, method_state=state)
        return on_one_device(lambda: method.loss(own, batch(), ADV if points is None else points)[0])

    compare(name, value_of)


def test_igdm_is_the_term_of_its_authors_code():
    teacher = weights_of("teacher")
    minus = 2 * IMAGES - ADV
    difference = logits(teacher, ADV) - logits(teacher, minus)
    compare(
        "igdm",
        lambda params: jnp.mean(indirect_gradient_matching(difference, logits(params, ADV) - logits(params, minus))),
    )


@pytest.mark.slow
def test_mtard_weighs_the_second_batch_by_the_first():
    method, half = methods.create("mtard", INNER), len(LABELS) // 2

    def value_of(params, state, part):
        own = dataclasses.replace(learner(1), params=params, method_state=state)
        return on_one_device(lambda: method.loss(own, batch(IMAGES[part], LABELS[part]), ADV[part]))

    first, outcome = value_of(weights_of("student"), method.initial_state({}, COUNTS), slice(half))
    # The released logarithm of the teacher's answer has 1e-5 in it, which changes values and no gradient.
    np.testing.assert_allclose(first, VALUES["mtard/losses"][0], atol=2e-5)
    compare("mtard", lambda params: value_of(params, outcome.method_state, slice(half, None))[0])


def test_awp_moves_the_weights_as_the_released_code_and_takes_the_gradient_there():
    method = methods.wrap(methods.create("pgd_at", INNER), "awp")
    own, params = learner(1), weights_of("student")
    value_of = lambda params: jnp.mean(objectives.cross_entropy(logits(params, ADV), LABELS))  # noqa: E731
    assert method.perturb_weights is not None
    moved = method.perturb_weights(own, jax.grad(value_of)(params), lambda gradients: gradients)
    for array in ("fc1.weight", "fc2.weight"):
        close(moved[array], VALUES[f"awp/direction/{array}"])
    compare("awp", lambda params: value_of(jax.tree.map(jnp.add, params, jax.lax.stop_gradient(moved))))


@pytest.mark.parametrize(("name", "patience"), [("fat", 1), ("fat_0", 0)])
def test_fat_stops_where_the_released_code_of_cfa_stops(name, patience):
    labels = jnp.asarray(VALUES["fat/labels"])
    inner = methods.InnerAttack(Threat(radius=60), steps=6, step_size=20, start="none")
    method = methods.create("fat", inner, patience=patience, variant="as_released")
    given = batch(labels=labels)
    points = jax.jit(method.attack)(
        learner(1), methods.make_batch(method, learner(1), given.images, given.labels, given.keys)
    )
    compare(name, lambda params: jnp.mean(objectives.cross_entropy(logits(params, points), labels)))


def test_reats_attack_weights_give_the_released_weighted_loss():
    weights = attack_weights(COUNTS, jnp.asarray(VALUES["reat_attack/predicted"], jnp.float32))[LABELS]
    # torch divides by the sum of the weights.
    compare(
        "reat_attack",
        lambda params: jnp.sum(weights * objectives.cross_entropy(logits(params, ADV), LABELS)) / jnp.sum(weights),
    )


def test_class_weights_and_radii_are_the_released_ones():
    kappa = jnp.asarray(VALUES["fair_ard/kappa"])
    close(class_weights(kappa, jnp.ones(10)), VALUES["fair_ard/weights"])
    for name in ("clean", "boundary"):
        close(limited(jnp.asarray(VALUES[f"frl/raw_{name}"]), 0.5), VALUES[f"frl/{name}"])
    method = methods.wrap(methods.create("pgd_at", INNER), "robust_lt")
    own = dataclasses.replace(learner(31), epochs=jnp.float32(100))
    assert method.radii is not None
    radius, step = method.radii(own, jnp.arange(10))
    close(radius, VALUES["robust_lt/epsilon"])
    close(step, VALUES["robust_lt/step"])


def test_every_recorded_value_is_compared_and_has_its_source():
    others = {"igdm", "mtard", "awp", "fat", "fat_0", "reat_attack", "robust_lt"}
    assert set(NAMES) == set(CASES) | others
    sources = json.loads(str(VALUES["provenance"]))
    assert set(sources) == set(NAMES)
    assert all("@" in source and ": " in source for source in sources.values())
