"""The threat model divides by 255 once, and refuses what is not one."""

import math

import numpy as np
import pytest

from ltrobust import methods
from ltrobust.threat import Threat, pixels


def test_a_radius_beyond_the_range_of_pixels_is_refused():
    """`in_pixels("linf", 8)` means 8/255; a ball of the whole range breaks everything without a word."""
    for make in (
        lambda: Threat("linf", 300),
        lambda: Threat.in_pixels("linf", 8),
        lambda: Threat.in_255ths("linf", 256),
    ):
        with pytest.raises(ValueError, match=r"more than the whole range \[0\.0, 1\.0\]; give at most 255/255"):
            make()
    assert Threat("linf", 255).epsilon == 1
    assert Threat("linf", 300, lower=-1.0).radius == 300
    with pytest.raises(ValueError, match="radius is '8'/255; it must be finite"):
        Threat("linf", "8")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="epsilon is '8'; it must be a number"):
        Threat.in_pixels("linf", "8")  # pyright: ignore[reportArgumentType]


def test_eight_255ths_is_not_0_031():
    assert Threat(radius=8).epsilon == 8 / 255 == pixels(8)
    assert np.float32(Threat().epsilon) == np.float32(0.03137255)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "l1"}, "known norms: linf, l2"),
        ({"radius": -1}, "radius is -1"),
        ({"radius": math.nan}, "finite"),
        ({"radius": True}, "radius is True/255"),
        ({"radius": np.array([8, 9])}, r"radius is array\(\[8, 9\]\)/255"),
        ({"lower": None}, "threat lower is None; it must be a number"),
        ({"upper": "1"}, "threat upper is '1'; it must be a number"),
        ({"lower": 1.0, "upper": 0.0}, "pixel bounds"),
    ],
)
def test_errors_name_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        Threat(**arguments)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("radius", [1, 2, 4, 8, 16, 128, 7.905])
def test_both_units_give_the_same_ball(norm, radius):
    assert Threat.in_pixels(norm, radius / 255) == Threat.in_255ths(norm, radius)
    assert Threat.in_pixels(norm, radius / 255).epsilon == pytest.approx(radius / 255, rel=1e-12)


@pytest.mark.parametrize(
    ("norm", "radius"),
    [("linf", 8 / 255), ("linf", 0.3), ("linf", 1 / 255), ("l2", 0.5), ("l2", 128 / 255), ("l2", 3.0)],
)
def test_a_radius_that_is_only_plausible_in_pixel_units_is_refused_with_both_spellings(norm, radius):
    with pytest.raises(ValueError, match=r"in units of 1/255.*Threat\.in_pixels.*Threat\.in_255ths") as refused:
        Threat(norm, radius)
    assert f"give {255 * radius:.4g} or" in str(refused.value)
    assert Threat.in_255ths(norm, radius).radius == radius
    assert Threat.in_pixels(norm, radius).epsilon == pytest.approx(radius)


@pytest.mark.parametrize(("norm", "radius"), [("linf", 0.0), ("linf", 0.5), ("linf", 1.0), ("l2", 0.0), ("l2", 63.75)])
def test_radii_that_people_use_are_taken(norm, radius):
    assert Threat(norm, radius).radius == radius


def test_a_step_size_in_pixel_units_is_refused_and_those_of_the_recipes_are_not():
    with pytest.raises(ValueError, match=r"step size is 0\.00784314, in units of 1/255.*give 2\."):
        methods.InnerAttack(Threat(radius=8), steps=10, step_size=2 / 255)
    for radius, steps, size in (
        (8, 10, 2.0),
        (8, 1, 8.0),
        (8, 0, 0.003),
        (0, 10, 2.0),
        (8, 10, 0.0),
        (7.905, 10, 0.765),
    ):
        methods.InnerAttack(Threat(radius=radius), steps=steps, step_size=size)
