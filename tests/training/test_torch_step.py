"""Our training step and PyTorch's are one function: what makes a comparison of their speed honest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training

from ltrobust import models
from ltrobust.attacks import ball

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[torch]'")
import torch_networks  # noqa: E402
import torch_step  # noqa: E402

METHODS = ("at_bsl", "self_distillation")
FORMS = (("released", torch.float32), ("released", torch.float64), ("tuned", torch.float32))


@pytest.fixture(scope="module", params=METHODS)
def both(request):
    """A step of ours before and after, and the noise that its attack starts from, [B,c,H,W]."""
    config = training.configuration(
        "small_resnet",
        request.param,
        16,
        model__width=4,
        student__epochs=1,  # so that the ramp of the gradient matching is at its end
        student__attack__steps=2,
        student__augmentation__policy="none",
    )
    before = training.prepare(config)
    weights = jax.device_get(before.state.weights)
    images = jnp.asarray(before.first_batch()[0])
    key = jax.random.fold_in(before.inputs.key, 0)
    keys = jax.vmap(lambda position: jax.random.split(jax.random.fold_in(key, position))[1])(jnp.arange(len(images)))
    inner = before.phase.settings.method.inner
    start = ball.random_start(images, keys, inner.threat.epsilon, start=inner.start, threat=inner.threat)
    after = training.prepare(config)
    after.run(after.lower().compile())
    return before, weights, after, torch.from_numpy(np.array((start - images).transpose(0, 3, 1, 2)))


@pytest.mark.slow
@pytest.mark.parametrize(("form", "dtype"), FORMS, ids=str)
def test_one_step_gives_the_same_loss_and_the_same_network(both, form, dtype):
    before, weights, after, noise = both
    step, images, labels = torch_step.moved(before, "small_resnet", form=form, dtype=dtype, compiling=False)
    value = float(step(images, labels, noise))
    sums = jax.device_get(after.state.sums)
    np.testing.assert_allclose(value, sums["loss"] / sums["examples"], rtol=1e-5)
    theirs, moved = step.network.state_dict(), 0.0
    started = torch_networks.flattened(weights.params)
    for name, ours in torch_networks.flattened(after.state.weights.params).items():
        np.testing.assert_allclose(theirs[name].numpy(), ours.numpy(), rtol=0, atol=2e-5, err_msg=name)
        moved = max(moved, float((ours - started[name]).abs().max()))
    assert moved > 1e-2, "the update is to be far larger than the tolerance"
    for name, ours in torch_networks.flattened(after.state.weights.batch_stats).items():
        if name.endswith("running_mean"):  # another estimate, see ltrobust/models/layers.py
            np.testing.assert_allclose(theirs[name].numpy(), ours.numpy(), rtol=0, atol=1e-5, err_msg=name)


def test_a_wide_network_has_the_same_arrays_and_answers():
    module = models.create("wrn_10_1", num_classes=10)
    params, batch_stats = models.initialise(module, jax.random.key(0), (8, 8, 3))
    network = torch_networks.load(torch_networks.create("wrn_10_1", channels=3), params, batch_stats).eval()
    images = jax.random.uniform(jax.random.key(1), (2, 8, 8, 3))
    ours = models.forward(module, params, batch_stats, images, bn="eval")[0]
    theirs = network(torch.from_numpy(np.array(images.transpose(0, 3, 1, 2)))).detach()
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


def test_forms_that_do_not_exist_are_refused():
    network, recipe = torch_networks.create("wrn_10_1", channels=1), torch_step.Recipe("at_bsl", [1] * 10)
    with pytest.raises(ValueError, match="known: released or tuned at_bsl or self_distillation"):
        torch_step.Step(network, torch_step.Recipe("trades", [1] * 10), form="released")
    with pytest.raises(ValueError, match="released form is float32"):
        torch_step.Step(network, recipe, form="released", dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="no PyTorch network is called 'vgg'"):
        torch_networks.create("vgg", channels=3)
