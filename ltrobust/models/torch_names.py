"""What PyTorch code calls the layers of the networks here, and which of a state dict's arrays are theirs."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ltrobust.models import mobilenet_v2
from ltrobust.models.torch_files import listed, name_one, unwrapped
from ltrobust.models.wide_resnet import parse

# Numbers that no forward pass reads.
_COUNTERS = ("num_batches_tracked", "n_averaged")
# A tensor's last name: `mean`, `new_mean`, `image_std` and so on, but not a norm's running_mean.
_NORMALISER = re.compile(r"(?!running_)(?:\w+_)?(?:(?P<mean>mean|mu)|(?P<std>std|sigma))")


@dataclasses.dataclass(frozen=True)
class Naming:
    """What the layers of one family are called in PyTorch."""

    block: str  # a block's name, from its stage and its index in it (counted from 0)
    layers: Mapping[str, str]
    other_final_norms: tuple[str, ...] = ()
    other_heads: tuple[str, ...] = ()  # names of the linear layer in torchvision's form
    unused: str | None = None  # layers that the peers' code creates and never calls
    first_stage: int = 1  # the number of the first stage
    stage_step: int = 1  # from one stage's number to the next one's
    blocks: tuple[int, ...] = ()  # of each stage, where a block's index is counted over all stages

    def block_name(self, stage: int, index: int) -> str:
        """The name of a block from its stage and its index in it, both counted from 0."""
        return self.block.format(
            stage=self.first_stage + self.stage_step * stage, index=sum(self.blocks[:stage]) + index
        )


_IN_BLOCK = {"conv1": "conv1", "norm1": "bn1", "conv2": "conv2", "norm2": "bn2", "shortcut_conv": "shortcut.0"}
_RESNET = Naming(
    "layer{stage}.{index}",
    _IN_BLOCK | {"stem": "conv1", "stem_norm": "bn1", "shortcut_norm": "shortcut.1", "linear": "linear"},
    other_heads=("fc",),
)
_PREACT = Naming(
    "layer{stage}.{index}",
    _IN_BLOCK | {"stem": "conv1", "final_norm": "bn", "linear": "linear"},
    other_final_norms=("bn1", "norm"),
)
_WIDE = Naming(
    "block{stage}.layer.{index}",
    _IN_BLOCK | {"shortcut_conv": "convShortcut", "stem": "conv1", "final_norm": "bn1", "linear": "fc"},
    unused="sub_block1.",
)
_DEEPMIND = Naming(
    "layer.{stage}.block.{index}",
    {
        "conv1": "conv_0",
        "norm1": "batchnorm_0",
        "conv2": "conv_1",
        "norm2": "batchnorm_1",
        "shortcut_conv": "shortcut",
        "stem": "init_conv",
        "final_norm": "batchnorm",
        "linear": "logits",
    },
    first_stage=0,
)
_MOBILE = Naming(
    "layers.{index}",
    {
        "stem": "conv1",
        "stem_norm": "bn1",
        "expand": "conv1",
        "expand_norm": "bn1",
        "depthwise": "conv2",
        "depthwise_norm": "bn2",
        "project": "conv3",
        "project_norm": "bn3",
        "shortcut_conv": "shortcut.0",
        "shortcut_norm": "shortcut.1",
        "final_conv": "conv2",
        "final_norm": "bn2",
        "linear": "linear",
    },
    blocks=tuple(blocks for _, _, blocks, _ in mobilenet_v2.STAGES),
)
_TORCHVISION_RESNET = Naming(
    "layer{stage}.{index}",
    {
        **_IN_BLOCK,
        "conv3": "conv3",
        "norm3": "bn3",
        "shortcut_conv": "downsample.0",
        "shortcut_norm": "downsample.1",
        "stem": "conv1",
        "stem_norm": "bn1",
        "linear": "fc",
    },
)
_CONVNEXT = Naming(
    "features.{stage}.{index}",
    {
        "stem": "features.0.0",
        "stem_norm": "features.0.1",
        "depthwise": "block.0",
        "norm": "block.2",
        "expand": "block.3",
        "project": "block.5",
        **{f"downsample{stage}_norm": f"features.{2 * stage - 2}.0" for stage in (2, 3, 4)},
        **{f"downsample{stage}": f"features.{2 * stage - 2}.1" for stage in (2, 3, 4)},
        "final_norm": "classifier.0",
        "linear": "classifier.2",
    },
    stage_step=2,  # downsampling has the numbers in between
)
# Networks whose names and function are torchvision's.
TORCHVISION = {
    "imagenet_resnet18": _TORCHVISION_RESNET,
    "imagenet_resnet34": _TORCHVISION_RESNET,
    "imagenet_resnet50": _TORCHVISION_RESNET,
    "convnext_tiny": _CONVNEXT,
}
_NAMINGS = {
    "resnet18": _RESNET,
    "preact_resnet18": _PREACT,
    "small_resnet": _RESNET,
    "mobilenet_v2": _MOBILE,
    **TORCHVISION,
}


def naming_of(name: str) -> Naming:
    """The names of a network's layers in PyTorch."""
    wide = parse(name)
    if wide is not None:
        return _DEEPMIND if wide[2] else _WIDE
    if name not in _NAMINGS:
        known = ", ".join((*_NAMINGS, "wrn_28_10", "wrn_34_10", "dm_wrn_28_10"))
        raise ValueError(f"no PyTorch names are known for {name!r}; allowed: {known} and other depths and widths")
    return _NAMINGS[name]


def split_normalisation(
    state_dict: Mapping[str, Any],
) -> tuple[dict[str, Any], tuple[tuple[float, ...], tuple[float, ...]] | None]:
    """The state dict without its input normalisation, and that: mean and deviation of each channel, or None.

    Raises:
        ValueError: more than one tensor, or none, of one of the two kinds, lengths that differ, or values that are not
            of pixels in [0,1].
    """
    tensors = dict(unwrapped(state_dict))
    found = {name: tensors.pop(name) for name in list(tensors) if _normaliser(name)}
    if not found:
        return tensors, None
    pairs = {
        _normaliser(name): tuple(np.ravel(np.asarray(tensor, np.float64)).tolist()) for name, tensor in found.items()
    }
    mean, std = pairs.get("mean"), pairs.get("std")
    if len(found) != 2 or mean is None or std is None or len(mean) != len(std):
        raise ValueError(
            f"the state dict normalises its input by {listed(found)}; expected one mean (or mu) and one std (or sigma) "
            "of the same length"
        )
    if max(mean) > 1 or min(std) <= 0 or max(std) > 2:
        raise ValueError(
            f"the state dict normalises its input by mean {mean} and std {std}, which are not of pixels in [0,1]; "
            "divide constants of pixels from 0 to 255 by 255, or give the normalisation apart"
        )
    return tensors, (mean, std)


def _normaliser(name: Any) -> str:
    """`mean` or `std` for a tensor that normalises the input, else empty."""
    result = _NORMALISER.fullmatch(str(name).split(".")[-1])
    return (result.lastgroup or "") if result else ""


def cleaned(state_dict: Mapping[str, Any], naming: Naming) -> dict[str, Any]:
    """The tensors that the network computes with, under bare names."""
    tensors = {str(name): tensor for name, tensor in unwrapped(state_dict).items()}
    normalisers = [name for name in tensors if _normaliser(name)]
    if normalisers:
        raise ValueError(
            f"the state dict normalises its input ({listed(normalisers)}), but networks here take pixels in [0,1] as "
            "they are; remove these tensors and write images -> logits((images - mean) / std) as the logits function"
        )
    tensors = {name: tensor for name, tensor in tensors.items() if name.split(".")[-1] not in _COUNTERS}
    tensors = _customary(_without_prefix(tensors, naming), naming)
    if naming.unused:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(naming.unused)}
    return _with_customary_final_norm(tensors, naming)


def _without_prefix(tensors: dict[str, Any], naming: Naming) -> dict[str, Any]:
    """Names from the network's own on; a network stands where there are a stem and a classifier.

    Raises:
        ValueError: there are two networks.
    """
    stem = f"{naming.layers['stem']}.weight"
    stems = [name.removesuffix(stem) for name in tensors if name == stem or name.endswith(f".{stem}")]
    heads = [f"{naming.layers['linear']}.weight", *(f"{head}.weight" for head in naming.other_heads)]
    networks = [prefix for prefix in stems if any(prefix + head in tensors for head in heads)]
    if len(networks) > 1:
        names = [prefix.removesuffix(".") or "the outermost level" for prefix in networks]
        chosen = name_one(prefix.removesuffix(".") for prefix in networks)
        raise ValueError(f"there are {len(networks)} networks among the arrays: {listed(names)}. {chosen}")
    shortest = (
        min(stems, key=len, default="") if any(head in tensors for head in heads) else ""
    )  # the head stands apart
    prefix = networks[0] if networks else shortest
    bare = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return bare if len(bare) == len(tensors) else tensors


def _customary(tensors: dict[str, Any], naming: Naming) -> dict[str, Any]:
    """Torchvision's names as those of the naming."""
    head = naming.layers["linear"]
    others = [other for other in naming.other_heads if f"{other}.weight" in tensors and f"{head}.weight" not in tensors]

    def renamed(name: str) -> str:
        name = name.replace(".downsample.", ".shortcut.") if naming.other_heads else name
        return f"{head}.{name.removeprefix(f'{others[0]}.')}" if others and name.startswith(f"{others[0]}.") else name

    return {renamed(name): tensor for name, tensor in tensors.items()}


def _with_customary_final_norm(tensors: dict[str, Any], naming: Naming) -> dict[str, Any]:
    """Calls the last norm what the naming calls it, where it has one of the other names."""
    customary = naming.layers["final_norm"] if naming.other_final_norms else ""
    result = [norm for norm in (customary, *naming.other_final_norms) if f"{norm}.weight" in tensors]
    if len(result) != 1 or result == [customary]:
        return tensors
    other = f"{result[0]}."
    return {
        f"{customary}.{name.removeprefix(other)}" if name.startswith(other) else name: tensor
        for name, tensor in tensors.items()
    }
