"""PyTorch modules from a function that a text names, and their weights from a file."""

import ast
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ltrobust import registry
from ltrobust.models import torch_files, torch_modules
from ltrobust.models.torch_files import listed, optional

_FORM = "package.module:function, package.module:function(num_classes=10) or FILE.py:function"
# Numbers that no forward pass reads, and that some files lack.
_COUNTERS = ("num_batches_tracked", "n_averaged")


def build(source: str) -> Any:
    """The module that a function or class returns, such as `torchvision.models:resnet18(num_classes=10)`.

    Args:
      source: module and function, with keyword arguments that are plain values; or a file and a function in it. The
        current folder is searched too.

    Raises:
      ValueError: another form, a module or function that is not there, or one that fails or returns no
        `torch.nn.Module`.
    """
    torch = optional("torch")
    place, _, call = source.partition(":")
    name, arguments = _parse(call, source)
    if not place:
        raise ValueError(f"--torch is {source!r}; give {_FORM}.")
    registry.search(Path.cwd())
    try:
        registry.load_code(place)
    except Exception as error:  # the user's code may raise anything
        kind = "" if isinstance(error, ValueError) else f"{place} cannot be loaded: {type(error).__name__}: "
        raise ValueError(kind + str(error).replace("--code", "--torch", 1)) from error
    where = importlib.import_module(Path(place).stem if place.endswith(".py") else place)
    function = getattr(where, name, None)
    if not callable(function):
        raise ValueError(f"--torch is {source!r}, but {place} has no function {name!r}; give {_FORM}.")
    try:
        module = function(**arguments)
    except Exception as error:  # the user's code may raise anything
        raise ValueError(f"--torch={source} failed: {type(error).__name__}: {error}") from error
    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"--torch={source} returned {type(module).__name__}; return a torch.nn.Module.")
    return module


def _parse(call: str, source: str) -> tuple[str, dict[str, Any]]:
    """`function(a=1)` as its name and arguments."""
    try:
        node = ast.parse(call.strip(), mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, {}
        # `**` has no name.
        unnamed = isinstance(node, ast.Call) and (node.args or not all(each.arg for each in node.keywords))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not unnamed:
            return node.func.id, {str(each.arg): ast.literal_eval(each.value) for each in node.keywords}
    except (SyntaxError, ValueError):
        pass
    raise ValueError(f"--torch is {source!r}; give {_FORM}, with keyword arguments that are plain values.")


def load(module: Any, path: str | os.PathLike[str]) -> None:
    """Fills a module with the weights of a file; all of its names and no others, with the module's shapes.

    Words before all names, such as `module.`, may differ, and counters of batches may be missing.

    Args:
      module: `torch.nn.Module`, changed in place.
      path: .safetensors or PyTorch's, as for `torch_files.read`; `FILE::NAME` for one of several sets of weights.

    Raises:
      ValueError: the file cannot be read, or names, shapes or types differ, which are listed.
      OSError: there is no such file.
    """
    torch = optional("torch")
    module = torch_modules.unwrapped(module)
    own, name = module.state_dict(), Path(path).name
    tensors = _renamed(torch_files.read(path), own)
    networks = _networks(tensors, own)
    if len(networks) > 1:
        names = [network or "the outermost level" for network in networks]
        raise ValueError(
            f"{name}: there are {len(networks)} networks among the arrays: {listed(names)}. "
            f"{torch_files.name_one(networks)}"
        )
    missing = [key for key in own if key not in tensors and not key.endswith(_COUNTERS)]
    unexpected = [key for key in tensors if key not in own]
    if missing or unexpected:
        raise ValueError(
            f"{name} holds other weights than {type(module).__name__}: missing {listed(missing) or 'none'}; unexpected "
            f"{listed(unexpected) or 'none'}. Give the function that built the saved network, with its arguments."
        )
    for key, array in tensors.items():
        if array.shape != tuple(own[key].shape):
            raise ValueError(
                f"{name}: {key} has shape {list(array.shape)}, in {type(module).__name__} {list(own[key].shape)}. Give "
                "the function the arguments of the saved network, such as num_classes."
            )
        if own[key].is_floating_point() and array.dtype.kind != "f":
            raise ValueError(f"{name}: {key} is {array.dtype}; give floating-point weights, before quantisation.")
    module.load_state_dict({key: torch.from_numpy(np.array(array)) for key, array in tensors.items()}, strict=False)


def _networks(tensors: Mapping[str, np.ndarray], own: Mapping[str, Any]) -> list[str]:
    """What stands before the names of each whole set of the module's weights."""
    needed = [key for key in own if not key.endswith(_COUNTERS)]
    if not needed:
        return []
    found = [name.removesuffix(needed[0]) for name in tensors if f".{name}".endswith(f".{needed[0]}")]
    return sorted(prefix.removesuffix(".") for prefix in found if all(prefix + key in tensors for key in needed))


def _renamed(tensors: Mapping[str, np.ndarray], own: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The file's arrays without words that stand before all of their names and not before the module's."""
    result = {name: array for name, array in tensors.items() if name in own or not name.endswith(_COUNTERS[1:])}
    while result and not any(name in own for name in result):
        first = {name.partition(".")[0] for name in result}
        if len(first) > 1 or not all("." in name for name in result):
            break
        result = {name.partition(".")[2]: array for name, array in result.items()}
    return result if any(name in own for name in result) else dict(tensors)
