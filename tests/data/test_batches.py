"""Which example is in which batch: complete epochs, addressed order, honest padding, exact pixels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltrobust.data import batches
from ltrobust.data.batches import Schedule

KEY = jax.random.key(0)


def rows_of(schedule: Schedule, first: int, steps: int) -> np.ndarray:
    return batches.order(schedule, KEY, first, steps, lambda epoch: np.arange(schedule.examples))


def test_the_peers_numbers_of_batches():
    assert Schedule(13996, 128, "drop").first_step(1) == 109
    assert Schedule(13996, 128, "drop").first_step(100) == 10900
    # A 30-epoch teacher on 7,070 images sees 1,657 updates, on 1,000 images 234.
    assert Schedule(7070, 128, "carry").first_step(30) == 1657
    assert Schedule(1000, 128, "carry").first_step(30) == 234


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(0, 40), st.sampled_from(["drop", "carry"]), st.integers(1, 6))
def test_epochs_partition_the_steps(batch_size, more, remainder, epochs):
    schedule = Schedule(batch_size + more, batch_size, remainder)
    for epoch in range(epochs):
        first, last = schedule.first_step(epoch), schedule.first_step(epoch + 1) - 1
        assert first <= last
        assert schedule.epoch_of(first) == schedule.epoch_of(last) == epoch


@settings(deadline=None, max_examples=10)
@given(st.integers(2, 9), st.integers(0, 9), st.sampled_from(["drop", "carry"]))
def test_any_stretch_of_the_order_is_that_of_the_whole(batch_size, more, remainder):
    schedule = Schedule(batch_size + more, batch_size, remainder)
    whole = rows_of(schedule, 0, 12)
    np.testing.assert_array_equal(rows_of(schedule, 5, 4), whole[5:9])


def test_carry_visits_every_example_once_an_epoch():
    seen = rows_of(Schedule(10, 4, "carry"), 0, 5).reshape(-1)
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()


def test_drop_never_repeats_within_an_epoch():
    rows = rows_of(Schedule(10, 4, "drop"), 0, 6).reshape(3, 8)
    assert all(len(set(epoch.tolist())) == 8 for epoch in rows)


def test_lists_may_change_with_the_epoch():
    rows = batches.order(Schedule(4, 4, "drop"), KEY, 0, 2, lambda epoch: np.arange(4) + 100 * epoch)
    assert sorted(rows[0]) == [0, 1, 2, 3]
    assert sorted(rows[1]) == [100, 101, 102, 103]


@given(st.integers(1, 30), st.integers(1, 12))
def test_chunks_cover_every_row_once_under_their_mask(rows, batch_size):
    result = [chunk.rows[: chunk.valid] for chunk in batches.chunks(np.arange(rows), batch_size)]
    assert np.concatenate(result).tolist() == list(range(rows))
    assert all(len(chunk.rows) == batch_size for chunk in batches.chunks(np.arange(rows), batch_size))


def test_no_rows_make_no_chunk():
    assert list(batches.chunks(np.arange(0), 5)) == []


def test_pixels_are_the_same_bits_on_the_host_and_in_compiled_code():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    host = batches.to_unit(pixels)
    np.testing.assert_array_equal(host, pixels.astype(np.float32) / np.float32(255))
    for gather in (True, False):
        compiled = jax.jit(functools.partial(batches.to_unit, gather=gather))
        np.testing.assert_array_equal(compiled(jnp.asarray(pixels)), host)
    assert host.min() == 0
    assert host.max() == 1


@pytest.mark.optimized
def test_what_compiled_code_adds_to_pixels_does_not_change_their_bits():
    """A compiler may merge the sum of a pixel's two terms with a sum that follows, which would round once less."""
    pixels = jnp.arange(256, dtype=jnp.uint8)
    noise = lambda: np.float32(0.001) * pixels.astype(jnp.float32)  # noqa: E731
    expected = jax.jit(lambda unit: unit + noise())(batches.to_unit(np.asarray(pixels)))
    result = jax.jit(lambda pixels: batches.to_unit(pixels, gather=False) + noise())(pixels)
    np.testing.assert_array_equal(result, expected)


def test_errors():
    with pytest.raises(ValueError, match="pixels must be uint8, got float32"):
        batches.to_unit(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="known rules: drop, carry"):
        batches.make_schedule(10, 2, "wrap")
    with pytest.raises(ValueError, match=r"batch size is 11.*choose a size in \[1, 10\]"):
        batches.make_schedule(10, 11, "drop")
