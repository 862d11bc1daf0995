"""A store answers for one network, one version of the attacks, and settings of JAX under which seeds mean something."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear import apply, fixture

import ltrobust
from ltrobust import attacks
from ltrobust.evaluation import identity, protocols, store
from ltrobust.evaluator import make_evaluator
from ltrobust.runtime import ambient

ROWS = np.arange(0, 1000, 20)
QUICK = protocols.Protocol("pgd", (protocols.PGD20,))
# One attack of each kind, short.
EVERY = protocols.Protocol(
    "every",
    (
        protocols.PGD20,
        protocols.Apgd("apgd-ce", "ce", steps=20),
        protocols.Fab("fab-t", steps=10),
        protocols.Square("square", queries=500),
        protocols.CwL2("cw_l2"),
        protocols.DeepFool("deepfool"),
    ),
)


def run(network, folder, protocol=QUICK):
    """The protocol on some images of the linear fixture, by a network `(weights, images) -> logits`."""
    return runner(network, protocol)(folder)


def runner(network, protocol=QUICK):
    """`run` for several folders, compiled once."""
    weights, images, labels = fixture()
    evaluator = make_evaluator(network, protocol=protocol, threat=ltrobust.Threat(), num_classes=10, batch_size=64)
    return lambda folder: evaluator(weights, images[ROWS], labels[ROWS], ids=ROWS, store=folder)


def quantised(weights, images):
    """Blind gradients: rounding has none."""
    return apply(weights, jnp.round(16 * images) / 16)


def straight_through(weights, images):
    """The same answers, with the gradients of the network without rounding."""
    return apply(weights, images + jax.lax.stop_gradient(jnp.round(16 * images) / 16 - images))


def masked(scale):
    """Two classes masked by a huge logit; of the others, `scale` times the logits."""

    def network(weights, images):
        logits = scale * apply(weights, images)
        return jnp.where(jnp.arange(10) < 8, logits, jnp.float32(-1e9))

    return network


def shifted(scale):
    """A huge constant on all logits, whose rounding hides small differences."""
    return lambda weights, images: scale * apply(weights, images) + jnp.float32(3e4)


def votes(scale):
    """Votes of ten thresholds: no gradient, and no logits but whole numbers."""

    def network(weights, images):
        logits = scale * apply(weights, images)
        return jnp.sum(logits[:, :, None] > jnp.arange(10.0), axis=-1).astype(jnp.float32)

    return network


PAIRS = {
    "other gradients": (quantised, straight_through),
    "masked classes": (masked(1.0), masked(1.5)),
    "a constant on all logits": (shifted(1.0), shifted(1.5)),
    "votes": (votes(1.0), votes(1.5)),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_a_store_does_not_answer_for_another_network(tmp_path, pair):
    first, second = PAIRS[pair]
    result = run(first, tmp_path / "store")
    before = (tmp_path / "store" / "verdicts.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"(?s)belongs to another evaluation.*network\.|is of another network"):
        run(second, tmp_path / "store")
    assert (tmp_path / "store" / "verdicts.jsonl").read_bytes() == before
    again = run(first, tmp_path / "store")
    np.testing.assert_array_equal(result.predictions["pgd20"], again.predictions["pgd20"])
    assert (tmp_path / "store" / "verdicts.jsonl").read_bytes() == before


def test_a_network_that_differs_only_behind_the_probe_is_refused_by_its_clean_answers(tmp_path):
    _, images, _ = fixture()
    rare = jnp.asarray(images[ROWS[20]])

    def other(weights, images):
        """Another answer on one image, which is not among the first."""
        here = jnp.all(images == rare, axis=(1, 2, 3))
        return apply(weights, images) + jnp.where(here, 50.0, 0.0)[:, None] * jax.nn.one_hot(9, 10)

    run(apply, tmp_path / "store")
    before = (tmp_path / "store" / "verdicts.jsonl").read_bytes()
    with pytest.raises(
        ValueError, match=r"is of another network: it answers 1 of 50 clean images otherwise.*image 400"
    ):
        run(other, tmp_path / "store")
    assert (tmp_path / "store" / "verdicts.jsonl").read_bytes() == before


def test_rounding_of_another_machine_is_no_other_network(tmp_path):
    result = run(apply, tmp_path / "store")
    again = run(lambda weights, images: apply(weights * np.float32(1 + 1e-6), images), tmp_path / "store")
    np.testing.assert_array_equal(result.predictions["pgd20"], again.predictions["pgd20"])


@settings(max_examples=50)
@given(st.integers(0, 2**31 - 1), st.sampled_from([0.1, 1.0, 30.0]), st.sampled_from([0.0, 3e4, -1e5]))
def test_probes_agree_up_to_rounding_whatever_their_scale_and_constant(seed, scale, constant):
    generator = np.random.RandomState(seed)
    logits = scale * generator.randn(8, 10) + constant
    gradients = scale * generator.randn(8, 8)
    here = {"logits": logits, "gradients": gradients, "gradient_norms": np.full(8, 3 * scale)}
    rounded = {"logits": logits.astype(np.float32).astype(float), "gradients": gradients * 1.004}
    assert identity.differences(here, here | rounded) == []
    assert identity.differences(here, here | {"logits": constant + (logits - constant) * 3})
    assert identity.differences(here, here | {"gradients": gradients[::-1]})
    assert identity.differences(here, here | {"logits": logits[:4]})
    assert identity.differences(here, here | {"gradient_norms": np.full(4, 3 * scale)})


def test_margins_that_are_not_finite_come_back_from_the_store_as_they_were(tmp_path):
    """Minus infinity for all classes but one makes them; JSON has no numbers for them."""

    def hard(weights, images):
        logits = apply(weights, images)
        return jnp.where(logits == jnp.max(logits, axis=-1, keepdims=True), logits, -jnp.inf)

    evaluated = runner(hard)
    first, again = (evaluated(tmp_path / "store") for _ in range(2))
    margins = first.records["pgd20"]["margin"]
    assert np.any(np.abs(margins) > 1e38)
    np.testing.assert_array_equal(again.records["pgd20"]["margin"], margins)


def test_verdicts_of_another_version_of_the_attacks_are_not_resumed(tmp_path, monkeypatch):
    run(apply, tmp_path / "store")
    monkeypatch.setattr(attacks, "VERSION", attacks.VERSION + 1)
    with pytest.raises(ValueError, match=rf"attacks: {attacks.VERSION - 1} -> {attacks.VERSION}"):
        run(apply, tmp_path / "store")


def test_verdicts_under_other_settings_of_jax_are_not_resumed(tmp_path):
    run(apply, tmp_path / "store")
    with jax.default_matmul_precision("bfloat16"), pytest.raises(ValueError, match="jax_default_matmul_precision"):
        run(apply, tmp_path / "store")


# Attack -> on the linear network: robust images of 50, passes over all of them, mean margin in the end. Whoever changes
# an attack's arithmetic sees these change, raises `attacks.VERSION`, and writes the new ones here.
OUTCOMES = {
    1: {
        "pgd20": (35, 1000, 0.79),
        "apgd-ce": (34, 763, 5.2),
        "fab-t": (34, 6200, 5.32),
        "square": (50, 25050, 7.18),
        "cw_l2": (0, 1080, -0.52),
        "deepfool": (0, 500, -0.14),
    }
}


@pytest.mark.slow
def test_the_attacks_are_those_of_their_version():
    result = run(apply, None, EVERY)
    outcomes = {
        name: (
            int(np.sum(result.correct(name))),
            int(record["evaluations"].sum()),
            round(float(np.nanmean(record["margin"])), 2),
        )
        for name, record in result.records.items()
        if name != "clean"
    }
    assert outcomes == OUTCOMES[attacks.VERSION]


@pytest.mark.parametrize(("flag", "value"), [("jax_default_prng_impl", "rbg"), ("jax_threefry_partitionable", False)])
def test_a_setting_under_which_seeds_mean_less_is_refused_with_its_name(flag, value, monkeypatch):
    before = jax.config.values[flag]
    jax.config.update(flag, value)
    try:
        with pytest.raises(
            ValueError, match=rf"JAX's setting {flag} is {value!r}; .*Unset the environment variable {flag.upper()}"
        ):
            run(apply, None)
    finally:
        jax.config.update(flag, before)


@pytest.mark.slow
@pytest.mark.parametrize(("variable", "value"), [("JAX_ENABLE_X64", "1"), ("JAX_DEFAULT_PRNG_IMPL", "unsafe_rbg")])
def test_a_run_under_such_a_setting_ends_at_once_with_one_line(tmp_path, variable, value):
    command = [sys.executable, "-c", "from ltrobust.commands import main; main.run()", "--config=configs/digits.py"]
    done = subprocess.run(
        [*command, f"--workdir={tmp_path / 'run'}"],
        env=os.environ | {variable: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"JAX's setting {variable.lower()} is" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_what_is_required_holds_here_and_is_recorded(tmp_path):
    ambient.check()
    run(apply, tmp_path / "store")
    provenance, _ = store.read(tmp_path / "store")
    assert provenance["ambient"] == ambient.describe()
    assert provenance["attacks"] == attacks.VERSION
