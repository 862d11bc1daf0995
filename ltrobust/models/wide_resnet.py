"""Wide residual networks (Zagoruyko and Komodakis 2016), in TRADES's form and in DeepMind's."""

import dataclasses
import re

from ltrobust.models.layers import Layers, normal_fan_out
from ltrobust.models.preact_resnet import PreActResNet

_NAME = re.compile(r"(dm_)?wrn_(\d+)_(\d+)")


def parse(name: str) -> tuple[int, int, bool] | None:
    """Depth, widening factor and whether it is DeepMind's form, from `wrn_28_10` or `dm_wrn_28_10`; None otherwise."""
    result = _NAME.fullmatch(name)
    if result is None or int(result[2]) % 6 != 4 or int(result[2]) < 10 or int(result[3]) < 1:
        return None
    return int(result[2]), int(result[3]), result[1] is not None


def wide_resnet(num_classes: int, layers: Layers, *, depth: int, widen: int, far_padding: bool = False) -> PreActResNet:
    """WRN-depth-widen: three stages of (depth - 4) / 6 pre-activation blocks, widths 16, 32, 64 x `widen`.

    DeepMind's form (Gowal et al. 2020, and the networks trained after it) has `far_padding`; apart from that and from
    its activation, SiLU as a rule, the two forms are one network. Kernels start as N(0, 2 / (k k out)) and the linear
    bias at 0, whatever `layers` says. No dropout. WRN-34-10 has 46,160,474 parameters and WRN-28-10 36,479,194 for 10
    classes; 6.66 and 5.24 GMAC at 32x32.
    """
    return PreActResNet(
        num_classes,
        stem_width=16,
        widths=(16 * widen, 32 * widen, 64 * widen),
        strides=(1, 2, 2),
        blocks=(depth - 4) // 6,
        layers=dataclasses.replace(layers, conv_init=normal_fan_out, zero_bias=True, far_padding=far_padding),
    )
