"""Residual networks with the ImageNet stem, as in torchvision (He et al. 2016a): ResNet-18, 34 and 50."""

import dataclasses
import functools

import flax.linen as nn
import jax

from ltrobust.models.layers import Layers, global_average_pool, normal_fan_out
from ltrobust.models.resnet import BasicBlock


class Bottleneck(nn.Module):
    """relu(norm(conv1(relu(norm(conv3(relu(norm(conv1(x)))))))) + shortcut), with four times `features` channels.

    The shortcut is as in `BasicBlock`.
    """

    features: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, *, use_running_average: bool) -> jax.Array:
        conv, width = self.layers.conv, 4 * self.features
        norm = functools.partial(self.layers.norm, use_running_average=use_running_average)
        out = nn.relu(norm(conv(self.features, size=1, name="conv1")(x), name="norm1"))
        # The stride is here, as in torchvision; the paper has it in the first convolution.
        out = nn.relu(norm(conv(self.features, stride=self.stride, name="conv2")(out), name="norm2"))
        out = norm(conv(width, size=1, name="conv3")(out), name="norm3")
        if self.stride != 1 or x.shape[-1] != width:
            shortcut = conv(width, size=1, stride=self.stride, name="shortcut_conv")
            x = norm(shortcut(x), name="shortcut_norm")
        return nn.relu(out + x)


class ImageNetResNet(nn.Module):
    """Stem conv7-norm-relu of stride 2, max-pooling of stride 2, four stages, global average pool, linear.

    The last stage sees 7x7 pixels of a 224x224 image. Logits are float32 [B, num_classes]; the pooled features are sown
    as ("intermediates", "features").

    Attributes:
        num_classes: number of logits.
        block: `BasicBlock` or `Bottleneck`.
        blocks: blocks in each stage.
        layers: precision, synchronisation and initialisation.
        width: of the first stage's 3x3 convolutions; each stage doubles it.
    """

    num_classes: int
    block: type[nn.Module]
    blocks: tuple[int, ...]
    layers: Layers
    width: int = 64

    @nn.compact
    def __call__(self, images: jax.Array, *, use_running_average: bool) -> jax.Array:
        x = self.layers.conv(self.width, size=7, stride=2, name="stem")(images)
        x = nn.relu(self.layers.norm(x, name="stem_norm", use_running_average=use_running_average))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage, blocks in enumerate(self.blocks, start=1):
            for block in range(1, blocks + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                features = self.width * 2 ** (stage - 1)
                module = self.block(features, stride, self.layers, name=f"stage{stage}_block{block}")
                x = self.layers.apply_block(module, x, use_running_average=use_running_average)
        features = global_average_pool(x)
        self.sow("intermediates", "features", features)
        return self.layers.logits(features, self.num_classes)


def imagenet_resnet(num_classes: int, layers: Layers, *, depth: int) -> ImageNetResNet:
    """ResNet-`depth` for 224x224 images: 11,689,512, 21,797,672 and 25,557,032 parameters for 1,000 classes.

    1.81, 3.66 and 4.09 GMAC for an image. Kernels start as N(0, 2 / (k k out)), as in torchvision.
    """
    block, blocks = {
        18: (BasicBlock, (2, 2, 2, 2)),
        34: (BasicBlock, (3, 4, 6, 3)),
        50: (Bottleneck, (3, 4, 6, 3)),
    }[depth]
    return ImageNetResNet(num_classes, block, blocks, dataclasses.replace(layers, conv_init=normal_fan_out))
