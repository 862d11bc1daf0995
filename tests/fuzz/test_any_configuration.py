"""Whatever value a key is given: either a phase comes of it, or a message that names the key and the value."""

import functools
import pathlib
import re

import jax
import numpy as np
import planned
import pytest
from absl import flags
from budget import tries
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict, config_flags

from configs import digits
from ltrobust.data.run_data import RunData
from ltrobust.data.sources import load
from ltrobust.evaluation.protocols import PROTOCOLS
from ltrobust.methods import REGISTRY
from ltrobust.models import NAMES
from ltrobust.plan import make_plan
from ltrobust.runtime import workdir
from ltrobust.training import devices, phases

MESH = devices.make_mesh(jax.devices()[:1])
LEAVES = workdir.flatten(digits.get_config().to_dict())

NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2, 10, 255, 10**6, 2**31, 2**32, 2**63, 10**20]),
    st.integers(-5, 300),
)
REALS = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 0.5, 1.0, 1.5, 8.0, 1e-12, 1e12]), st.floats(0, 1))
WORDS = st.one_of(
    st.sampled_from(
        ["scratch", "teacher", "all", "balanced", "drop", "carry", "exp", "step", "linf", "l2", "bfloat16", "float16"]
    ),
    st.sampled_from(["", " ", "näh", "a" * 300, "../..", "None", "0"]),
    st.sampled_from(
        ["sgd", "adamw", "lbfgs", "none", "gauss", "base", "autoaugment", "cosine", "constant", "batch_frozen"]
    ),
    st.sampled_from([*REGISTRY, *NAMES, *PROTOCOLS]),
    st.text(max_size=8),
)
TUPLES = st.lists(st.one_of(REALS, WORDS, NUMBERS), max_size=3).map(tuple)
KIND = {bool: st.booleans(), int: NUMBERS, float: REALS, str: WORDS, tuple: TUPLES}
ANYTHING = st.one_of(*KIND.values(), st.none(), st.just({}), st.lists(NUMBERS, max_size=2))


@st.composite
def overrides(draw) -> dict[str, object]:
    """One or two leaves with values, mostly of the right type."""
    keys = draw(st.lists(st.sampled_from(sorted(LEAVES)), min_size=1, max_size=2, unique=True))
    return {key: draw(st.one_of(KIND[type(LEAVES[key])], KIND[type(LEAVES[key])], ANYTHING)) for key in keys}


@functools.cache
def small() -> RunData:
    """What the untouched configuration makes of the digits, 1 in 5 of the images."""
    return run_data_of(digits.get_config())


def run_data_of(config) -> RunData:
    """`run.load_run_data` without another data set than the digits."""
    if config.data.name == "digits":
        return planned.load_run_data(config)
    load(config.data.name, "train", data_dir="/nowhere")  # refuses
    raise AssertionError("a data set that is not there was loaded")


def prepare(config: ConfigDict) -> None:
    """Everything that `main.py` does before it trains."""
    plan = make_plan(config, pathlib.Path("run"))
    changed = any(
        LEAVES[key] != value for key, value in workdir.flatten(config.to_dict()).items() if key.startswith("data.")
    )
    run_data = run_data_of(config) if changed else small()
    for settings in plan.phases:
        phase = phases.make_phase(settings, plan.model, run_data, MESH)
        assert phase.total_steps > 0
        assert len(phase.examples_of(0)) >= config[settings.name].batch_size >= 1
        assert not np.isnan(float(phase.learning_rate(0)))


def check_message(error: Exception, settings: dict[str, object]) -> None:
    """The message names one of the keys, as it is written or as words, and is no library's internal complaint."""
    text = str(error)
    # `data.name` is the name of the data set: there the group is what a message speaks of.
    words = {key.split(".")[-2 if key.endswith(".name") else -1] for key in settings}
    spoken = re.sub(r"[^a-z0-9]+", " ", text.lower().replace("optimiser", "optimizer"))
    named = [word for word in words if word.replace("_", " ") in spoken]
    # Keys that make the training part smaller may make it smaller than a batch.
    assert named or "batch size is" in text, f"{settings} is refused without naming the key: {text}"


@pytest.mark.slow
@tries(120)
@given(overrides())
def test_values_that_are_assigned(settings):
    config = digits.get_config()
    try:
        for key, value in settings.items():
            config.update_from_flattened_dict({key: value})
    except (TypeError, ValueError):  # of ml_collections: another type than the key's
        return
    try:
        prepare(config.lock())
    except (ValueError, FileNotFoundError) as error:
        check_message(error, settings)


@pytest.mark.slow
@tries(80)
@given(overrides(), st.booleans())
def test_values_on_the_command_line(settings, typo):
    words = ["main.py", "--config=configs/digits.py"]
    words += [f"--config.{key}{'z' * typo}={value}" for key, value in settings.items()]
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", flag_values=values, lock_config=True, sys_argv=words)
    try:
        values(words)
        config = holder.value
    except (flags.Error, ValueError, TypeError, KeyError, AttributeError) as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert any(key.rpartition(".")[2] in refused for key in settings), refused
        return
    assert not typo
    try:
        prepare(config)
    except (ValueError, FileNotFoundError) as error:
        check_message(error, settings)
