"""A residual network small enough for tests, digits and a laptop, of the same make as ResNet-18."""

from ltrobust.models.layers import Layers
from ltrobust.models.resnet import ResNet


def small_resnet(num_classes: int, layers: Layers, *, width: int, depth: int, stem_stride: int) -> ResNet:
    """Three stages of `depth` basic blocks, widths w, 2w, 4w, strides 1, 2, 2, after a strided stem.

    Takes any image from 8x8x1 up; on 64x64 images a stem stride of 2 saves three quarters of the work.
    """
    return ResNet(
        num_classes,
        widths=(width, 2 * width, 4 * width),
        strides=(1, 2, 2),
        blocks=depth,
        layers=layers,
        stem_stride=stem_stride,
    )
