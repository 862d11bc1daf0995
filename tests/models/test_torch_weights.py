"""Weights exchanged with PyTorch: names and layouts against NumPy and PyTorch itself, files, errors."""

import argparse
import functools
import math
import pathlib
import sys
import types
import warnings
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltrobust import models
from ltrobust.models import torch_files, torch_parity, torch_weights
from ltrobust.models.layers import Layers
from ltrobust.models.preact_resnet import PreActBlock
from ltrobust.models.resnet import BasicBlock
from ltrobust.models.torch_files import WRAPPERS

NAMES = ("resnet18", "preact_resnet18", "wrn_28_10", "wrn_34_10", "small_resnet")
POST = ("resnet18", "small_resnet")  # the activation comes after the addition
# Stem, then for each stage its width and the stride of its first block, then blocks in each stage.
PLANS = {
    "resnet18": (64, ((64, 1), (128, 2), (256, 2), (512, 2)), 2),
    "preact_resnet18": (64, ((64, 1), (128, 2), (256, 2), (512, 2)), 2),
    "wrn_28_10": (16, ((160, 1), (320, 2), (640, 2)), 4),
    "wrn_34_10": (16, ((160, 1), (320, 2), (640, 2)), 5),
    "small_resnet": (16, ((16, 1), (32, 2), (64, 2)), 1),
}
Shapes = dict[str, tuple[int, ...]]


def norm_shapes(name: str, width: int) -> Shapes:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{leaf}": (width,) for leaf in leaves} | {f"{name}.num_batches_tracked": ()}


def block_shapes(name: str, block: str, before: int, width: int, stride: int) -> Shapes:
    """What the peers' blocks hold: post-activation for resnet18, pre-activation else."""
    shapes = {f"{block}.conv1.weight": (width, before, 3, 3), f"{block}.conv2.weight": (width, width, 3, 3)}
    shapes |= norm_shapes(f"{block}.bn1", width if name in POST else before) | norm_shapes(f"{block}.bn2", width)
    if stride != 1 or before != width:
        shortcut = "convShortcut" if name.startswith("wrn") else "shortcut.0"
        shapes[f"{block}.{shortcut}.weight"] = (width, before, 1, 1)
        shapes |= norm_shapes(f"{block}.shortcut.1", width) if name in POST else {}
    return shapes


def peer_shapes(name: str, num_classes: int) -> Shapes:
    """Names and shapes of the peers' state dicts, from their classes' structure and from nothing of the project."""
    stem, stages, blocks = PLANS[name]
    wide = name.startswith("wrn")
    shapes: Shapes = {"conv1.weight": (stem, 3, 3, 3)}
    before = stem
    for stage, (width, stride) in enumerate(stages, start=1):
        for index in range(blocks):
            block = f"block{stage}.layer.{index}" if wide else f"layer{stage}.{index}"
            shapes |= block_shapes(name, block, before, width, stride if index == 0 else 1)
            before = width
    shapes |= norm_shapes("bn" if name == "preact_resnet18" else "bn1", stem if name in POST else before)
    linear = "fc" if wide else "linear"
    return shapes | {f"{linear}.weight": (num_classes, before), f"{linear}.bias": (num_classes,)}


@functools.cache
def peer_weights(name: str, num_classes: int = 10) -> dict[str, np.ndarray]:
    """A random state dict, variances positive, activations of about 1 throughout."""
    generator = np.random.default_rng(0)

    def draw(leaf: str, shape: tuple[int, ...]) -> np.ndarray:
        if leaf.endswith("num_batches_tracked"):
            return np.array(7)
        if len(shape) > 1:
            return generator.standard_normal(shape, np.float32) * np.float32(1 / math.sqrt(math.prod(shape[1:])))
        low = 0.5 if leaf.endswith(("weight", "running_var")) else -0.5
        return generator.uniform(low, low + 1, shape).astype(np.float32)

    return {leaf: draw(leaf, shape) for leaf, shape in peer_shapes(name, num_classes).items()}


def require_equal(mine: Any, theirs: Any) -> None:
    """Same structure, types and bits."""
    assert jax.tree.structure(mine) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(one, other)


@functools.cache
def imported() -> tuple[Any, Any]:
    """The weights of `peer_weights("resnet18")`."""
    return torch_weights.from_torch(peer_weights("resnet18"), "resnet18")


# Names and round trips


# The two wide networks differ in blocks per stage alone.
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "wrn_34_10" else n for n in NAMES])
def test_there_and_back_changes_no_bit(name):
    theirs = peer_weights(name)
    params, batch_stats = torch_weights.from_torch(theirs, name)
    expected = jax.eval_shape(
        lambda key: models.initialise(models.create(name, num_classes=10), key, (32, 32, 3)), jax.random.key(0)
    )
    assert jax.tree.map(jnp.shape, (params, batch_stats)) == jax.tree.map(jnp.shape, expected)
    back = torch_weights.to_torch(params, batch_stats, name)
    assert {leaf: tensor.shape for leaf, tensor in back.items()} == peer_shapes(name, 10)
    for leaf, tensor in back.items():
        assert tensor.flags.c_contiguous, leaf
        if leaf.endswith("num_batches_tracked"):
            assert (tensor.dtype, tensor) == (np.int64, 0)
        else:
            np.testing.assert_array_equal(tensor, theirs[leaf], strict=True)
    require_equal(torch_weights.from_torch(back, name), (params, batch_stats))


@pytest.mark.slow
def test_fresh_parameters_survive_export_and_import():
    module = models.create("preact_resnet18", num_classes=4)
    params, batch_stats = models.initialise(module, jax.random.key(0), (16, 16, 1))
    tensors = torch_weights.to_torch(params, batch_stats, "preact_resnet18")
    assert tensors["conv1.weight"].shape == (64, 1, 3, 3)
    require_equal(torch_weights.from_torch(tensors, "preact_resnet18"), (params, batch_stats))


@pytest.mark.slow
@pytest.mark.parametrize(("width", "depth"), [(4, 1), (8, 3)])
def test_a_small_resnet_has_the_names_of_a_large_one(width, depth):
    module = models.create("small_resnet", num_classes=5, width=width, depth=depth)
    params, batch_stats = models.initialise(module, jax.random.key(0), (8, 8, 1))
    tensors = torch_weights.to_torch(params, batch_stats, "small_resnet")
    names = {f"layer{stage}.{block}.conv2.weight" for stage in (1, 2, 3) for block in range(depth)}
    assert names | {"conv1.weight", "layer2.0.shortcut.1.running_var", "linear.bias"} <= tensors.keys()
    require_equal(torch_weights.from_torch(tensors, "small_resnet"), (params, batch_stats))
    with pytest.raises(ValueError, match=r"linear\.weight has .*; small_resnet needs \(5, 20\): .*conv1"):
        torch_weights.from_torch(tensors, "small_resnet", width=5)
    with pytest.raises(ValueError, match=r"missing layer\S+"):
        torch_weights.from_torch(tensors, "small_resnet", depth=depth + 1)


def mobile_shapes() -> Shapes:
    """Names and shapes of pytorch-cifar's MobileNetV2 for 10 classes, from its class's structure."""
    stages = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    rows = [(e, out, stride if n == 0 else 1) for e, out, blocks, stride in stages for n in range(blocks)]
    shapes, before = {"conv1.weight": (32, 3, 3, 3)} | norm_shapes("bn1", 32), 32
    for index, (expansion, out, stride) in enumerate(rows):
        block, hidden = f"layers.{index}", expansion * before
        kernels = ((hidden, before, 1, 1), (hidden, 1, 3, 3), (out, hidden, 1, 1))
        for place, kernel in enumerate(kernels, start=1):
            shapes |= {f"{block}.conv{place}.weight": kernel} | norm_shapes(f"{block}.bn{place}", kernel[0])
        if stride == 1 and before != out:
            shapes |= {f"{block}.shortcut.0.weight": (out, before, 1, 1)} | norm_shapes(f"{block}.shortcut.1", out)
        before = out
    shapes |= {"conv2.weight": (1280, 320, 1, 1)} | norm_shapes("bn2", 1280)
    return shapes | {"linear.weight": (10, 1280), "linear.bias": (10,)}


def test_a_mobilenet_has_the_names_of_pytorch_cifar():
    shapes = mobile_shapes()
    tensors = {name: np.full(shape, number, np.float32) for number, (name, shape) in enumerate(shapes.items())}
    params, batch_stats = torch_weights.from_torch(tensors, "mobilenet_v2")
    back = torch_weights.to_torch(params, batch_stats, "mobilenet_v2")
    assert {name: tensor.shape for name, tensor in back.items()} == shapes
    for name, tensor in back.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(tensor, tensors[name])
    assert params["stage2_block1"]["expand"]["kernel"][0, 0, 0, 0] == list(shapes).index("layers.1.conv1.weight")


def test_imported_arrays_are_float32_copies():
    theirs = {leaf: tensor.copy() for leaf, tensor in peer_weights("resnet18").items()}
    theirs["bn1.weight"] = theirs["bn1.weight"].astype(np.float64)
    theirs["bn1.bias"] = np.float16(theirs["bn1.bias"])
    params, batch_stats = torch_weights.from_torch(theirs, "resnet18", num_classes=10)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, batch_stats))} == {jnp.dtype("float32")}
    np.testing.assert_array_equal(params["stem_norm"]["bias"], np.float32(theirs["bn1.bias"]))
    kept = theirs["linear.bias"].copy()
    theirs["linear.bias"][:] = 9
    np.testing.assert_array_equal(params["linear"]["bias"], kept)


@pytest.mark.parametrize("wrapper", [None, *WRAPPERS])
@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "model.",
        "basic_net.",
        "1.",
        "module.0.",
        "module.model.1.",
        "_orig_mod.",
        "net.",
        "module._orig_mod.backbone.",
        "_orig_mod.module.",
        "backbone.model._orig_mod.module.",
    ],
)
def test_wrapping_dicts_and_prefixes_make_no_difference(prefix, wrapper):
    theirs: Any = {prefix + leaf: tensor for leaf, tensor in peer_weights("resnet18").items()}
    theirs = theirs if wrapper is None else {wrapper: theirs, "epoch": 3, "optimizer": {"state": {}}}
    require_equal(torch_weights.from_torch(theirs, "resnet18"), imported())


def test_wrapping_dicts_may_be_nested_and_averaged_models_count():
    averaged = {f"module.{leaf}": tensor for leaf, tensor in peer_weights("resnet18").items()}
    theirs = {"model": {"state_dict": averaged | {"n_averaged": np.array(3)}}}
    require_equal(torch_weights.from_torch(theirs, "resnet18"), imported())


def test_the_unused_copy_of_the_first_wide_stage_is_left_out():
    theirs = peer_weights("wrn_28_10")
    copy = {f"sub_{leaf}": tensor + 1 for leaf, tensor in theirs.items() if leaf.startswith("block1.")}
    assert len(copy) > 40
    both = {f"module.{leaf}": tensor for leaf, tensor in (copy | theirs).items()}
    expected = torch_weights.from_torch(theirs, "wrn_28_10")
    require_equal(torch_weights.from_torch(both, "wrn_28_10"), expected)


@pytest.mark.parametrize("norm", ["bn1", "norm"])
def test_the_last_norm_of_a_preact_resnet_has_three_names(norm):
    theirs = peer_weights("preact_resnet18")
    renamed = {f"{norm}.{leaf[3:]}" if leaf.startswith("bn.") else leaf: array for leaf, array in theirs.items()}
    assert f"{norm}.running_var" in renamed
    expected = torch_weights.from_torch(theirs, "preact_resnet18")
    require_equal(torch_weights.from_torch(renamed, "preact_resnet18"), expected)
    with pytest.raises(ValueError, match=rf"missing none; unexpected {norm}\.weight, {norm}\.bias, .*allowed"):
        torch_weights.from_torch(theirs | renamed, "preact_resnet18")


# Layouts, against NumPy in PyTorch's own layout


def numpy_conv(images: np.ndarray, weight: np.ndarray, stride: int = 1) -> np.ndarray:
    """Convolution [B,c,H,W] * [o,c,k,k] -> [B,o,H',W'], padded by k // 2, tap by tap."""
    size = weight.shape[2]
    padded = np.pad(images.astype(np.float64), ((0, 0), (0, 0), *[(size // 2, size // 2)] * 2))
    height, width = (-(-length // stride) for length in images.shape[2:])
    result = np.zeros((len(images), len(weight), height, width))
    for row in range(size):
        for column in range(size):
            taps = padded[:, :, row::stride, column::stride][:, :, :height, :width]
            result += np.einsum("bchw,oc->bohw", taps, weight[:, :, row, column])
    return result


def numpy_norm(images: np.ndarray, tensors: dict[str, np.ndarray], name: str) -> np.ndarray:
    scale, shift, mean, variance = (
        tensors[f"{name}.{leaf}"][:, None, None] for leaf in ("weight", "bias", "running_mean", "running_var")
    )
    return (images - mean) / np.sqrt(variance + 1e-5) * scale + shift


def relu(images: np.ndarray) -> np.ndarray:
    return np.maximum(images, 0)


def random_images(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, shape).astype(np.float32)


def test_stem_and_linear_layer_equal_numpy():
    theirs = peer_weights("resnet18")
    params, _ = torch_weights.from_torch(theirs, "resnet18")
    images = random_images(1, 2, 3, 5, 4)
    stem = nn.Conv(64, (3, 3), padding=1, use_bias=False)
    actual: Any = stem.apply({"params": params["stem"]}, images.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(actual.transpose(0, 3, 1, 2), numpy_conv(images, theirs["conv1.weight"]), atol=1e-5)
    features = random_images(2, 4, 512)
    logits: Any = nn.Dense(10).apply({"params": params["linear"]}, features)
    np.testing.assert_allclose(logits, features @ theirs["linear.weight"].T + theirs["linear.bias"], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mine", "block", "shortcut", "width"),
    [
        ("resnet18", "stage2_block1", "layer2.0", "shortcut.0", 128),
        ("preact_resnet18", "stage2_block1", "layer2.0", "shortcut.0", 128),
        ("wrn_28_10", "stage2_block1", "block2.layer.0", "convShortcut", 320),
    ],
)
def test_a_block_equals_numpy(name, mine, block, shortcut, width):
    tensors = peer_weights(name)
    params, batch_stats = torch_weights.from_torch(tensors, name)
    images = random_images(3, 1, params[mine]["conv1"]["kernel"].shape[2], 5, 4)
    conv, conv1, conv2 = (tensors[f"{block}.{layer}.weight"] for layer in (shortcut, "conv1", "conv2"))
    if name in POST:
        out = relu(numpy_norm(numpy_conv(images, conv1, 2), tensors, f"{block}.bn1"))
        out = numpy_norm(numpy_conv(out, conv2), tensors, f"{block}.bn2")
        expected = relu(out + numpy_norm(numpy_conv(images, conv, 2), tensors, f"{block}.shortcut.1"))
    else:
        activated = relu(numpy_norm(images, tensors, f"{block}.bn1"))
        out = relu(numpy_norm(numpy_conv(activated, conv1, 2), tensors, f"{block}.bn2"))
        expected = numpy_conv(out, conv2) + numpy_conv(activated, conv, 2)
    module = (BasicBlock if name in POST else PreActBlock)(width, 2, Layers(jnp.float32))
    variables = {"params": params[mine], "batch_stats": batch_stats[mine]}
    actual: Any = module.apply(variables, jnp.asarray(images.transpose(0, 2, 3, 1)), use_running_average=True)
    np.testing.assert_allclose(actual.transpose(0, 3, 1, 2), expected, rtol=1e-4, atol=1e-4)


# Logits, against PyTorch


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[torch]'")


def torch_block(torch: Any, name: str, before: int, width: int, stride: int) -> Any:
    """One block under the peers' names."""
    post, wide = name in POST, name.startswith("wrn")

    def conv(inputs: int, size: int, stride: int) -> Any:
        return torch.nn.Conv2d(inputs, width, size, stride=stride, padding=size // 2, bias=False)

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = conv(before, 3, stride), conv(width, 3, 1)
            self.bn1, self.bn2 = (torch.nn.BatchNorm2d(size) for size in (width if post else before, width))
            self.projects = stride != 1 or before != width
            if self.projects and wide:
                self.convShortcut = conv(before, 1, stride)
            elif self.projects:
                norms = [torch.nn.BatchNorm2d(width)] if post else []
                self.shortcut = torch.nn.Sequential(conv(before, 1, stride), *norms)

        def forward(self, x: Any) -> Any:
            activated = x if post else self.bn1(x).relu()
            if self.projects:
                x = (self.convShortcut if wide else self.shortcut)(activated)
            if post:
                return (self.bn2(self.conv2(self.bn1(self.conv1(activated)).relu())) + x).relu()
            return self.conv2(self.bn2(self.conv1(activated)).relu()) + x

    return Block()


def torch_network(torch: Any, name: str, num_classes: int = 10) -> Any:
    """One network under the peers' names, with random weights and running statistics, in eval mode."""
    stem, stages, blocks = PLANS[name]
    wide = name.startswith("wrn")
    last = stages[-1][0]

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = torch.nn.Conv2d(3, stem, 3, padding=1, bias=False)
            norm = torch.nn.BatchNorm2d(stem if name in POST else last)
            setattr(self, "bn" if name == "preact_resnet18" else "bn1", norm)
            before = stem
            for stage, (width, stride) in enumerate(stages, start=1):
                rows = [torch_block(torch, name, before, width, stride)]
                rows += [torch_block(torch, name, width, width, 1) for _ in range(blocks - 1)]
                before, sequence = width, torch.nn.Sequential(*rows)
                holder = torch.nn.ModuleDict({"layer": sequence}) if wide else sequence
                setattr(self, f"block{stage}" if wide else f"layer{stage}", holder)
            setattr(self, "fc" if wide else "linear", torch.nn.Linear(last, num_classes))

        def forward(self, x: Any) -> Any:
            x = self.conv1(x)
            if name in POST:
                x = self.bn1(x).relu()
            for stage in range(1, len(stages) + 1):
                x = getattr(self, f"block{stage}").layer(x) if wide else getattr(self, f"layer{stage}")(x)
            if name not in POST:
                x = (self.bn1 if wide else self.bn)(x).relu()
            return (self.fc if wide else self.linear)(x.mean((2, 3)))

    return Network().eval()


def logits_of_both(torch: Any, network: Any, name: str, params: Any, batch_stats: Any) -> tuple[Any, Any]:
    """PyTorch's and the project's logits of the same images."""
    images = random_images(4, 1 if name.startswith("wrn") else 2, 32, 32, 3)
    with torch.no_grad():
        theirs = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    forward = jax.jit(functools.partial(models.forward, models.create(name, num_classes=10), bn="eval"))
    mine, _ = forward(params, batch_stats, jnp.asarray(images))
    return theirs, mine


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize("name", NAMES[:3])
def test_imported_networks_have_the_logits_that_pytorch_computes(torch, name):
    network = torch_network(torch, name)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for leaf in (module.weight, module.running_var):
                    leaf.uniform_(0.5, 1.5, generator=generator)
                for leaf in (module.bias, module.running_mean):
                    leaf.uniform_(-0.5, 0.5, generator=generator)
    state = {leaf: tensor.numpy() for leaf, tensor in network.state_dict().items()}
    assert {leaf: tensor.shape for leaf, tensor in state.items()} == peer_shapes(name, 10)
    theirs, mine = logits_of_both(torch, network, name, *torch_weights.from_torch(state, name))
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


QUICK = ("preact_resnet18", "small_resnet")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in (*NAMES[:3], "small_resnet")]
)
def test_pytorch_loads_exported_networks_strictly_and_computes_the_same_logits(torch, name):
    params, batch_stats = torch_weights.from_torch(peer_weights(name), name)
    tensors = torch_weights.to_torch(params, batch_stats, name)
    network = torch_network(torch, name)
    network.load_state_dict({leaf: torch.from_numpy(tensor) for leaf, tensor in tensors.items()}, strict=True)
    theirs, mine = logits_of_both(torch, network, name, params, batch_stats)
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


# Files


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_files_come_back_as_they_were_and_are_never_overwritten(tmp_path, suffix):
    if suffix != ".safetensors":
        pytest.importorskip("torch")
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b.c": np.zeros((), np.int64)}
    path = tmp_path / f"weights{suffix}"
    torch_weights.write(path, tensors)
    require_equal(torch_weights.read(path), tensors)
    require_equal(torch_weights.read(str(path)), tensors)
    content = path.read_bytes()
    with pytest.raises(FileExistsError, match=rf"weights\{suffix} exists; nothing is overwritten"):
        torch_weights.write(path, {"a": np.zeros(1)})
    assert path.read_bytes() == content


def test_a_network_survives_a_safetensors_file(tmp_path):
    params, batch_stats = torch_weights.from_torch(peer_weights("resnet18"), "resnet18")
    path = tmp_path / "resnet18.safetensors"
    torch_weights.write(path, torch_weights.to_torch(params, batch_stats, "resnet18"))
    require_equal(torch_weights.from_torch(torch_weights.read(path), "resnet18"), (params, batch_stats))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pth.tar", ".bin"])
def test_pytorch_files_are_read_as_weights(torch, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    tensors = {
        "a": torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).T),
        "b": torch.tensor(3),
        "c": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    }
    torch.save({"state_dict": tensors, "epoch": 3}, path)
    expected = {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b": np.array(3), "c": np.float32([1.5, -2])}
    require_equal(torch_weights.read(path), expected)


class WritesWhenUnpickled:
    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (pathlib.Path.touch, (self.path,))


def test_pytorch_files_that_need_code_are_refused_and_run_none(torch, tmp_path):
    contents = {
        "args": argparse.Namespace(lr=0.1),
        "code": WritesWhenUnpickled(tmp_path / "written"),
        "module": torch.nn.Sequential(torch.nn.Linear(1, 1)),
    }
    named = {"args": r"argparse\.Namespace", "code": r".*getattr", "module": r".*torch\.nn\.modules\.linear\.Linear"}
    for name, value in contents.items():
        for zipped in (True, False):
            file = tmp_path / f"{name}{zipped}.pt"
            torch.save({"state_dict": {"a": torch.zeros(1)}, name: value}, file, _use_new_zipfile_serialization=zipped)
            message = rf"{file.name} holds more than tensors \(({named[name]}).*convert .* to \.safetensors"
            with pytest.raises(ValueError, match=message):
                torch_weights.read(file)
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no pickle", "damaged, or no PyTorch file"),
        (b"PK\x03\x04 no zip", "cut off: it is a zip archive without its end"),
        (b"", "an empty file; download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "a Git LFS pointer, .* git lfs pull"),
        (b"<!DOCTYPE html><html><title>Google Drive - Virus scan warning", "a web page, not the file itself"),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_files_that_are_no_weights_are_named_as_what_they_are(torch, tmp_path, content, message, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    if suffix == ".safetensors" and ("damaged" in message or "cut off" in message):
        message = "no complete safetensors file"
    with pytest.raises(ValueError, match=rf"weights{suffix} is {message}"):
        torch_weights.read(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_pytorch_files_that_are_cut_off_are_called_so(torch, tmp_path, share):
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"weights\.pt is cut off: it is a zip archive without its end"):
        torch_weights.read(path)


def test_pytorch_files_with_a_flipped_bit_are_refused(torch, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.full((1000,), 0.5)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(np.full(10, 0.5, "<f4").tobytes()) + 402] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.pt is damaged, or no PyTorch file; download or write it again"):
        torch_weights.read(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_damage_of_any_kind_is_called_so(torch, tmp_path, zipped):
    path, generator, messages = tmp_path / "weights.pt", np.random.RandomState(0), []
    torch.save({"a": torch.arange(40.0), "b": torch.ones(3)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for content in [b"hello world", *(_damaged(whole, generator) for _ in range(200))]:
        path.write_bytes(content)
        try:
            torch_weights.read(path)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert all("weights.pt" in message for message in messages)


def _damaged(content, generator):
    changed = np.frombuffer(content, np.uint8).copy()
    changed[generator.randint(0, len(changed), 3)] = generator.randint(0, 256, 3)
    return changed.tobytes()


@pytest.mark.parametrize(
    ("content", "named"), [([1, 2], "the whole content"), ({"state_dict": {"lr": 0.1, "a": None}}, "lr, a")]
)
def test_pytorch_files_without_a_state_dict_are_refused(torch, tmp_path, content, named):
    torch.save(content, tmp_path / "weights.pt")
    message = rf"no tensors \({named}\); expected a state dict, by itself or under state_dict, .*net"
    with pytest.raises(ValueError, match=message):
        torch_weights.read(tmp_path / "weights.pt")


def test_file_errors_name_the_file_and_what_is_allowed(tmp_path):
    with pytest.raises(ValueError, match=r"a\.npz ends in '\.npz'; allowed: \.safetensors, \.pt, \.pth, \.tar, \.bin"):
        torch_weights.read(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"a\.bin: the name ends in '\.bin'; allowed: \.safetensors, \.pt, \.pth"):
        torch_weights.write(tmp_path / "a.bin", {})
    with pytest.raises(FileNotFoundError):
        torch_weights.read(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"b\.safetensors is no complete safetensors file"):
        torch_weights.read(tmp_path / "b.safetensors")


@pytest.mark.parametrize(("module", "suffix"), [("torch", ".pt"), ("safetensors", ".safetensors")])
def test_a_missing_library_is_named_with_its_remedy(monkeypatch, tmp_path, module, suffix):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"{module} is not installed; run: pip install -e '\.\[{module}\]'"):
        torch_weights.read(tmp_path / f"weights{suffix}")


def test_a_torch_that_runs_code_in_weights_is_refused(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(__version__="2.5.1+cpu"))
    with pytest.raises(ValueError, match=r"torch is 2\.5\.1\+cpu; expected 2\.6 or later"):
        torch_weights.read(tmp_path / "weights.pt")


# Errors


def test_unknown_networks_are_named():
    message = (
        r"'resnet50'; allowed: resnet18, preact_resnet18, small_resnet, mobilenet_v2, imagenet_resnet18, .*wrn_28_10"
    )
    with pytest.raises(ValueError, match=message):
        torch_weights.from_torch({}, "resnet50")
    with pytest.raises(ValueError, match=message):
        torch_weights.to_torch({}, {}, "resnet50")


def test_tensors_that_are_no_arrays_are_named(torch, tmp_path):
    plain = torch.arange(6.0).reshape(2, 3)
    kinds = {
        "sparse": plain.to_sparse(),
        "float8": plain.to(torch.float8_e4m3fn),
        "meta": plain.to("meta"),
        "conjugate": (plain + 1j * plain).conj(),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, that quantisation moves to another library
        kinds["quantised"] = torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8)
        for kind, tensor in kinds.items():
            torch.save({"conv.weight": tensor}, tmp_path / f"{kind}.pt")
            with pytest.raises(ValueError, match=r"conv\.weight is no array of numbers .* as a dense float32 tensor"):
                torch_weights.read(tmp_path / f"{kind}.pt")
    pytest.importorskip("safetensors.torch").save_file({"w": kinds["float8"]}, tmp_path / "float8.safetensors")
    with pytest.raises(ValueError, match="is no array of numbers"):
        torch_weights.read(tmp_path / "float8.safetensors")


def test_missing_and_unexpected_tensors_are_listed_five_at_most():
    theirs = dict(peer_weights("resnet18"))
    moved = {f"extra{number}.weight": theirs.pop(f"layer1.{number}.conv1.weight") for number in (0, 1)}
    with pytest.raises(
        ValueError, match=r"of resnet18: missing layer1.0.conv1.weight, layer1.1.conv1.weight; "
    ) as info:
        torch_weights.from_torch(theirs | moved, "resnet18")
    assert "unexpected extra0.weight, extra1.weight; allowed are exactly its 102 names;" in str(info.value)
    with pytest.raises(ValueError, match=r"missing (\S+, ){4}\S+ and 97 more; unexpected none"):
        torch_weights.from_torch({}, "resnet18")
    headless = {f"net.{leaf}": tensor for leaf, tensor in theirs.items() if not leaf.startswith("linear.")}
    with pytest.raises(
        ValueError, match=r"missing (\S+, ){4}\S+ and 85 more; unexpected (net\S+, ){4}\S+ and 93 more; allowed"
    ):
        torch_weights.from_torch(headless, "preact_resnet18")


def test_another_network_is_not_mistaken():
    with pytest.raises(ValueError, match=r"of wrn_34_10: missing block1\.layer\.4\.\S+, .*; unexpected none"):
        torch_weights.from_torch(peer_weights("wrn_28_10"), "wrn_34_10")
    without_norm = {leaf: array for leaf, array in peer_weights("preact_resnet18").items() if leaf[:3] != "bn."}
    with pytest.raises(ValueError, match=r"missing bn\.\S+, bn\.\S+, bn\.\S+, bn\.\S+; unexpected none"):
        torch_weights.from_torch(without_norm, "preact_resnet18")


def test_wrong_shapes_and_kinds_of_numbers_are_named():
    theirs = peer_weights("resnet18")
    with pytest.raises(ValueError, match=r"linear\.bias has shape \(10,\); resnet18 needs \(100,\): .* class count"):
        torch_weights.from_torch(theirs, "resnet18", num_classes=100)
    with pytest.raises(ValueError, match=r"num_classes is 0; expected an integer of at least 2"):
        torch_weights.from_torch(theirs, "resnet18", num_classes=0)
    wide_stem = theirs | {"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}
    with pytest.raises(ValueError, match=r"conv1.weight has shape \(64, 3, 7, 7\): the ImageNet stem"):
        torch_weights.from_torch(wide_stem, "resnet18")
    with pytest.raises(ValueError, match=r"linear\.bias has .* \(also differing: linear\.weight\)"):
        torch_weights.from_torch(theirs, "resnet18", num_classes=100)
    flat = theirs | {"linear.weight": np.zeros(5120, np.float32)}
    with pytest.raises(ValueError, match=r"linear.weight has shape \(5120,\); resnet18 needs \(10, 512\)"):
        torch_weights.from_torch(flat, "resnet18")
    quantised = theirs | {"conv1.weight": np.zeros((64, 3, 3, 3), np.int8)}
    with pytest.raises(ValueError, match=r"conv1.weight is int8; expected floating point"):
        torch_weights.from_torch(quantised, "resnet18")


@pytest.mark.parametrize(("prefix", "normaliser"), [("1.", "0."), ("", "normalize."), ("module.model.", "module.")])
def test_an_input_normalisation_is_refused_with_its_remedy(prefix, normaliser):
    theirs = {prefix + leaf: tensor for leaf, tensor in peer_weights("resnet18").items()}
    theirs |= {f"{normaliser}{leaf}": np.ones((1, 3, 1, 1), np.float32) for leaf in ("mean", "std")}
    message = rf"normalises its input \({normaliser}mean, {normaliser}std\).* as the logits function"
    with pytest.raises(ValueError, match=message):
        torch_weights.from_torch(theirs, "resnet18")


def other_weights() -> dict[str, np.ndarray]:
    return {leaf: tensor + 1 for leaf, tensor in peer_weights("resnet18").items()}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"net": 0, "state_dict": 1, "epoch": 3}, "net, state_dict"),
        ({"model": 0, "model_ema": 1, "optimizer": {"state": {0: {"exp_avg": np.zeros(3)}}}}, "model, model_ema"),
        ({"model": 0, "ema": {"module": 1, "decay": 0.99}}, "model, ema.module"),
        ({"teacher": 0, "student": 1, "rng_state": np.zeros(9, np.uint8)}, "teacher, student"),
        ({"swa_models": [0, 1], "history": [0.5, 0.25]}, r"swa_models\.0, swa_models\.1"),
    ],
)
def test_several_state_dicts_are_refused_and_named(content, named):
    def filled(part):
        if isinstance(part, dict):
            return {key: filled(value) for key, value in part.items()}
        if isinstance(part, list):
            return [filled(value) for value in part]
        return {0: peer_weights("resnet18"), 1: other_weights()}.get(part, part) if isinstance(part, int) else part

    content = {key: value if key == "epoch" else filled(value) for key, value in content.items()}
    with pytest.raises(ValueError, match=rf"2 state dicts: {named}. Name the one .*--key=\w+.*, or FILE::\w+"):
        torch_weights.from_torch(content, "resnet18")


def test_single_numbers_are_no_state_dict():
    content = {"state_dict": {"fc.weight": np.ones((2, 3))}, "metrics": {"accuracy": np.float32(0.5)}}
    assert list(torch_files.unwrapped(content)) == ["fc.weight"]


def test_a_single_state_dict_is_found_under_any_name():
    content = {"best": {"weights": peer_weights("resnet18")}, "acc": np.array(0.9), "optimizer": {"param_groups": []}}
    require_equal(torch_weights.from_torch(content, "resnet18"), imported())


def test_two_networks_in_one_state_dict_are_refused_and_named():
    both = {f"student.{leaf}": tensor for leaf, tensor in peer_weights("resnet18").items()}
    both |= {f"ema.module.{leaf}": tensor for leaf, tensor in other_weights().items()}
    with pytest.raises(ValueError, match=r"2 networks among the arrays: student, ema\.module\. .*FILE::student"):
        torch_weights.from_torch(both, "resnet18")


def test_the_state_dict_that_is_meant_is_named_behind_the_file(tmp_path, torch):
    first, second = peer_weights("resnet18"), other_weights()
    tensors = {
        name: {leaf: torch.from_numpy(np.array(a)) for leaf, a in part.items()}
        for name, part in zip("ab", (first, second), strict=True)
    }
    torch.save({"model": tensors["a"], "ema": {"module": tensors["b"]}}, tmp_path / "both.pt")
    with pytest.raises(ValueError, match=r"2 state dicts: model, ema\.module"):
        torch_weights.read(tmp_path / "both.pt")
    require_equal(torch_weights.read(f"{tmp_path / 'both.pt'}::ema.module"), second)
    with pytest.raises(ValueError, match=r"no state dict 'emma'; there are: model, ema\.module"):
        torch_weights.read(f"{tmp_path / 'both.pt'}::emma")
    flat = {f"{name}.{leaf}": array for name, part in (("net", first), ("avg", second)) for leaf, array in part.items()}
    torch_weights.write(tmp_path / "flat.safetensors", flat)
    require_equal(torch_weights.read(f"{tmp_path / 'flat.safetensors'}::avg"), second)
    with pytest.raises(ValueError, match=r"no state dict 'average'; there are: avg, net"):
        torch_weights.read(f"{tmp_path / 'flat.safetensors'}::average")
    wrapped = {"state_dict": flat, "epoch": 3}
    for key in ("avg", "state_dict.avg"):
        require_equal(torch_files.unwrapped(wrapped, key), second)
    require_equal(torch_files.unwrapped({"models": [first, second]}, "models.1"), second)
    with pytest.raises(ValueError, match=r"no state dict 'avg'; there are: a, b"):
        torch_files.unwrapped({"a": flat, "b": flat}, "avg")


def test_a_head_beside_its_backbone_is_found():
    theirs = peer_weights("resnet18")
    moved = {leaf if leaf.startswith("linear.") else f"backbone.{leaf}": tensor for leaf, tensor in theirs.items()}
    require_equal(torch_weights.from_torch(moved, "resnet18"), imported())


def test_names_of_torchvision_are_understood():
    theirs = peer_weights("resnet18")
    named = {leaf.replace("shortcut.", "downsample.").replace("linear.", "fc."): a for leaf, a in theirs.items()}
    assert named.keys() >= {"layer2.0.downsample.0.weight", "fc.bias"}
    require_equal(torch_weights.from_torch(named, "resnet18"), imported())
    with pytest.raises(ValueError, match=r"unexpected fc\.weight"):
        torch_weights.from_torch(theirs | {"fc.weight": named["fc.weight"]}, "resnet18")


@pytest.mark.parametrize(
    ("mean", "std"), [("new_mean", "new_std"), ("mu", "sigma"), ("normalize.image_mean", "normalize.image_std")]
)
def test_a_normalisation_is_split_off_whatever_its_name(mean, std):
    theirs = peer_weights("resnet18")
    constants = {mean: np.full((1, 3, 1, 1), 0.5, np.float32), std: np.full((1, 3, 1, 1), 0.25, np.float32)}
    tensors, result = torch_weights.split_normalisation(theirs | constants)
    assert result == ((0.5,) * 3, (0.25,) * 3)
    assert tensors.keys() == theirs.keys()
    with pytest.raises(ValueError, match=rf"normalises its input \({mean}, {std}\)"):
        torch_weights.from_torch(theirs | constants, "resnet18")
    with pytest.raises(ValueError, match=r"not of pixels in \[0,1\]; divide"):
        torch_weights.split_normalisation(theirs | {mean: 255 * constants[mean], std: 255 * constants[std]})
    with pytest.raises(ValueError, match="expected one mean"):
        torch_weights.split_normalisation(theirs | constants | {"other_mean": constants[mean]})


@pytest.mark.slow
def test_parity_with_the_pytorch_network_is_checked(torch):
    network = torch_network(torch, "preact_resnet18")
    state = {leaf: tensor.numpy() for leaf, tensor in network.state_dict().items()}
    weights = torch_weights.from_torch(state, "preact_resnet18")
    assert torch_parity.check(network, "preact_resnet18", *weights, (32, 32, 3)) < 1e-4
    # RobustBench's block: the shortcut convolution sees the raw x, under the same names.
    block = network.layer2[0]
    block.forward = lambda x: block.conv2(block.bn2(block.conv1(block.bn1(x).relu())).relu()) + block.shortcut(x)
    with pytest.raises(
        ValueError, match=r"differ by .* another function under the same names.*RobustBench's PreActBlock"
    ):
        torch_parity.check(network, "preact_resnet18", *weights, (32, 32, 3))


def test_images_of_another_size_and_torchvision_s_stem_are_doubted():
    assert torch_parity.doubts("resnet18", (32, 32, 3)) == []
    assert "pools 4x4 pixels, as for 32x32 images; here all of 40x40" in torch_parity.doubts("resnet18", (40, 40, 3))[0]
    assert "pools 8x8" in torch_parity.doubts("wrn_28_10", (64, 64, 3))[0]
    assert "no max-pooling" in torch_parity.doubts("resnet18", (32, 32, 3), torchvision=True)[0]
    assert "RobustBench" in torch_parity.doubts("preact_resnet18", (32, 32, 3))[0]


def test_export_names_what_does_not_fit():
    params, batch_stats = torch_weights.from_torch(peer_weights("resnet18"), "resnet18")
    with pytest.raises(ValueError, match=r"of resnet18: missing batch_stats/stem_norm/\S+, .*; unexpected none"):
        torch_weights.to_torch(params, {key: batch_stats[key] for key in batch_stats if key != "stem_norm"}, "resnet18")
    with pytest.raises(ValueError, match=r"of preact_resnet18: missing .*; unexpected params/\S+, "):
        torch_weights.to_torch(params, batch_stats, "preact_resnet18")
    norm = params["stem_norm"] | {"scale": np.ones(3, np.float32)}
    with pytest.raises(ValueError, match=r"params/stem_norm/scale has shape \(3,\); resnet18 needs \(64,\)"):
        torch_weights.to_torch(params | {"stem_norm": norm}, batch_stats, "resnet18")
