"""The training step: device count, the contract's hooks, and what may not change."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import planned
import pytest
from jax.sharding import Mesh
from one_phase import assert_close, mesh_of, prepared
from toy_methods import class_wise

from ltrobust import methods
from ltrobust.evaluation import protocols
from ltrobust.evaluator import make_evaluator
from ltrobust.methods import Method
from ltrobust.models import forward
from ltrobust.training import devices, loop
from ltrobust.training.state import TrainState


def trained(
    config: Any, name: str, mesh: Mesh, count: int = 1, method: Method | None = None, stages: int = 1
) -> TrainState:
    return prepared(config, name, mesh, method, stages=stages).run(count)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["teacher", "student"])
def test_several_devices_train_like_one(tiny, name):
    # Sign gradients amplify rounding, so few attack steps and few updates are compared.
    with tiny.unlocked():
        tiny[name].attack.steps = 1
    # The second stage has a stride and a projected shortcut.
    stages = 2 if name == "student" else 1
    one = trained(tiny, name, mesh_of(1), count=2, stages=stages)
    several = trained(tiny, name, devices.make_mesh(jax.devices()), count=2, stages=stages)
    assert_close(one.weights, several.weights, 2e-4)
    assert_close(one.sums, several.sums, 2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["reat", "taet"])
def test_class_quantities_are_those_of_the_whole_batch(tiny, method):
    with tiny.unlocked():
        tiny.student.method = method
        tiny.student.attack.steps = 0  # the quantities belong to the loss
        tiny.methods.taet.clean_fraction = 0.0
    one = trained(tiny, "student", mesh_of(1), count=1)
    two = trained(tiny, "student", mesh_of(2), count=1)
    assert_close(one.weights, two.weights, 2e-4)
    assert_close(one.sums, two.sums, 2e-3)
    jax.tree.map(np.testing.assert_array_equal, one.method_state, jax.device_get(two.method_state))


@pytest.mark.slow
def test_the_state_of_methods_is_that_of_the_whole_batch(tiny):
    with tiny.unlocked():
        tiny.student.method = "mtard"
        tiny.student.wrappers = ("fair_ard",)
        tiny.student.attack.steps = 1
    one = trained(tiny, "student", mesh_of(1), count=2)
    two = trained(tiny, "student", mesh_of(2), count=2)
    assert_close(one.weights, two.weights, 2e-4)
    assert_close(one.method_state, two.method_state, 2e-3)
    # One attack step for each of 2 x 64 images; the two losses are no longer where they began.
    assert float(one.method_state["seen"].sum()) == 128
    assert 0 < float(one.method_state["tally"].sum()) < 128
    assert float(one.method_state["method"]["clean_weight"]) != 0.5


@pytest.mark.slow
def test_without_synchronised_statistics_devices_differ_from_one(tiny):
    with tiny.unlocked():
        tiny.model.sync_batch_norm = False
    one = trained(tiny, "student", mesh_of(1), count=1, stages=2)
    several = trained(tiny, "student", devices.make_mesh(jax.devices()), count=1, stages=2)
    difference = jax.tree.map(lambda a, b: float(jnp.abs(a - jax.device_get(b)).max()), one.weights, several.weights)
    assert max(jax.tree.leaves(difference)) > 1e-3
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(several.weights))


@pytest.mark.slow
def test_one_stretch_is_the_same_bits_as_many(tiny):
    given = prepared(tiny, "student", mesh_of(1))
    chunk, state = given.compile(), given.state
    copy = devices.replicate(state, given.mesh)
    whole = chunk(copy, given.inputs, given.order(0, 5), jnp.int32(5), jnp.int32(1))
    for first, count in ((0, 1), (1, 3), (4, 1)):
        state = chunk(state, given.inputs, given.order(first, count), jnp.int32(count), jnp.int32(1))
    jax.tree.map(np.testing.assert_array_equal, whole, state)


@pytest.mark.slow
def test_a_stretch_stops_at_the_first_loss_that_is_not_finite(tiny):
    given = prepared(tiny, "student", mesh_of(1))
    weights = given.state.weights
    broken = dataclasses.replace(weights, params=jax.tree.map(lambda leaf: leaf * jnp.nan, weights.params))
    state = given._replace(state=dataclasses.replace(given.state, weights=broken)).run(4)
    assert int(state.bad_step) == 0
    assert int(state.step) == 1


@pytest.mark.slow
def test_averaged_weights_follow_the_formula(tiny):
    with tiny.unlocked():
        tiny.student.ema_decay = 0.9
    given = prepared(tiny, "student", mesh_of(1))
    before = jax.device_get(given.state.weights)
    after = given.run(1)
    expected = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, before, jax.device_get(after.weights))
    assert after.averaged is not None
    assert_close(after.averaged, expected, 1e-6)


@pytest.mark.slow
def test_weight_perturbation_can_be_wrapped_around_any_method(tiny):
    mesh = mesh_of(1)
    base = planned.make_method(tiny, "teacher")
    plain = trained(tiny, "teacher", mesh, count=1, method=base)
    unmoved = trained(tiny, "teacher", mesh, count=1, method=methods.wrap(base, "awp", gamma=0.0))
    moved = trained(tiny, "teacher", mesh, count=1, method=methods.wrap(base, "awp", gamma=0.05))
    assert_close(plain.weights, unmoved.weights, 1e-5)
    difference = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), plain.weights.params, moved.weights.params)
    assert max(jax.tree.leaves(difference)) > 1e-5


@pytest.mark.slow
def test_a_perturbation_is_taken_back_after_the_update(tiny):
    with tiny.unlocked():
        tiny.student.optimizer.learning_rate = 1e-12
        tiny.student.optimizer.weight_decay = 0.0
        tiny.student.method = "at_bsl"
        tiny.student.wrappers = ("awp", "robust_lt")
        tiny.methods.awp.gamma = 0.05
        tiny.methods.awp.direction = "optimizer"
        tiny.methods.robust_lt.ramp = 0.0
    mesh = mesh_of(1)
    assert planned.make_method(tiny, "student").name == "at_bsl+awp+robust_lt"
    given = prepared(tiny, "student", mesh)
    before = jax.device_get(given.state.weights.params)
    after = given.run(1)
    assert_close(before, after.weights.params, 1e-6)


@pytest.mark.slow
def test_state_radii_observation_and_epoch_end_need_no_edit_of_the_loop(tiny):
    mesh = mesh_of(1)
    method = class_wise(planned.make_method(tiny, "student"))
    ends = []

    def end_epoch(learner, observed):
        ends.append(jax.device_get((learner.params, learner.batch_stats)))
        return class_wise_end(learner, observed)

    class_wise_end = method.end_epoch
    # The first epoch's weights are copied; the second one's half count.
    method = dataclasses.replace(method, end_epoch=end_epoch, averaging=lambda state: (state["epochs"] - 1) / 2)
    phase, run_data, _, _, inputs = prepared(tiny, "student", mesh, method)
    module = phase.settings.module
    evaluator = make_evaluator(
        lambda weights, images: forward(module, weights.params, weights.batch_stats, images, bn="eval")[0],
        protocol=protocols.get("validation"),
        threat=planned.make_threat(tiny),
        num_classes=10,
        batch_size=64,
    )
    records = []
    services = loop.Services(evaluator=evaluator, record=records.append)
    state, selection = loop.run_phase(phase, run_data, mesh=mesh, teachers=inputs.teachers, services=services)
    assert int(state.method_state["epochs"]) == 2
    mean = jax.tree.map(lambda first, second: (first + second) / 2, *ends)
    jax.tree.map(np.testing.assert_allclose, (state.averaged.params, state.averaged.batch_stats), mean)
    np.testing.assert_allclose(state.method_state["scale"], 0.25, rtol=1e-5)
    np.testing.assert_allclose(state.method_state["label"], np.arange(10))
    assert int(selection.epoch) > 0
    assert [record["epoch"] for record in records] == [1, 2]


def _outcome(**changes):
    """A loss that is PGD-AT's but for what it leaves behind."""

    def broken(loss):
        def changed(learner, batch, adv):
            value, outcome = loss(learner, batch, adv)
            given = {name: change(learner, batch, value, outcome) for name, change in changes.items()}
            return given.pop("value", value), dataclasses.replace(outcome, **given)

        return changed

    return broken


BROKEN = {
    r"the shape of its loss is \(1,\); give a scalar": _outcome(
        value=lambda learner, batch, value, outcome: value[None]
    ),
    r"the shape of metric 'halves' is \(2,\); give a scalar": _outcome(metrics=lambda *_: {"halves": jnp.zeros(2)}),
    "a metric is called 'loss', .* give it another name than examples, loss, ": _outcome(
        metrics=lambda *_: {"loss": jnp.float32(0)}
    ),
    r"changed method_state\['new'\] from nothing to float32\[\]; return what was given": _outcome(
        method_state=lambda *_: {"new": jnp.float32(0)}
    ),
    r"changed method_state from PyTreeDef\({}\) to PyTreeDef\(\(\)\)": _outcome(method_state=lambda *_: ()),
    r"changed batch_stats\[.*\] from float32\[4\] to nothing": _outcome(batch_stats=lambda *_: {}),
    r"changed batch_stats\[.*\] from float32\[4\] to float16\[4\]": _outcome(
        batch_stats=lambda learner, *_: jax.tree.map(lambda leaf: leaf.astype(jnp.float16), learner.batch_stats)
    ),
    r"the shape of Outcome.adv_logits is \(3, 10\); give \(32, 10\)": _outcome(
        adv_logits=lambda learner, batch, value, outcome: outcome.adv_logits[:3]
    ),
    "its loss returns a .*Tracer; give a scalar and an Outcome": lambda loss: lambda *given: loss(*given)[0],
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_loss_that_breaks_the_contract_is_named_before_anything_is_compiled(tiny, what):
    pgd_at = planned.make_method(tiny, "teacher")
    with pytest.raises(ValueError, match=rf"^method 'pgd_at': .*{what}"):
        trained(
            tiny,
            "teacher",
            devices.make_mesh(jax.devices()),
            method=dataclasses.replace(pgd_at, loss=BROKEN[what](pgd_at.loss)),
        )


OWN = {"examples", "loss", "robust_correct"}
RECORDED = {
    ("pgd_at", ()): set(),
    ("trades", ("cfa", "awp")): {"clean_loss", "robust_loss"},
    ("self_distillation", ()): {"label_loss", "logit_loss", "igdm_loss", "teacher_peak"},
    ("ard", ("fair_ard", "igdm")): {"kl_loss", "label_loss", "igdm_loss", "teacher_peak"},
    ("mtard", ()): {"adv_loss", "clean_loss", "clean_weight"},
}


@pytest.mark.parametrize(("name", "wrappers"), RECORDED, ids=str)
@pytest.mark.parametrize("count", [1, 2])
def test_recorded_metrics_are_those_that_the_loss_returns(tiny, name, wrappers, count):
    with tiny.unlocked():
        tiny.student.method, tiny.student.wrappers = name, wrappers
    sums = prepared(tiny, "student", mesh_of(count)).state.sums
    assert set(sums) == OWN | RECORDED[name, wrappers]
    assert not any(float(value) for value in sums.values())


@pytest.mark.slow
def test_a_metric_of_a_users_loss_is_recorded_without_being_declared(tiny):
    """Its batch mean, over all devices."""
    labels = _outcome(metrics=lambda learner, batch, *_: {"mean_label": jnp.mean(batch.labels.astype(jnp.float32))})
    pgd_at = planned.make_method(tiny, "teacher")
    method = dataclasses.replace(pgd_at, loss=labels(pgd_at.loss))
    given = prepared(tiny, "teacher", mesh_of(2), method)
    rows = np.asarray(given.order(0, 1))[0]
    expected = np.asarray(given.inputs.data.labels)[rows].mean()
    sums = given.run(1).sums
    np.testing.assert_allclose(sums["mean_label"] / sums["examples"], expected, rtol=1e-6)


def test_an_attack_of_another_shape_is_named_before_anything_is_compiled(tiny):
    pgd_at = planned.make_method(tiny, "teacher")
    cropped = dataclasses.replace(pgd_at, attack=lambda learner, batch: batch.images[:, 1:])
    with pytest.raises(ValueError, match=r"method 'pgd_at': the shape of adversarial images is \(32, 7, 8, 1\); give"):
        trained(tiny, "teacher", devices.make_mesh(jax.devices()), method=cropped)


def test_batches_that_do_not_divide_over_the_devices_are_refused(tiny):
    with tiny.unlocked():
        tiny.student.batch_size = 62
    with pytest.raises(ValueError, match=r"student.batch_size is 62.*4 devices; use a multiple of 4"):
        planned.make_phase(tiny, "student", planned.load_run_data(tiny), devices.make_mesh(jax.devices()))
