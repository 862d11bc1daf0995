"""Whether imported weights compute what the PyTorch network computes, and what remains unknown without it.

Names and shapes leave some things open (`torch_weights`). With the PyTorch module at hand `check` compares logits;
with its file alone `doubts` names what to compare by the clean accuracy.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ltrobust import models
from ltrobust.models.torch_files import optional
from ltrobust.models.torch_names import TORCHVISION
from ltrobust.models.wide_resnet import parse

_TOLERANCE = 1e-3  # of the largest logit; float32 rounding is 1e-5
_POOLED = {"wide": (8, 32), "other": (4, 32)}  # side of the references' last pooling, and of their images


def doubts(
    name: str, image_shape: tuple[int, ...], *, torchvision: bool = False, normalised: bool = False
) -> list[str]:
    """What a state dict of the network `name` leaves open for images of this shape, a sentence each.

    Args:
        name: of the network, as for `from_torch`.
        image_shape: height, width and channels.
        torchvision: whether its arrays have torchvision's names.
        normalised: whether an input normalisation is known.
    """
    result = []
    if name == "small_resnet":
        return result  # of this package alone
    if name in TORCHVISION:
        means_and_deviations = "mean (0.485, 0.456, 0.406) and std (0.229, 0.224, 0.225)"
        usual = f"torchvision's own weights expect pixels normalised by {means_and_deviations}, and here are none"
        return [] if normalised else [usual]
    pool, side = _POOLED["wide" if parse(name) else "other"]
    if tuple(image_shape[:2]) != (side, side):
        result.append(
            f"the code that {name} comes from pools {pool}x{pool} pixels, as for {side}x{side} images; here all of "
            f"{image_shape[0]}x{image_shape[1]} are pooled"
        )
    if name == "preact_resnet18":
        result.append(
            "the shortcut convolution is given relu(norm(x)), as in AT-BSL; RobustBench's PreActBlock gives it x"
        )
    if torchvision:
        result.append("the stem has stride 1 and no max-pooling after it, unlike torchvision's")
    return result


def check(
    network: Any,
    name: str,
    params: Any,
    batch_stats: Any,
    image_shape: tuple[int, int, int],
    *,
    activation: str = "relu",
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
) -> float:
    """The largest difference of logits between a PyTorch module and its import, relative to the largest logit.

    Args:
        network: PyTorch module in eval mode, from images [B,C,H,W] in [0,1] to logits [B,K].
        name: of the network, as for `from_torch`.
        params: from `from_torch`.
        batch_stats: from `from_torch`.
        image_shape: height, width and channels of the images that are meant.
        activation: of the network here.
        mean: subtracted from pixels here, one for each channel; the module may do that itself.
        std: what pixels are divided by after that.

    Raises:
        ValueError: a difference above 0.001; it names what usually causes one. Or PyTorch is missing.
    """
    torch = optional("torch")
    # Noise, so that no data set is needed. It covers all of [0,1], where a wrong normalisation shows.
    images = np.random.RandomState(0).uniform(size=(4, *image_shape)).astype(np.float32)
    was_training = network.training
    with torch.no_grad():
        theirs = network.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    network.train(was_training)
    module = models.create(name, num_classes=theirs.shape[1], activation=activation)
    pixels = (images - np.array(mean, np.float32)) / np.array(std, np.float32) if mean else images
    mine = np.asarray(models.forward(module, params, batch_stats, jnp.asarray(pixels), bn="eval")[0])
    apart = float(np.max(np.abs(mine - theirs)) / max(np.max(np.abs(theirs)), 1e-30))
    if not apart <= _TOLERANCE:
        causes = doubts(name, image_shape, normalised=bool(mean))
        raise ValueError(
            f"{name} here and the PyTorch network differ by {apart:.2g} of the largest logit, above {_TOLERANCE:g}: "
            "another function under the same names. Look at its input normalisation and activation"
            + "".join(f"; {cause}" for cause in causes)
            + "."
        )
    return apart
