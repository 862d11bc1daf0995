"""Weights under the names and in the layouts of the peers' PyTorch networks.

| network | named as in | outside blocks | first block |
|---|---|---|---|
| resnet18 | pytorch-cifar | conv1 bn1 linear | layer1.0.{conv1,bn1,conv2,bn2,shortcut.0,shortcut.1} |
| preact_resnet18 | AT-BSL | conv1 bn linear | layer1.0.{bn1,conv1,bn2,conv2,shortcut.0} |
| wrn_D_W | TRADES | conv1 bn1 fc | block1.layer.0.{bn1,conv1,bn2,conv2,convShortcut} |
| dm_wrn_D_W | DeepMind | init_conv batchnorm logits | layer.0.block.0.{batchnorm_0,conv_0,batchnorm_1,..,shortcut} |
| mobilenet_v2 | pytorch-cifar | conv1 bn1 conv2 bn2 linear | layers.0.{conv1,bn1,..,conv3,bn3,shortcut.0,shortcut.1} |
| small_resnet | resnet18 | conv1 bn1 linear | as resnet18, in three stages; of this package alone |
| imagenet_resnetD | torchvision | conv1 bn1 fc | layer1.0.{conv1,bn1,conv2,bn2,..,downsample.0,downsample.1} |
| convnext_tiny | torchvision | features.{0,2,4,6} classifier.{0,2} | features.1.0.{block.{0,2,3,5},layer_scale} |

A block has a shortcut's arrays only where it changes the shape.

Kernels are [out,in,k,l] there and [k,l,in,out] here; the linear weight is [out,in] there and [in,out] here.

Names say nothing about what is computed between them. These must be known from the code that trained a network, or
compared with it (`torch_parity.check`):

- Whether it normalises its input. Networks here do not; where the constants are tensors of the state dict,
  `split_normalisation` takes them out, where they are not, nothing can notice. Write images -> logits((images - mean) /
  std) as the logits function then.
- The activation of a wide network: relu in TRADES's code, SiLU in most networks of DeepMind's form.
- In pre-activation blocks, what the shortcut convolution sees. Here, in pytorch-cifar, AT-BSL and TRADES it is
  relu(norm(x)); RobustBench's PreActBlock gives it the raw x under the same names, which is another function.
- The images' sides. References other than torchvision pool 4x4 (wide: 8x8) pixels at the end, all of a 32x32 image;
  here all are pooled.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from ltrobust import models
from ltrobust.models.torch_files import file_and_choice as file_and_choice
from ltrobust.models.torch_files import listed
from ltrobust.models.torch_files import read as read
from ltrobust.models.torch_files import write as write
from ltrobust.models.torch_names import Naming, cleaned, naming_of
from ltrobust.models.torch_names import split_normalisation as split_normalisation

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
# By rank: vectors stay, the linear weight is transposed, kernels go from [out,in,k,l] to [k,l,in,out].
_TO_FLAX = {1: (0,), 2: (1, 0), 3: (0, 1, 2), 4: (2, 3, 1, 0)}
_TO_TORCH = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
_LAYER_SCALE = "layer_scale"  # a vector here, [features,1,1] there

_Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Slot:
    """One array: its keys in {"params": ..., "batch_stats": ...}, its PyTorch name, its shape in each layout."""

    path: _Path
    torch_name: str
    shape: tuple[int, ...]

    @property
    def torch_shape(self) -> tuple[int, ...]:
        added = (1, 1) if self.path[-1] == _LAYER_SCALE else ()
        return (*(self.shape[axis] for axis in _TO_TORCH[len(self.shape)]), *added)


def from_torch(
    state_dict: Mapping[str, Any],
    name: str,
    *,
    num_classes: int | None = None,
    width: int | None = None,
    depth: int | None = None,
) -> tuple[Any, Any]:
    """Parameters and running statistics of the network `name` from a PyTorch state dict.

    Before names are compared, wrapping dicts are opened, and whatever stands before all names (`module.`, `_orig_mod.`,
    `net.model.`) is dropped. In a resnet18 torchvision's names (downsample, fc) are understood too; an ImageNet stem
    is refused by its shape. Left out are counters (num_batches_tracked, n_averaged) and, in wide networks, sub_block1,
    a copy of the first stage that TRADES's class creates and its forward pass never calls.
    The last norm of a PreActResNet may also be called bn1 or norm; without one, as in pytorch-cifar's own
    PreActResNet18, the network is another one and is refused. Every other tensor is used exactly once.

    Args:
        state_dict: arrays by name, for example from `read`. They are copied.
        name: one of `models.NAMES`, or wrn_D_W, dm_wrn_D_W of other sizes.
        num_classes: number of logits; None takes it from the linear bias.
        width, depth: of small_resnet, as for `models.create`; None takes them from the arrays.

    Returns:
        params and batch_stats, nested dicts of float32 arrays as from `initialise`.

    Raises:
        ValueError: another network; more than one state dict; an input normalisation among the tensors; names that
            are missing or unexpected; a wrong shape; numbers that are not floating point.

    Names: github.com/kuangliu/pytorch-cifar, github.com/NISPLab/AT-BSL, github.com/yaodongyu/TRADES,
    github.com/google-deepmind/deepmind-research (adversarial_robustness) and github.com/RobustBench/robustbench.
    """
    naming = naming_of(name)
    tensors = cleaned(state_dict, naming)
    bias = tensors.get(f"{naming.layers['linear']}.bias")
    classes = _length(bias, 0, otherwise=2) if num_classes is None else num_classes
    stem = tensors.get(f"{naming.layers['stem']}.weight")
    blocks = sum(f"{naming.block_name(0, index)}.conv1.weight" in tensors for index in range(len(tensors)))
    width = _length(stem, 0, otherwise=16) if width is None else width
    depth = max(blocks, 1) if depth is None else depth
    slots = _slots(name, classes, _length(stem, 1, otherwise=3), width, depth)
    _require_names(name, tensors, [slot.torch_name for slot in slots])
    _require_shapes(name, [(slot.torch_name, np.shape(tensors[slot.torch_name]), slot.torch_shape) for slot in slots])
    leaves = {}
    for slot in slots:
        tensor = np.asarray(tensors[slot.torch_name])
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise ValueError(f"{slot.torch_name} is {tensor.dtype}; expected floating point, convert it first")
        leaves[slot.path] = jnp.array(tensor.transpose(_TO_FLAX[tensor.ndim]).reshape(slot.shape), jnp.float32)
    tree = traverse_util.unflatten_dict(leaves)
    return tree["params"], tree.get("batch_stats", {})


def to_torch(params: Any, batch_stats: Any, name: str) -> dict[str, np.ndarray]:
    """State dict of the network `name`, the exact inverse of `from_torch`.

    Each norm also gets num_batches_tracked = 0 (int64), so that `load_state_dict(strict=True)` takes the result.
    AT-BSL's and TRADES's own WideResNet classes also demand the unused sub_block1 and so need strict=False.

    Args:
        params: parameters of the network, from `initialise`, a checkpoint or `from_torch`.
        batch_stats: its running statistics.
        name: as for `from_torch`.

    Returns:
        contiguous separate arrays, by PyTorch name and in PyTorch's layouts.

    Raises:
        ValueError: another network; names or shapes that are not those of the network.
    """
    naming_of(name)
    leaves: dict[_Path, Any] = traverse_util.flatten_dict({"params": params, "batch_stats": batch_stats})
    classes = _length(leaves.get(("params", "linear", "bias")), 0, otherwise=2)
    stem = leaves.get(("params", "stem", "kernel"))
    blocks = len({path[1] for path in leaves if path[1].startswith("stage1_")})
    channels, width = _length(stem, 2, otherwise=3), _length(stem, 3, otherwise=16)
    slots = _slots(name, classes, channels, width, max(blocks, 1))
    _require_names(name, ["/".join(path) for path in leaves], ["/".join(slot.path) for slot in slots])
    _require_shapes(name, [("/".join(slot.path), np.shape(leaves[slot.path]), slot.shape) for slot in slots])
    tensors = {}
    for slot in slots:
        leaf = np.asarray(leaves[slot.path])
        tensors[slot.torch_name] = np.array(leaf.transpose(_TO_TORCH[leaf.ndim]).reshape(slot.torch_shape), order="C")
        if slot.path[-1] == "var":
            tensors[slot.torch_name.removesuffix("running_var") + "num_batches_tracked"] = np.zeros((), np.int64)
    return tensors


@functools.lru_cache(maxsize=8)
def _slots(name: str, num_classes: int, channels: int, width: int, depth: int) -> tuple[_Slot, ...]:
    """All arrays of a network, found by tracing its initialisation; only small_resnet has a width and a depth."""
    # Names and shapes come from the network itself, so that this list cannot differ from it. Nothing is computed.
    module = models.create(name, num_classes=num_classes, width=width, depth=depth)
    draw = functools.partial(models.initialise, module, image_shape=(32, 32, channels))
    params, batch_stats = jax.eval_shape(draw, jax.random.key(0))
    leaves: dict[_Path, Any] = traverse_util.flatten_dict({"params": params, "batch_stats": batch_stats})
    return tuple(_Slot(path, _torch_name(naming_of(name), path), leaf.shape) for path, leaf in leaves.items())


def _torch_name(naming: Naming, path: _Path) -> str:
    """("params", "stage1_block2", "norm1", "scale") -> "layer1.1.bn1.weight"."""
    if path[-1] == _LAYER_SCALE:  # of the block itself
        blocks, parts = path[1:-1], [_LAYER_SCALE]
    else:
        *blocks, layer, leaf = path[1:]
        parts = [naming.layers[layer], _LEAVES[leaf]]
    for block in blocks:
        stage, number = (int(digits) for digits in re.findall(r"\d+", block))
        parts.insert(0, naming.block_name(stage - 1, number - 1))
    return ".".join(parts)


def _length(array: Any, axis: int, *, otherwise: int) -> int:
    """Length of one axis; `otherwise` where there is no such array or axis, which the checks then report."""
    shape = np.shape(array) if array is not None else ()
    return shape[axis] if axis < len(shape) else otherwise


def _require_names(network: str, given: Iterable[str], expected: Iterable[str]) -> None:
    """Raises ValueError unless both hold the same names."""
    given, expected = dict.fromkeys(given), dict.fromkeys(expected)
    missing = [name for name in expected if name not in given]
    unexpected = [name for name in given if name not in expected]
    if missing or unexpected:
        raise ValueError(
            f"these are not the arrays of {network}: missing {listed(missing) or 'none'}; unexpected "
            f"{listed(unexpected) or 'none'}; allowed are exactly its {len(expected)} names; name the network that the "
            "weights belong to, or rename the arrays"
        )


def _require_shapes(network: str, shapes: Iterable[tuple[str, tuple[int, ...], tuple[int, ...]]]) -> None:
    """Raises ValueError unless the shapes are equal; each is a name, the given shape and the expected one."""
    differing = [(name, given, expected) for name, given, expected in shapes if given != expected]
    for name, given, expected in differing:
        if given[2:] == (7, 7):
            raise ValueError(
                f"{name} has shape {given}: the ImageNet stem (7x7, stride 2, max-pooling), and {network} needs "
                f"{expected}; name imagenet_resnet18, imagenet_resnet34 or imagenet_resnet50"
            )
    if differing:
        name, given, expected = differing[0]
        others = f" (also differing: {listed(name for name, *_ in differing[1:])})" if differing[1:] else ""
        raise ValueError(
            f"{name} has shape {given}; {network} needs {expected}: another network or class count{others}"
        )
