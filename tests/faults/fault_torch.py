"""Faults of PyTorch modules and the files of their weights. The rows need torchax."""

import importlib.util

import numpy as np
import pytest
from injection import Place, Reported, fault

import ltrobust as lt

IMAGES = np.random.RandomState(0).randint(0, 256, (4, 16, 16, 3)).astype(np.uint8)


def toy():
    """The small networks, or a skipped test."""
    pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[torch]'")
    if importlib.util.find_spec("torchax") is None:
        pytest.skip("needs torchax: pip install -e '.[torch]'")
    import torch_toy

    return torch_toy


@fault(
    "PyTorch module for other images",
    "`lt.evaluate(module, ...)` with images of one channel, and a module of three",
    value=("Attention", "[4, 1, 16, 16]"),
    allowed="[batch, channels, height, width]",
    remedy="images of its size and channels",
)
def other_images(place: Place) -> Reported:
    return place.raised(ValueError, lambda: lt.from_torch(toy().Attention(), IMAGES[..., :1]))


@fault(
    "PyTorch module that gives features beside logits",
    "a module that returns `logits, features`",
    value=("Then", "a tuple"),
    allowed="[batch, classes]",
    remedy="tensor of logits",
)
def tuple_of_outputs(place: Place) -> Reported:
    return place.raised(ValueError, lambda: lt.from_torch(toy().Then(lambda logits: (logits, logits)), IMAGES))


@fault(
    "PyTorch module with dropout at evaluation",
    "`F.dropout(x)` without `training=self.training`",
    value=("Then", "aten.bernoulli_"),
    remedy="F.dropout(..., training=self.training)",
)
def dropout(place: Place) -> Reported:
    networks = toy()
    return place.raised(ValueError, lambda: lt.from_torch(networks.Then(networks.nn.functional.dropout), IMAGES))


@fault(
    "PyTorch module whose images influence each other",
    "`BatchNorm2d(..., track_running_stats=False)`",
    value=("Residual", "norm without running statistics"),
    remedy="Compute each image by itself",
)
def images_together(place: Place) -> Reported:
    networks = toy()
    module = networks.seeded(networks.Residual)
    module.norm = networks.nn.BatchNorm2d(8, track_running_stats=False)
    return place.raised(ValueError, lambda: lt.from_torch(module, IMAGES))


@fault(
    "PyTorch module with an operation that torchax lacks",
    "`F.adaptive_max_pool2d` in its forward pass",
    value=("Then", "aten::adaptive_max_pool2d"),
    remedy="other operations",
)
def missing_operation(place: Place) -> Reported:
    networks = toy()
    return place.raised(ValueError, lambda: lt.from_torch(networks.Then(networks.pooled), IMAGES))


@fault(
    "PyTorch module with a custom gradient",
    "a `torch.autograd.Function` that rounds, with the gradient of the identity",
    value=("Then", "1.0e+00 of the input gradient"),
    allowed=("0.001", "0.05"),
    remedy="Remove custom backward functions",
)
def own_gradient(place: Place) -> Reported:
    networks = toy()
    return place.raised(ValueError, lambda: lt.from_torch(networks.Then(networks.StraightThrough.apply), IMAGES))


@fault(
    "PyTorch module without data",
    "`module.to('meta')`",
    value=("stem.weight", "meta device"),
    remedy="load the weights first",
)
def without_data(place: Place) -> Reported:
    return place.raised(ValueError, lambda: lt.from_torch(toy().Residual().to("meta"), IMAGES))


@fault(
    "PyTorch module with integer weights",
    "a parameter of `torch.int8`",
    value=("scale", "torch.int8"),
    remedy="before quantisation",
)
def integer_weights(place: Place) -> Reported:
    networks = toy()
    module = networks.Residual()
    module.scale = networks.nn.Parameter(networks.torch.ones(3, dtype=networks.torch.int8), requires_grad=False)
    return place.raised(ValueError, lambda: lt.from_torch(module, IMAGES))


@fault(
    "PyTorch module of another number of classes",
    "`ltrobust evaluate --torch='torch_toy:Residual(channels=1)'` on ten digits",
    value=("Residual", "5 logits"),
    allowed="10 classes",
    remedy="num_classes=10",
)
def other_classes(place: Place) -> Reported:
    toy()
    return evaluated(place, "--torch=torch_toy:Residual(channels=1)")


@fault(
    "function of a PyTorch module that is not there",
    "`ltrobust evaluate --torch=torch_toy:resnet`",
    value=("'torch_toy:resnet'", "'resnet'"),
    allowed="package.module:function",
    remedy="give",
)
def no_function(place: Place) -> Reported:
    toy()
    return evaluated(place, "--torch=torch_toy:resnet")


@fault(
    "weights of another PyTorch module",
    "`--weights=DIR/net.pt` whose head is called `fc`",
    value=("net.pt", "missing head.weight", "unexpected fc.weight"),
    remedy="the function that built the saved network",
)
def other_names(place: Place) -> Reported:
    networks = toy()
    state = {name.replace("head.weight", "fc.weight"): array for name, array in networks.digits().state_dict().items()}
    networks.torch.save(state, place.folder / "net.pt")
    return evaluated(place, "--torch=torch_toy:digits", f"--weights={place.folder / 'net.pt'}")


def evaluated(place: Place, *words: str) -> Reported:
    """`ltrobust evaluate` on digits, which must end before anything is written."""
    return place.refused("evaluate", "--config=configs/digits.py", *words)
