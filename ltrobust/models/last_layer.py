"""Changes of a trained network's linear head, made in its parameters.

So the change is part of the network: every attack goes through it, and fingerprints, stores and cards tell the changed
network from the plain one.
"""

from typing import Any

import jax
import jax.numpy as jnp


def class_logit_offset(params: Any, factors: jax.Array) -> Any:
    """Parameters of a network with logits `z_c + log s_c`: the offset is added to the linear layer's bias.

    After "Analysis and Applications of Class-wise Robustness in Adversarial Training" (KDD 2021, arXiv 2105.14240),
    which reports a small change at inference that raises the weakest class; its formula is not known, and this one is
    ours. s = 1 gives the same parameters; a common factor changes no prediction and no softmax.

    Args:
      params: of a network with a linear head, with C outputs or more; those beyond the classes stay.
      factors: s, [C], above 0.

    Raises:
      ValueError: a head without bias, factors that are not above 0, or more of them than outputs.
    """
    layer = _linear(params)
    classes, outputs = len(factors), len(layer["bias"])
    if classes > outputs or not jnp.all(factors > 0):
        raise ValueError(f"class factors are {factors.tolist()}; give one above 0 for each class, at most {outputs}.")
    bias = layer["bias"].at[:classes].add(jnp.log(factors))
    return {**params, "linear": {**layer, "bias": bias}}


def norm_equalise(params: Any, *, tau: float, num_classes: int) -> Any:
    """Parameters with each class's weights scaled, `W_c (mean_k ||W_k|| / ||W_c||)^tau`; the bias stays.

    Ours, suggested by that paper's finding that a class's robustness goes with the length of its weights.

    Args:
      params: of a network with a linear head.
      tau: 0 gives the same parameters, 1 equal lengths.
      num_classes: C; outputs beyond them stay.

    Raises:
      ValueError: tau outside of [0, 1], or a head without linear weights.
    """
    if not 0 <= tau <= 1:
        raise ValueError(f"norm_equalise tau is {tau}; it must lie in [0, 1].")
    layer = _linear(params)
    lengths = jnp.linalg.norm(layer["kernel"][:, :num_classes], axis=0)
    # A class without weights has no length to equalise.
    scale = jnp.where(lengths > 0, (jnp.mean(lengths) / jnp.maximum(lengths, 1e-30)) ** tau, 1.0)
    kernel = layer["kernel"].at[:, :num_classes].multiply(scale)
    return {**params, "linear": {**layer, "kernel": kernel}}


def _linear(params: Any) -> Any:
    """The parameters of the linear head."""
    if "linear" not in params:
        raise ValueError(
            "the network's head has no linear layer (RoBal's is of cosines); class_logit_offset and norm_equalise need "
            "one."
        )
    return params["linear"]
