"""ConvNeXt (Liu et al. 2022), as in torchvision but without stochastic depth. It has no batch norm.

Methods repeat passes and attacks differentiate them, so no pass here draws random numbers: stochastic depth, 0.1 in the
paper's recipe for the tiny one, is left out. At evaluation it changes nothing.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from ltrobust.models.layers import Layers, global_average_pool, normal_two_percent

SCALE = 1e-6  # of a block's branch at the start


class ConvNeXtBlock(nn.Module):
    """x + scale * linear(gelu(linear(norm(depthwise conv7(x))))), four times as wide between the linear layers."""

    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = x.shape[-1]
        out = self.layers.conv(features, size=7, groups=features, bias=True, name="depthwise")(x)
        out = self.layers.layer_norm(out, name="norm")
        out = nn.gelu(self.layers.pointwise(4 * features, name="expand")(out), approximate=False)
        out = self.layers.pointwise(features, name="project")(out)
        scale = self.param("layer_scale", nn.initializers.constant(SCALE), (features,), jnp.float32)
        return x + scale.astype(out.dtype) * out


class ConvNeXt(nn.Module):
    """Stem conv4 of stride 4 and layer norm, stages of blocks, global average pool, layer norm, linear.

    Between stages a layer norm and a conv2 of stride 2. Logits are float32 [B, num_classes]; the normalised features
    [B, widths[-1]] are sown as ("intermediates", "features").

    Attributes:
        num_classes: number of logits.
        widths: channels of each stage.
        blocks: blocks in each stage.
        layers: precision and initialisation.
    """

    num_classes: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    layers: Layers

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        layers = self.layers
        x = layers.conv(self.widths[0], size=4, stride=4, padding=0, bias=True, name="stem")(images)
        x = layers.layer_norm(x, name="stem_norm")
        for stage, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True), start=1):
            if stage > 1:
                x = layers.layer_norm(x, name=f"downsample{stage}_norm")
                x = layers.conv(width, size=2, stride=2, padding=0, bias=True, name=f"downsample{stage}")(x)
            for block in range(1, blocks + 1):
                x = layers.apply_block(ConvNeXtBlock(layers, name=f"stage{stage}_block{block}"), x)
        features = layers.layer_norm(global_average_pool(x), name="final_norm")
        self.sow("intermediates", "features", features)
        return layers.logits(features, self.num_classes)


def convnext_tiny(num_classes: int, layers: Layers) -> ConvNeXt:
    """ConvNeXt-T for 224x224 images: 28,589,128 parameters for 1,000 classes, 4.46 GMAC for an image.

    Kernels and linear weights start as N(0, 0.02^2), biases at 0.
    """
    layers = dataclasses.replace(layers, conv_init=normal_two_percent, linear_init=normal_two_percent, zero_bias=True)
    return ConvNeXt(num_classes, widths=(96, 192, 384, 768), blocks=(3, 3, 9, 3), layers=layers)
