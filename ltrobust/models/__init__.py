"""Networks that turn pixels in [0,1] into logits, and the three batch-norm modes in which they run.

No network here subtracts a mean or divides by a deviation: an attack's radius means the same for all of them.

Every network sows its pooled features, float32 [B,F]. They cost nothing unless asked for, by `forward_features`.
"""

import functools
import math
import numbers
from typing import Any, Literal, cast, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.models.layers import ACTIVATIONS, HEADS, Head, Layers
from ltrobust.models.mobilenet_v2 import MobileNetV2
from ltrobust.models.preact_resnet import preact_resnet18
from ltrobust.models.resnet import resnet18
from ltrobust.models.small_resnet import small_resnet
from ltrobust.models.wide_resnet import parse, wide_resnet
from ltrobust.names import nearest

BatchNormMode = Literal["eval", "train", "batch_frozen"]
NAMES: tuple[str, ...] = (
    "resnet18",
    "preact_resnet18",
    "wrn_28_10",
    "wrn_34_10",
    "mobilenet_v2",
    "small_resnet",
)
DTYPES: dict[str, Any] = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def create(
    name: str,
    *,
    num_classes: int,
    dtype: str = "float32",
    sync_axis: str | None = None,
    width: int = 16,
    depth: int = 1,
    stem_stride: int = 1,
    head: Head = Head(),  # noqa: B008 - frozen
    activation: str = "relu",
) -> nn.Module:
    """Builds the network `name`; it holds no parameters, see `initialise`.

    Args:
        name: one of `NAMES`, or a wide residual network of any depth D = 6 n + 4 and widening W, `wrn_D_W` in TRADES's
            form and `dm_wrn_D_W` in DeepMind's.
        num_classes: number of logits, at least 2.
        dtype: what convolutions compute in, "float32" or "bfloat16". Parameters, running statistics, pooled
            features, the linear layer and the logits are float32 in both.
        sync_axis: name of a mapped axis; batch statistics are then averaged over it (modes "train" and
            "batch_frozen" must run inside that map, `initialise` and mode "eval" need not).
        width: channels of the first stage of small_resnet; other networks ignore it.
        depth: blocks in each stage of small_resnet; other networks ignore it.
        stem_stride: stride of the first convolution of small_resnet; other networks ignore it.
        head: how pooled features become logits.
        activation: "relu" or "silu", of wide residual networks; the others have relu only.

    Raises:
        ValueError: unknown name, dtype or activation, an activation that the network does not have, num_classes below
            2, or width, depth or stem_stride below 1.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; allowed: {', '.join(DTYPES)}")
    _require_at_least(2, num_classes=num_classes)
    _require_at_least(1, width=width, depth=depth, stem_stride=stem_stride)
    wide = parse(name)
    if activation not in ACTIVATIONS or (activation != "relu" and wide is None):
        raise ValueError(
            f"activation of {name} is {activation!r}; {nearest(activation, ACTIVATIONS)}known: "
            f"{', '.join(ACTIVATIONS)}, all but relu for wide residual networks only."
        )
    layers = Layers(DTYPES[dtype], sync_axis, head=head, activation=activation)
    if wide is not None:
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
    raise ValueError(
        f"model is {name!r}; {nearest(name, NAMES)}known models: {', '.join(NAMES)}; and wrn_D_W, dm_wrn_D_W "
        "for depths D = 6 n + 4"
    )


def initialise(module: nn.Module, key: jax.Array, image_shape: tuple[int, int, int]) -> tuple[Any, Any]:
    """Draws parameters and sets running statistics to mean 0, variance 1.

    ResNet-18, PreActResNet-18, MobileNetV2 and small_resnet start as PyTorch starts them: kernels, linear
    weight and linear bias from U(+-1/sqrt(fan_in)). Wide ResNets: kernels N(0, 2 / (k k out)), linear bias 0.
    No forward pass is computed.

    Args:
        module: from `create`.
        key: one JAX random key.
        image_shape: height, width and channels of one image.

    Returns:
        params and batch_stats, nested dicts of float32 arrays.

    Raises:
        ValueError: image_shape is not three positive integers.
    """
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"image_shape is {image_shape}; expected height, width and channels, each at least 1")
    variables = _draw(module, key, tuple(image_shape))
    return variables["params"], variables["batch_stats"]


@functools.partial(jax.jit, static_argnums=(0, 2))
def _draw(module: nn.Module, key: jax.Array, image_shape: tuple[int, ...]) -> Any:
    """All variables of a module; compiled once per module, since most of its time is compilation."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return module.lazy_init(key, images, use_running_average=True)


def forward(
    module: nn.Module, params: Any, batch_stats: Any, images: jax.Array, *, bn: BatchNormMode
) -> tuple[jax.Array, Any]:
    """Logits of a batch in one of three batch-norm modes.

    | bn | normalised by | running statistics returned |
    |---|---|---|
    | "eval" | running statistics; no image influences another | unchanged |
    | "train" | the batch's statistics | 0.9 old + 0.1 batch |
    | "batch_frozen" | the batch's statistics | unchanged |

    Args:
        module: from `create`.
        params: from `initialise`.
        batch_stats: from `initialise` or an earlier call.
        images: float [B,H,W,C] in [0,1].
        bn: the mode.

    Returns:
        float32 logits [B, num_classes] and running statistics.

    Raises:
        ValueError: unknown mode; images not of rank 4, not floating point, or of another channel count than
            the params.
    """
    _check_pass(params, images, bn)
    variables = {"params": params, "batch_stats": batch_stats}
    if bn == "eval":
        return cast(jax.Array, module.apply(variables, images, use_running_average=True)), batch_stats
    logits, updates = module.apply(variables, images, use_running_average=False, mutable=["batch_stats"])
    return logits, updates["batch_stats"] if bn == "train" else batch_stats


def forward_features(
    module: nn.Module, params: Any, batch_stats: Any, images: jax.Array, *, bn: BatchNormMode
) -> tuple[jax.Array, jax.Array, Any]:
    """As `forward`, with the pooled features, float32 [B, F], between logits and running statistics."""
    _check_pass(params, images, bn)
    variables = {"params": params, "batch_stats": batch_stats}
    logits, updates = module.apply(
        variables, images, use_running_average=bn == "eval", mutable=["batch_stats", "intermediates"]
    )
    (features,) = updates["intermediates"]["features"]
    return cast(jax.Array, logits), cast(jax.Array, features), updates["batch_stats"] if bn == "train" else batch_stats


def class_norms(params: Any, num_classes: int) -> np.ndarray:
    """Lengths of the classifier's rows, one per class: `||W_c||` of its weights without bias, float64 [num_classes].

    Outputs beyond the classes are left out.

    Raises:
        ValueError: params without a head of `layers.HEADS`.
    """
    found = [params[head]["kernel"] for head in HEADS if head in params]
    if not found:
        raise ValueError(f"params have no classifier: one of {', '.join(HEADS)} is expected among {', '.join(params)}")
    return np.linalg.norm(np.asarray(found[0], np.float64), axis=0)[:num_classes]


def count_parameters(params: Any) -> int:
    """Number of scalars in a tree of arrays or of their shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def _require_at_least(minimum: int, **values: int) -> None:
    """Raises ValueError for the first value that is not an integer of at least `minimum`."""
    for name, value in values.items():
        if not isinstance(value, numbers.Integral) or value < minimum:
            raise ValueError(f"{name} is {value!r}; expected an integer of at least {minimum}")


def _check_pass(params: Any, images: jax.Array, bn: str) -> None:
    """Raises ValueError for an unknown mode, or where images cannot be what the network was initialised for."""
    modes = get_args(BatchNormMode)
    if bn not in modes:
        raise ValueError(f"bn is {bn!r}; allowed: {', '.join(modes)}")
    channels = params["stem"]["kernel"].shape[2]
    if images.ndim != 4 or images.shape[-1] != channels:
        raise ValueError(f"images have shape {images.shape}; expected [batch, height, width, {channels}]")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images are {images.dtype}; expected floats in [0,1] (uint8 pixels divided by 255)")
