"""`ltrobust.evaluate` on whatever arrays: verdicts that agree with the closed form, or a message."""

import jax
import jax.numpy as jnp
import numpy as np
from budget import says, tries
from hypothesis import given
from hypothesis import strategies as st

import ltrobust
from ltrobust.evaluation import protocols
from ltrobust.evaluator import make_evaluator

SHAPES = ((3, 2, 1), (2, 2, 3))
# The smallest batch on a CPU: more images, in other batches, are other rounds of one program.
SHORT = protocols.Protocol("short", (protocols.PGD20,))


def logits(weights: jax.Array, images: jax.Array) -> jax.Array:
    return images.reshape(len(images), -1) @ weights


EVALUATORS = {}


def evaluator(classes: int, batch_size: int):
    """Programs are compiled once for a number of classes and lanes."""
    key = classes, -(-batch_size // 64)
    if key not in EVALUATORS:
        EVALUATORS[key] = make_evaluator(
            logits, protocol=SHORT, threat=ltrobust.Threat(radius=20), num_classes=classes, batch_size=batch_size
        )
    return EVALUATORS[key]


@st.composite
def arguments(draw):
    """Images, labels, ids and a number of classes, each mostly as it should be."""
    number, classes, shape = draw(st.integers(1, 9)), draw(st.sampled_from([2, 5, 12])), draw(st.sampled_from(SHAPES))
    random = np.random.RandomState(draw(st.integers(0, 99)))
    images = random.randint(0, 256, (number, *shape)).astype(np.uint8)
    images = draw(
        st.sampled_from(
            [
                images,
                images.astype(np.float32) / np.float32(255),
                images.astype(np.float32) / np.float32(255),
                images.astype(np.float32),
                images / 255,
                images.astype(np.int64),
                (images / 255).astype(np.float16),
                np.full(images.shape, np.nan, np.float32),
                images[..., 0],
                images[:0],
                images > 128,
            ]
        )
    )
    labels = random.randint(0, classes + draw(st.integers(0, 1)) * draw(st.integers(0, 1)), number)
    labels = draw(
        st.sampled_from(
            [
                labels,
                labels,
                labels.astype(np.uint8),
                labels.astype(float),
                labels - 1,
                labels[1:],
                labels[:, None],
                None,
            ]
        )
    )
    ids = draw(
        st.sampled_from([None, None, np.arange(number), np.arange(number) + 2**32 - 3, np.zeros(number, int), [0.5]])
    )
    return images, labels, ids, classes


@tries(60)
@given(arguments(), st.integers(1, 130))
def test_verdicts_or_a_message(given_arguments, batch_size):
    images, labels, ids, classes = given_arguments
    features = int(np.prod(images.shape[1:]))
    weights = np.random.RandomState(1).randn(features, classes).astype(np.float32)
    try:
        result = evaluator(classes, batch_size)(weights, images, labels, ids=ids)
    except ValueError as error:
        says(error, "images", "labels", "ids", "id ")
        return
    assert images.dtype in (np.uint8, np.float32)
    pixels = images.astype(np.float32) / np.float32(255) if images.dtype == np.uint8 else images
    clean = np.argmax(np.asarray(logits(jnp.asarray(weights), jnp.asarray(pixels))), axis=1)
    np.testing.assert_array_equal(result.clean, clean == labels)
    assert not np.any(result.robust & ~result.clean)
    assert result.max_violation <= 1e-6
    # A linear network's margin falls by at most the radius times the length of the difference of two weight vectors.
    scores = pixels.reshape(len(pixels), -1).astype(float) @ weights.astype(float)
    rows = np.arange(len(labels))
    gaps = scores[rows, labels][:, None] - scores
    reach = 20 / 255 * np.abs(weights.T[labels][:, None] - weights.T[None]).sum(axis=2)
    certain = np.all((gaps > reach + 1e-4) | (np.arange(classes) == np.asarray(labels)[:, None]), axis=1)
    assert not np.any(certain & ~result.robust)


@tries(60)
@given(st.sampled_from(["quick", "short", "", None]), st.sampled_from([-1, 0, 1, 2**31, 1.5, None, "8"]), st.data())
def test_settings_of_the_public_entry(protocol, batch_size, data):
    """Nothing is compiled: the network has one class, which is refused last."""
    seed = data.draw(st.sampled_from([0, -1, 2**40, 1.5, None, "0"]))
    images, labels = np.zeros((2, 2, 2, 1), np.uint8), np.zeros(2, int)
    try:
        ltrobust.evaluate(
            lambda points: points.reshape(len(points), -1)[:, :1],
            images,
            labels,
            protocol=protocol,
            batch_size=batch_size,
            seed=seed,
            progress=False,
        )
    except ValueError as error:
        says(error, "protocol", "batch_size", "seed", "class")
    else:
        raise AssertionError("a network of one class was evaluated")
