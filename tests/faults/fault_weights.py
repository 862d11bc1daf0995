"""Faults of files of weights: what is no such file, and weights of another network."""

import argparse
import functools
import types
import zipfile
from typing import Any

import fabricated
import jax
import numpy as np
import pytest
from injection import Place, Reported, fault

import ltrobust as lt
from ltrobust import exporter, models
from ltrobust.models import torch_weights

ARRAYS = {"conv1.weight": np.zeros((64, 3, 3, 3), np.float32)}


def unreadable(place: Place, content: bytes, name: str = "weights.safetensors") -> Reported:
    path = place.folder / name
    path.write_bytes(content)
    return place.raised(ValueError, lambda: torch_weights.read(path))


@fault(
    "web page in place of weights",
    "a server's login page saved as `weights.safetensors`",
    value=("DIR/weights.safetensors", "a web page"),
    remedy="needs a login",
)
def web_page(place: Place) -> Reported:
    return unreadable(place, b"<!DOCTYPE html>\n<html>Please log in</html>")


@fault(
    "Git LFS pointer in place of weights",
    "a clone without `git lfs pull`",
    value=("DIR/weights.safetensors", "a Git LFS pointer"),
    remedy="git lfs pull",
)
def pointer(place: Place) -> Reported:
    return unreadable(place, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")


@fault(
    "weights cut off",
    "the first half of a safetensors file",
    value=("DIR/weights.safetensors", "no complete safetensors file"),
    remedy="fetch or write it again",
)
def cut_off(place: Place) -> Reported:
    torch_weights.write(place.folder / "whole.safetensors", ARRAYS)
    content = (place.folder / "whole.safetensors").read_bytes()
    return unreadable(place, content[: len(content) // 2])


@fault(
    "PyTorch file cut off",
    "the first half of a `.pt` file",
    value=("DIR/weights.pt", "cut off"),
    remedy="download or write it again",
)
def pytorch_cut_off(place: Place) -> Reported:
    pytest.importorskip("torch")
    torch_weights.write(place.folder / "whole.pt", ARRAYS)
    content = (place.folder / "whole.pt").read_bytes()
    return unreadable(place, content[: len(content) // 2], "weights.pt")


@fault(
    "PyTorch file with more than tensors",
    "training arguments, an `argparse.Namespace`, beside the state dict",
    value=("DIR/weights.pt", "argparse.Namespace"),
    remedy="convert its state dict to .safetensors",
)
def unknown_pickle(place: Place) -> Reported:
    torch = pytest.importorskip("torch")
    torch.save({"state_dict": {"a": torch.zeros(1)}, "args": argparse.Namespace(lr=0.1)}, place.folder / "weights.pt")
    return place.raised(ValueError, lambda: torch_weights.read(place.folder / "weights.pt"))


@fault(
    "zip archive in place of a PyTorch file",
    "a file host's zip archive saved as `weights.pt`",
    value=("DIR/weights.pt", "model/best.pth"),
    remedy="unpack it",
)
def zipped(place: Place) -> Reported:
    pytest.importorskip("torch")
    with zipfile.ZipFile(place.folder / "weights.pt", "w") as archive:
        archive.writestr("model/best.pth", b"weights")
    return place.raised(ValueError, lambda: torch_weights.read(place.folder / "weights.pt"))


@fault(
    "several networks in a PyTorch file",
    "`model` and `model_ema` in one file",
    value=("2 state dicts", "model, model_ema"),
    remedy=("--key=model", "FILE::model"),
)
def several_networks(place: Place) -> Reported:
    content = {"model": ARRAYS, "model_ema": ARRAYS, "epoch": 3}
    return place.raised(ValueError, lambda: torch_weights.from_torch(content, "resnet18"))


@fault(
    "several networks among the arrays of a file",
    "`student.` and `teacher.` before the names",
    value=("2 networks", "student, teacher"),
    remedy=("--key=student", "FILE::student"),
)
def several_prefixes(place: Place) -> Reported:
    arrays = ARRAYS | {"linear.weight": np.zeros((10, 512), np.float32)}
    both = {f"{name}.{leaf}": array for name in ("student", "teacher") for leaf, array in arrays.items()}
    return place.raised(ValueError, lambda: torch_weights.from_torch(both, "resnet18"))


def small_resnet() -> dict[str, np.ndarray]:
    """The arrays of a small ResNet for 10 classes."""
    module = models.create("small_resnet", num_classes=10, width=4)
    variables = jax.eval_shape(functools.partial(models.initialise, module, image_shape=(8, 8, 1)), jax.random.key(0))
    params, batch_stats = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), variables)
    return torch_weights.to_torch(params, batch_stats, "small_resnet")


@fault(
    "weights under other names",
    "the last block of a small ResNet is missing, and another layer is there",
    value=("small_resnet", "missing layer3.0.conv1.weight", "unexpected extra.weight"),
    allowed="names",
    remedy="name the network that the weights belong to",
)
def other_names(place: Place) -> Reported:
    tensors = {name: array for name, array in small_resnet().items() if not name.startswith("layer3.0.conv1")}
    tensors["extra.weight"] = np.zeros(1, np.float32)
    return place.raised(ValueError, lambda: torch_weights.from_torch(tensors, "small_resnet"))


@fault(
    "weights for other classes",
    "a file of 10 classes read as one of 100",
    value=("linear.bias has shape (10,)", "linear.weight"),
    allowed="(100,)",
    remedy="another network or class count",
)
def other_classes(place: Place) -> Reported:
    return place.raised(ValueError, lambda: torch_weights.from_torch(small_resnet(), "small_resnet", num_classes=100))


@fault(
    "weights of another network than the configuration's",
    "`evaluate --weights=FILE` of a small ResNet with `config.model.name=resnet18`",
    value=("weights.safetensors", "config.model.name=resnet18", "missing layer1.1.conv1.weight"),
    allowed="102 names",
    remedy="name the network that the weights belong to",
)
def other_model(place: Place) -> Reported:
    path = place.folder / "weights.safetensors"
    torch_weights.write(path, small_resnet())
    given = ["--config=configs/digits.py", "--config.model.name=resnet18", f"--weights={path}"]
    return place.refused("--mode=evaluate", *given)


@fault(
    "export over a file that exists",
    "`ltrobust export RUN --to=model-card` twice",
    value="README.md exists",
    remedy="give another file as out",
)
def exported_twice(place: Place) -> Reported:
    fabricated.write_run(place.folder / "run")
    run = lt.open_run(place.folder / "run")
    run.export("model-card")
    return place.raised(FileExistsError, lambda: run.export("model-card"))


@fault(
    "export of a network that no state dict holds",
    "a cosine head, as RoBal trains it, as safetensors",
    value="trained by robal",
    allowed="no state dict",
    remedy="--to=stablehlo",
)
def cosine_head(place: Place) -> Reported:
    method = types.SimpleNamespace(name="robal", head=models.Head("cosine"))
    result: Any = types.SimpleNamespace(saved=types.SimpleNamespace(method=method, model=None))
    return place.raised(ValueError, lambda: exporter.content("safetensors", result))
