"""Evaluation: verdicts belong to images, not to batches; exact answers on a linear model; errors before numbers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear import apply, exactly_robust, fixture

from ltrobust.evaluation import protocols
from ltrobust.evaluation.protocols import Pgd, Protocol
from ltrobust.evaluator import make_evaluator
from ltrobust.threat import Threat


@pytest.fixture(scope="module")
def linear():
    return fixture()


@functools.cache
def evaluator(protocol: str | Protocol = "quick", batch_size: int = 64, apply=apply, **settings):
    protocol = protocols.get(protocol) if isinstance(protocol, str) else protocol
    settings = {"threat": Threat(), "num_classes": 10} | settings
    return make_evaluator(apply, protocol=protocol, batch_size=batch_size, **settings)


def test_the_fixture_is_the_recorded_one():
    assert exactly_robust(8).reshape(10, 100).sum(1).tolist() == [69, 53, 83, 73, 68, 23, 46, 79, 61, 67]


@pytest.fixture(scope="module")
def quick(linear):
    return evaluator(batch_size=250)(*linear)


def test_quick_on_the_linear_model_has_the_recorded_accuracies(linear, quick):
    exact = exactly_robust(8)
    accuracy = {column: 100 * quick.correct(column).mean() for column in quick.columns}
    assert accuracy["clean"] == 100
    # Recorded with another generator's starts: single images may fall on either side.
    assert accuracy["pgd20"] == pytest.approx(64.6, abs=0.7)
    assert accuracy["cw20_k50"] == pytest.approx(64.1, abs=0.7)
    assert accuracy["lsa20"] == pytest.approx(70.3, abs=0.7)
    for column in quick.columns[1:]:
        assert not np.any(~quick.correct(column) & exact), "an attack broke an exactly robust image"


def test_worst_is_the_per_image_worst_of_the_named_attacks(quick):
    both = quick.correct("pgd20") & quick.correct("cw20_k50") & quick.correct("lsa20")
    np.testing.assert_array_equal(quick.correct("worst"), both)
    assert quick.columns == ("clean", "fgsm", "pgd20", "cw20_k50", "lsa20", "worst")


def test_attacks_whose_names_differ_behind_an_at_start_alike(linear):
    weights, images, labels = linear
    one = Pgd("pgd", "ce", steps=1, step=1 / 8, start="uniform_raw")
    alike, other = dataclasses.replace(one, name="pgd@1", loss="tempered"), dataclasses.replace(one, name="other")
    result = evaluator(Protocol("starts", (one, alike, other)), 64)(weights, images[::20], labels[::20]).records
    margins = {name: record["margin"] for name, record in result.items()}
    np.testing.assert_allclose(margins["pgd@1"], margins["pgd"], atol=1e-4)
    assert np.mean(np.abs(margins["other"] - margins["pgd"]) > 1e-2) > 0.5


@pytest.mark.parametrize("batch_size", [7, 64, 1000])
def test_verdicts_do_not_depend_on_batch_size(linear, quick, batch_size):
    weights, images, labels = linear
    rows = np.arange(0, 1000, 11)
    result = evaluator(batch_size=batch_size)(weights, images[rows], labels[rows], ids=rows)
    for column, predictions in result.predictions.items():
        np.testing.assert_array_equal(predictions, quick.predictions[column][rows])


def test_verdicts_follow_the_images_through_a_shuffle(linear, quick):
    weights, images, labels = linear
    rows = np.random.RandomState(3).permutation(1000)[:300]
    result = evaluator()(weights, images[rows], labels[rows], ids=rows)
    for column, predictions in result.predictions.items():
        np.testing.assert_array_equal(predictions, quick.predictions[column][rows])


def test_starts_differ_between_seeds(linear):
    weights, images, labels = linear
    halfway = Protocol("halfway", (Pgd("start", "ce", steps=1, step=0.0, start="uniform"),))
    # At this radius a random start alone changes some predictions, and other seeds change others.
    first, again, second = (
        evaluator(halfway, threat=Threat(radius=128), seed=seed)(weights, images, labels) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.predictions["start"], again.predictions["start"])
    assert np.any(first.predictions["start"] != second.predictions["start"])


def test_every_image_is_counted_once_and_wrong_ones_are_never_attacked(linear):
    weights, images, labels = linear
    wrong = (labels + 1) % 10
    mixed = np.where(np.arange(1000) % 2, labels, wrong)
    result = evaluator()(weights, images, mixed)
    counts = result.counts("pgd20")
    assert counts.total.sum() == 1000
    assert counts.correct.sum() <= 500
    attacked = result.predictions["pgd20"] != result.predictions["clean"]
    assert not np.any(attacked[result.predictions["clean"] != mixed])
    nothing_right = evaluator()(weights, images, wrong)
    assert nothing_right.counts("worst").correct.sum() == 0


def test_a_single_image_and_uint8_pixels(linear):
    weights, images, labels = linear
    pixels = np.round(255 * images[:3]).astype(np.uint8)
    result = evaluator(batch_size=64)(weights, pixels, labels[:3])
    same = evaluator(batch_size=64)(weights, pixels.astype(np.float32) / np.float32(255), labels[:3])
    for column in result.predictions:
        np.testing.assert_array_equal(result.predictions[column], same.predictions[column])
    assert len(evaluator(batch_size=64)(weights, pixels[:1], labels[:1]).correct("worst")) == 1


def test_several_devices_give_the_same_verdicts(linear, quick):
    from ltrobust.training import devices

    where = devices.sharding(devices.make_mesh(jax.devices()[:2]), devices.divided())
    weights, images, labels = linear
    rows = np.arange(0, 1000, 13)
    result = evaluator(batch_size=16, place=lambda batch: jax.device_put(batch, where), devices=2)(
        weights, images[rows], labels[rows], ids=rows
    )
    for column, predictions in result.predictions.items():
        np.testing.assert_array_equal(predictions, quick.predictions[column][rows])


@pytest.mark.parametrize("number", [1, 2])
def test_the_exact_network_is_compiled_once_for_clean_and_adversarial_images(linear, number):
    from ltrobust.training import devices

    compiled = []

    def listen(event, duration_secs, **details):
        del duration_secs
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(details["fun_name"])

    where = devices.sharding(devices.make_mesh(jax.devices()[:number]), devices.divided())
    weights, images, labels = linear
    evaluate = evaluator.__wrapped__("validation", place=lambda batch: jax.device_put(batch, where), devices=number)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        evaluate(weights, images[::20], labels[::20])
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled.count("jit(judge)") == 1
    assert compiled.count("jit(run)") == 1  # the attack itself: what is compiled is heard


def test_verdicts_are_those_of_the_exact_network(linear):
    weights, images, labels = linear
    result = evaluator(exact_apply=lambda w, x: -apply(w, x))(weights, images[:50], labels[:50])
    assert result.correct("clean").sum() == 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": np.full((4, 8, 8, 3), 2, np.float32)}, ValueError, "lie in"),
        ({"images": np.zeros((4, 8, 8, 3))}, ValueError, "float64"),
        ({"labels": np.array([0, 1, 2])}, ValueError, r"integers \[4\]"),
        ({"labels": np.array([0.0, 1, 2, 3])}, ValueError, "float64"),
        ({"labels": np.array([0, 1, 2, 10])}, ValueError, "10 classes allow 0 to 9"),
        ({"weights": np.zeros((7, 192), np.float32)}, ValueError, r"logits \[\d+, 7\], but the data have 10"),
        ({"weights": np.full((10, 192), np.nan, np.float32)}, FloatingPointError, "NaN logits"),
    ],
)
def test_errors(linear, change, error, message):
    weights, images, labels = linear
    given = {"weights": weights, "images": images[:4], "labels": labels[:4]} | change
    with pytest.raises(error, match=message):
        evaluator()(given["weights"], given["images"], given["labels"])


def test_an_attack_that_leaves_the_ball_stops_the_evaluation(linear, monkeypatch):
    from ltrobust.attacks import ball

    monkeypatch.setattr(ball, "project", lambda points, images, radius, threat: jnp.minimum(images + 0.0317, 1.0))
    with pytest.raises(FloatingPointError, match="left its ball"):
        evaluator.__wrapped__()(*linear)


def test_protocols_are_frozen_and_unknown_ones_are_refused():
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocols.get("quick").name = "AutoAttack"  # pyright: ignore
    with pytest.raises(ValueError, match="known protocols: validation, quick, standard"):
        protocols.get("autoattack")
