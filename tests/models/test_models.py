"""Networks: published sizes by shape inference, their arithmetic against NumPy, batch-norm modes, errors."""

import functools
import itertools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltrobust import models
from ltrobust.models.layers import Layers, SynchronisedBatchNorm, normal_fan_out, uniform_fan_in
from ltrobust.models.mobilenet_v2 import InvertedResidual
from ltrobust.models.preact_resnet import PreActResNet
from ltrobust.models.wide_resnet import wide_resnet

FLOAT32 = Layers(jnp.float32)


@functools.cache
def shapes_of(module: nn.Module, image_shape: tuple[int, int, int]) -> tuple[Any, Any]:
    """Parameters and running statistics as shapes, without drawing them; traced once for equal modules."""
    return jax.eval_shape(lambda key: models.initialise(module, key, image_shape), jax.random.key(0))


def image_shapes(batch: int, size: int, channels: int = 3) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((batch, size, size, channels), jnp.float32)


def random_images(seed: int, *shape: int) -> jax.Array:
    return jax.random.uniform(jax.random.key(seed), shape)


def randomised(tree: Any, seed: int) -> Any:
    """Positive draws for scales and variances, signed ones elsewhere, so that no leaf is a neutral 0 or 1."""
    generator = np.random.default_rng(seed)

    def draw(path: Any, leaf: Any) -> jax.Array:
        low = 0.5 if path[-1].key in ("scale", "var") else -0.5
        bound = 1 / math.sqrt(math.prod(leaf.shape[:-1])) if path[-1].key == "kernel" else 1.0
        return jnp.asarray(generator.uniform(low, 1.0, leaf.shape) * bound, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, tree)


@functools.partial(jax.jit, static_argnums=0, static_argnames="bn")
def jitted_forward(module: nn.Module, params: Any, batch_stats: Any, images: jax.Array, *, bn: Any) -> Any:
    return models.forward(module, params, batch_stats, images, bn=bn)


@pytest.fixture(scope="module")
def small() -> tuple[nn.Module, Any, Any]:
    """A small ResNet with random parameters and random running statistics."""
    module = models.create("small_resnet", num_classes=5, width=4, depth=1)
    params, batch_stats = shapes_of(module, (16, 16, 3))
    return module, randomised(params, 1), randomised(batch_stats, 2)


# Sizes


@pytest.mark.parametrize(
    ("name", "num_classes", "size", "parameters"),
    [
        ("resnet18", 10, 32, 11_173_962),
        ("resnet18", 100, 32, 11_220_132),
        ("preact_resnet18", 200, 64, 11_269_640),
        ("preact_resnet18", 20, 64, 11_177_300),
        ("wrn_34_10", 10, 32, 46_160_474),
        ("wrn_34_10", 100, 32, 46_218_164),
        ("wrn_28_10", 10, 32, 36_479_194),
        ("wrn_28_10", 100, 32, 36_536_884),
        ("mobilenet_v2", 10, 32, 2_296_922),
        ("mobilenet_v2", 100, 32, 2_412_212),
    ],
)
def test_parameter_counts_are_the_published_ones(name, num_classes, size, parameters):
    params, _ = shapes_of(models.create(name, num_classes=num_classes), (size, size, 3))
    assert models.count_parameters(params) == parameters


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_class_norms_are_the_lengths_of_the_classes_rows(head):
    kernel = jnp.array([[3.0, 0.0, 1.0, 9.0], [4.0, 2.0, 0.0, 9.0]])  # the last output is of no class
    np.testing.assert_allclose(models.class_norms({"stem": {}, head: {"kernel": kernel}}, 3, 4), [5, 2, 1])
    assert models.class_norms({"stem": {}}, 3) is None


def equations_of(traced):
    """All equations of a traced function, those inside of functions with gradients of their own included."""
    for equation in traced.jaxpr.eqns:
        yield equation
        if "call_jaxpr" in equation.params:
            yield from equations_of(equation.params["call_jaxpr"])


@pytest.mark.parametrize(
    ("name", "size", "convolutions", "norms", "giga_macs"),
    [
        ("resnet18", 32, 20, 20, "0.555"),
        ("preact_resnet18", 64, 20, 17, "2.222"),
        ("wrn_34_10", 32, 34, 31, "6.66"),
        ("wrn_28_10", 32, 28, 25, "5.24"),
        ("mobilenet_v2", 32, 57, 57, "0.091"),
    ],
)
def test_layers_and_multiply_adds_are_the_published_ones(name, size, convolutions, norms, giga_macs):
    # Multiply-adds see what parameter counts cannot: where the strides are. They are those of direct convolutions.
    module = models.create(name, num_classes=10, platform="tpu")
    params, batch_stats = shapes_of(models.create(name, num_classes=10), (size, size, 3))
    forward = functools.partial(models.forward, module, bn="eval")
    traced = jax.make_jaxpr(forward)(params, batch_stats, image_shapes(1, size))
    convs = [equation for equation in equations_of(traced) if equation.primitive.name == "conv_general_dilated"]
    macs = params["linear"]["kernel"].size
    for conv in convs:
        macs += math.prod(conv.outvars[0].aval.shape) * math.prod(conv.invars[1].aval.shape[:3])
    paths = [path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    assert (len(convs), paths.count("scale")) == (convolutions, norms)
    assert f"{macs / 1e9:.{len(giga_macs) - 2}f}" == giga_macs


# wrn_34_10 is wrn_28_10 with more blocks, and both have the blocks of preact_resnet18.
LARGE = ("wrn_34_10 float32", "wrn_34_10 bfloat16", "wrn_28_10 bfloat16")
LARGE += (
    "imagenet_resnet18 float32",
    "imagenet_resnet34 float32",
    "imagenet_resnet50 float32",
    "convnext_tiny float32",
)
LARGE += ("imagenet_resnet18 bfloat16", "imagenet_resnet34 bfloat16")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=pytest.mark.slow if f"{name} {dtype}" in LARGE else ())
        for name, dtype in itertools.product(models.NAMES, ("float32", "bfloat16"))
    ],
)
def test_logits_and_features_are_float32_of_the_right_shape(name, dtype):
    module = models.create(name, num_classes=7, dtype=dtype)
    params, batch_stats = shapes_of(module, (32, 32, 3))
    assert {leaf.dtype for leaf in jax.tree.leaves((params, batch_stats))} == {jnp.dtype("float32")}

    def passed(function: Any, bn: str) -> Any:
        return jax.eval_shape(functools.partial(function, module, bn=bn), params, batch_stats, image_shapes(3, 32))

    # Each mode once, because tracing takes seconds.
    frozen_logits, features, frozen_stats = passed(models.forward_features, "batch_frozen")
    others = [passed(models.forward, bn) for bn in ("eval", "train")]
    for logits, new_stats in ((frozen_logits, frozen_stats), *others):
        assert (logits.shape, logits.dtype) == ((3, 7), jnp.float32)
        assert new_stats == batch_stats
    assert (features.shape, features.dtype) == ((3, params["linear"]["kernel"].shape[0]), jnp.float32)


@pytest.mark.parametrize(
    ("size", "channels", "stem_stride", "depth"), [(8, 1, 1, 1), (8, 1, 2, 3), (64, 3, 1, 1), (64, 3, 2, 2)]
)
def test_small_resnet_takes_digits_and_tiny_imagenet(size, channels, stem_stride, depth):
    module = models.create("small_resnet", num_classes=10, width=8, depth=depth, stem_stride=stem_stride)
    params, batch_stats = shapes_of(module, (size, size, channels))
    assert params["stem"]["kernel"].shape == (3, 3, channels, 8)
    assert params["linear"]["kernel"].shape == (32, 10)
    assert sum(name.startswith("stage") for name in params) == 3 * depth
    forward = functools.partial(models.forward, module, bn="train")
    logits, _ = jax.eval_shape(forward, params, batch_stats, image_shapes(2, size, channels))
    assert logits.shape == (2, 10)


# Arithmetic, against NumPy in float64


def numpy_conv(x: np.ndarray, layer: Any, stride: int = 1) -> np.ndarray:
    """Convolution padded by k // 2 on all sides, dense or depthwise, from its definition."""
    kernel = np.asarray(layer["kernel"], np.float64)
    size = kernel.shape[0]
    margin = (size // 2, size // 2)
    padded = np.pad(x, ((0, 0), margin, margin, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]
    if kernel.shape[2] == x.shape[-1]:
        return np.einsum("bhwcij,ijco->bhwo", windows, kernel)
    return np.einsum("bhwcij,ijc->bhwc", windows, kernel[:, :, 0])


def numpy_norm(x: np.ndarray, params: Any, stats: Any) -> np.ndarray:
    """Batch norm with running statistics, or with the batch's where `stats` is None."""
    mean = x.mean((0, 1, 2)) if stats is None else np.asarray(stats["mean"], np.float64)
    variance = x.var((0, 1, 2)) if stats is None else np.asarray(stats["var"], np.float64)
    return (x - mean) / np.sqrt(variance + 1e-5) * np.asarray(params["scale"]) + np.asarray(params["bias"])


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def numpy_basic_block(x: np.ndarray, params: Any, stats: Any, stride: int) -> np.ndarray:
    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return numpy_norm(x, params[name], stats and stats[name])

    out = relu(norm(numpy_conv(x, params["conv1"], stride), "norm1"))
    out = norm(numpy_conv(out, params["conv2"]), "norm2")
    if "shortcut_conv" in params:
        x = norm(numpy_conv(x, params["shortcut_conv"], stride), "shortcut_norm")
    return relu(out + x)


def numpy_preact_block(x: np.ndarray, params: Any, stats: Any, stride: int) -> np.ndarray:
    activated = relu(numpy_norm(x, params["norm1"], stats["norm1"]))
    out = numpy_conv(activated, params["conv1"], stride)
    out = numpy_conv(relu(numpy_norm(out, params["norm2"], stats["norm2"])), params["conv2"])
    return out + (numpy_conv(activated, params["shortcut_conv"], stride) if "shortcut_conv" in params else x)


def numpy_logits(x: np.ndarray, layer: Any) -> np.ndarray:
    return x.mean((1, 2)) @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"])


@pytest.mark.parametrize("bn", ["eval", "batch_frozen"])
def test_post_activation_network_equals_numpy(bn):
    module = models.create("small_resnet", num_classes=5, width=4, depth=2, stem_stride=2)
    params, batch_stats = shapes_of(module, (17, 16, 3))
    params, batch_stats = randomised(params, 3), randomised(batch_stats, 4)
    images = random_images(5, 3, 17, 16, 3)
    stats = batch_stats if bn == "eval" else None
    x = numpy_conv(np.asarray(images, np.float64), params["stem"], 2)
    x = relu(numpy_norm(x, params["stem_norm"], stats and stats["stem_norm"]))
    for stage, first_stride in enumerate((1, 2, 2), start=1):
        for block, stride in enumerate((first_stride, 1), start=1):
            name = f"stage{stage}_block{block}"
            assert ("shortcut_conv" in params[name]) == (stage > 1 and block == 1)
            x = numpy_basic_block(x, params[name], stats and stats[name], stride)
    logits, _ = jitted_forward(module, params, batch_stats, images, bn=bn)
    np.testing.assert_allclose(logits, numpy_logits(x, params["linear"]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stem_width", [4, 6])
def test_pre_activation_network_equals_numpy(stem_width):
    # Stem width 4 is PreActResNet's plan (identity in stage 1), 6 the wide one's (projection at stride 1).
    module = PreActResNet(5, stem_width, (4, 8), (1, 2), 2, FLOAT32)
    params, batch_stats = shapes_of(module, (9, 8, 3))
    params, batch_stats = randomised(params, 6), randomised(batch_stats, 7)
    images = random_images(8, 3, 9, 8, 3)
    x = numpy_conv(np.asarray(images, np.float64), params["stem"])
    for name, stride in [
        ("stage1_block1", 1),
        ("stage1_block2", 1),
        ("stage2_block1", 2),
        ("stage2_block2", 1),
    ]:
        x = numpy_preact_block(x, params[name], batch_stats[name], stride)
    assert ("shortcut_conv" in params["stage1_block1"]) == (stem_width == 6)
    x = relu(numpy_norm(x, params["final_norm"], batch_stats["final_norm"]))
    logits, _ = jitted_forward(module, params, batch_stats, images, bn="eval")
    np.testing.assert_allclose(logits, numpy_logits(x, params["linear"]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("features", "stride"), [(4, 1), (6, 1), (4, 2)])
def test_inverted_residual_equals_numpy(features, stride):
    module = InvertedResidual(features, 3, stride, FLOAT32)
    x = random_images(9, 2, 6, 7, 4)
    variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, use_running_average=True), x)
    params, stats = randomised(variables["params"], 10), randomised(variables["batch_stats"], 11)
    actual: Any = module.apply({"params": params, "batch_stats": stats}, x, use_running_average=True)

    def block(x: np.ndarray, conv: str, norm: str, stride: int = 1) -> np.ndarray:
        return numpy_norm(numpy_conv(x, params[conv], stride), params[norm], stats[norm])

    image = np.asarray(x, np.float64)
    out = relu(block(relu(block(image, "expand", "expand_norm")), "depthwise", "depthwise_norm", stride))
    expected = block(out, "project", "project_norm")
    if stride == 1:
        expected += image if features == 4 else block(image, "shortcut_conv", "shortcut_norm")
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


# Batch-norm modes


def test_eval_mode_treats_each_image_alone_and_keeps_the_statistics(small):
    module, params, batch_stats = small
    images = random_images(12, 6, 16, 16, 3)
    together, unchanged = models.forward(module, params, batch_stats, images, bn="eval")
    alone, _ = jitted_forward(module, params, batch_stats, images[2:3], bn="eval")
    np.testing.assert_allclose(alone[0], together[2], rtol=1e-5, atol=1e-6)
    assert unchanged is batch_stats


def test_train_mode_moves_the_statistics_by_a_tenth_of_the_batch(small):
    module, params, batch_stats = small
    images = random_images(13, 6, 16, 16, 3)
    _, updated = jitted_forward(module, params, batch_stats, images, bn="train")
    stem = numpy_conv(np.asarray(images, np.float64), params["stem"])
    old = jax.tree.map(np.asarray, batch_stats["stem_norm"])
    mean = 0.9 * old["mean"] + 0.1 * stem.mean((0, 1, 2))
    variance = 0.9 * old["var"] + 0.1 * stem.var((0, 1, 2))  # biased, unlike PyTorch's
    np.testing.assert_allclose(updated["stem_norm"]["mean"], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(updated["stem_norm"]["var"], variance, rtol=1e-5)
    moved = jax.tree.map(lambda old, new: bool((old != new).any()), batch_stats, updated)
    assert all(jax.tree.leaves(moved))


def test_batch_frozen_has_the_logits_of_train_and_keeps_the_statistics(small):
    module, params, batch_stats = small
    images = random_images(14, 6, 16, 16, 3)
    trained, _ = jitted_forward(module, params, batch_stats, images, bn="train")
    frozen, unchanged = jitted_forward(module, params, batch_stats, images, bn="batch_frozen")
    evaluated, _ = jitted_forward(module, params, batch_stats, images, bn="eval")
    np.testing.assert_allclose(frozen, trained, rtol=1e-6)
    assert np.abs(frozen - evaluated).max() > 0.1
    jax.tree.map(np.testing.assert_array_equal, unchanged, batch_stats)


def test_synchronised_halves_equal_the_whole_batch(small):
    module, params, batch_stats = small
    images = random_images(15, 6, 16, 16, 3)
    whole, whole_stats = jitted_forward(module, params, batch_stats, images, bn="train")
    synchronised = models.create("small_resnet", num_classes=5, width=4, depth=1, sync_axis="devices")
    forward = functools.partial(models.forward, synchronised, params, batch_stats, bn="train")
    halves, stats = jax.jit(jax.vmap(forward, axis_name="devices"))(images.reshape(2, 3, 16, 16, 3))
    np.testing.assert_allclose(halves.reshape(whole.shape), whole, rtol=1e-4, atol=1e-5)
    for half in (0, 1):
        part = jax.tree.map(lambda leaf, half=half: leaf[half], stats)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), part, whole_stats)


@pytest.mark.parametrize(("mean", "deviation"), [(0, 1), (100, 0.1)])
def test_synchronised_norm_has_the_gradients_of_the_whole_batch_however_large_its_mean(mean, deviation):
    """As with two passes over the whole batch. E[x^2] - E[x]^2 would have no right digit at a mean of 100."""
    x = mean + deviation * jax.random.normal(jax.random.key(0), (4, 2, 3, 3, 5))
    weight = jax.random.normal(jax.random.key(1), x.shape)

    def loss(norm, x, weight):
        variables = norm.init(jax.random.key(2), x)
        variables["batch_stats"]["mean"] += mean  # near the batch's after a few steps
        result, updated = norm.apply(variables, x, mutable=["batch_stats"])
        return jnp.mean(weight * result**3), updated["batch_stats"]

    def whole(x, weight):
        norm = nn.BatchNorm(use_running_average=False, momentum=0.9, use_fast_variance=False)
        return jax.value_and_grad(functools.partial(loss, norm), has_aux=True)(x, weight)

    def shares(x, weight):
        norm = SynchronisedBatchNorm("devices")
        each = jax.value_and_grad(functools.partial(loss, norm), has_aux=True)
        (losses, stats), gradients = jax.vmap(each, axis_name="devices")(x, weight)
        # A device's gradient is that of the sum of all losses.
        return (jnp.mean(losses), jax.tree.map(lambda leaf: leaf[0], stats)), gradients / len(x)

    expected, gradients = jax.jit(whole)(x.reshape(8, 3, 3, 5), weight.reshape(8, 3, 3, 5))
    result, of_shares = jax.jit(shares)(x, weight)
    close = functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-5)
    jax.tree.map(close, (result, of_shares.reshape(gradients.shape)), (expected, gradients))


def test_initialise_and_eval_need_no_sync_axis():
    module = models.create("small_resnet", num_classes=5, width=4, sync_axis="devices")
    params, batch_stats = shapes_of(module, (16, 16, 3))
    forward = functools.partial(models.forward, module, bn="eval")
    logits, _ = jax.eval_shape(forward, params, batch_stats, image_shapes(2, 16))
    assert logits.shape == (2, 5)


@pytest.mark.parametrize("bn", ["eval", "train"])
def test_bfloat16_stays_close_to_float32(small, bn):
    module, params, batch_stats = small
    half = models.create("small_resnet", num_classes=5, width=4, depth=1, dtype="bfloat16")
    images = random_images(16, 6, 16, 16, 3)
    expected, expected_stats = jitted_forward(module, params, batch_stats, images, bn=bn)
    logits, stats = jitted_forward(half, params, batch_stats, images, bn=bn)
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, stats))} == {jnp.dtype("float32")}
    # Measured over three seeds: at most 0.03 on logits up to 47, and 0.0007 on statistics of about 1.
    np.testing.assert_allclose(logits, expected, atol=0.1)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=0.005), stats, expected_stats)
    assert np.abs(logits - expected).max() > 0


# Initialisation


def test_small_resnet_starts_as_pytorch_does():
    module = models.create("small_resnet", num_classes=50, width=16)
    params, batch_stats = models.initialise(module, jax.random.key(0), (8, 8, 3))
    for path, leaf in jax.tree_util.tree_leaves_with_path({"params": params, "batch_stats": batch_stats}):
        kind = path[-1].key
        if kind == "kernel" or path[-2].key == "linear":
            fan_in = 64 if path[-2].key == "linear" else math.prod(leaf.shape[:-1])
            assert np.abs(leaf).max() <= 1 / math.sqrt(fan_in)
            # The relative deviation of a variance over n uniform draws is sqrt(0.8 / n); five of them.
            np.testing.assert_allclose(leaf.var(), 1 / (3 * fan_in), rtol=5 * math.sqrt(0.8 / leaf.size))
        else:
            np.testing.assert_array_equal(leaf, 1.0 if kind in ("scale", "var") else 0.0)


def test_wide_resnet_starts_with_fan_out_normal_kernels_and_zero_bias():
    params, _ = models.initialise(wide_resnet(10, FLOAT32, depth=10, widen=2), jax.random.key(0), (8, 8, 3))
    kernel = np.asarray(params["stage3_block1"]["conv2"]["kernel"])
    deviation = math.sqrt(2 / (9 * 128))
    np.testing.assert_allclose(kernel.std(), deviation, rtol=0.02)
    # Of 147,456 normal draws 0.27 % lie beyond three deviations; a normal truncated at two has none.
    np.testing.assert_allclose((np.abs(kernel) > 3 * deviation).mean(), 0.0027, rtol=0.25)
    linear = params["linear"]
    assert 0.9 < np.abs(linear["kernel"]).max() * math.sqrt(128) <= 1
    np.testing.assert_array_equal(linear["bias"], 0.0)


def test_kernel_variances_follow_the_formula():
    key = jax.random.key(1)
    depthwise = np.asarray(uniform_fan_in(key, (3, 3, 1, 4096)))
    np.testing.assert_allclose(depthwise.var(), 1 / 27, rtol=0.03)
    rectangular = np.asarray(normal_fan_out(key, (1, 1, 64, 512)))
    np.testing.assert_allclose(rectangular.var(), 2 / 512, rtol=0.05)


def test_initialisation_depends_on_the_key_alone():
    module = models.create("small_resnet", num_classes=50, width=16)
    first, _ = models.initialise(module, jax.random.key(0), (8, 8, 3))
    again, _ = models.initialise(module, jax.random.key(0), (8, 8, 3))
    other, _ = models.initialise(module, jax.random.key(1), (8, 8, 3))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (first["stem"]["kernel"] != other["stem"]["kernel"]).all()
    assert type(first) is dict


# Errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnet19"}, r"'resnet19'; did you mean resnet18\? known models: resnet18, .*small_resnet"),
        ({"dtype": "float16"}, r"'float16'; allowed: float32, bfloat16"),
        ({"num_classes": 1}, r"num_classes is 1; expected an integer of at least 2"),
        ({"width": 0}, r"width is 0; expected an integer of at least 1"),
        ({"depth": 0}, r"depth is 0; expected an integer of at least 1"),
        ({"depth": 1.5}, r"depth is 1\.5; expected an integer"),
        ({"stem_stride": 0}, r"stem_stride is 0; expected an integer of at least 1"),
    ],
)
def test_create_names_the_bad_setting(settings, message):
    with pytest.raises(ValueError, match=message):
        models.create(**{"name": "small_resnet", "num_classes": 10} | settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "cosin"}, r"head is 'cosin'; did you mean cosine\? known heads: linear, cosine"),
        ({"kind": "cosine", "floor": -0.1}, r"head\.floor is -0\.1 and head\.extra is 0; both must be at least 0"),
        ({"extra": -1}, r"head\.extra is -1"),
    ],
)
def test_a_head_that_does_not_exist_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        models.Head(**settings)


@pytest.mark.parametrize("image_shape", [(32, 32), (0, 32, 3)])
def test_initialise_rejects_a_bad_image_shape(image_shape):
    module = models.create("small_resnet", num_classes=10)
    with pytest.raises(ValueError, match=r"expected height, width and channels"):
        models.initialise(module, jax.random.key(0), image_shape)


@pytest.mark.parametrize(
    ("images", "bn", "message"),
    [
        (np.zeros((16, 16, 3), np.float32), "eval", r"\(16, 16, 3\); expected \[batch, height, width, 3\]"),
        (
            np.zeros((2, 16, 16, 1), np.float32),
            "eval",
            r"\(2, 16, 16, 1\); expected \[batch, height, width, 3\]",
        ),
        (np.zeros((2, 16, 16, 3), np.uint8), "eval", r"uint8; expected floats in \[0,1\]"),
        (np.zeros((2, 16, 16, 3), np.float32), "test", r"'test'; allowed: eval, train, batch_frozen"),
    ],
)
def test_forward_names_what_it_was_given(small, images, bn, message):
    module, params, batch_stats = small
    with pytest.raises(ValueError, match=message):
        models.forward(module, params, batch_stats, jnp.asarray(images), bn=bn)
