"""Small PyTorch networks with what real ones have, for tests. Importing this needs PyTorch."""

from typing import Any

import torch
from torch import nn


class Residual(nn.Module):
    """Input normalisation in a buffer, BatchNorm, grouped and strided convolutions, dropout."""

    def __init__(self, num_classes: int = 5, channels: int = 3) -> None:
        super().__init__()
        self.register_buffer("mean", torch.linspace(0.4, 0.6, channels).view(1, channels, 1, 1))
        self.stem = nn.Conv2d(channels, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem((x - self.mean) / 0.25))
        x = x + nn.functional.silu(self.grouped(torch.relu(x)))
        return self.head(self.drop(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)))


class Attention(nn.Module):
    """Patches, one layer of attention, a head on their mean."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
        self.head = nn.Linear(16, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class Then(nn.Module):
    """A linear network, and a function of its logits."""

    def __init__(self, function: Any, classes: int = 5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, classes, 3)
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.conv(x).mean((2, 3)))


def pooled(logits: torch.Tensor) -> torch.Tensor:
    """The logits, by an operation that torchax lacks."""
    return nn.functional.adaptive_max_pool2d(logits[:, :, None, None], 1).flatten(1)


class StraightThrough(torch.autograd.Function):
    """Rounds, with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.round(10 * x) / 10

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0]


def seeded(make: Any, **settings: Any) -> nn.Module:
    """A network with weights and running statistics that are always the same."""
    torch.manual_seed(0)
    network = make(**settings)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    return network


def digits() -> nn.Module:
    """For 8x8 digits."""
    return seeded(Residual, num_classes=10, channels=1)
