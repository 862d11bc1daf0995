"""ResNet-18, 34 and 50 with the ImageNet stem, and ConvNeXt-tiny: sizes, torchvision's names, and PyTorch's logits."""

import functools
from typing import Any

import flops
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltrobust import models
from ltrobust.models import torch_parity, torch_weights
from ltrobust.models.layers import Layers, normal_two_percent

BLOCKS = {
    "imagenet_resnet18": (2, 2, 2, 2),
    "imagenet_resnet34": (3, 4, 6, 3),
    "imagenet_resnet50": (3, 4, 6, 3),
    "convnext_tiny": (3, 3, 9, 3),
}
NAMES = tuple(BLOCKS)


@functools.cache
def variables_of(name: str, num_classes: int, side: int) -> tuple[Any, Any]:
    """Parameters and running statistics as shapes."""
    module = models.create(name, num_classes=num_classes)
    return jax.eval_shape(lambda key: models.initialise(module, key, (side, side, 3)), jax.random.key(0))


@pytest.mark.parametrize(
    ("name", "parameters", "giga_macs"),
    [
        ("imagenet_resnet18", 11_689_512, "1.81"),
        ("imagenet_resnet34", 21_797_672, "3.66"),
        ("imagenet_resnet50", 25_557_032, "4.09"),
        ("convnext_tiny", 28_589_128, "4.46"),
    ],
)
def test_parameters_and_multiply_adds_are_those_of_torchvision(name, parameters, giga_macs):
    assert models.count_parameters(variables_of(name, 1000, 224)[0]) == parameters
    network = flops.network(models.create(name, num_classes=1000, platform="tpu"), (224, 224, 3))
    assert (network.parameters, f"{network.forward / 2e9:.2f}") == (parameters, giga_macs)


def test_the_stem_and_its_pooling_leave_a_quarter_of_each_side():
    module = models.create("imagenet_resnet18", num_classes=10)
    params, batch_stats = variables_of("imagenet_resnet18", 10, 64)
    seen = functools.partial(module.apply, use_running_average=True, capture_intermediates=True)
    _, state = jax.eval_shape(seen, {"params": params, "batch_stats": batch_stats}, jnp.zeros((1, 64, 64, 3)))
    sides = [state["intermediates"][f"stage{stage}_block2"]["__call__"][0].shape[1] for stage in (1, 2, 3, 4)]
    assert sides == [16, 8, 4, 2]


def test_a_convnext_has_no_running_statistics_and_one_function_in_all_modes():
    module, (params, batch_stats) = (
        models.create("convnext_tiny", num_classes=10),
        variables_of("convnext_tiny", 10, 32),
    )
    assert batch_stats == {}
    small = module.clone(widths=(4, 8, 8, 8), blocks=(1, 1, 1, 1))  # pyright: ignore[reportCallIssue]
    params, batch_stats = models.initialise(small, jax.random.key(0), (32, 32, 3))
    images = jax.random.uniform(jax.random.key(1), (2, 32, 32, 3))
    logits = [models.forward(small, params, batch_stats, images, bn=bn) for bn in ("eval", "train", "batch_frozen")]
    for other, stats in logits[1:]:
        np.testing.assert_array_equal(other, logits[0][0])
        assert stats == {}
    _, features, _ = models.forward_features(small, params, batch_stats, images, bn="train")
    assert (features.shape, features.dtype) == ((2, 8), jnp.float32)
    np.testing.assert_allclose(features.mean(-1), 0, atol=1e-6)  # after the last layer norm


def test_convnext_kernels_start_with_a_deviation_of_two_percent():
    draws = np.asarray(normal_two_percent(jax.random.key(0), (7, 7, 1, 4096)))
    np.testing.assert_allclose(draws.std(), 0.02, rtol=0.01)
    module = models.create("convnext_tiny", num_classes=10)
    assert module.layers.linear_init is module.layers.conv_init is normal_two_percent  # pyright: ignore
    assert Layers(jnp.float32).linear_init is not normal_two_percent


# PyTorch


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[torch]'")


def torch_resnet(torch: Any, name: str, num_classes: int) -> Any:
    """Torchvision's network, written here."""
    deep, norm = name.endswith("50"), torch.nn.BatchNorm2d

    def conv(before: int, width: int, size: int, stride: int = 1) -> Any:
        return torch.nn.Conv2d(before, width, size, stride=stride, padding=size // 2, bias=False)

    class Block(torch.nn.Module):
        def __init__(self, before: int, width: int, stride: int) -> None:
            super().__init__()
            after = 4 * width if deep else width
            sizes = ((1, 1), (3, stride), (1, 1)) if deep else ((3, stride), (3, 1))
            self.number = len(sizes)
            for place, (size, step) in enumerate(sizes, start=1):
                out = after if place == self.number else width
                setattr(self, f"conv{place}", conv(before if place == 1 else width, out, size, step))
                setattr(self, f"bn{place}", norm(out))
            if stride != 1 or before != after:
                self.downsample = torch.nn.Sequential(conv(before, after, 1, stride), norm(after))

        def forward(self, x: Any) -> Any:
            out = x
            for place in range(1, self.number + 1):
                out = getattr(self, f"bn{place}")(getattr(self, f"conv{place}")(out))
                out = out.relu() if place < self.number else out
            return (out + (self.downsample(x) if hasattr(self, "downsample") else x)).relu()

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = conv(3, 64, 7, 2), norm(64)
            before = 64
            for stage, blocks in enumerate(BLOCKS[name]):
                width, rows = 64 * 2**stage, []
                for block in range(blocks):
                    rows.append(Block(before, width, 2 if stage and not block else 1))
                    before = 4 * width if deep else width
                setattr(self, f"layer{stage + 1}", torch.nn.Sequential(*rows))
            self.fc = torch.nn.Linear(before, num_classes)

        def forward(self, x: Any) -> Any:
            x = torch.nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
            for stage in (1, 2, 3, 4):
                x = getattr(self, f"layer{stage}")(x)
            return self.fc(x.mean((2, 3)))

    return Network()


def torch_convnext(torch: Any, name: str, num_classes: int) -> Any:
    """Torchvision's network, written here without its stochastic depth."""
    nn, widths = torch.nn, (96, 192, 384, 768)

    class Over(nn.Module):
        """A sequence of layers, of which those at `last` see the channels last."""

        def __init__(self, last: tuple[int, ...], **layers: Any) -> None:
            super().__init__()
            self.last = last
            for place, layer in layers.items():
                self.add_module(place.removeprefix("at"), layer)

        def forward(self, x: Any) -> Any:
            for place, layer in self.named_children():
                x = layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if int(place) in self.last else layer(x)
            return x

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.layer_scale = nn.Parameter(torch.full((width, 1, 1), 1e-6))
            self.block = Over(
                (2, 3, 4, 5),
                at0=nn.Conv2d(width, width, 7, padding=3, groups=width),
                at2=nn.LayerNorm(width, eps=1e-6),
                at3=nn.Linear(width, 4 * width),
                at4=nn.GELU(),
                at5=nn.Linear(4 * width, width),
            )

        def forward(self, x: Any) -> Any:
            return x + self.layer_scale * self.block(x)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            stem = Over((1,), at0=nn.Conv2d(3, widths[0], 4, stride=4), at1=nn.LayerNorm(widths[0], eps=1e-6))
            parts = [stem]
            for stage, (width, blocks) in enumerate(zip(widths, BLOCKS[name], strict=True)):
                if stage:
                    before = widths[stage - 1]
                    norm, conv = nn.LayerNorm(before, eps=1e-6), nn.Conv2d(before, width, 2, stride=2)
                    parts.append(Over((0,), at0=norm, at1=conv))
                parts.append(nn.Sequential(*(Block(width) for _ in range(blocks))))
            self.features = nn.Sequential(*parts)
            self.classifier = Over((), at0=nn.LayerNorm(768, eps=1e-6), at2=nn.Linear(768, num_classes))

        def forward(self, x: Any) -> Any:
            return self.classifier(self.features(x).mean((2, 3)))

    return Network()


def theirs(torch: Any, name: str, source: str) -> Any:
    """The network of 10 classes with random weights and running statistics, from torchvision or from this file."""
    torch.manual_seed(0)
    if source == "torchvision":
        made = getattr(pytest.importorskip("torchvision").models, name.removeprefix("imagenet_"))(num_classes=10)
    else:
        made = (torch_convnext if name == "convnext_tiny" else torch_resnet)(torch, name, 10)
    with torch.no_grad():
        for leaf, tensor in made.state_dict().items():
            if leaf.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim == 1 or leaf.endswith("layer_scale"):  # at its start a block of a ConvNeXt does nothing
                tensor.add_(torch.empty_like(tensor).uniform_(-0.2, 0.2))
    return made.eval()


def weights_of(network: Any) -> dict[str, np.ndarray]:
    return {leaf: tensor.numpy() for leaf, tensor in network.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back_changes_no_bit(torch, name):
    state = weights_of(theirs(torch, name, "here"))
    params, batch_stats = torch_weights.from_torch(state, name)
    assert jax.tree.map(jnp.shape, (params, batch_stats)) == jax.tree.map(jnp.shape, variables_of(name, 10, 32))
    back = torch_weights.to_torch(params, batch_stats, name)
    assert back.keys() == state.keys()
    for leaf, tensor in back.items():
        if not leaf.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(tensor, state[leaf], strict=True)


SOURCES = [("imagenet_resnet18", "here"), *((name, "here") for name in NAMES[1:])]
SOURCES += [(name, "torchvision") for name in NAMES]


@pytest.mark.parametrize(
    ("name", "source"),
    [pytest.param(*case, marks=pytest.mark.slow if case != SOURCES[0] else ()) for case in SOURCES],
)
def test_imported_networks_have_the_logits_that_pytorch_computes(torch, name, source):
    network = theirs(torch, name, source)
    params, batch_stats = torch_weights.from_torch(weights_of(network), name)
    assert torch_parity.check(network, name, params, batch_stats, (64, 64, 3)) < 1e-4
    exported = torch_weights.to_torch(params, batch_stats, name)
    network.load_state_dict({leaf: torch.from_numpy(tensor) for leaf, tensor in exported.items()}, strict=True)


def test_a_network_with_the_small_stem_is_not_taken_for_one_of_imagenet(torch):
    state = weights_of(theirs(torch, "imagenet_resnet18", "here"))
    with pytest.raises(ValueError, match=r"conv1\.weight has shape .* ImageNet stem .*name imagenet_resnet18, "):
        torch_weights.from_torch(state, "resnet18")
    state["conv1.weight"] = state["conv1.weight"][..., 2:5, 2:5]
    with pytest.raises(ValueError, match=r"conv1\.weight has shape \(64, 3, 3, 3\); .* needs \(64, 3, 7, 7\)"):
        torch_weights.from_torch(state, "imagenet_resnet18")


def test_torchvision_s_normalisation_is_doubted_where_none_is_known():
    for name in NAMES:
        assert "mean (0.485, 0.456, 0.406)" in torch_parity.doubts(name, (224, 224, 3), torchvision=True)[0]
        assert torch_parity.doubts(name, (224, 224, 3), normalised=True) == []
