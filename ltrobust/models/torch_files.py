"""Files of named arrays: reading .safetensors and PyTorch files, writing .safetensors."""

import importlib
import os
import pathlib
import pickle
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
TORCH_SUFFIXES = (".pt", ".pth", ".tar", ".bin")


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Arrays by name from a .safetensors file, or from a PyTorch file (`TORCH_SUFFIXES`) that holds a state dict.

    PyTorch files are pickles, which can run code. They are only ever loaded with weights_only=True, by PyTorch 2.6 or
    later (earlier ones run code even so: CVE-2025-32434). Wrapping dicts (`WRAPPERS`) are opened, what lies beside the
    state dict is dropped, and bfloat16 becomes float32.

    Raises:
        ValueError: another suffix; safetensors or torch is missing, or torch is too old; a file that is damaged or
            holds more than weights-only loading allows; contents that are no state dict.
        OSError: the file cannot be opened.
    """
    path = pathlib.Path(path)
    if path.suffix == ".safetensors":
        safetensors = _optional("safetensors")
        try:
            return _optional("safetensors.numpy").load_file(path)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is no complete safetensors file ({error}); fetch or write it again") from error
    if path.suffix in TORCH_SUFFIXES:
        return _read_torch(path)
    raise ValueError(f"{path} ends in {path.suffix!r}; allowed: .safetensors, {', '.join(TORCH_SUFFIXES)}")


def write(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name, for example from `to_torch`, to a new .safetensors file.

    Raises:
        ValueError: another suffix, or safetensors is missing.
        FileExistsError: the file exists; nothing is ever overwritten.
    """
    path = pathlib.Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} ends in {path.suffix!r}; allowed: .safetensors")
    if path.exists():
        raise FileExistsError(f"{path} exists and is not overwritten; choose another name or move it away")
    # The library takes memory as it lies, whatever the strides.
    contiguous = {name: np.array(tensor, order="C") for name, tensor in tensors.items()}
    content = _optional("safetensors.numpy").save(contiguous)
    with path.open("xb") as file:
        file.write(content)


def unwrapped(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The innermost state dict."""
    found = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
    if len(found) > 1:
        raise ValueError(f"there are state dicts under {', '.join(found)}; pass the one that is meant")
    return unwrapped(content[found[0]]) if found else content


def listed(names: Iterable[str]) -> str:
    """At most five names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _optional(module: str) -> Any:
    """An optional library, imported when it is needed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{module} is not installed; run: pip install -e '.[torch]'") from error


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The state dict of a PyTorch file, by weights-only loading."""
    torch = _optional("torch")
    if tuple(int(number) for number in torch.__version__.split(".")[:2]) < (2, 6):
        raise ValueError(f"torch is {torch.__version__}; expected 2.6 or later, run: pip install -e '.[torch]'")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} is damaged or holds more than tensors, and pickles are not executed here; where you trust the "
            "file, convert its state dict to .safetensors with the code that wrote it"
        ) from error
    tensors = unwrapped(content) if isinstance(content, Mapping) else {"the whole content": content}
    others = [str(name) for name, tensor in tensors.items() if not isinstance(tensor, torch.Tensor)]
    if others:
        raise ValueError(
            f"{path} holds values that are no tensors ({listed(others)}); expected a state dict, by itself or under "
            f"{', '.join(WRAPPERS)}"
        )
    # NumPy has no bfloat16; float32 holds each of its values.
    return {
        str(name): (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
        for name, tensor in tensors.items()
    }
