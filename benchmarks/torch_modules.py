"""PyTorch modules evaluated in JAX: differences from PyTorch, and seconds; and a golden network as a module.

    python benchmarks/torch_modules.py [--only=resnet18,...] [--images=64] [--data=DIR] [--overwrite]

The architectures are torchvision's, timm's and RobustBench's, where these are installed, with random weights and ten
classes. Labels are the network's own predictions, so that every image is attacked. DIR/golden holds networks, images
and what the public AutoAttack decided for each. `python -m tools.torch_table` puts the committed results into
docs/project/parity.md.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import time
from pathlib import Path
from typing import Any

import golden
import jax
import measure  # first of these: it finds the package
import numpy as np
import torch
from torch import nn

import ltrobust as lt
from tools.torch_table import SIDE

GOLDEN_IMAGES = 64
# Name -> package, function and its arguments.
ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ResNet-18": ("torchvision.models", "resnet18", {}),
    "SqueezeNet-1.1": ("torchvision.models", "squeezenet1_1", {}),
    "VGG-11-BN": ("torchvision.models", "vgg11_bn", {}),
    "MobileNetV3-small": ("torchvision.models", "mobilenet_v3_small", {}),
    "ShuffleNetV2-x0.5": ("torchvision.models", "shufflenet_v2_x0_5", {}),
    "ViT-B/16": ("torchvision.models", "vit_b_16", {"image_size": SIDE}),
    "RegNetY-400MF": ("torchvision.models", "regnet_y_400mf", {}),
    "ResNet-50": ("torchvision.models", "resnet50", {}),
    "timm ViT-tiny": ("timm.models", "vit_tiny_patch16_224", {"img_size": SIDE, "patch_size": 4}),
    "ConvNeXt-tiny": ("torchvision.models", "convnext_tiny", {}),
    "EfficientNet-B0": ("torchvision.models", "efficientnet_b0", {}),
    "WideResNet-50-2": ("torchvision.models", "wide_resnet50_2", {}),
    "Swin-tiny": ("torchvision.models", "swin_t", {}),
    "DenseNet-121": ("torchvision.models", "densenet121", {}),
    "RobustBench PreActResNet-18": ("robustbench.model_zoo.architectures.resnet", "PreActResNet18", {}),
}
_COMPILING = "/jax/core/compile/"


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--only", default="", help="names of architectures, separated by commas")
    parser.add_argument("--images", type=int, default=64, help="of each evaluation under quick")
    parser.add_argument("--data", type=Path, help="folder that holds golden/")
    given = parser.parse_args()
    path = measure.begin(given, "torch_modules")
    measure.cards.software()  # of the code as it is now, not as it may be edited by the end
    seconds: list[float] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: seconds.append(duration) if event.startswith(_COMPILING) else None
    )
    rows, wanted = [], given.only.split(",") if given.only else list(ARCHITECTURES)
    golden_rows = [verdicts(given.data, "cnn_a")] if given.data else []
    with contextlib.suppress(KeyboardInterrupt):  # what was measured until then is written
        for name in wanted:
            rows.append({"architecture": name} | measured(*ARCHITECTURES[name], given.images, seconds))
            print(rows[-1], flush=True)
    measure.finish(path, given, rows, golden=golden_rows, seed=0, packages=packages())


def packages() -> dict[str, str]:
    """Versions of what the modules come from and are translated by."""
    names = ("torchax", *sorted({package.partition(".")[0] for package, *_ in ARCHITECTURES.values()}))
    return {name: importlib.metadata.version(name) for name in names if importlib.util.find_spec(name)}


def measured(
    package: str, function: str, settings: dict[str, Any], images: int, seconds: list[float]
) -> dict[str, Any]:
    """A row: differences from PyTorch, or why the module is refused; seconds to compile and to evaluate."""
    row: dict[str, Any] = {"package": package.partition(".")[0], "images": images, "parameters": 0}
    try:
        module = build(package, function, settings)
    except ModuleNotFoundError as error:  # of a package, or of one that it needs
        return row | {"refused": str(error)}
    row["parameters"] = sum(weight.numel() for weight in module.parameters())
    points = np.random.RandomState(0).randint(0, 256, (images, SIDE, SIDE, 3)).astype(np.uint8)
    try:
        network = lt.from_torch(module)
        row |= vars(network.compare(points))
    except ValueError as error:
        return row | {"refused": str(error)}
    labels = np.asarray(jax.jit(network)(points.astype(np.float32) / 255)).argmax(-1)
    jax.clear_caches()
    seconds.clear()
    began = time.monotonic()
    evaluation = lt.evaluate(network, points, labels, protocol="quick", batch_size=64, progress=False)
    taken, compiling = time.monotonic() - began, sum(seconds)
    return row | {"compile": compiling, "quick": taken - compiling, "robust": int(evaluation.robust.sum())}


def build(package: str, function: str, settings: dict[str, Any]) -> nn.Module:
    """The module with random weights, and running statistics as after training."""
    if package.startswith("torchvision"):
        _without_compiled_operations()
    torch.manual_seed(0)
    module = getattr(importlib.import_module(package), function)(num_classes=10, **settings)
    for weight in module.parameters():
        if not weight.any() and weight.ndim > 1:  # a head that begins at zero has no gradient
            nn.init.normal_(weight, std=0.02)
    module.train()
    with torch.no_grad():
        for _ in range(5):
            module(torch.rand(8, 3, SIDE, SIDE))
    return module.eval()


def _without_compiled_operations() -> None:
    """Lets torchvision be imported where its compiled part does not load; no classifier needs it."""
    result = importlib.util.find_spec("torchvision")
    try:
        torch.ops.load_library(Path((result and result.origin) or "", "..", "_C.so").resolve())
    except (OSError, RuntimeError):
        if not hasattr(torch.ops.torchvision, "nms"):
            for name in ("nms", "qnms"):
                torch.library.define(f"torchvision::{name}", "(Tensor boxes, Tensor scores, float threshold) -> Tensor")


def verdicts(folder: Path, name: str) -> dict[str, Any]:
    """A golden network as a PyTorch module under `standard`, against the public AutoAttack, image by image."""
    _, _, _, record = golden.load(folder, name)
    threat, module = lt.Threat("linf", float(record["radius_255"])), golden.torch_module(record, name)
    images, labels, reference = (record[key][:GOLDEN_IMAGES] for key in ("images", "labels", "robust_standard"))
    evaluation = lt.evaluate(module, images, labels, threat=threat, progress=False)
    differing = np.flatnonzero(evaluation.robust != reference)
    row = {
        "network": name,
        "images": len(labels),
        "reference": int(reference.sum()),
        "robust": int(evaluation.robust.sum()),
        "differing": differing.tolist(),
    }
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
