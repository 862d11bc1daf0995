"""Rematerialised blocks: the same values, gradients and statistics from less memory."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltrobust import models
from ltrobust.models import mobilenet_v2
from ltrobust.models.imagenet_resnet import ImageNetResNet
from ltrobust.models.model_plan import make_model_plan


def network(kind: str, remat: bool) -> Any:
    """A small network of each kind of block."""
    module: Any = models.create(
        {"bottleneck": "imagenet_resnet50"}.get(kind, kind), num_classes=5, width=8, remat=remat
    )
    if isinstance(module, ImageNetResNet):
        return module.clone(width=8, blocks=(1, 2))
    if kind == "convnext_tiny":
        return module.clone(widths=(8, 16), blocks=(2, 1))
    return module


def compiled(module: Any, side: int, batch: int) -> tuple[Any, Any]:
    """The compiled gradient of a training pass, and its arguments."""
    params, batch_stats = models.initialise(module, jax.random.key(0), (side, side, 3))
    images = jax.random.uniform(jax.random.key(1), (batch, side, side, 3))

    def loss(params: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        logits, stats = models.forward(module, params, batch_stats, images, bn="train")
        return jnp.mean(jax.nn.logsumexp(logits, -1) - logits[:, 0]), stats

    gradient = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    return gradient.lower(params, images).compile(), (params, images)


# MobileNetV2's kinds of block: a projected shortcut, the image itself, and a stride.
STAGES = ((1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 1, 2))
KINDS = ("small_resnet", "bottleneck", "convnext_tiny", "wrn_10_1", "mobilenet_v2")


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.slow) if k == "mobilenet_v2" else k for k in KINDS])
def test_values_gradients_and_statistics_are_the_same(monkeypatch, kind):
    monkeypatch.setattr(mobilenet_v2, "STAGES", STAGES)
    (plain, given), (remat, _) = (compiled(network(kind, remat), 16, 4) for remat in (False, True))
    expected, actual = plain(*given), remat(*given)
    assert jax.tree.structure(expected) == jax.tree.structure(actual)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), expected, actual)


def kept(module: Any) -> int:
    """Bytes that the gradient of a pass keeps from its forward half."""
    params, batch_stats = jax.eval_shape(lambda key: models.initialise(module, key, (32, 32, 3)), jax.random.key(0))

    def backward(*variables: Any) -> Any:
        return jax.vjp(lambda *given: models.forward(module, *given, bn="train")[0], *variables)[1]

    images = jax.ShapeDtypeStruct((8, 32, 32, 3), jnp.float32)
    return sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(jax.eval_shape(backward, params, batch_stats, images))
    )


# What compilers make of it: tests/compilation/test_compiled.py. The CPU's gives the memory no benefit.
def test_a_deep_network_keeps_less_for_its_gradient():
    plain, remat = (
        kept(models.create("small_resnet", num_classes=5, width=8, depth=4, remat=remat)) for remat in (False, True)
    )
    assert remat < 0.4 * plain


def test_only_training_computes_blocks_again_and_only_networks_of_the_package():
    settings = {"width": 8, "depth": 1, "stem_stride": 1, "activation": "relu", "dtype": "float32"}
    plan = make_model_plan({"name": "small_resnet", "sync_batch_norm": True, "remat": True, **settings})
    made = [plan.create(5, head=models.Head(), training=training) for training in (True, False)]
    assert [module.layers.remat for module in made] == [True, False]  # pyright: ignore
    assert "remat" not in plan.describe()
    with pytest.raises(ValueError, match=r"model\.remat is True, but own:Plain is not of this package; use flax"):
        models.create("own:Plain", num_classes=5, remat=True)
