"""An epoch of ours and one in PyTorch are one function: the batches' order, momentum, decay, schedule, statistics.

Three things keep the comparison meaningful over many updates. Both networks have SiLU in place of ReLU, and the attack
is in l2: the sign of a number near 0, an activation or a gradient, turns rounding into a whole step, and from there on
the networks drift apart. test_torch_step.py compares ReLU and signs, in one update. PyTorch computes in float64, so
that the differences are the rounding of ours: 2e-7 where the parameters move by 6e-2.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training

from ltrobust.attacks import ball
from ltrobust.data import batches
from ltrobust.training import steps

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[torch]'")
import torch_networks  # noqa: E402
import torch_step  # noqa: E402

UPDATES = 7
SCHEDULES = {
    # The rate falls after half of the epoch's updates.
    "at_bsl": ({"schedule": "drops", "drops": (0.5,)}, lambda sgd: torch.optim.lr_scheduler.MultiStepLR(sgd, [3], 0.1)),
    "self_distillation": (
        {"schedule": "cosine"},
        lambda sgd: torch.optim.lr_scheduler.CosineAnnealingLR(sgd, UPDATES),
    ),
}
# A hundred times the rounding; what is to be noticed is a hundred times as much again.
PARAMETERS, LOSSES = 2e-5, 2e-5


class Epoch(NamedTuple):
    """Losses before each update, and parameters and running statistics after the last, by PyTorch's names."""

    losses: np.ndarray
    arrays: dict[str, Any]


class Both(NamedTuple):
    """Ours, the run before its first step, and what PyTorch is given: rows [U, B] and the attack's starts."""

    method: str
    ours: Epoch
    before: training.Training
    rows: np.ndarray
    noise: list[Any]


def configuration(method: str) -> Any:
    """A batch of 160 makes seven updates of the drawn images."""
    return training.configuration(
        "small_resnet",
        method,
        160,
        data__imbalance_ratio=100.0,
        model__width=4,
        threat__norm="l2",
        threat__radius=128,
        student__epochs=1,
        student__attack__steps=2,
        student__attack__step_size=100,  # two steps leave the ball, so that the projection counts
        student__augmentation__policy="none",
        student__optimizer__weight_decay=2e-2,
        **{f"student__optimizer__{key}": value for key, value in SCHEDULES[method][0].items()},
    )


def starts(run: training.Training, rows: np.ndarray) -> list[Any]:
    """What our attack adds to the images at its start, [B,c,H,W] for each update."""
    inner = run.phase.settings.method.inner

    @jax.jit
    def drawn(step, images):
        key = jax.random.fold_in(run.inputs.key, step)
        keys = jax.vmap(lambda position: jax.random.split(jax.random.fold_in(key, position))[1])(np.arange(len(images)))
        return ball.random_start(images, keys, inner.threat.epsilon, start=inner.start, threat=inner.threat) - images

    pixels = batches.to_unit(jax.device_get(run.inputs.data).images(slice(None)))
    noise = [np.asarray(drawn(jnp.int32(step), jnp.asarray(pixels[some]))) for step, some in enumerate(rows)]
    return [torch.from_numpy(one.transpose(0, 3, 1, 2).copy()) for one in noise]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads cost more than they give on a network this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", autouse=True)
def smooth():
    """SiLU in both networks, which call their activation ReLU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn, "relu", nn.silu)
        patch.setattr(torch.Tensor, "relu", torch.nn.functional.silu)
        yield


@pytest.fixture(scope="module", params=list(SCHEDULES))
def both(request) -> Both:
    before, run = (training.prepare(configuration(request.param)) for _ in range(2))
    phase, state, sums = run.phase, run.state, []
    rows = batches.order(phase.schedule, phase.order_key, 0, phase.total_steps, phase.examples_of)
    chunk = steps.compile_chunk(phase.settings, run.mesh)
    for some in rows:
        state = chunk(state, run.inputs, some[None], jnp.int32(1), jnp.int32(1))
        sums.append(float(state.sums["loss"]))
    weights = jax.device_get(state.weights)
    arrays = torch_networks.flattened(weights.params) | torch_networks.flattened(weights.batch_stats)
    losses = np.diff([0.0, *sums]) / rows.shape[1]
    return Both(request.param, Epoch(losses, arrays), before, rows, starts(before, rows))


def in_pytorch(both: Both, changed: dict[str, Any], step_size: float = 1.0) -> Epoch:
    """The same epoch by autograd, `torch.optim.SGD` and PyTorch's schedules; `changed` are options of the optimiser."""
    step, _, _ = torch_step.moved(both.before, "small_resnet", form="released", dtype=torch.float64, compiling=False)
    for module in step.network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            keep_the_biased_variance(module)
    step.recipe = dataclasses.replace(step.recipe, step_size=step_size * step.recipe.step_size)
    step.optimizer.param_groups[0].update({"weight_decay": 2e-2} | changed)
    schedule = SCHEDULES[both.method][1](step.optimizer)
    data, losses = jax.device_get(both.before.inputs.data), []
    pixels = torch.tensor(batches.to_unit(data.images(slice(None))).transpose(0, 3, 1, 2))
    labels = torch.tensor(data.labels)
    for some, noise in zip(both.rows, both.noise, strict=True):
        losses.append(float(step(pixels[some], labels[some].long(), noise)))
        schedule.step()
    return Epoch(np.array(losses), step.network.state_dict())


def keep_the_biased_variance(module: Any) -> None:
    """The running variance of Flax: PyTorch's own is n / (n - 1) times as large, see ltrobust/models/layers.py."""

    def before(module, inputs):
        module.old = module.running_var.clone()

    def after(module, inputs, outputs):
        if module.training:
            number = inputs[0].numel() / inputs[0].shape[1]
            new = module.running_var - (1 - module.momentum) * module.old
            # Another tensor: the backward pass still needs the old one.
            module.running_var = (1 - module.momentum) * module.old + new * (number - 1) / number

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after)


def distance(first: dict[str, Any], second: dict[str, Any]) -> float:
    """The largest difference of two sets of arrays, those of `first`."""
    return max(float((value.double() - second[name].double()).abs().max()) for name, value in first.items())


@pytest.mark.slow
def test_an_epoch_gives_the_same_losses_and_the_same_network(both):
    assert len(both.rows) == UPDATES
    assert len(np.unique(both.rows)) == both.rows.size
    theirs = in_pytorch(both, {})
    np.testing.assert_allclose(theirs.losses, both.ours.losses, rtol=LOSSES)
    assert distance(both.ours.arrays, theirs.arrays) < PARAMETERS
    started = torch_networks.flattened(jax.device_get(both.before.state.weights).params)
    assert distance(started, theirs.arrays) > 0.05


@pytest.mark.parametrize("both", ["at_bsl"], indirect=True)
@pytest.mark.parametrize(
    ("changed", "step_size"),
    [({"momentum": 0.85}, 1), ({"weight_decay": 1.6e-2}, 1), ({"maximize": True}, 1), ({"lr": 0.098}, 1), ({}, -1)],
    ids=["momentum", "weight decay", "sign", "rate", "sign of the attack"],
)
def test_the_comparison_notices_other_updates(both, changed, step_size):
    theirs = in_pytorch(both, changed, step_size)
    assert distance(both.ours.arrays, theirs.arrays) > 50 * PARAMETERS


@pytest.mark.parametrize("both", ["at_bsl"], indirect=True)
def test_the_comparison_notices_another_order(both):
    theirs = in_pytorch(both._replace(rows=both.rows[[1, 0, *range(2, UPDATES)]]), {})
    assert distance(both.ours.arrays, theirs.arrays) > 50 * PARAMETERS
