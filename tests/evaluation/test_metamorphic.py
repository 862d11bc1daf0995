"""What may not change a measurement, and in which direction a radius may.

Names of classes, copies of images, a constant added to all logits, and in how many parts a test set is evaluated.
"""

import itertools

import jax
import jax.numpy as jnp
import linear
import numpy as np
import pytest

import ltrobust
from ltrobust import Threat
from ltrobust.analysis import metrics

ROWS = np.arange(0, 1000, 17)
FIRST, SECOND = (0.4 * jax.random.normal(jax.random.key(n), shape) for n, shape in enumerate([(192, 24), (24, 10)]))


def hidden(images):
    """A smooth network with a hidden layer, before its last layer."""
    return jnp.tanh((images - 0.5).transpose(0, 3, 1, 2).reshape(len(images), -1) @ FIRST)


def network(images):
    return 8 * hidden(images) @ SECOND


def measured(logits_fn, images, labels, *, protocol="quick", radius=8.0, **options):
    return ltrobust.evaluate(
        logits_fn, images, labels, protocol=protocol, threat=Threat("linf", radius), progress=False, **options
    )


@pytest.fixture(scope="module")
def images():
    return linear.fixture().images[ROWS]


@pytest.fixture(scope="module")
def labels(images):
    return np.asarray(jax.jit(network)(images)).argmax(axis=1)


@pytest.fixture(scope="module", params=[0.5, 1.0])
def radius(request):
    """Radii, in 1/255, at which some images are robust and some are not."""
    return request.param


def table(result, column):
    counts = result.counts(column)
    return np.stack([counts.correct, counts.total], axis=1)


@pytest.mark.slow
def test_permuted_classes_permute_the_table(images, labels, radius):
    """Class numbers are names: another order gives the same rows in the other order, and the same summaries."""
    order = np.random.RandomState(0).permutation(10)  # new class k is old class order[k]
    renamed = np.argsort(order)
    before = measured(network, images, labels, radius=radius)
    after = measured(lambda x: network(x)[:, order], images, renamed[labels], radius=radius)
    assert before.columns == after.columns
    robust = table(before, before.protocol.headline)[:, 0]
    assert 0 < robust.sum() < len(images)
    for column in before.columns:
        np.testing.assert_array_equal(table(after, column), table(before, column)[order])
        np.testing.assert_array_equal(order[after.final_predictions(column)], before.final_predictions(column))
    training_counts = np.arange(100, 0, -10)
    first, second = (
        metrics.views(result.counts(result.protocol.headline), counts)
        for result, counts in ((before, training_counts), (after, training_counts[order]))
    )
    for view in ("overall", "balanced", "head_third", "medium_third", "tail_third", "rarest1"):
        assert first[view]["value"] == pytest.approx(second[view]["value"], abs=1e-12), view
    assert first["worst"]["value"] == second["worst"]["value"]


@pytest.mark.slow
def test_copies_of_images_change_no_accuracy(images, labels, radius):
    """Twice the images are twice the counts, for the clean images and for an attack without draws.

    Draws are keyed by ids, which are unique; an attack with draws treats a copy as another image.
    """
    once = measured(network, images, labels, radius=radius)
    copies = np.concatenate([images, images])
    twice = measured(network, copies, np.tile(labels, 2), radius=radius, batch_size=50)
    assert 0 < table(once, "fgsm")[:, 0].sum() < len(images)
    for column in ("clean", "fgsm"):
        np.testing.assert_array_equal(table(twice, column), 2 * table(once, column))
        first, second = np.split(twice.correct(column), 2)
        np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_a_constant_added_to_all_logits_changes_nothing(images, labels):
    before = measured(network, images, labels, radius=1.0)
    after = measured(lambda x: network(x) + 4, images, labels, radius=1.0)
    assert 0 < before.robust.sum() < len(images)
    for column, predictions in before.predictions.items():
        np.testing.assert_array_equal(after.predictions[column], predictions)
    for attack, record in before.records.items():
        np.testing.assert_allclose(after.records[attack]["margin"], record["margin"], atol=1e-3)


@pytest.mark.slow
def test_parts_of_a_test_set_add_up_to_the_whole(images, labels):
    """Draws are keyed by ids, so two evaluations of the halves are one evaluation of the whole, image by image."""
    whole = measured(network, images, labels, radius=1.0)
    ids, half = np.arange(len(images)), len(images) // 2
    parts = [
        measured(network, images[rows], labels[rows], radius=1.0, ids=ids[rows])
        for rows in (slice(0, half), slice(half, None))
    ]
    for column in whole.columns:
        np.testing.assert_array_equal(table(parts[0], column) + table(parts[1], column), table(whole, column))
        joined = np.concatenate([part.correct(column) for part in parts])
        np.testing.assert_array_equal(joined, whole.correct(column))


@pytest.mark.slow
def test_no_larger_radius_makes_an_image_robust_again():
    """On a linear network, where an attack of more steps than it needs ends in a corner of the ball.

    Not `lsa20`, whose loss weighs the classes again at every point, and which therefore turns around.
    """
    images, labels = linear.fixture().images[ROWS], linear.fixture().labels[ROWS]
    weights = linear.fixture().weights
    robust = []
    for radius in (2.0, 5.0, 8.0, 11.0, 16.0):
        result = measured(lambda x: linear.apply(weights, x), images, labels, radius=radius)
        robust.append({column: result.correct(column) for column in result.columns})
    assert len({int(columns["worst"].sum()) for columns in robust}) > 3
    for smaller, larger in itertools.pairwise(robust):
        for column in ("fgsm", "pgd20", "cw20_k50", "worst"):
            assert not np.any(larger[column] & ~smaller[column]), column
