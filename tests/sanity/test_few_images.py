"""The sanity panel on networks that depend on draws or on the batch, and at radii that do not fit: on few images."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback
from panels import EVERYTHING, LINEAR, SHORT, driver, items_of, network, plain, session

from ltrobust.evaluation.protocols import PGD20
from ltrobust.sanity import control, panel, probes, runs
from ltrobust.sanity.runs import Runs
from ltrobust.threat import Threat

pytestmark = pytest.mark.optimized

NOISE = np.random.RandomState(0)


def noisy(weights: np.ndarray, images: jax.Array) -> jax.Array:
    shape = jax.ShapeDtypeStruct(images.shape, jnp.float32)
    noise = io_callback(lambda: NOISE.randn(*images.shape).astype(np.float32), shape)
    return control.apply(weights, images + 0.05 * noise)


def batch_normalised(weights: np.ndarray, images: jax.Array) -> jax.Array:
    logits = control.apply(weights, images)
    return (logits - jnp.mean(logits, axis=0)) / jnp.std(logits, axis=0)


@pytest.mark.slow
def test_randomised_network():
    result = items_of(driver(noisy), LINEAR.weights, SHORT, EVERYTHING[::8])
    assert result["P20"].status == "fail"
    assert result["P25"].status == "fail"
    assert result["P22"].status == "pass"


@pytest.mark.slow
def test_batch_statistics():
    begun = session(driver(batch_normalised, 256), LINEAR.weights, SHORT, EVERYTHING[::4])
    result = {item.id: item for item in probes.items(Runs(begun, SHORT))}
    assert result["P21"].status == "fail"
    assert result["P28"].status == "fail"
    assert result["P20"].status == "pass"


@pytest.mark.slow
def test_a_radius_in_pixel_units_is_noticed():
    """Nothing changes at 0.03/255, and 32/255 breaks everything; no other item of the panel sees that."""
    begun = session(driver(plain, threat=Threat.in_255ths("linf", 8 / 255)), network(), SHORT, EVERYTHING[::10])
    item = runs.radius(Runs(begun, SHORT))
    assert item.status == "fail"
    assert "break no image at this radius, but 32/255 leaves 0.00 %; radii are in 1/255" in item.evidence
    assert panel.verdict([item]) == "not trustworthy"


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "radius", "status"), [("linf", 1, "warn"), ("l2", 6, "fail"), ("l2", 12, "warn")])
def test_other_radii_that_break_nothing(norm, radius, status):
    small = dataclasses.replace(SHORT, attacks=(dataclasses.replace(PGD20, steps=1, step=0.0, start="none"),))
    begun = session(driver(plain, threat=Threat(norm, radius)), network(), small, EVERYTHING[::10])
    assert runs.radius(Runs(begun, small)).status == status
