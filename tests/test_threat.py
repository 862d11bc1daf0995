"""The threat model divides by 255 once, and refuses what is not one."""

import math

import numpy as np
import pytest

from ltrobust.threat import Threat, pixels


def test_eight_255ths_is_not_0_031():
    assert Threat(radius=8).epsilon == 8 / 255 == pixels(8)
    assert np.float32(Threat().epsilon) == np.float32(0.03137255)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "l1"}, "known norms: linf, l2"),
        ({"radius": -1}, "radius is -1"),
        ({"radius": math.nan}, "finite"),
        ({"lower": 1.0, "upper": 0.0}, "pixel bounds"),
    ],
)
def test_errors_name_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        Threat(**arguments)
