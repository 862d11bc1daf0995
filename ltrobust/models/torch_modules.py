"""PyTorch modules as JAX functions, translated by torchax (extra `torch`) and compared with PyTorch's own results."""

import copy
import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.models import torch_reference
from ltrobust.models.torch_files import optional
from ltrobust.models.torchax_import import import_torchax

# Largest difference of logits, relative to the largest logit, and of input gradients, relative to their norm. Float32
# rounding gives about 1e-6 (docs/project/parity.md); where an activation is that close to a ReLU's kink, gradients
# differ more.
LOGITS_TOLERANCE, GRADIENT_TOLERANCE = 1e-3, 5e-2
_COMPARED = 4  # images
_WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}

Weights = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Parity:
    """Differences between the translation and PyTorch, in float32 on the CPU or on JAX's device.

    Attributes:
      logits: largest difference, relative to the largest logit.
      gradients: norm of the difference of input gradients, relative to their norm.
    """

    logits: float
    gradients: float

    def __str__(self) -> str:
        return (
            f"logits differ from PyTorch's by {self.logits:.1e} of the largest, input gradients by "
            f"{self.gradients:.1e} of their norm"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class TorchNetwork:
    """A PyTorch module as a logits function: float32 [B,H,W,C] in [0,1] -> float32 [B,K].

    JAX may trace, compile and differentiate it. `ltrobust.evaluate` compares it with PyTorch before it attacks;
    anywhere else, call `compare` first.

    Attributes:
      module: a copy of the module in eval mode and float32, on the CPU.
      weights: its parameters and buffers by name.
      apply: `(weights, images) -> logits`, for programs that take the weights as an argument.
    """

    module: Any = dataclasses.field(repr=False)
    weights: Weights = dataclasses.field(repr=False)
    apply: Callable[[Weights, jax.Array], jax.Array] = dataclasses.field(repr=False)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits [B,K] of images [B,H,W,C]."""
        return self.apply(self.weights, images)

    def compare(self, images: Any) -> Parity:
        """Compares logits and input gradients with PyTorch's on the first four images.

        Args:
          images: uint8, or float32 in [0,1], [N,H,W,C] with N at least 1.

        Raises:
          ValueError: the module does not take these images or gives no logits [B,K]; it is random; torchax lacks an
            operation, which is named; or the differences are above the tolerances.
        """
        points = np.asarray(images[:_COMPARED])
        if points.ndim != 4 or not len(points):
            raise ValueError(f"images have shape {list(points.shape)}; give at least one, [N,H,W,C].")
        points = points.astype(np.float32) / (255 if points.dtype == np.uint8 else 1)
        reference = torch_reference.compute(self.module, points)
        result = self._differences(points, reference)
        name = type(self.module).__name__
        if not (result.logits <= LOGITS_TOLERANCE and result.gradients <= GRADIENT_TOLERANCE):
            raise ValueError(
                f"{name} translated to JAX differs from PyTorch by {result.logits:.1e} of the largest logit (allowed: "
                f"{LOGITS_TOLERANCE:g}) and {result.gradients:.1e} of the input gradient (allowed: "
                f"{GRADIENT_TOLERANCE:g}). Remove custom backward functions and detach(), or evaluate it with PyTorch."
            )
        return result

    def _differences(self, points: np.ndarray, reference: torch_reference.Reference) -> Parity:
        """The differences, at highest matmul precision."""

        def score(images: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits = self(images)
            return jnp.sum(logits * reference.weights), logits

        try:
            with jax.default_matmul_precision("highest"):
                (_, logits), gradients = jax.jit(jax.value_and_grad(score, has_aux=True))(points)
        except _Untranslatable:
            raise
        except Exception as error:  # torchax and JAX raise many types
            raise ValueError(_untranslatable(type(self.module).__name__, error)) from error
        return Parity(
            float(np.abs(np.asarray(logits) - reference.logits).max() / max(np.abs(reference.logits).max(), 1e-30)),
            float(np.linalg.norm(np.asarray(gradients) - reference.gradients))
            / max(float(np.linalg.norm(reference.gradients)), 1e-30),
        )


def from_torch(module: Any, images: Any = None) -> TorchNetwork:
    """A PyTorch module as a logits function, in eval mode and float32.

    The module itself is not changed. `DataParallel` and `torch.compile` are taken off, half-precision weights become
    float32, and the weights are moved to JAX's device.

    Args:
      module: `torch.nn.Module` from images [B,C,H,W] in [0,1] to logits [B,K]. It normalises its input itself.
      images: where given, logits and input gradients on the first few are compared with PyTorch's
        (`TorchNetwork.compare`): uint8, or float32 in [0,1], [N,H,W,C].

    Raises:
      ValueError: torch or torchax is missing or too old, `module` is no module or cannot be copied, its weights are
        integers or have no data; or as `TorchNetwork.compare`.
    """
    torch = optional("torch")
    if isinstance(module, type):
        raise ValueError(f"the network is the class {module.__name__}; give an instance, such as {module.__name__}().")
    if not isinstance(module, torch.nn.Module) or isinstance(module, torch.jit.ScriptModule):
        kind = f"{type(module).__module__}.{type(module).__name__}"
        raise ValueError(f"the network is a {kind}; give a torch.nn.Module that is not compiled by torch.jit.")
    network = _prepared(module)
    torchax = import_torchax()
    # Inside of a container, because torchax calls `forward` of the outermost module without its hooks.
    weights, forward = torchax.extract_jax(torch.nn.Sequential(network))

    def apply(weights: Weights, images: jax.Array) -> jax.Array:
        # PyTorch's rules of promotion are not the strict ones that this package sets.
        with jax.numpy_dtype_promotion("standard"):
            try:
                logits = forward(weights, (jnp.transpose(images, (0, 3, 1, 2)),))
            except jax.errors.JaxRuntimeError:  # of the device, such as too little memory
                raise
            except Exception as error:  # torchax and JAX raise many types, some only for other sizes of batches
                raise _Untranslatable(_untranslatable(type(network).__name__, error)) from error
        return logits.astype(jnp.float32)

    result = TorchNetwork(network, weights, apply)
    if images is not None:
        result.compare(images)
    return result


def unwrapped(module: Any) -> Any:
    """The module inside of `DataParallel`, `DistributedDataParallel` and `torch.compile`."""
    while wrapped := _WRAPPERS.get(type(module).__name__):
        module = getattr(module, wrapped)
    return module


def _prepared(module: Any) -> Any:
    """A copy without wrappers, in float32, eval mode and on the CPU.

    Raises:
      ValueError: names the weight that cannot be used.
    """
    module = unwrapped(module)
    for name, weight in (*module.named_parameters(), *module.named_buffers()):
        if weight.is_meta:
            raise ValueError(f"the weight {name} is on the meta device, without data; load the weights first.")
    for name, weight in module.named_parameters():
        if not (weight.is_floating_point() or weight.is_complex()):
            raise ValueError(f"the weight {name} is {weight.dtype}; give the module as it was before quantisation.")
    try:
        network = copy.deepcopy(module)
    except Exception as error:  # a module may hold anything
        raise ValueError(
            f"{type(module).__name__} cannot be copied ({_first_line(error)}); give a freshly built module with its "
            "weights loaded."
        ) from error
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            parent._modules[name] = unwrapped(child)
    return network.cpu().float().eval().requires_grad_(False)


class _Untranslatable(ValueError):
    """A forward pass that torchax or JAX refuses, with its message."""


def _untranslatable(name: str, error: Exception) -> str:
    """Message for a module that torchax or JAX refuses; names the operation where it is known."""
    if operation := re.search(r"Operator with name ([\w:.]+) has no lowering", str(error)):
        return f"{name} uses the operation {operation[1]}, which torchax lacks. Write it with other operations."
    if isinstance(error, jax.errors.JAXTypeError | jax.errors.JAXIndexError) or "Tracer" in str(error):
        return (
            f"{name} cannot be compiled: its forward pass depends on values of the images ({type(error).__name__}), by "
            "`if`, .item() or .numpy(). Compute with tensors throughout, such as torch.where."
        )
    return f"{name} cannot be translated to JAX ({_first_line(error)}). Evaluate it with PyTorch, or rewrite it."


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
