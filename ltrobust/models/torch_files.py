"""Files of named arrays: .safetensors and PyTorch files, read and written."""

import contextlib
import importlib
import io
import os
import pathlib
import pickletools
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ltrobust.runtime import contents
from ltrobust.runtime.files import write_bytes

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # what most code calls it; any other name will do
CHOICE = "::"  # between a file and the state dict that is meant in it
TORCH_SUFFIXES = (".pt", ".pth", ".tar", ".bin", ".ckpt")
# What PyTorch writes around tensors: types of storages, functions that make a tensor of a storage.
_AROUND_TENSORS = re.compile(r"collections\.OrderedDict|torch\.(_\w+\.)*\w+|torch\.(storage|nn\.parameter)\.\w+")


def file_and_choice(path: str | os.PathLike[str], key: str = "") -> tuple[pathlib.Path, str]:
    """`weights.pt::model_ema` as the file and the name of the state dict in it, `key` where it names none.

    Raises:
        ValueError: it names another state dict than `key`.
    """
    if pathlib.Path(path).exists():
        return pathlib.Path(path), key
    file, _, choice = str(path).partition(CHOICE)
    if key and choice and key != choice:
        raise ValueError(f"--weights names {choice!r} and --key {key!r}; give one of them.")
    return pathlib.Path(file), choice or key


def with_choice(file: pathlib.Path, key: str) -> str:
    """The file with the name of the state dict that is meant in it, as `read` takes both; the reverse of the above."""
    return f"{file}{CHOICE}{key}" if key else str(file)


def label(file: pathlib.Path, key: str, digest: str) -> str:
    """A file's name in results, with the digest's beginning: files of one name may be evaluated in one workdir."""
    return re.sub(r"[^\w.+-]+", "-", f"{file.stem}{f'.{key}' if key else ''}-{digest[:8]}")


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Arrays by name from a .safetensors file, or from a PyTorch file (`TORCH_SUFFIXES`) that holds a state dict.

    Where a file has several state dicts, such as a network and its moving average, `FILE::KEY` names the one that is
    meant, by its keys joined by dots or by what its arrays' names begin with.

    PyTorch files are pickles, which can run code. They are only ever loaded with weights_only=True, by PyTorch 2.6 or
    later (earlier ones run code even so: CVE-2025-32434). Wrapping dicts are opened, what lies beside the one state
    dict (an epoch, an optimizer's state) is dropped, and bfloat16 becomes float32.

    Raises:
        ValueError: another suffix; safetensors or torch is missing, or torch is too old; a file that is damaged or
            holds more than weights-only loading allows; contents that are no state dict, or several and none is named.
        OSError: the file cannot be opened.
    """
    path, choice = file_and_choice(path)
    if path.is_file() and (words := contents.mistaken_for(path)):
        raise ValueError(f"{path} is {words}")
    if path.suffix == ".safetensors":
        safetensors = optional("safetensors", extra="safetensors")
        try:
            content = optional("safetensors.numpy", extra="safetensors").load_file(path)
        except (AttributeError, KeyError, TypeError) as error:  # a type that NumPy does not have, such as 8-bit floats
            raise _no_array(path, "a tensor", error) from error
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is no complete safetensors file ({error}); fetch or write it again") from error
        if not content:
            raise ValueError(f"{path} holds no weights; write them again.")
        return dict(unwrapped(content, choice))
    if path.suffix in TORCH_SUFFIXES:
        return _read_torch(path, choice)
    raise ValueError(f"{path} ends in {path.suffix!r}; allowed: .safetensors, {', '.join(TORCH_SUFFIXES)}")


def write(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name, for example from `to_torch`, to a new .safetensors, .pt or .pth file.

    Raises:
        ValueError: as `content`.
        FileExistsError: the file exists; nothing is ever overwritten.
    """
    path = pathlib.Path(path)
    try:
        written = content(tensors, path.suffix)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    write_bytes(path, written, new=True)


def content(tensors: Mapping[str, np.ndarray], suffix: str) -> bytes:
    """Arrays by name as the bytes of a file.

    A .pt or .pth file is PyTorch's own, a state dict that weights-only loading reads.

    Raises:
        ValueError: another suffix; safetensors or torch is missing.
    """
    # The libraries take memory as it lies, whatever the strides.
    contiguous = {name: np.array(tensor, order="C") for name, tensor in tensors.items()}
    if suffix == ".safetensors":
        safetensors = optional("safetensors.numpy", extra="safetensors")
        return safetensors.save(contiguous, {"format": "pt"})  # as hubs expect it
    if suffix not in (".pt", ".pth"):
        raise ValueError(f"the name ends in {suffix!r}; allowed: .safetensors, .pt, .pth")
    torch, file = optional("torch"), io.BytesIO()
    torch.save({name: torch.from_numpy(tensor) for name, tensor in contiguous.items()}, file)
    return file.getvalue()


def unwrapped(content: Mapping[str, Any], choice: str = "") -> Mapping[str, Any]:
    """The one state dict in a mapping, or the one that `choice` names.

    Raises:
        ValueError: there are several and none is named, none has that name, or two have one name.
    """
    found = list(_state_dicts(content, ""))
    result = dict(found)
    if len(result) < len(found):
        twice = sorted({path for path, _ in found if [each for each, _ in found].count(path) > 1})
        raise ValueError(f"two state dicts have the name {twice[0]!r}; write a file with the one that is meant.")
    if choice:
        return _chosen(result, choice)
    if len(result) > 1:
        names = [name or "the outermost level" for name in result]
        raise ValueError(f"there are {len(result)} state dicts: {listed(names)}. {name_one(result)}")
    if result:
        return next(iter(result.values()))
    inner = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
    return unwrapped(content[inner[0]]) if inner else content


def name_one(names: Iterable[str]) -> str:
    """The sentence that asks for one of several sets of weights; the first name is the example."""
    example = next(filter(None, names))
    return f"Name the one that is meant: --key={example}, or FILE{CHOICE}{example}."


def _chosen(found: Mapping[str, Mapping[str, Any]], choice: str) -> Mapping[str, Any]:
    """The state dict of a name, or the arrays of a state dict whose names begin with it, without that beginning."""
    if choice in found:
        return found[choice]
    parts = []
    for path, arrays in found.items():
        beginning = choice.removeprefix(f"{path}.") + "."
        part = {str(name).removeprefix(beginning): a for name, a in arrays.items() if str(name).startswith(beginning)}
        parts += [part] if part else []
    if len(parts) == 1:
        return parts[0]
    # Without a separate name, arrays are known by the first word of theirs.
    known = dict.fromkeys(name for path, arrays in found.items() for name in ([path] if path else _first_words(arrays)))
    raise ValueError(f"there is no state dict {choice!r}; there are: {listed(known) or 'none'}")


def _first_words(arrays: Mapping[str, Any]) -> list[str]:
    """What stands before the first dot of the arrays' names."""
    return [str(name).partition(".")[0] for name in arrays if "." in str(name)]


def _state_dicts(content: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping of arrays by name, under its keys and places in lists joined by dots.

    An optimizer's are by number and do not count.
    """
    arrays = [str(key) for key, value in content.items() if len(getattr(value, "shape", ()))]
    if any("." in name for name in arrays) or (arrays and len(arrays) == len(content)):
        yield path, content
    for key, value in content.items():
        below = {str(place): item for place, item in enumerate(value)} if isinstance(value, list | tuple) else value
        if isinstance(key, str) and isinstance(below, Mapping):
            yield from _state_dicts(below, f"{path}.{key}" if path else key)


def listed(names: Iterable[str]) -> str:
    """At most five names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def optional(module: str, extra: str = "torch") -> Any:
    """An optional library, imported when it is needed; `extra` is what installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{module} is not installed; run: pip install -e '.[{extra}]'") from error


def _read_torch(path: pathlib.Path, choice: str) -> dict[str, np.ndarray]:
    """The state dict of a PyTorch file, by weights-only loading."""
    torch = optional("torch")
    if tuple(int(number) for number in torch.__version__.split(".")[:2]) < (2, 6):
        raise ValueError(f"torch is {torch.__version__}; expected 2.6 or later, run: pip install -e '.[torch]'")
    zipped = _is_zipped(path)
    try:
        _check_members(path, zipped)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise anything
        raise ValueError(_damage(path, zipped)) from error
    if isinstance(content, Mapping) and not content:
        raise ValueError(f"{path} holds no weights; write them again.")
    tensors = unwrapped(content, choice) if isinstance(content, Mapping) else {"the whole content": content}
    others = [str(name) for name, tensor in tensors.items() if not isinstance(tensor, torch.Tensor)]
    if others:
        raise ValueError(
            f"{path} holds values that are no tensors ({listed(others)}); expected a state dict, by itself or under "
            f"{', '.join(WRAPPERS)}"
        )
    result = {}
    for name, tensor in tensors.items():
        try:
            # NumPy has no bfloat16; float32 holds each of its values.
            result[str(name)] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
        except (TypeError, RuntimeError) as error:  # sparse, quantised, 8-bit floats, without data (meta)
            raise _no_array(path, str(name), error) from error
    return result


def _is_zipped(path: pathlib.Path) -> bool:
    """Whether a file is in PyTorch's form since 1.6, an uncompressed zip archive.

    Raises:
        ValueError: it begins like one and has no end, or a damaged one.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    try:
        whole = not zipped or zipfile.is_zipfile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged ({error}); download or write it again") from error
    if not whole:
        raise ValueError(f"{path} is cut off: it is a zip archive without its end; download or write it again")
    return zipped


def _check_members(path: pathlib.Path, zipped: bool) -> None:
    """Compares the checksums of a zip's members, which PyTorch does not: a flipped bit would be another weight."""
    if zipped:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"the checksum of {damaged} differs")


def _damage(path: pathlib.Path, zipped: bool) -> str:
    """Why PyTorch refuses a file: its pickle names more than tensors need, or it is damaged."""
    pickled, named, members, inside = b"", set[str](), [], []
    with contextlib.suppress(Exception):  # a damaged file may raise anything; what was found until then counts
        if zipped:
            with zipfile.ZipFile(path) as archive:
                members = archive.namelist()
                inside = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
                pickled = archive.read(inside[0]) if inside else b""
        else:
            pickled = path.read_bytes()
        for name in _named(pickled):
            named.add(name)
    if others := sorted(name for name in named if not _AROUND_TENSORS.fullmatch(name)):
        return (
            f"{path} holds more than tensors ({listed(others)}), and pickles are not executed here; where you trust "
            "the file, convert its state dict to .safetensors with the code that wrote it"
        )
    if members and not inside:
        return f"{path} is a zip archive of {listed(members)}, not a PyTorch file; unpack it"
    return f"{path} is damaged, or no PyTorch file; download or write it again"


def _named(pickled: bytes) -> Iterator[str]:
    """The functions and classes that pickles name, as far as they can be read. Nothing of them is executed."""
    file, texts = io.BytesIO(pickled), [""]
    # Files of the older form have several pickles, then numbers, which are none.
    with contextlib.suppress(ValueError, IndexError):
        while True:
            for operation, argument, _ in pickletools.genops(file):
                if operation.name == "GLOBAL":
                    yield str(argument).replace(" ", ".")
                elif operation.name == "STACK_GLOBAL":
                    yield ".".join(texts[-2:])
                elif isinstance(argument, str):
                    texts.append(argument)


def _no_array(path: pathlib.Path, name: str, error: Exception) -> ValueError:
    """What is raised for a tensor that NumPy cannot hold."""
    reason = str(error).split("\n")[0].split(". ")[0]
    return ValueError(f"{path}: {name} is no array of numbers ({reason}); write it as a dense float32 tensor")
