"""MobileNetV2 (Sandler et al. 2018) in its CIFAR form: small strides, plain relu, projected shortcuts."""

import functools

import flax.linen as nn
import jax

from ltrobust.models.layers import Layers, global_average_pool

# (expansion, width, blocks, stride of the first block) of each stage.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """conv1-norm-relu to `expansion` times the input width, depthwise conv3-norm-relu, conv1-norm, shortcut.

    A shortcut exists at stride 1 only: x itself, or norm(conv1(x)) where the width changes. No relu follows
    the sum.
    """

    features: int
    expansion: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, *, use_running_average: bool) -> jax.Array:
        conv = self.layers.conv
        norm = functools.partial(self.layers.norm, use_running_average=use_running_average)
        hidden = self.expansion * x.shape[-1]
        # Also at expansion 1, where the paper leaves this convolution out: the CIFAR form keeps it.
        out = nn.relu(norm(conv(hidden, size=1, name="expand")(x), name="expand_norm"))
        out = conv(hidden, stride=self.stride, groups=hidden, name="depthwise")(out)
        out = nn.relu(norm(out, name="depthwise_norm"))
        out = norm(conv(self.features, size=1, name="project")(out), name="project_norm")
        if self.stride != 1:
            return out
        if x.shape[-1] != self.features:
            x = norm(conv(self.features, size=1, name="shortcut_conv")(x), name="shortcut_norm")
        return out + x


class MobileNetV2(nn.Module):
    """Stem conv3-norm-relu of 32, the seven stages, conv1-norm-relu to 1280, global average pool, linear.

    Logits are float32 [B, num_classes]; the pooled features [B, 1280] are sown as
    ("intermediates", "features"). 2,296,922 parameters for 10 classes, 0.091 GMAC for a 32x32 image.

    Attributes:
        num_classes: number of logits.
        layers: precision, synchronisation and initialisation.
    """

    num_classes: int
    layers: Layers

    @nn.compact
    def __call__(self, images: jax.Array, *, use_running_average: bool) -> jax.Array:
        norm = functools.partial(self.layers.norm, use_running_average=use_running_average)
        x = nn.relu(norm(self.layers.conv(32, name="stem")(images), name="stem_norm"))
        for stage, (expansion, width, blocks, stride) in enumerate(STAGES, start=1):
            for block in range(1, blocks + 1):
                name = f"stage{stage}_block{block}"
                first_stride = stride if block == 1 else 1
                module = InvertedResidual(width, expansion, first_stride, self.layers, name=name)
                x = self.layers.apply_block(module, x, use_running_average=use_running_average)
        x = nn.relu(norm(self.layers.conv(1280, size=1, name="final_conv")(x), name="final_norm"))
        features = global_average_pool(x)
        self.sow("intermediates", "features", features)
        return self.layers.logits(features, self.num_classes)
