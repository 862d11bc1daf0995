"""Wide residual networks (Zagoruyko and Komodakis 2016) in the form that TRADES made customary."""

import dataclasses

from ltrobust.models.layers import Layers, normal_fan_out
from ltrobust.models.preact_resnet import PreActResNet


def wide_resnet(num_classes: int, layers: Layers, *, depth: int, widen: int) -> PreActResNet:
    """WRN-depth-widen: three stages of (depth - 4) / 6 pre-activation blocks, widths 16, 32, 64 x `widen`.

    Kernels start as N(0, 2 / (k k out)) and the linear bias at 0, whatever `layers` says. No dropout.
    WRN-34-10 has 46,160,474 parameters and WRN-28-10 36,479,194 for 10 classes; 6.66 and 5.24 GMAC at 32x32.
    """
    return PreActResNet(
        num_classes,
        stem_width=16,
        widths=(16 * widen, 32 * widen, 64 * widen),
        strides=(1, 2, 2),
        blocks=(depth - 4) // 6,
        layers=dataclasses.replace(layers, conv_init=normal_fan_out, zero_bias=True),
    )
