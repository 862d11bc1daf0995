"""Square's start and its proposals, from the addresses of their draws, in plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltrobust.attacks import search
from ltrobust.attacks.algorithms import square
from ltrobust.threat import Threat


@pytest.mark.parametrize(
    ("height", "width", "top", "left"),
    [
        (16, 18, 0, 0),  # 5 x 6 tiles, and one row of pixels below
        (18, 17, 0, 1),  # 6 x 5, and one column on each side
        (20, 16, 1, 0),  # 6 x 5, and one row above, one row below, one column to the right
    ],
)
def test_the_l2_start_is_a_tile_of_bumps_in_each_cell_and_nothing_around_them(height, width, top, left):
    radius, side, tiles = 0.3, 3, (height // 3, width // 3)
    image = jax.random.uniform(jax.random.key(3), (height, width, 2))
    chosen = square.settings(radius=radius, image_shape=(height, width, 2), norm="l2")
    pattern = square.bumps(jnp.int32(side), jnp.int32(0), jnp.int32(0), jnp.array(True), (side, side))
    pattern = np.asarray(pattern, np.float64)
    for number in range(3):
        key = jax.random.key(number)
        problem = search.Problem(image, jnp.int32(0), jnp.zeros(2), key)
        result = jax.jit(lambda problem: square.start(problem, chosen, Threat("l2")).point)(problem)
        draw = np.asarray(jax.random.uniform(jax.random.fold_in(key, 0), (*tiles, 1, 1, 3)))[:, :, 0, 0]
        delta = np.zeros((height, width, 2))
        for down, across in np.ndindex(tiles):
            tile = pattern if draw[down, across, 0] < 0.5 else pattern.T
            signs = np.where(draw[down, across, 1:] < 0.5, -1, 1)
            delta[top + down * side :, left + across * side :][:side, :side] = tile[..., None] * signs
        expected = np.clip(np.asarray(image) + radius * delta / np.sqrt(np.sum(delta**2)), 0, 1)
        np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize(("query", "upper", "radius"), [(0, 1, 0.1), (7, 1, 0.1), (7, 10, 2)])
def test_linf_proposals_are_the_published_update(query, upper, radius):
    size, side, threat = (9, 8, 3), 3, Threat(upper=upper)
    image = jax.random.uniform(jax.random.key(3), size, maxval=upper)
    best = jnp.clip(image + radius * jax.random.uniform(jax.random.key(4), size, minval=-1), 0, upper)
    chosen = square.settings(radius=radius, image_shape=size) | {"sides": jnp.full(10, side)}

    @jax.jit
    def proposed(key):
        problem = search.Problem(image, jnp.int32(0), jnp.zeros(2), key)
        state = square.start(problem, chosen, threat)._replace(point=best, query=jnp.int32(query))
        answer = search.Answer(jnp.array([1.0, 0.0]), jnp.float32(0), None)
        return square.advance(problem, state, chosen, threat, answer).point

    corners = set()
    for number in range(12):
        key = jax.random.key(number)
        # Proposal q, from 1, draws from the key folded with q.
        draw = np.asarray(jax.random.uniform(jax.random.fold_in(key, query + 1), (5,)), np.float64)
        row, column = int(draw[0] * (9 - side)), int(draw[1] * (8 - side))
        expected = np.array(best)
        expected[row : row + side, column : column + side] += 2 * radius * np.where(draw[2:] < 0.5, -1, 1)
        expected = np.clip(expected, np.asarray(image) - radius, np.asarray(image) + radius).clip(0, upper)
        np.testing.assert_allclose(proposed(key), expected, atol=1e-6)
        corners.add((row, column))
    assert len(corners) > 6
