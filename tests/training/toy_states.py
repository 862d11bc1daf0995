"""States of a run with known numbers in them, for tests of checkpoints."""

import jax.numpy as jnp
import numpy as np

from ltrobust.training.state import TrainState, Weights, create_selection

# Incompressible, and large enough that a limit on the size of files spares everything else that a test writes.
SIZE = 400_000


def weights(seed: int) -> Weights:
    generator = np.random.RandomState(seed)
    return Weights(
        {"kernel": jnp.asarray(generator.randn(SIZE), jnp.float32), "bias": jnp.full(3, seed, jnp.float32)},
        {"mean": jnp.full(3, -seed, jnp.float32)},
    )


def state_at(step: int) -> TrainState:
    return TrainState(
        step=jnp.int32(step),
        weights=weights(step),
        opt_state=(jnp.full(3, 10 * step, jnp.float32),),
        averaged=weights(step + 1),
        method_state={"scale": jnp.full(10, step, jnp.float32)},
        sums={"loss": jnp.float32(step)},
        bad_step=jnp.int32(-1),
    )


TEMPLATE = state_at(0)
EMPTY = create_selection(TEMPLATE.weights)
