"""What is refused before an attack begins, what on the limits is not, and the advice that fits."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltrobust.attacks import ball, inputs, search
from ltrobust.threat import Threat


def refusal(function, *arguments) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the caller looks at the message
        function(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("labels", "advice"),
    [
        (np.array([0, 3]), "Every label needs a logit of the network."),
        (np.array([1, 4]), "Every label needs a logit of the network."),
        (np.array([-1, 3]), "Every label needs a logit of the network."),
        (np.array([1, 3]), "Labels count from 0: use labels - 1."),
        (np.eye(3)[:2], "float64 [2, 3]. One-hot labels become classes by labels.argmax(axis=1)."),
        (np.array([[0], [1]]), "int64 [2, 1]. Use labels[:, 0]."),
        (np.array([0.0, 1.0]), "float64 [2]. Use labels.astype(int)."),
        (np.array(["cat", "dog"]), "<U3 [2]. Give the position of each name in the order of the logits."),
        (np.array([True, False]), "bool [2]."),
        (np.array([0, 1, 2]), "int64 [3]."),
        (np.array([0.0, 1.0, 2.0]), "float64 [3]."),
        (np.zeros((2, 4)), "float64 [2, 4]."),
    ],
)
def test_labels_are_refused_with_the_advice_that_fits(labels, advice):
    assert refusal(inputs.check_labels, labels, 2, 3).endswith(advice)


def test_every_class_of_two_or_more_is_a_label():
    for labels in (np.array([0, 1], np.int8), np.array([1, 0], np.uint64), jnp.array([1, 1])):
        inputs.check_labels(labels, 2, 2)
    assert "1 class(es)" in refusal(inputs.check_labels, np.array([0, 0]), 2, 1)
    assert "[0]" in refusal(inputs.check_labels, np.array([], int), 0, 2)


@pytest.mark.parametrize(
    ("images", "upper", "advice"),
    [
        (np.full((1, 2, 2, 1), 200, np.uint8), 1, "use images.astype('float32') / 255."),
        (np.ones((1, 2, 2, 1), np.uint8), 1, "use images.astype('float32') / 255."),
        (np.full((1, 2, 2, 1), 200.0), 1, "use images.astype('float32') / 255."),
        (np.full((1, 2, 2, 1), 200.0), 255, "use images.astype('float32')."),
        (np.ones((1, 2, 2, 1)), 1, "use images.astype('float32')."),
        (np.ones((1, 2, 2, 1), bool), 1, "use images.astype('float32')."),
        (np.full((1, 2, 2, 1), np.nan, np.float32), 1, "Leave out what is not finite."),
        (np.full((1, 2, 2, 1), np.inf, np.float32), 1, "Leave out what is not finite."),
        (np.full((1, 2, 2, 1), -0.1, np.float32), 1, "put the normalisation inside of the network's function."),
        (np.full((1, 2, 2, 1), 1.1, np.float32), 1, "Divide pixels from 0 to 255 by 255."),
        (np.full((1, 2, 2, 1), 1 / 255, np.float32), 1, "divided by 255 twice? Pixels in [0,1] are needed."),
    ],
)
def test_images_are_refused_with_the_advice_that_fits(images, upper, advice):
    assert refusal(ball.check_images, images, Threat(upper=upper)).endswith(advice)


def test_types_of_traced_images_are_checked_and_their_values_are_not():
    for dtype, advice in ((jnp.uint8, " / 255."), (jnp.bfloat16, "('float32').")):
        traced = jax.ShapeDtypeStruct((1, 2, 2, 1), dtype)
        assert refusal(jax.eval_shape, lambda images: ball.check_images(images), traced).endswith(advice)
    jax.eval_shape(lambda images: ball.check_images(images), jax.ShapeDtypeStruct((1, 2, 2, 1), jnp.float32))


def test_images_on_the_bounds_pass():
    for value, upper in ((0, 1), (1, 1), (2 / 255, 1), (1 / 255, 2)):
        ball.check_images(np.full((1, 2, 2, 1), value, np.float32), Threat(upper=upper))
    ball.check_images(np.zeros((0, 2, 2, 1), np.float32))


def test_seeds_ids_and_counts_end_where_their_types_do():
    for seed in (0, 2**31 - 1):
        assert inputs.root_of(seed).shape == ()
    for seed in (True, 2**31, 2**40):
        assert refusal(inputs.root_of, seed).startswith(f"key is {seed!r}")
    assert "[2]" in refusal(inputs.root_of, jax.random.split(jax.random.key(0)))
    np.testing.assert_array_equal(inputs.ids_of(np.array([0, 2**32 - 1]), 2), np.array([0, 2**32 - 1], np.uint32))
    assert "4294967296" in refusal(inputs.ids_of, np.array([0, 2**32]), 2)
    for count in (1, 2**31 - 1):
        inputs.check_whole("steps", count)


def test_draws_are_addressed_by_the_name_before_an_at():
    for name, base in (("square", "square"), ("pgd20@5", "pgd20"), ("a@b@c", "a")):
        expected = jax.random.fold_in(jax.random.key(7), zlib.crc32(base.encode()))
        np.testing.assert_array_equal(
            jax.random.key_data(search.draws(7, name)), jax.random.key_data(expected), err_msg=name
        )


def test_functions_are_traced_and_what_they_give_is_described():
    def linear(images):
        return images.reshape(len(images), -1)[:, :4]

    shape = (2, 2, 1)
    assert inputs.count_classes(linear, shape) == 4
    for function, text in (
        (lambda images: (linear(images), images), "gives a tuple of 2;"),
        (lambda images: [linear(images)], "gives a list of 1;"),
        (lambda images: {"logits": linear(images), "features": images}, "gives a dict with features, logits;"),
        (lambda images: None, "gives a NoneType;"),
        (lambda images: images[:, 0, 0, 0], "gives [3] for images [3, 2, 2, 1];"),
        (lambda images: linear(images)[:1], "gives [1, 4] for images [3, 2, 2, 1];"),
        (lambda images: linear(images)[:, None], "gives [3, 1, 4] for images"),
        (lambda images: linear(images) > 0, "gives bool; return logits"),
        (np.asarray, "cannot be traced by JAX"),
        ("network", "is str, which cannot be called"),
    ):
        assert f"logits_fn {text}" in refusal(inputs.count_classes, function, shape)


def test_errors_of_the_function_itself_pass_through_with_a_note():
    def broken(images):
        raise KeyError("weights")

    with pytest.raises(KeyError) as caught:
        inputs.count_classes(broken, (2, 2, 1))
    note = "raised by logits_fn for images float32 [3, 2, 2, 1], [batch, height, width, channel]"
    assert note in caught.value.__notes__
