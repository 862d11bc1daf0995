"""Networks from pixels in [0,1] to logits, and the three BatchNorm modes in which they run.

Networks of this package do not normalise their input, so an attack's radius means the same for all of them. They sow
their pooled features, float32 [B,F], for `forward_features`. Networks of the user are registered (`register`) or named
as `package.module:CLASS`; `models.external` describes the contract.
"""

import functools
import math
import numbers
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ltrobust import registry
from ltrobust.models import external
from ltrobust.models.built_in import NAMES, build
from ltrobust.models.cpu.convolution import convolve
from ltrobust.models.external import REGISTERED
from ltrobust.models.layers import ACTIVATIONS, CENTERS, HEADS, Head, Layers
from ltrobust.models.wide_resnet import parse
from ltrobust.runtime.names import nearest

BatchNormMode = Literal["eval", "train", "batch_frozen"]
# Names of `config.model`'s keys, which settings of registered networks lie beside.
_RESERVED = (*NAMES, "name", "width", "depth", "stem_stride", "activation", "dtype", "sync_batch_norm", "remat")
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
    options: Mapping[str, Any] = MappingProxyType({}),
    platform: str | None = None,
    remat: bool = False,
) -> nn.Module:
    """Builds the network `name`, a Flax module; `initialise` draws its parameters.

    Args:
        name: one of `NAMES`; a wide residual network of any depth D = 6 n + 4 and widening W, `wrn_D_W` in TRADES's
            form and `dm_wrn_D_W` in DeepMind's; a registered network; or `package.module:CLASS`.
        num_classes: number of logits, at least 2.
        dtype: "float32" or "bfloat16", for convolutions. Parameters, running statistics, pooled features, the linear
            layer and the logits are always float32.
        sync_axis: name of a mapped axis over which batch statistics are averaged. Modes "train" and "batch_frozen"
            must then run inside that map; `initialise` and mode "eval" need not.
        width: channels of the first stage of small_resnet; other networks ignore it.
        depth: blocks in each stage of small_resnet; other networks ignore it.
        stem_stride: stride of the first convolution of small_resnet; other networks ignore it.
        head: the last layer, from pooled features to logits.
        activation: "relu" or "silu", of wide residual networks; the others have relu only.
        options: settings of a registered network.
        platform: platform to compile for, such as "cpu", "gpu" or "tpu"; None for JAX's default. On "cpu" networks use
            faster convolutions (`models/cpu/`); the function is the same up to rounding.
        remat: whether gradients compute the activations inside of each block again instead of keeping them: less
            memory, more time, the same values up to rounding.

    Raises:
        ValueError: unknown name, dtype or activation, an activation that the network does not have, num_classes below
            2, or width, depth or stem_stride below 1; a registered network that lacks a required field, or `remat`
            with one.

    Example:
        >>> import jax, jax.numpy as jnp, ltrobust as lt
        >>> network = lt.models.create("small_resnet", num_classes=10, width=4)
        >>> params, batch_stats = lt.models.initialise(network, jax.random.key(0), (8, 8, 1))
        >>> logits, _ = lt.models.forward(network, params, batch_stats, jnp.zeros((2, 8, 8, 1)), bn="eval")
        >>> logits.shape
        (2, 10)
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; allowed: {', '.join(DTYPES)}")
    _require_at_least(2, num_classes=num_classes)
    _require_at_least(1, width=width, depth=depth, stem_stride=stem_stride)
    if name not in NAMES and (network := _external(name)) is not None:
        if remat:
            raise ValueError(f"model.remat is True, but {name} is not of this package; use flax.linen.remat inside it.")
        fields = {"dtype": dtype, "axis_name": sync_axis, "head": head, "options": options}
        return external.build(network, name, num_classes=num_classes, **fields)
    if activation not in ACTIVATIONS or (activation != "relu" and parse(name) is None):
        raise ValueError(
            f"activation of {name} is {activation!r}; {nearest(activation, ACTIVATIONS)}known: "
            f"{', '.join(ACTIVATIONS)}, all but relu for wide residual networks only."
        )
    platform = jax.default_backend() if platform is None else platform
    layers = Layers(
        DTYPES[dtype],
        sync_axis,
        head=head,
        activation=activation,
        convolve=convolve if platform.lower() == "cpu" else jax.lax.conv_general_dilated,
        remat=remat,
    )
    sizes = {"width": width, "depth": depth, "stem_stride": stem_stride}
    if (result := build(name, num_classes, layers, **sizes)) is not None:
        return result
    also = "; and wrn_D_W, dm_wrn_D_W for depths D = 6 n + 4, and package.module:CLASS"
    raise registry.unknown("model", name, (*NAMES, *REGISTERED), external.GROUP, also=also)


def register(network: registry.Registered) -> registry.Registered:
    """Registers a `network`, a Flax class or a function that returns a module, under its name; a decorator.

    `config.model.name` can then be that name. Fields or arguments become keys `config.model.NAME.FIELD`, except those
    that the package sets (`models.external`). docs/guides/networks.md has a complete file. Returns the network.

    Raises:
      ValueError: a field that has no default and is not set by the package; or a name that is built in, a key, or
        registered by another file.
    """
    _register(network, network.__name__)
    return network


def _register(network: Callable[..., nn.Module], name: str) -> None:
    """Registers a network under any name."""
    external.add(network, name, _RESERVED if parse(name) is None else (name,))


def defaults() -> dict[str, dict[str, Any]]:
    """Settings of registered networks with their defaults, `config.model.NAME`."""
    registry.add_installed(external.GROUP, REGISTERED, _register)
    result = {name: external.settings(network) for name, network in REGISTERED.items()}
    return {name: settings for name, settings in result.items() if settings}


def _external(name: str) -> Callable[..., nn.Module] | nn.Module | None:
    """The class, function or module of an external network; None for other names."""
    if isinstance(name, str) and ":" in name:
        return external.find(name)
    registry.add_installed(external.GROUP, REGISTERED, _register)
    return REGISTERED.get(name)


def initialise(module: nn.Module, key: jax.Array, image_shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Draws parameters and sets running statistics to mean 0, variance 1.

    ResNet-18, PreActResNet-18, MobileNetV2 and small_resnet are initialised as in PyTorch: kernels, linear weight and
    linear bias from U(+-1/sqrt(fan_in)). Wide ResNets: kernels N(0, 2 / (k k out)), linear bias 0. The networks for
    ImageNet start as in torchvision (`imagenet_resnet`, `convnext_tiny`).

    Args:
        module: from `create`.
        key: one JAX random key.
        image_shape: height, width and channels of one image.

    Returns:
        params and batch_stats, nested dicts of float32 arrays; batch_stats is empty without BatchNorm.

    Raises:
        ValueError: image_shape is not three positive integers.
    """
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"image_shape is {image_shape}; expected height, width and channels, each at least 1")
    variables = _draw(module, key, tuple(image_shape))
    return variables["params"], variables.get("batch_stats", {})


@functools.partial(jax.jit, static_argnums=(0, 2))
def _draw(module: nn.Module, key: jax.Array, image_shape: tuple[int, ...]) -> Any:
    """Draws all variables of a module; compiled once per module, because compilation dominates."""
    # Shapes are enough: `lazy_init` computes no forward pass.
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return module.lazy_init(key, images, **external.mode(module, train=False))


def forward(
    module: nn.Module, params: Any, batch_stats: Any, images: jax.Array, *, bn: BatchNormMode, centers: Any = None
) -> tuple[jax.Array, Any]:
    """Computes logits of a batch in one of three BatchNorm modes.

    | bn | normalised by | running statistics returned |
    |---|---|---|
    | "eval" | running statistics; images do not influence each other | unchanged |
    | "train" | the batch's statistics | 0.9 old + 0.1 batch |
    | "batch_frozen" | the batch's statistics | unchanged |

    Args:
        module: from `create`, or any module that meets the contract of `models.external`.
        params: from `initialise`.
        batch_stats: from `initialise` or an earlier call.
        images: float [B,H,W,C] in [0,1].
        bn: the BatchNorm mode.
        centers: running statistics about which devices sum theirs; default: `batch_stats`. Decides last bits alone.

    Returns:
        float32 logits [B, num_classes], and running statistics.

    Raises:
        ValueError: unknown mode; images not of rank 4, not floating point, or of another shape than at initialisation.
    """
    kept = [] if bn == "eval" else ["batch_stats"]  # mode `batch_frozen` computes them as `train` does, and drops them
    logits, updates = _apply(module, (params, batch_stats, centers), images, bn, kept)
    return logits, updates.get("batch_stats", batch_stats) if bn == "train" else batch_stats


def forward_features(
    module: nn.Module, params: Any, batch_stats: Any, images: jax.Array, *, bn: BatchNormMode, centers: Any = None
) -> tuple[jax.Array, jax.Array, Any]:
    """Computes float32 logits [B, num_classes], pooled features [B, F] and running statistics.

    Args:
        module, params, batch_stats, images, bn, centers: as in `forward`.

    Raises:
        ValueError: as `forward`; or the network has no features of shape [B, F].
    """
    logits, updates = _apply(module, (params, batch_stats, centers), images, bn, ["batch_stats", "intermediates"])
    sown = updates.get("intermediates", {})
    # The head's input comes first: an external network may sow anything under the same name.
    trees = [tree for tree in (sown.get("head"), sown) if isinstance(tree, Mapping)]
    result = next((tree["features"] for tree in trees if isinstance(tree.get("features"), tuple)), None)
    if not result:
        raise ValueError(
            f"the method reads features, and {type(module).__name__} offers none; end the network with "
            "self.head(features) (docs/guides/networks.md), or use another method."
        )
    if np.ndim(result[-1]) != 2:
        raise ValueError(
            f"the method reads features [B, F], and {type(module).__name__} sows some of shape {np.shape(result[-1])}; "
            "end the network with self.head(features) (docs/guides/networks.md)."
        )
    return logits, result[-1], updates.get("batch_stats", batch_stats) if bn == "train" else batch_stats


def _apply(
    module: nn.Module, weights: tuple[Any, Any, Any], images: jax.Array, bn: BatchNormMode, mutable: list[str]
) -> tuple[jax.Array, Any]:
    """Logits of a pass, at least float32, and the collections that it changed."""
    variables: dict[str, Any] = dict(zip(("params", "batch_stats", CENTERS), weights, strict=True))
    _check_pass(module, variables["params"], images, bn)
    if weights[2] is None or bn == "eval" or not isinstance(getattr(module, "layers", None), Layers):
        del variables[CENTERS]
    try:
        result = module.apply(variables, images, mutable=mutable or False, **external.mode(module, train=bn != "eval"))
    except flax.errors.ScopeParamShapeError as error:
        raise ValueError(
            f"images have shape {images.shape}; the network was initialised for another one. "
            f"{str(error).partition(' (https')[0]}"
        ) from error
    logits, updates = result if mutable else (result, {})
    logits = cast(jax.Array, logits)
    # Losses and verdicts need float32. What is computed in float64 stays so: finite differences need it.
    return logits.astype(jnp.float32) if jnp.finfo(logits.dtype).bits < 32 else logits, updates


def class_norms(params: Any, num_classes: int, outputs: int | None = None) -> np.ndarray | None:
    """Computes the norm `||W_c||` of the classifier's weights of each class, without bias.

    The classifier is the layer `linear` or `cosine`, at the top or in the field `head`; else the only dense layer.

    Args:
        params: from `initialise` or training.
        num_classes: K.
        outputs: number of the network's outputs, and of the layer's; default: K.

    Returns:
        float64 [K], or None if there is no such layer, or more than one.
    """
    dense = {
        tuple(getattr(key, "key", None) for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if getattr(path[-1], "key", None) == "kernel" and leaf.ndim == 2 and leaf.shape[1] == (outputs or num_classes)
    }
    named = [(*inside, head, "kernel") for inside in ((), ("head",)) for head in HEADS]
    result = [dense[path] for path in named if path in dense][:1] or list(dense.values())
    if len(result) != 1:
        return None
    return np.linalg.norm(np.asarray(result[0], np.float64), axis=0)[:num_classes]


def count_parameters(params: Any) -> int:
    """Counts the scalars in `params`, a tree of arrays or of their shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def _require_at_least(minimum: int, **values: int) -> None:
    """Raises ValueError for the first value that is not an integer >= `minimum`."""
    for name, value in values.items():
        if not isinstance(value, numbers.Integral) or value < minimum:
            raise ValueError(f"{name} is {value!r}; expected an integer of at least {minimum}")


def _check_pass(module: nn.Module, params: Any, images: jax.Array, bn: str) -> None:
    """Raises ValueError for an unknown mode, or for images of another form than the network was initialised for."""
    if bn not in (modes := get_args(BatchNormMode)):
        raise ValueError(f"bn is {bn!r}; allowed: {', '.join(modes)}")
    # Networks of this package call their first convolution `stem`; other networks may call it anything.
    channels = params["stem"]["kernel"].shape[2] if external.is_built_in(module) else None
    if images.ndim != 4 or channels not in (None, images.shape[-1]):
        raise ValueError(f"images have shape {images.shape}; expected [batch, height, width, {channels or 'channels'}]")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images are {images.dtype}; expected floats in [0,1] (uint8 pixels divided by 255)")
