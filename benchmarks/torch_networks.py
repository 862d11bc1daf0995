"""The networks that benchmarks compare, in PyTorch: ResNets and wide ResNets whose layers are called as in Flax here.

Because the names are the same, weights are copied by one rule for every network: see `load`.
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from ltrobust.models.wide_resnet import parse

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_AXES = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}


def _conv(before: int, features: int, *, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias, padded alike on all sides."""
    return nn.Conv2d(before, features, size, stride, size // 2, bias=False)


class PostActivation(nn.Module):
    """The basic block of He et al. 2016a: norms and activations after the convolutions."""

    def __init__(self, before: int, features: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(before, features, stride=stride), nn.BatchNorm2d(features)
        self.conv2, self.norm2 = _conv(features, features), nn.BatchNorm2d(features)
        self.shaped = stride != 1 or before != features
        if self.shaped:
            self.shortcut_conv = _conv(before, features, size=1, stride=stride)
            self.shortcut_norm = nn.BatchNorm2d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return (out + (self.shortcut_norm(self.shortcut_conv(x)) if self.shaped else x)).relu()


class PreActivation(nn.Module):
    """The block of He et al. 2016b; the shortcut's convolution sees what the first convolution sees."""

    def __init__(self, before: int, features: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(before), _conv(before, features, stride=stride)
        self.norm2, self.conv2 = nn.BatchNorm2d(features), _conv(features, features)
        self.shaped = stride != 1 or before != features
        if self.shaped:
            self.shortcut_conv = _conv(before, features, size=1, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = self.norm1(x).relu()
        out = self.conv2(self.norm2(self.conv1(activated)).relu())
        return out + (self.shortcut_conv(activated) if self.shaped else x)


class Network(nn.Module):
    """Stem, stages of blocks, global average pool, linear; norm and activation after the stem or before the pool."""

    def __init__(self, channels: int, stem: int, widths: tuple[int, ...], blocks: int, *, pre: bool) -> None:
        super().__init__()
        self.pre, before = pre, stem
        self.stem = _conv(channels, stem)
        if not pre:
            self.stem_norm = nn.BatchNorm2d(stem)
        self.names = []
        for stage, width in enumerate(widths, start=1):
            for block in range(1, blocks + 1):
                stride = 2 if block == 1 and stage > 1 else 1
                self.names.append(f"stage{stage}_block{block}")
                self.add_module(self.names[-1], (PreActivation if pre else PostActivation)(before, width, stride))
                before = width
        if pre:
            self.final_norm = nn.BatchNorm2d(before)
        self.linear = nn.Linear(before, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        if not self.pre:
            x = self.stem_norm(x).relu()
        for name in self.names:
            x = getattr(self, name)(x)
        if self.pre:
            x = self.final_norm(x).relu()
        return self.linear(x.mean((2, 3)))


def create(name: str, *, channels: int, width: int = 16) -> Network:
    """The counterpart of `models.create` for `resnet18`, `small_resnet` of depth 1 and `wrn_D_W`.

    Raises:
      ValueError: another network.
    """
    if name == "resnet18":
        return Network(channels, 64, (64, 128, 256, 512), 2, pre=False)
    if name == "small_resnet":
        return Network(channels, width, (width, 2 * width, 4 * width), 1, pre=False)
    wide = parse(name)
    if wide is None or wide[2]:
        raise ValueError(f"no PyTorch network is called {name!r} here; known: resnet18, small_resnet and wrn_D_W.")
    depth, widen, _ = wide
    return Network(channels, 16, (16 * widen, 32 * widen, 64 * widen), (depth - 4) // 6, pre=True)


def load(network: nn.Module, params: Any, batch_stats: Any) -> nn.Module:
    """The network with Flax's weights: arrays of the same path, axes in PyTorch's order; all of them and no more.

    Raises:
      RuntimeError: names or shapes that differ (PyTorch's own message).
    """
    own = network.state_dict()
    state = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
    network.load_state_dict(state | flattened(params) | flattened(batch_stats))
    return network


def flattened(tree: Any, path: str = "") -> dict[str, torch.Tensor]:
    """Flax's arrays under PyTorch's names, in PyTorch's layouts, copied."""
    if hasattr(tree, "items"):
        parts = [flattened(inner, f"{path}.{_LEAVES.get(name, name)}") for name, inner in tree.items()]
        return {name: value for part in parts for name, value in part.items()}
    array = np.asarray(tree)
    return {path.removeprefix("."): torch.from_numpy(np.array(array.transpose(_AXES[array.ndim]), order="C"))}
