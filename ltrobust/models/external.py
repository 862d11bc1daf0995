"""External networks: any Flax linen module that maps images to logits.

The contract, which `check` verifies before training:

* `__call__(images)` maps float32 [B,H,W,C] in [0,1] to logits [B, num_classes]. Layers may have any names.
* A module whose training pass differs from its evaluation (BatchNorm) takes one of the arguments in `MODES`, a boolean.
* The only variables are parameters (`params`) and running statistics (`batch_stats`).
* A pass draws no random numbers: methods repeat passes, and attacks differentiate them. So dropout is refused.

The package sets these fields (of a class) or arguments (of a function) if they exist:

* `num_classes`: the number of outputs;
* `dtype`: `jnp.float32` or `jnp.bfloat16`, from `model.dtype`;
* `axis_name`: for `nn.BatchNorm`, so that several devices normalise by the statistics of the whole batch;
* `head`: the last layer, a module from features [B,F] to outputs. A network with this field works with methods that
  change the head (RoBal's cosine) or read the features (REAT).

All others are settings, `config.model.NAME.SETTING`, if a configuration can hold their default.
"""

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp

from ltrobust import registry
from ltrobust.models.layers import Head, Layers
from ltrobust.runtime.workdir import with_tuples

GROUP = "ltrobust.models"  # of entry points
# Argument of `__call__` -> its value in a training pass.
MODES = {"train": True, "training": True, "use_running_average": False, "deterministic": False}
REGISTERED: dict[str, Callable[..., nn.Module]] = {}
# Field that the package sets -> from what.
SET_HERE = {"num_classes": "the data", "dtype": "model.dtype", "axis_name": "the devices", "head": "the method"}
_OF_FLAX = ("parent", "name")


class HeadLayer(nn.Module):
    """Last layer for a method's head: features [B,F] -> outputs [B, num_classes + extra], both float32.

    The features are sown as ("intermediates", "features").
    """

    num_classes: int
    layers: Layers

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        features = features.astype(jnp.float32)
        self.sow("intermediates", "features", features)
        return self.layers.logits(features, self.num_classes)


def add(network: Callable[..., nn.Module], name: str, reserved: tuple[str, ...]) -> None:
    """Registers a class or function under a name; `reserved` are the names of built-in networks and of keys.

    Raises:
      ValueError: as `registry.add`, or a field without a default that the package does not set.
    """
    settings(network)
    registry.add(REGISTERED, "network", name, network, reserved)


def settings(network: Callable[..., nn.Module]) -> dict[str, Any]:
    """Settings of a class or function with their defaults; defaults that a configuration cannot hold are left out."""
    return registry.defaults(network, "network", without=(*SET_HERE, *_OF_FLAX, *other_fields(network)))


def other_fields(network: Callable[..., nn.Module]) -> dict[str, Any]:
    """Fields or arguments with defaults that a configuration cannot hold and that the package does not set."""
    return {
        name: parameter.default
        for name, parameter in registry.parameters(network, "network").items()
        if parameter.default is not parameter.empty
        and not registry.is_plain(parameter.default)
        and name not in (*SET_HERE, *_OF_FLAX)
    }


def set_here(network: Callable[..., nn.Module]) -> dict[str, Any]:
    """Fields or arguments that the package sets and that have a default: name -> default."""
    known = registry.parameters(network, "network")
    defaults = {name: known[name].default for name in SET_HERE if name in known}
    return {name: default for name, default in defaults.items() if default is not inspect.Parameter.empty}


def find(name: str) -> Callable[..., nn.Module] | nn.Module:
    """Imports the class, function or module `package.module:NAME`.

    Raises:
      ValueError: it cannot be imported, or needs arguments that are not set.
    """
    module, _, attribute = name.partition(":")
    try:
        result: Any = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the module may do anything while it is imported
        raise ValueError(
            f"model {name!r} cannot be imported: {_reason(error)}. Give package.module:CLASS of a module that Python "
            "finds from here."
        ) from error
    if isinstance(result, nn.Module):
        return result
    if not callable(result) or (isinstance(result, type) and not issubclass(result, nn.Module)):
        raise ValueError(f"model {name!r} is {result!r}; give a class of flax.linen.Module.")
    network = cast(Callable[..., nn.Module], result)
    settings(network)
    return network


def build(
    network: Callable[..., nn.Module] | nn.Module,
    name: str,
    *,
    num_classes: int,
    dtype: str,
    axis_name: str | None,
    head: Head,
    options: Mapping[str, Any],
) -> nn.Module:
    """Builds the network with the fields that the package sets and its settings (`options`)."""
    if isinstance(network, nn.Module):
        fields = {field.name for field in dataclasses.fields(network)}  # pyright: ignore - flax makes it a dataclass
        return network.clone(**_given(fields, type(network).__name__, num_classes, dtype, axis_name, head))
    given = _given(registry.parameters(network, "network"), name, num_classes, dtype, axis_name, head)
    known = settings(network)
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"model {name} has no setting {unknown[0]}; its settings: {', '.join(known) or 'none'}.")
    # JSON, in which checkpoints keep configurations, has lists for tuples; modules must be hashable.
    module = network(**given, **{key: with_tuples(value) for key, value in options.items()})
    if not isinstance(module, nn.Module):
        raise ValueError(f"model {name} is a {type(module).__name__}; give a flax.linen.Module.")
    return module


def _given(known: Any, name: str, num_classes: int, dtype: str, axis_name: str | None, head: Head) -> dict[str, Any]:
    """Values of those fields in `known` that the package sets.

    Raises:
      ValueError: the dtype or the method's head needs a field that is missing.
    """
    if dtype != "float32" and "dtype" not in known:
        raise ValueError(f"model.dtype is {dtype!r}, and {name} has no field dtype; give float32, or add the field.")
    if head != Head() and "head" not in known and (head.kind != "linear" or "num_classes" not in known):
        wanted = "a head of cosines" if head.kind == "cosine" else f"{head.extra} output(s) beyond the classes"
        raise ValueError(
            f"the method asks for {wanted}, and {name} has no field head that takes it; "
            "end the network with self.head(features) (docs/guides/networks.md), or use another method."
        )
    layers = Layers(jnp.float32, head=head)
    values = {
        "num_classes": num_classes + head.extra,
        "dtype": jnp.dtype(dtype).type,
        "axis_name": axis_name,
        "head": HeadLayer(num_classes, layers),
    }
    return {key: value for key, value in values.items() if key in known}


@functools.cache
def _modes(kind: type[nn.Module]) -> dict[str, bool]:
    """Arguments of a class's `__call__` that choose the mode, with their values in a training pass."""
    parameters = inspect.signature(kind.__call__).parameters
    return {name: value for name, value in MODES.items() if name in parameters}


def mode(module: nn.Module, *, train: bool) -> dict[str, Any]:
    """Keyword arguments of a training or evaluation pass."""
    return {name: value == train for name, value in _modes(type(module)).items()}


def is_built_in(module: nn.Module) -> bool:
    """Whether a module's class belongs to this package; its first convolution is then called `stem`."""
    return type(module).__module__.startswith("ltrobust.models.")


def check(module: nn.Module, image_shape: tuple[int, ...], *, outputs: int, synchronised: bool) -> None:
    """Refuses a network that breaks the contract of this file. Only shapes are traced.

    Args:
      module: the network.
      image_shape: height, width and channels of one image.
      outputs: required number of logits.
      synchronised: whether several devices share batch statistics.

    Raises:
      ValueError: names what is missing, or why the network cannot be called.
    """
    name = type(module).__name__
    try:
        hash(module)
    except TypeError as error:
        raise ValueError(f"network {name} has a field that cannot be hashed; use tuples instead of lists.") from error
    _check_arguments(module, name)
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    variables = _variables(module, images)
    variables.pop("intermediates", None)
    if others := sorted(set(variables) - {"params", "batch_stats"}):
        raise ValueError(
            f"network {name} has variables {others[0]!r}; only params and batch_stats are kept in training."
        )
    stateful = bool(variables.get("batch_stats"))
    if stateful and not _modes(type(module)):
        raise ValueError(
            f"network {name} has running statistics, and its __call__ has no argument for the mode; add train: bool."
        )
    if stateful and synchronised:
        _check_axis(module, name)
    # The pass is traced outside of the training step, where the axis of the devices has no name.
    module = _without_axis(module)
    for train in (False, True):
        _check_logits(name, _outputs(module, variables, images, train=train), outputs)


def _check_axis(module: nn.Module, name: str) -> None:
    """Refuses a network that cannot share batch statistics between devices."""
    layers = getattr(module, "layers", None)
    if isinstance(layers, Layers):  # a network of this package, from a function of the user
        if not layers.sync_axis:
            raise ValueError(
                f"network {name} was built without sync_axis, so several devices cannot share statistics; take an "
                "argument axis_name and pass it on as sync_axis, or give model.sync_batch_norm=False."
            )
    elif not getattr(module, "axis_name", None):
        raise ValueError(
            f"network {name} has no field axis_name for its BatchNorm, so several devices cannot share statistics; "
            "add it, or give model.sync_batch_norm=False."
        )


def _without_axis(module: nn.Module) -> nn.Module:
    """Copy of the network for a pass outside of the training step, where the axis of the devices does not exist."""
    changes: dict[str, Any] = {"axis_name": None} if hasattr(module, "axis_name") else {}
    layers = getattr(module, "layers", None)
    if isinstance(layers, Layers):
        changes["layers"] = dataclasses.replace(layers, sync_axis=None)
    return module.clone(**changes) if changes else module


def _check_arguments(module: nn.Module, name: str) -> None:
    """Refuses a `__call__` that cannot be called with images and the mode alone."""
    signature = inspect.signature(type(module).__call__)
    for parameter in list(signature.parameters.values())[2:]:  # after self and images
        free = parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        if not free and parameter.name not in MODES:
            raise ValueError(
                f"network {name} needs the argument {parameter.name}; __call__ takes images, and one of "
                f"{', '.join(MODES)}."
            )
    given = mode(module, train=False)
    try:
        signature.bind(module, None, **given)
    except TypeError as error:
        call = ", ".join(["images", *(f"{argument}={value}" for argument, value in given.items())])
        raise ValueError(f"network {name} cannot be called as network({call}): {error}.") from error


def _variables(module: nn.Module, images: Any) -> dict[str, Any]:
    """Shapes of the network's variables."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    try:
        return dict(jax.eval_shape(lambda key: module.lazy_init(key, images, **mode(module, train=False)), key))
    except Exception as error:  # the network's own code
        raise _not_called(module, images, error) from error


def _not_called(module: nn.Module, images: Any, error: Exception) -> ValueError:
    """Error that reports an exception inside of the network's `__call__`."""
    name = type(module).__name__
    return ValueError(f"network {name} cannot be called on images {list(images.shape)}: {_reason(error)}.")


def _reason(error: Exception) -> str:
    """Class of an exception and the first line of its message."""
    lines = str(error).partition(" (https")[0].strip().splitlines()
    return ": ".join([type(error).__name__, *lines[:1]]).removesuffix(".")


def _outputs(module: nn.Module, variables: dict[str, Any], images: Any, *, train: bool) -> Any:
    """Shapes of the result of one pass."""
    name = type(module).__name__
    kept = ["batch_stats"] if train else False

    def run(variables: Any, images: Any) -> Any:
        result = module.apply(variables, images, mutable=kept, **mode(module, train=train))
        return result[0] if train else result

    try:
        return jax.eval_shape(run, variables, images)
    except flax.errors.InvalidRngError as error:
        raise ValueError(
            f"network {name} draws random numbers in {'a training' if train else 'an evaluation'} pass, as dropout "
            "does; methods pass no key. Leave them out."
        ) from error
    except flax.errors.ModifyScopeVariableError as error:
        raise ValueError(f"network {name} changes variables in an evaluation pass: {error}") from error
    except Exception as error:  # the network's own code
        raise _not_called(module, images, error) from error


def _check_logits(name: str, logits: Any, outputs: int) -> None:
    """Refuses a result that is not a float array [B, outputs]."""
    if not isinstance(logits, jax.ShapeDtypeStruct):
        raise ValueError(f"network {name} returns a {type(logits).__name__}; return the logits alone.")
    if logits.shape != (2, outputs) or not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ValueError(
            f"network {name} returns {logits.dtype} of shape {logits.shape} for 2 images; expected floats of shape "
            f"(2, {outputs}). A field num_classes is set to that number."
        )
