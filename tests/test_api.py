"""Runs from Python: configurations, training with one's own network, and what an opened run gives back."""

import collections
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from typing import Any

import fabricated
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import own
import pytest
from ml_collections import ConfigDict

import ltrobust as lt
from ltrobust import models, recipes, run
from ltrobust.analysis import cards, recorded, results
from ltrobust.api import record_fields, with_model
from ltrobust.evaluation import store
from ltrobust.evaluation.verdict import FIELDS
from ltrobust.training import networks

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _as_before():
    """Networks that a test registers are gone after it."""
    before = dict(models.REGISTERED)
    yield
    models.REGISTERED.clear()
    models.REGISTERED.update(before)


def small():
    """A configuration of one phase of four steps, with averaged weights."""
    config = lt.config("digits")
    config.data.imbalance_ratio = 4.0
    config.student.method = "at_bsl"
    config.student.steps = 4
    config.student.attack.steps = 1
    config.student.ema_decay = 0.5
    config.student.optimizer.learning_rate = 0.01
    config.eval.limit = 3
    config.eval.also = ()
    return config


class WithActivation(nn.Module):
    """A network with a field that no configuration can hold."""

    num_classes: int
    activation: object = nn.relu

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        return nn.Dense(self.num_classes)(self.activation(images.reshape(len(images), -1)))  # pyright: ignore


class SetHere(nn.Module):
    """A network with every field that the package sets."""

    num_classes: int = 10
    dtype: Any = jnp.float32
    axis_name: str | None = None
    head: nn.Module | None = None


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of an instance of a network without BatchNorm, evaluated under two protocols."""
    workdir = tmp_path_factory.mktemp("api") / "run"
    config, network = small(), own.Plain(num_classes=10, width=6)
    run = lt.train(config, workdir, model=network)
    config.eval.protocol = "validation"
    assert lt.train(config, workdir, model=network) == run
    assert config.model.name == "small_resnet", "the given configuration is not changed"
    models.REGISTERED.clear()
    return run


def test_a_configuration_is_found_by_name_or_path(tmp_path):
    assert lt.config("digits") == lt.config() == lt.config("configs/digits.py")
    assert lt.config("published:robal_n").student.method == "robal"
    (tmp_path / "mine.py").write_text("from configs.digits import get_config\n")
    assert lt.config(tmp_path / "mine.py") == lt.config(str(tmp_path / "mine.py")) == lt.config("digits")
    with pytest.raises(FileNotFoundError, match=r"'digts'; did you mean digits\? known configurations: .*published"):
        lt.config("digts")
    with pytest.raises(AttributeError, match="epochz"):
        lt.config("digits").student.epochz = 1


def test_a_run_is_trained_and_read_back(whole):
    assert whole.networks == ("student/last", "student/selected", "student/averaged")
    assert list(whole.cards) == ["quick", "validation"]
    assert whole.card == whole.cards["validation"]
    assert whole.card.model.name == "Plain"
    settings = json.loads((whole.workdir / "config.json").read_text())["model"]
    assert settings["Plain"] == {"width": 6, "widths": [4]}


def test_the_newest_card_is_the_one_made_last(whole, tmp_path):
    (tmp_path / "results").mkdir()
    for name, created in (("new", "2026-01-02"), ("old", "2026-01-01")):  # in this order on disk
        path = shutil.copy(whole.workdir / "results" / "quick.json", tmp_path / "results" / f"{name}.json")
        fabricated.change_card(path, lambda card, day=created: card.update(created=day))
    run = lt.Run(tmp_path)
    assert (list(run.cards), run.card.created) == (["old", "new"], "2026-01-02")
    assert run.card.networks == whole.cards["quick"].networks


def test_of_the_cards_of_one_second_the_one_with_the_highest_number_is_the_newest(tmp_path):
    fabricated.write_run(tmp_path)
    first = tmp_path / "results" / "quick.json"
    for number in (10, 2):  # the newest first on disk
        shutil.copy(first, first.with_stem(f"quick-{number}"))
    for path in first.parent.iterdir():
        number = int(path.stem.partition("-")[2] or 1)
        fabricated.change_card(path, lambda card, n=number: card.update(created="2026-01-01", seconds=float(n)))
    run = lt.Run(tmp_path)
    assert list(run.cards) == ["quick", "quick-2", "quick-10"]
    (shown,) = results.evaluations(tmp_path, collections.defaultdict(list))
    assert shown.card == run.card == run.cards["quick-10"]


def test_cards_that_are_made_within_one_second_have_different_times():
    before = cards.now()
    time.sleep(0.002)
    assert before < cards.now()
    assert "2026-01-01T00:00:00+00:00" < "2026-01-01T00:00:00.001+00:00", "older cards have whole seconds"


def test_a_network_that_was_trained_further_than_it_was_evaluated_is_named(whole, monkeypatch):
    run = lt.open_run(whole.workdir, model=own.Plain(10, width=6))
    monkeypatch.setattr(networks, "fingerprints_of", lambda weights: {"params_sha256": "another"})
    with pytest.warns(UserWarning, match="student/last of .* has been trained further since it was evaluated"):
        run.logits_fn()


def test_a_damaged_card_does_not_keep_a_network_from_its_weights(whole, tmp_path):
    workdir = shutil.copytree(whole.workdir, tmp_path / "run")
    for file in (workdir / "results").glob("*.json"):
        file.write_text("{")
    assert lt.open_run(workdir, model=own.Plain(10, width=6)).logits_fn()(jnp.zeros((1, 8, 8, 1))).shape == (1, 10)


@pytest.mark.parametrize("network", ["student/last", "student/averaged"])
def test_an_evaluation_is_the_one_of_the_card(whole, network):
    result = whole.evaluation(network)
    described = whole.cards["quick"].networks[network]
    assert result.protocol.name == "quick"
    for column, views in described.columns.items():
        assert result.counts(column).correct.tolist() == list(views.correct)
        assert result.counts(column).total.tolist() == list(views.total)
    assert result.max_violation == described.max_violation
    assert result.rejected_claims == described.rejected_claims
    assert int(result.clean_tied.sum()) == described.clean_tied
    rounded = result.correct_after_rounding(result.protocol.headline)
    assert np.bincount(result.labels, rounded).tolist() == list(described.rounded_to_8_bits.correct)
    assert "protocol quick, linf 32/255, 30 images" in result.summary()
    assert whole.evaluation(network, protocol="validation").columns == ("clean", "pgd20")


def test_the_same_evaluation_is_read_as_was_made(whole, tmp_path):
    logits_fn = lt.open_run(whole.workdir, model=own.Plain(10, width=6)).logits_fn()
    *_, test = lt.data.load("digits", imbalance_ratio=4)
    images, labels, threat = test.images[:40], test.labels[:40], lt.Threat("linf", 32)
    made = lt.evaluate(logits_fn, images, labels, threat=threat, protocol="quick", store=tmp_path / "s", progress=False)
    read = recorded.evaluation(*store.read(tmp_path / "s"))
    assert (read.threat, read.protocol, read.num_classes) == (made.threat, made.protocol, made.num_classes)
    np.testing.assert_array_equal(read.labels, made.labels)
    np.testing.assert_array_equal(read.clean_tied, made.clean_tied)
    for column, predictions in made.predictions.items():
        np.testing.assert_array_equal(read.predictions[column], predictions)
    for attack, record in made.records.items():
        for field in FIELDS:
            np.testing.assert_array_equal(read.records[attack][field], record[field], err_msg=f"{attack} {field}")


@pytest.mark.parametrize("network", ["student/last", "student/averaged"])
def test_the_logits_are_those_that_were_judged(whole, network):
    logits_fn = lt.open_run(whole.workdir, model=own.Plain(10, width=6)).logits_fn(network)
    *_, test = lt.data.load("digits", imbalance_ratio=4)
    result = whole.evaluation(network)
    _, verdicts = store.read(whole.workdir / whole.cards["quick"].networks[network].verdicts.folder)
    images = lt.data.to_unit(test.images[sorted(verdicts["clean"])])
    logits = jax.jit(logits_fn)(images)
    np.testing.assert_allclose(logits, logits_fn(images), atol=1e-5)
    assert logits.dtype == jnp.float32
    np.testing.assert_array_equal(jnp.argmax(logits, axis=-1), result.predictions["clean"])


@pytest.mark.slow
def test_a_method_with_a_rule_for_test_time_is_judged_by_it(tmp_path):
    config = small()
    config.student.method, config.methods.robal.tau_p = "robal", 100.0
    config.eval.protocol = "validation"
    run = lt.train(config, tmp_path, model=own.Normed)
    logits = run.logits_fn()(jnp.zeros((2, 8, 8, 1)))
    # So strong a rule takes everything for the rarest class.
    assert jnp.argmax(logits, axis=-1).tolist() == [9, 9]


def test_a_run_resumes_with_the_same_network_only(whole):
    before = sorted(path for path in whole.workdir.rglob("*") if path.is_file())
    with pytest.raises(ValueError, match=r"model\.Plain\.width: 6 -> 7"):
        lt.train(small(), whole.workdir, model=own.Plain(num_classes=10, width=7))
    with pytest.raises(ValueError, match=r"model\.name: 'Plain' -> 'Normed'"):
        lt.train(small(), whole.workdir, model=own.Normed)
    assert sorted(path for path in whole.workdir.rglob("*") if path.is_file()) == before


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (own.Normed, "is a run of the network Plain; model is Normed"),
        (own.Plain(10, width=7), "network Plain, with width 6 instead of 7; model is Plain"),
    ],
)
def test_a_run_is_opened_with_its_own_network_only(whole, model, message):
    with pytest.raises(ValueError, match=message):
        lt.open_run(whole.workdir, model=model)


def test_other_code_of_the_same_name_is_refused(whole):
    class Plain(own.Plain):
        """The same name, fields and parameters; another activation."""

        @nn.compact
        def __call__(self, images: jax.Array) -> jax.Array:
            x = nn.tanh(nn.Conv(self.width, (3, 3), strides=2)(images))
            return nn.Dense(self.num_classes, name="answers")(x.reshape(len(x), -1))

    message = "network Plain is not the one that was trained: with the same weights it gives other logits"
    with pytest.raises(ValueError, match=message):
        lt.open_run(whole.workdir, model=Plain(10, width=6)).logits_fn()
    with pytest.raises(ValueError, match=message):
        lt.train(small(), whole.workdir, model=Plain(10, width=6))


def test_a_class_takes_its_settings_from_the_configuration():
    models.register(own.Plain)
    config = lt.config("digits")
    config.model.Plain.width = 5
    result = with_model(config, own.Plain)
    assert (result.model.name, result.model.Plain.width, result.is_locked) == ("Plain", 5, True)
    assert with_model(config, own.Plain(10, width=8)).model.Plain.to_dict() == {"width": 8, "widths": (4,)}


def test_a_function_that_returns_a_network_is_one():
    def narrow(num_classes: int, width: int = 2) -> nn.Module:
        return WithActivation(num_classes, activation=lambda x: x[:, :width])

    assert with_model(lt.config("digits"), narrow).model.narrow.to_dict() == {"width": 2}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("resnet18", "model is 'resnet18'; give a Flax module, its class, or a function that returns one"),
        (3, "model is 3; give a Flax module"),
        (lambda num_classes: own.Plain(num_classes), "a network cannot be called '<lambda>'"),
        (models.create("small_resnet", num_classes=10), r"network of this package, ResNet; set config\.model\.name"),
        (
            SetHere(num_classes=7),
            r"field num_classes of SetHere is 7, but .* from the data; leave it at its default, 10",
        ),
        (
            SetHere(dtype=jnp.bfloat16),
            r"field dtype of SetHere is .*bfloat16.*, but the package .* from model\.dtype",
        ),
        (SetHere(axis_name="batch"), "field axis_name of SetHere is 'batch', but the package sets it"),
        (
            SetHere(head=nn.Dense(3)),
            "(?s)field head of SetHere is Dense.*, from the method; leave it at its default, None",
        ),
        (WithActivation(10, activation=nn.silu), "field activation of WithActivation is .* give a function that"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_recorded_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        with_model(lt.config("digits"), model)


def test_defaults_of_fields_that_the_package_sets_may_be_given():
    assert record_fields(SetHere(num_classes=10, dtype=jnp.dtype("float32"), axis_name=None)) == {}


def test_fields_are_recorded_with_tuples():
    assert record_fields(own.Plain(10, widths=[1, 2])) == {"width": 4, "widths": (1, 2)}  # pyright: ignore


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("student.epochz", r"unknown key student\.epochz; did you mean student\.epochs\?"),
        ("model.wdith", r"unknown key model\.wdith; did you mean model\.width\?"),
        ("threat.raduis", r"unknown key threat\.raduis; did you mean threat\.radius\?"),
        ("methods.trads.beta", "settings of the method trads, which is not registered"),
    ],
)
def test_an_unknown_key_of_an_unlocked_configuration_is_refused(tmp_path, key, message):
    config = small().unlock()
    config.update(ConfigDict(functools.reduce(lambda value, name: {name: value}, reversed(key.split(".")), 1)))
    for work in (lt.train, run.evaluate):
        with pytest.raises(ValueError, match=message):
            work(config, tmp_path / "run")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("model", [None, own.Plain])
@pytest.mark.parametrize("config", [{"seed": 1}, "digits", None], ids=repr)
def test_what_is_no_configuration_is_refused(tmp_path, config, model):
    with pytest.raises(ValueError, match=rf"the configuration is a {type(config).__name__}; give a ConfigDict"):
        lt.train(config, tmp_path / "run", model=model)
    assert not any(tmp_path.iterdir())


def test_a_configuration_that_is_older_than_a_registration_is_one():
    config = small()
    models.register(own.Plain)
    recipes.check_keys(config)
    recipes.check_keys(with_model(config, WithActivation(10)))
    with config.unlocked():
        del config.model.width
    with pytest.raises(ValueError, match=r"has no key model\.width"):
        recipes.check_keys(config)


def test_what_is_not_there_is_named(whole, tmp_path):
    with pytest.raises(ValueError, match=r"is not a run: it has no config\.json of one"):
        lt.open_run(tmp_path)
    (tmp_path / "config.json").write_text('{"layers": 12}')
    with pytest.raises(ValueError, match="is not a run"):
        lt.open_run(tmp_path)
    with pytest.raises(
        ValueError, match=r"no evaluation of 'student/lost'; did you mean student/last\? evaluated networks: student/l"
    ):
        whole.evaluation("student/lost")
    with pytest.raises(ValueError, match="no evaluation of 'student/last' under the protocol standard"):
        whole.evaluation(protocol="standard")
    opened = lt.open_run(whole.workdir, model=own.Plain(10, width=6))
    with pytest.raises(ValueError, match=r"no network 'student/best'; its checkpoint holds student/last, student/sele"):
        opened.logits_fn("student/best")
    with pytest.raises(ValueError, match="no network 'teacher/last': there are no checkpoints in"):
        opened.logits_fn("teacher/last")
    with pytest.raises(ValueError, match="network is 'last'; give PHASE/WEIGHTS"):
        opened.logits_fn("last")


def test_a_run_without_a_card_says_so(tmp_path):
    (tmp_path / "config.json").write_text('{"data": {}, "seed": 0, "student": {}}')
    run = lt.open_run(tmp_path)
    assert (run.networks, run.cards) == ((), {})
    with pytest.raises(ValueError, match="has no result card yet"):
        _ = run.card
    with pytest.raises(ValueError, match="evaluated networks: none yet"):
        run.evaluation()


def test_a_stored_protocol_of_another_version_is_refused(whole):
    provenance, verdicts = store.read(whole.workdir / whole.cards["quick"].networks["student/last"].verdicts.folder)
    provenance["protocol"]["attacks"][0]["steps"] = 7
    with pytest.raises(ValueError, match="protocol quick of this version is not the one of the verdicts"):
        recorded.evaluation(provenance, verdicts)


@pytest.mark.slow
def test_another_process_opens_a_run(whole):
    """The code of a network is not in the folder."""
    code = (
        "import sys; sys.path.insert(0, 'tests'); import ltrobust as lt, own, numpy as np\n"
        f"run = lt.open_run({str(whole.workdir)!r})\n"
        "try: run.logits_fn()\nexcept ValueError as error: print(error)\n"
        "run = lt.open_run(run.workdir, model=own.Plain)\n"
        "print(run.logits_fn()(np.zeros((1, 8, 8, 1), np.float32)).shape)\n"
    )
    reported = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout
    assert "model is 'Plain'" in reported
    assert reported.rstrip().endswith("(1, 10)")
