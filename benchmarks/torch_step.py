"""The training step of AT-BSL and of self-distillation in PyTorch, as peers release it and as one would tune it.

Both are the recipe of `configs/default.py`, and differ in how it is computed, not in what:

| | released | tuned |
|---|---|---|
| memory | contiguous | channels last |
| execution | eager | `torch.compile`, where there is a compiler |
| parameters in the attack | require gradients, none of which is asked for | frozen |
| type | float32 | float32, or bfloat16 under autocast |

The attack runs in eval mode, the outer passes in train mode. Batches are given as float tensors on the device:
gathering and augmentation, which our step contains, cost PyTorch nothing here.
"""

import contextlib
import dataclasses
import importlib.util
import shutil
from collections.abc import Callable
from typing import Any

import torch
import torch_networks
from torch.nn import functional

METHODS = ("at_bsl", "self_distillation")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of both implementations. Lengths are in pixel units, of `norm`; `ramp` is epoch over epochs."""

    method: str
    class_counts: Any
    radius: float = 8 / 255
    step_size: float = 2 / 255
    attack_steps: int = 10
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    ramp: float = 1.0
    norm: str = "linf"


class Step:
    """A network, its optimiser and, for self-distillation, its frozen teacher. Calling it makes one update.

    Args:
      form: `released` or `tuned`.
      dtype: of the computation: `torch.float32`; `torch.bfloat16` by autocast (tuned only); `torch.float64` for tests.
      compiling: whether the tuned form is compiled where there is a compiler.

    Raises:
      ValueError: another method, form or type than these.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        recipe: Recipe,
        *,
        form: str,
        teacher: torch.nn.Module | None = None,
        dtype: torch.dtype = torch.float32,
        compiling: bool = True,
    ) -> None:
        if recipe.method not in METHODS or form not in ("released", "tuned"):
            raise ValueError(
                f"no PyTorch step is {form} {recipe.method}; known: released or tuned {' or '.join(METHODS)}."
            )
        if dtype == torch.bfloat16 and form == "released":
            raise ValueError("the released form is float32; give the tuned form for bfloat16.")
        self.recipe, self.tuned, self.dtype = recipe, form == "tuned", dtype
        self.network, self.teacher = network, teacher
        if teacher is not None:
            teacher.eval().requires_grad_(False)
        kept = torch.float64 if dtype == torch.float64 else torch.float32
        layout = torch.channels_last if self.tuned else torch.contiguous_format
        for one in filter(None, (network, teacher)):
            one.to(dtype=kept, memory_format=layout)
        self.kept, self.layout = kept, layout
        self.prior = torch.log(torch.as_tensor(recipe.class_counts, dtype=kept)).to(next(network.parameters()).device)
        self.optimizer = torch.optim.SGD(
            network.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay
        )
        self.compiled = compiling and self.tuned and has_compiler(next(network.parameters()).device.type)
        self.ascent = torch.compile(self._ascent) if self.compiled else self._ascent
        self.loss = torch.compile(self._loss) if self.compiled else self._loss

    def __call__(self, images: torch.Tensor, labels: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """One update; images [B,c,H,W] in [0,1], `noise` what the attack's start adds. The loss before the update."""
        images = images.to(self.kept).contiguous(memory_format=self.layout)
        adversarial = self.attack(images, labels, noise.to(self.kept))
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self._precision():
            value = self.loss(images, adversarial, labels)
        value.backward()
        self.optimizer.step()
        return value.detach()

    def attack(self, images: torch.Tensor, labels: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """PGD on the cross-entropy of plain logits, batch norm in eval mode."""
        self.network.eval()
        if self.tuned:
            self.network.requires_grad_(False)
        points = (images + noise).contiguous(memory_format=self.layout)
        for _ in range(self.recipe.attack_steps):
            points = points.detach().requires_grad_(True)
            with self._precision():
                value = self.ascent(points, labels)
            (gradient,) = torch.autograd.grad(value, [points])
            direction = gradient.sign() if self.recipe.norm == "linf" else gradient / lengths(gradient)
            points = self._project(points.detach() + self.recipe.step_size * direction, images)
        if self.tuned:
            self.network.requires_grad_(True)
        return points.detach()

    def _project(self, points: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Into the ball around the images, then into the pixel bounds."""
        radius = self.recipe.radius
        if self.recipe.norm == "linf":
            points = torch.minimum(torch.maximum(points, images - radius), images + radius)
        else:
            change = points - images
            points = images + change * (radius / lengths(change)).clamp(max=1.0)
        return points.clamp(0.0, 1.0)

    def _precision(self) -> Any:
        """Autocast to bfloat16, where that is the type."""
        if self.dtype != torch.bfloat16:
            return contextlib.nullcontext()
        return torch.autocast(next(self.network.parameters()).device.type, torch.bfloat16)

    def _ascent(self, points: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """What the attack ascends: a sum, so that no image's gradient depends on the batch's size."""
        return functional.cross_entropy(self.network(points).to(self.kept), labels, reduction="sum")

    def _loss(self, images: torch.Tensor, adversarial: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The method's loss, its train-mode passes in the order of ours."""
        logits = self.network(adversarial).to(self.kept)
        value = functional.cross_entropy(logits + self.prior, labels)
        if self.recipe.method == "at_bsl":
            return value
        assert self.teacher is not None
        value = value + divergence(self.teacher(adversarial).to(self.kept), logits)
        with torch.no_grad():
            self.network(images)  # for the running statistics alone
        minus = 2 * images - adversarial
        difference = logits - self.network(minus).to(self.kept)
        teachers = self.teacher(adversarial).to(self.kept) - self.teacher(minus).to(self.kept)
        return value + self.recipe.ramp * divergence(teachers, difference)


def lengths(change: torch.Tensor) -> torch.Tensor:
    """Euclidean length of each example's change, [B,1,1,1], never 0: it divides."""
    return torch.linalg.vector_norm(change, dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)


def divergence(target: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """The batch's mean of `KL(softmax(target) || softmax(logits))`."""
    return functional.kl_div(
        functional.log_softmax(logits, 1), functional.log_softmax(target, 1), reduction="batchmean", log_target=True
    )


def has_compiler(device: str) -> bool:
    """Whether `torch.compile` can generate code for that device: Triton for CUDA, a C++ compiler for the CPU."""
    if device == "cuda":
        return importlib.util.find_spec("triton") is not None
    return any(shutil.which(name) for name in ("g++", "clang++"))


def moved(
    training: Any,
    name: str,
    *,
    form: str,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    compiling: bool = True,
) -> tuple[Step, torch.Tensor, torch.Tensor]:
    """A step on the weights and settings of a `training.Training`, and its first batch, images [B,c,H,W] and labels."""
    phase, weights = training.phase, training.state.weights
    inner = phase.settings.method.inner
    recipe = Recipe(
        phase.settings.method.name,
        [int(count) for count in phase.class_counts],
        radius=inner.threat.epsilon,
        step_size=inner.step_size / 255,
        attack_steps=inner.steps,
        ramp=1 / phase.settings.epochs,
        norm=inner.threat.norm,
    )
    pixels, labels = training.first_batch()

    def build(params: Any, batch_stats: Any) -> torch.nn.Module:
        width = int(params["stem"]["kernel"].shape[-1])
        network = torch_networks.create(name, channels=pixels.shape[-1], width=width)
        return torch_networks.load(network, params, batch_stats).to(device)

    teacher = training.inputs.teachers.get("teacher")
    step = Step(
        build(weights.params, weights.batch_stats),
        recipe,
        form=form,
        teacher=None if teacher is None else build(teacher.params, teacher.batch_stats),
        dtype=dtype,
        compiling=compiling,
    )
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    return step, images.to(device), torch.from_numpy(labels).long().to(device)


def of_ours(training: Any, name: str, *, form: str, device: str, dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    """One update after another on the first batch of a `training.Training`, each with a drawn start."""
    step, images, labels = moved(training, name, form=form, device=device, dtype=dtype)

    def run() -> torch.Tensor:
        value = step(images, labels, 0.001 * torch.randn_like(images))
        if device == "cuda":
            torch.cuda.synchronize()
        return value

    return run
