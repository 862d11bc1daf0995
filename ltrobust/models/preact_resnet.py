"""Residual networks with pre-activation blocks (He et al. 2016b), the frame of the wide ones too."""

import functools

import flax.linen as nn
import jax

from ltrobust.models.layers import Layers, global_average_pool


class PreActBlock(nn.Module):
    """conv3(relu(norm(conv3(o)))) + shortcut with o = relu(norm(x)); the first convolution has the stride.

    The shortcut is the raw x, or conv1(o) without batch norm where the stride or the width changes the shape. `layers`
    may have another activation than relu.
    """

    features: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, *, use_running_average: bool) -> jax.Array:
        conv = self.layers.conv
        norm = functools.partial(self.layers.norm, use_running_average=use_running_average)
        # The shortcut convolution sees this too, as in AT-BSL and TRADES. RobustBench's PreActBlock gives it the raw x,
        # which is another function of the same weights.
        activated = self.layers.activate(norm(x, name="norm1"))
        if self.stride != 1 or x.shape[-1] != self.features:
            x = conv(self.features, size=1, stride=self.stride, name="shortcut_conv")(activated)
        out = conv(self.features, stride=self.stride, name="conv1")(activated)
        return conv(self.features, name="conv2")(self.layers.activate(norm(out, name="norm2"))) + x


class PreActResNet(nn.Module):
    """Bare conv3 stem, stages of pre-activation blocks, norm, activation, global average pool, linear.

    Logits are float32 [B, num_classes]; the pooled features [B, widths[-1]] are sown as
    ("intermediates", "features").

    Attributes:
        num_classes: number of logits.
        stem_width: channels of the first convolution.
        widths: channels of each stage.
        strides: stride of the first block of each stage.
        blocks: blocks in every stage.
        layers: precision, synchronisation, initialisation and activation.
    """

    num_classes: int
    stem_width: int
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    blocks: int
    layers: Layers

    @nn.compact
    def __call__(self, images: jax.Array, *, use_running_average: bool) -> jax.Array:
        x = self.layers.conv(self.stem_width, name="stem")(images)
        for stage, (width, stride) in enumerate(zip(self.widths, self.strides, strict=True), start=1):
            for block in range(1, self.blocks + 1):
                name = f"stage{stage}_block{block}"
                module = PreActBlock(width, stride if block == 1 else 1, self.layers, name=name)
                x = self.layers.apply_block(module, x, use_running_average=use_running_average)
        x = self.layers.activate(self.layers.norm(x, name="final_norm", use_running_average=use_running_average))
        features = global_average_pool(x)
        self.sow("intermediates", "features", features)
        return self.layers.logits(features, self.num_classes)


def preact_resnet18(num_classes: int, layers: Layers) -> PreActResNet:
    """PreActResNet-18: 11,269,640 parameters for 200 classes, 2.222 GMAC for a 64x64 image."""
    return PreActResNet(
        num_classes,
        stem_width=64,
        widths=(64, 128, 256, 512),
        strides=(1, 2, 2, 2),
        blocks=2,
        layers=layers,
    )
