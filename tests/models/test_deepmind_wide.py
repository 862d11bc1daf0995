"""Wide residual networks in DeepMind's form, against a PyTorch module in that form, written here."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from ltrobust import models
from ltrobust.methods import Teacher
from ltrobust.models import torch_weights

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
NAME = "dm_wrn_10_1"


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[torch]'")


def deepmind(torch: Any, activation: str) -> Any:
    """WRN-10-1 for 7 classes with random weights and statistics; it normalises its input by buffers."""
    act = {"silu": torch.nn.functional.silu, "relu": torch.relu}[activation]

    class Block(torch.nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.batchnorm_0, self.batchnorm_1 = torch.nn.BatchNorm2d(inputs), torch.nn.BatchNorm2d(outputs)
            self.conv_0 = torch.nn.Conv2d(inputs, outputs, 3, stride=stride, bias=False)
            self.conv_1 = torch.nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
            self.border = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)  # left, right, top, bottom
            self.shortcut = torch.nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False) if stride > 1 else None

        def forward(self, x: Any) -> Any:
            active = act(self.batchnorm_0(x))
            out = self.conv_0(torch.nn.functional.pad(active, self.border))
            out = self.conv_1(act(self.batchnorm_1(out)))
            return out + (x if self.shortcut is None else self.shortcut(active))

    class Group(torch.nn.Module):
        def __init__(self, *block: Any) -> None:
            super().__init__()
            self.block = torch.nn.Sequential(*block)

        def forward(self, x: Any) -> Any:
            return self.block(x)

    class Wide(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1))
            self.register_buffer("std", torch.tensor(STD).view(3, 1, 1))
            self.init_conv = torch.nn.Conv2d(3, 16, 3, padding=1, bias=False)
            plan = ((16, 16, 1), (16, 32, 2), (32, 64, 2))
            self.layer = torch.nn.Sequential(*(Group(Block(*sizes)) for sizes in plan))
            self.batchnorm, self.logits = torch.nn.BatchNorm2d(64), torch.nn.Linear(64, 7)

        def forward(self, x: Any) -> Any:
            out = act(self.batchnorm(self.layer(self.init_conv((x - self.mean) / self.std))))
            return self.logits(out.mean((2, 3)))

    network = Wide().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.5, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.5, 0.5, generator=generator)
            elif isinstance(module, torch.nn.Conv2d):
                module.weight.normal_(0, module.weight[0].numel() ** -0.5, generator=generator)
    return network


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["silu", "relu"])
def test_a_network_of_that_form_gives_the_same_logits_behind_its_normalisation(torch, activation):
    network = deepmind(torch, activation)
    state = {f"module.{name}": tensor.numpy() for name, tensor in network.state_dict().items()}
    rest, result = torch_weights.split_normalisation({"state_dict": state})
    assert result is not None
    np.testing.assert_allclose(result, (MEAN, STD), rtol=1e-6)
    params, batch_stats = torch_weights.from_torch(rest, NAME)
    module = models.create(NAME, num_classes=7, activation=activation)
    images = np.random.default_rng(0).uniform(0, 1, (3, 16, 16, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = network(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    mine = Teacher(module, params, batch_stats, mean=result[0], std=result[1]).logits(jnp.asarray(images))
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)
    # Padded as in TRADES's form, it is another function.
    other = Teacher(
        models.create("wrn_10_1", num_classes=7, activation=activation), params, batch_stats, mean=MEAN, std=STD
    )
    assert np.abs(np.asarray(other.logits(jnp.asarray(images))) - theirs).max() > 1e-2
    exported = torch_weights.to_torch(params, batch_stats, NAME)
    for name, tensor in exported.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(tensor, state[f"module.{name}"])


@pytest.mark.parametrize(
    "tensors",
    [{"mean": np.zeros(3)}, {"mean": np.zeros(3), "std": np.ones(2)}, {"a.mu": np.zeros(3), "mean": np.ones(3)}],
)
def test_half_a_normalisation_is_refused(tensors):
    with pytest.raises(ValueError, match=r"expected one mean \(or mu\) and one std \(or sigma\) of the same length"):
        torch_weights.split_normalisation(tensors)
    assert torch_weights.split_normalisation({"bn.running_mean": 1})[1] is None


def test_activations_belong_to_wide_networks():
    with pytest.raises(ValueError, match=r"activation of resnet18 is 'silu'; known: relu, silu, all but relu for wide"):
        models.create("resnet18", num_classes=3, activation="silu")
    with pytest.raises(ValueError, match=r"activation of wrn_28_10 is 'gelu'"):
        models.create("wrn_28_10", num_classes=3, activation="gelu")
    with pytest.raises(ValueError, match=r"did you mean wrn_28_10\? known models: .*depths D = 6 n \+ 4"):
        models.create("wrn_29_10", num_classes=3)
