"""Residual networks with post-activation blocks and a small-image stem (He et al. 2016a, CIFAR form)."""

import functools

import flax.linen as nn
import jax

from ltrobust.models.layers import Layers, global_average_pool


class BasicBlock(nn.Module):
    """relu(norm(conv3(relu(norm(conv3(x))))) + shortcut); the first convolution has the stride.

    The shortcut is x itself, or norm(conv1(x)) where the stride or the width changes the shape.
    """

    features: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, *, use_running_average: bool) -> jax.Array:
        conv = self.layers.conv
        norm = functools.partial(self.layers.norm, use_running_average=use_running_average)
        out = nn.relu(norm(conv(self.features, stride=self.stride, name="conv1")(x), name="norm1"))
        out = norm(conv(self.features, name="conv2")(out), name="norm2")
        if self.stride != 1 or x.shape[-1] != self.features:
            shortcut = conv(self.features, size=1, stride=self.stride, name="shortcut_conv")
            x = norm(shortcut(x), name="shortcut_norm")
        return nn.relu(out + x)


class ResNet(nn.Module):
    """Stem conv3-norm-relu of the first stage's width, stages of basic blocks, global average pool, linear.

    Logits are float32 [B, num_classes]; the pooled features [B, widths[-1]] are sown as
    ("intermediates", "features").

    Attributes:
        num_classes: number of logits.
        widths: channels of each stage.
        strides: stride of the first block of each stage.
        blocks: blocks in every stage.
        layers: precision, synchronisation and initialisation.
        stem_stride: stride of the first convolution.
    """

    num_classes: int
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    blocks: int
    layers: Layers
    stem_stride: int = 1

    @nn.compact
    def __call__(self, images: jax.Array, *, use_running_average: bool) -> jax.Array:
        # The CIFAR stem: 3x3 and no pooling. The 7x7 stem of ImageNet and its pooling would leave 8x8 of a 32x32 image.
        x = self.layers.conv(self.widths[0], stride=self.stem_stride, name="stem")(images)
        x = nn.relu(self.layers.norm(x, name="stem_norm", use_running_average=use_running_average))
        for stage, (width, stride) in enumerate(zip(self.widths, self.strides, strict=True), start=1):
            for block in range(1, self.blocks + 1):
                name = f"stage{stage}_block{block}"
                module = BasicBlock(width, stride if block == 1 else 1, self.layers, name=name)
                x = self.layers.apply_block(module, x, use_running_average=use_running_average)
        features = global_average_pool(x)
        # A sown value costs nothing unless the caller asks for the collection.
        self.sow("intermediates", "features", features)
        return self.layers.logits(features, self.num_classes)


def resnet18(num_classes: int, layers: Layers) -> ResNet:
    """ResNet-18 with the CIFAR stem: 11,173,962 parameters for 10 classes, 0.555 GMAC for a 32x32 image."""
    return ResNet(num_classes, widths=(64, 128, 256, 512), strides=(1, 2, 2, 2), blocks=2, layers=layers)
