"""The network of the sanity panel's control, and its closed form."""

import functools

import numpy as np

from ltrobust.sanity import control

apply = control.apply
fixture = functools.cache(control.linear)


def exactly_robust(radius: float, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Whether each image, or each at `rows`, is robust; `radius` in 1/255."""
    return control.exactly_robust(fixture(), radius)[rows]
