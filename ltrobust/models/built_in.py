"""The networks of this package by name."""

import flax.linen as nn

from ltrobust.models.convnext import convnext_tiny
from ltrobust.models.imagenet_resnet import imagenet_resnet
from ltrobust.models.layers import Layers
from ltrobust.models.mobilenet_v2 import MobileNetV2
from ltrobust.models.preact_resnet import preact_resnet18
from ltrobust.models.resnet import resnet18
from ltrobust.models.small_resnet import small_resnet
from ltrobust.models.wide_resnet import parse, wide_resnet

# Those for images of 32x32 and less, then those for 224x224.
NAMES: tuple[str, ...] = (
    "resnet18",
    "preact_resnet18",
    "wrn_28_10",
    "wrn_34_10",
    "mobilenet_v2",
    "small_resnet",
    "imagenet_resnet18",
    "imagenet_resnet34",
    "imagenet_resnet50",
    "convnext_tiny",
)


def build(name: str, num_classes: int, layers: Layers, *, width: int, depth: int, stem_stride: int) -> nn.Module | None:
    """The network `name`, one of `NAMES` or a wide one; None for another name. The sizes are of small_resnet."""
    if (wide := parse(name)) is not None:
        depth, widen, deepmind = wide
        return wide_resnet(num_classes, layers, depth=depth, widen=widen, far_padding=deepmind)
    match name:
        case "resnet18":
            return resnet18(num_classes, layers)
        case "preact_resnet18":
            return preact_resnet18(num_classes, layers)
        case "mobilenet_v2":
            return MobileNetV2(num_classes, layers)
        case "small_resnet":
            return small_resnet(num_classes, layers, width=width, depth=depth, stem_stride=stem_stride)
        case "imagenet_resnet18" | "imagenet_resnet34" | "imagenet_resnet50":
            return imagenet_resnet(num_classes, layers, depth=int(name[-2:]))
        case "convnext_tiny":
            return convnext_tiny(num_classes, layers)
    return None
