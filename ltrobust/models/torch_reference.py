"""PyTorch's own logits and input gradients of a module, with which its translation is compared."""

import dataclasses
from typing import Any

import numpy as np

from ltrobust.models.torch_files import optional

_PASSES = 3  # of the same images: more than one shows randomness
_ALONE = 1e-3  # largest difference of an image's logits alone and in a batch, relative to the largest logit
# Their tag says that they may draw, which they do only with a dropout above 0 or in training mode.
_MAY_DRAW = ("attention", "rrelu")


@dataclasses.dataclass(frozen=True)
class Reference:
    """What PyTorch computes.

    Attributes:
      logits: [N,K].
      gradients: [N,H,W,C], of the sum of `logits * weights` with respect to the images.
      weights: [N,K], random, so that no two logits cancel.
    """

    logits: np.ndarray
    gradients: np.ndarray
    weights: np.ndarray


def compute(module: Any, points: np.ndarray) -> Reference:
    """Logits and input gradients of images [N,H,W,C] in [0,1], on the CPU.

    Raises:
      ValueError: the module does not take such images, gives no finite logits [N,K] or no gradient, is random, or
        its logits of one image depend on the others.
    """
    torch, name = optional("torch"), type(module).__name__
    inputs = torch.from_numpy(points.transpose(0, 3, 1, 2).copy()).requires_grad_(True)
    shape = list(inputs.shape)
    try:
        with _random_operations(torch) as random:
            logits = module(inputs)
    except Exception as error:  # a module may raise anything
        text = (str(error).strip().splitlines() or [""])[0][:200]
        raise ValueError(
            f"{name} cannot be called on images {shape}, [batch, channels, height, width] ({type(error).__name__}: "
            f"{text}); give a module of one argument, and images of its size and channels."
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != len(points):
        form = list(logits.shape) if isinstance(logits, torch.Tensor) else f"a {type(logits).__name__}"
        raise ValueError(f"{name} gives {form} for images {shape}; it must give a tensor of logits [batch, classes].")
    if not logits.is_floating_point():
        raise ValueError(f"{name} gives {logits.dtype}; it must give logits, not classes: attacks need their gradient.")
    if not torch.isfinite(logits).all():
        raise ValueError(
            f"{name} gives logits that are not finite numbers for images in [0,1]; load its weights first."
        )
    with torch.no_grad():
        again = [module(inputs) for _ in range(_PASSES - 1)]
    drawn = sorted(operation for operation in random if not any(part in operation for part in _MAY_DRAW))
    if drawn or not all(torch.allclose(logits, other, rtol=1e-4, atol=1e-5) for other in again):
        by = ", ".join(drawn or sorted(random)) or "a generator outside of PyTorch"
        raise ValueError(
            f"{name} is random at evaluation: it draws by {by}. Switch the randomness off, such as by "
            "F.dropout(..., training=self.training); attacks on the average over draws are not built."
        )
    _check_alone(module, inputs.detach(), logits.detach(), name)
    weights = np.random.RandomState(0).standard_normal(tuple(logits.shape)).astype(np.float32)
    if not logits.requires_grad:
        raise ValueError(
            f"{name} gives logits without a gradient; remove torch.no_grad() and detach() from its forward pass."
        )
    try:
        (gradients,) = torch.autograd.grad((logits.float() * torch.from_numpy(weights)).sum(), inputs)
    except RuntimeError as error:  # an operation without a gradient, or a tensor that was changed in place
        raise ValueError(f"{name} has no input gradient in PyTorch ({str(error).splitlines()[0][:200]}).") from error
    return Reference(logits.detach().float().numpy(), gradients.numpy().transpose(0, 2, 3, 1), weights)


def _check_alone(module: Any, inputs: Any, logits: Any, name: str) -> None:
    """Compares each image alone with the same one in a batch: attacks and verdicts take images for independent.

    Another image stands at both ends of the batch, so that a single one, or equal ones, are not by themselves.
    """
    torch = optional("torch")
    other = 1 - inputs[:1].flip(-1)
    try:
        with torch.no_grad():
            together = module(torch.cat([other, inputs, other]))[1:-1]
            alone = torch.cat([module(image[None]) for image in inputs])
        difference = max(float((each - alone).abs().max()) for each in (together, logits))
    except Exception as error:  # a module may raise anything
        text = (str(error).strip().splitlines() or [""])[0][:200]
        raise ValueError(
            f"{name} cannot be called on batches of 1 and {len(inputs) + 2} images ({type(error).__name__}: {text}); "
            "give a module that takes any number of images."
        ) from error
    if not difference <= _ALONE * max(float(alone.abs().max()), 1e-30):
        norms = [key for key, part in module.named_modules() if getattr(part, "track_running_stats", None) is False]
        cause = f"{', '.join(norms[:3])} without running statistics" if norms else "means over the batch"
        raise ValueError(
            f"{name} gives an image other logits when other images are in the batch (difference {difference:.1e}), "
            f"such as by {cause}. Compute each image by itself, such as by BatchNorm with running statistics."
        )


def _random_operations(torch: Any) -> Any:
    """A context that collects the names of operations that draw random numbers."""
    mode = optional("torch.utils._python_dispatch").TorchDispatchMode

    class Random(mode):
        def __init__(self) -> None:
            super().__init__()
            self.names: set[str] = set()

        def __enter__(self) -> set[str]:
            super().__enter__()
            return self.names

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if torch.Tag.nondeterministic_seeded in function.tags:
                self.names.add(str(function))
            return function(*args, **(kwargs or {}))

    return Random()
