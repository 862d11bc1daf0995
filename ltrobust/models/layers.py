"""The pieces that every network here is built from: convolution, norms, linear layer, pooling.

Batch norm, against PyTorch: Flax's `momentum` weighs the *old* average, PyTorch's the new batch, so 0.9 here
is PyTorch's default 0.1. Both normalise a batch by its biased variance. PyTorch stores the unbiased variance
in the running average, Flax the biased one: a factor n/(n-1) with n = batch x height x width, at most 1.00049
for ResNet-18 on 32x32 images at batch 128 (n = 2048 in the last stage).

Padding is written out as (1, 1) on each side because "SAME" pads a stride-2 convolution on the far side only.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ltrobust.runtime.names import nearest

HEADS = ("linear", "cosine")
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"relu": nn.relu, "silu": nn.silu}


# Of batch norm: weight of the old running average, and what is added to the variance.
_MOMENTUM, _EPSILON = 0.9, 1e-5
# Flax's collection of what synchronised batch norm sums about: running statistics, of which it reads the means.
CENTERS = "centers"


def symmetric_uniform(key: jax.Array, shape: Sequence[int], bound: float) -> jax.Array:
    """Float32 draws from U(-bound, +bound).

    Drawn flat and reshaped because XLA compiles that up to four times faster than a draw in `shape`.
    """
    return jax.random.uniform(key, (math.prod(shape),), jnp.float32, -bound, bound).reshape(shape)


def uniform_fan_in(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Kernel [..., in, out] from U(+-1/sqrt(fan_in)), PyTorch's default: variance 1 / (3 fan_in).

    fan_in = k k in counts the inputs of one group, so it is 9 for a depthwise 3x3 kernel.
    """
    return symmetric_uniform(key, shape, 1 / math.sqrt(math.prod(shape[:-1]))).astype(dtype)


def normal_fan_out(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Kernel [k,k,in,out] from N(0, 2 / (k k out)), not truncated (He et al. 2015, fan-out form)."""
    deviation = math.sqrt(2 / (math.prod(shape[:-2]) * shape[-1]))
    return (deviation * jax.random.normal(key, (math.prod(shape),), jnp.float32)).reshape(shape).astype(dtype)


def normal_two_percent(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Kernel [..., in, out] from N(0, 0.02^2), not truncated."""
    return (0.02 * jax.random.normal(key, (math.prod(shape),), jnp.float32)).reshape(shape).astype(dtype)


@dataclasses.dataclass(frozen=True)
class Head:
    """How pooled features become logits.

    Attributes:
        kind: `linear`, or `cosine`: `<h/||h||, w_c/(||w_c|| + floor)>` without bias (Wu et al., CVPR 2021, RoBal).
        floor: added to the length of each class's weights, `cosine` only.
        extra: logits beyond those of the classes, for methods that drop them at test time.

    Raises:
        ValueError: another kind, or a negative floor or number of extra logits.
    """

    kind: str = "linear"
    floor: float = 0.0
    extra: int = 0

    def __post_init__(self) -> None:
        if self.kind not in HEADS:
            raise ValueError(f"head is {self.kind!r}; {nearest(self.kind, HEADS)}known heads: {', '.join(HEADS)}.")
        if self.floor < 0 or self.extra < 0:
            raise ValueError(f"head.floor is {self.floor} and head.extra is {self.extra}; both must be at least 0.")


@dataclasses.dataclass(frozen=True)
class Layers:
    """How one network computes and initialises its layers; call the methods inside `nn.compact` code.

    Parameters and running statistics are float32 whatever `dtype` says.

    Attributes:
        dtype: what convolutions compute in and batch norm returns, jnp.float32 or jnp.bfloat16.
        sync_axis: mapped axis over which batch statistics are averaged, or None for one device's batch.
        conv_init: initialiser of the convolution kernels, and of pointwise linear layers.
        linear_init: initialiser of the linear head's kernel.
        zero_bias: whether the linear bias starts at 0 instead of U(+-1/sqrt(inputs)).
        head: how pooled features become logits.
        activation: one of `ACTIVATIONS`, for the networks that ask.
        far_padding: whether strided convolutions larger than 1 are padded on the far sides only, as "SAME" does on
            sides of even length.
        convolve: computes the convolutions, with the arguments of `jax.lax.conv_general_dilated`.
        remat: whether the activations inside of a block are computed again for its gradient instead of kept.
    """

    dtype: Any
    sync_axis: str | None = None
    conv_init: Callable[..., jax.Array] = uniform_fan_in
    linear_init: Callable[..., jax.Array] = uniform_fan_in
    zero_bias: bool = False
    head: Head = Head()
    activation: str = "relu"
    far_padding: bool = False
    convolve: Callable[..., jax.Array] = jax.lax.conv_general_dilated
    remat: bool = False

    def activate(self, x: jax.Array) -> jax.Array:
        """The network's nonlinearity."""
        return ACTIVATIONS[self.activation](x)

    def conv(
        self,
        features: int,
        *,
        name: str,
        size: int = 3,
        stride: int = 1,
        groups: int = 1,
        padding: int | None = None,
        bias: bool = False,
    ) -> nn.Conv:
        """Convolution, padded by size // 2 unless `padding` is given: [B,H,W,c] -> [B,ceil(H/s),ceil(W/s),features]."""
        far = size // 2 if padding is None else padding
        # DeepMind's networks pad their strided convolutions like "SAME". With symmetric padding the same weights would
        # compute another function.
        near = 0 if self.far_padding and stride > 1 else far
        return nn.Conv(
            features,
            (size, size),
            strides=(stride, stride),
            padding=((near, far),) * 2,
            feature_group_count=groups,
            use_bias=bias,
            dtype=self.dtype,
            kernel_init=self.conv_init,
            conv_general_dilated=self.convolve,
            name=name,
        )

    def norm(self, x: jax.Array, *, name: str, use_running_average: bool) -> jax.Array:
        """Batch norm over batch, height and width, computed in float32 and returned in `dtype`.

        The variance takes two passes: E[x^2] - E[x]^2 cancels in float32 when the mean is large.
        Ioffe and Szegedy 2015.
        """
        if self.sync_axis and not use_running_average:
            batch_norm: nn.Module = SynchronisedBatchNorm(self.sync_axis, name=name)
        else:
            batch_norm = nn.BatchNorm(
                use_running_average=use_running_average,
                momentum=_MOMENTUM,
                epsilon=_EPSILON,
                dtype=jnp.float32,
                use_fast_variance=False,
                name=name,
            )
        return batch_norm(x.astype(jnp.float32)).astype(self.dtype)

    def apply_block(self, block: nn.Module, x: jax.Array, **mode: bool) -> jax.Array:
        """A residual block's output; `mode` as in its `__call__`."""
        if not self.remat:
            return block(x, **mode)  # pyright: ignore[reportCallIssue]
        # A function, because `nn.remat` would trace the arguments of the block itself, and the mode is a Python value.
        return nn.remat(lambda block, x: block(x, **mode))(block, x)

    def layer_norm(self, x: jax.Array, *, name: str) -> jax.Array:
        """Layer norm over the channels of each pixel, computed in float32 and returned in the type of x."""
        layer_norm = nn.LayerNorm(epsilon=1e-6, dtype=jnp.float32, use_fast_variance=False, name=name)
        return layer_norm(x.astype(jnp.float32)).astype(x.dtype)

    def pointwise(self, features: int, *, name: str) -> nn.Dense:
        """Linear layer with bias over the channels of each pixel, [..., c] -> [..., features]."""
        return nn.Dense(features, dtype=self.dtype, kernel_init=self.conv_init, name=name)

    def logits(self, features: jax.Array, num_classes: int) -> jax.Array:
        """The head, float32 [B,inputs] -> [B,num_classes + extra]; too cheap to save precision on."""
        outputs = num_classes + self.head.extra
        if self.head.kind == "cosine":
            return _cosine(features, outputs, self.head.floor)
        bound = 0.0 if self.zero_bias else 1 / math.sqrt(features.shape[-1])
        layer = nn.Dense(
            outputs,
            dtype=jnp.float32,
            kernel_init=self.linear_init,
            bias_init=lambda key, shape, dtype: symmetric_uniform(key, shape, bound).astype(dtype),
            name="linear",
        )
        return layer(features)


class SynchronisedBatchNorm(nn.Module):
    """Batch norm in training over the batches of all devices, with the variables of `nn.BatchNorm`.

    A layer sends one message in each direction, where `nn.BatchNorm` sends two, mean and variance. Both are summed at
    once about a center c that all devices have: var = E[(x - c)^2] - E[x - c]^2. With the running mean as center this
    does not cancel as E[x^2] - E[x]^2 does.

    Attributes:
        axis_name: mapped axis of the devices.
    """

    axis_name: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises float32 [...,c] over all axes but the last."""
        features, axes = x.shape[-1:], tuple(range(x.ndim - 1))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, features, jnp.float32)
        # Of a step's first pass, where given: the running mean of its later passes waits for the passes before them,
        # whose messages could then not travel together with theirs.
        center = jax.lax.stop_gradient(self.get_variable(CENTERS, "mean", running_mean.value))
        moments = jnp.stack([jnp.mean(x - center, axes), jnp.mean((x - center) ** 2, axes)])
        if not self.is_initializing():
            moments = jax.lax.pmean(moments, self.axis_name)
        mean, var = moments[0] + center, jnp.maximum(moments[1] - moments[0] ** 2, 0)
        if not self.is_initializing():
            running_mean.value = _MOMENTUM * running_mean.value + (1 - _MOMENTUM) * mean
            running_var.value = _MOMENTUM * running_var.value + (1 - _MOMENTUM) * var
        scale = self.param("scale", nn.initializers.ones, features, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, features, jnp.float32)
        return (x - mean) * (jax.lax.rsqrt(var + _EPSILON) * scale) + bias


def _cosine(features: jax.Array, outputs: int, floor: float) -> jax.Array:
    """Cosines [B,outputs] in [-1,1] between features and class weights; zero features have cosine 0."""
    layer = nn.Dense(outputs, use_bias=False, dtype=jnp.float32, kernel_init=uniform_fan_in, name="cosine")
    # The floor stands inside the root, whose gradient at 0 is infinite.
    length = jnp.sqrt(jnp.maximum(jnp.sum(features**2, axis=-1, keepdims=True), 1e-24))
    products = layer(features / length)
    kernel = layer.variables["params"]["kernel"]
    return products / (jnp.linalg.norm(kernel, axis=0) + floor)


def global_average_pool(x: jax.Array) -> jax.Array:
    """Float32 mean over height and width, [B,H,W,c] -> [B,c]."""
    return jnp.mean(x.astype(jnp.float32), axis=(1, 2))
