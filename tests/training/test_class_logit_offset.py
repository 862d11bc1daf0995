"""The offset of the weakest class: its choice among candidates, and that a fit never sees the test set."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltrobust import run as runs
from ltrobust.analysis import cards, class_logit_offset
from ltrobust.commands import offset
from ltrobust.data import sources
from ltrobust.models import last_layer
from ltrobust.training import teachers


def chosen(table, **settings):
    """The fit, where the weakest of three classes gets `table[s]` as class accuracies."""

    def robust_accuracy(factors):
        factor = float(factors.max())
        assert factor == 1 or np.flatnonzero(factors != 1).tolist() == [int(np.nanargmin(table[1.0]))]
        return np.array(table[factor])

    return class_logit_offset.fit(robust_accuracy, 3, factors=tuple(table), **settings)


def test_the_highest_sum_of_mean_and_worst_wins_and_the_smallest_of_equals():
    plain = [0.6, np.nan, 0.2]
    result = chosen({1.0: plain, 1.5: [0.58, np.nan, 0.3], 2.0: [0.58, np.nan, 0.3]})
    assert (result.weakest, result.factor) == (2, 1.5)
    np.testing.assert_array_equal(result.factors(3), [1, 1, 1.5])
    np.testing.assert_allclose(result.tried, [(1, 0.4, 0.2), (1.5, 0.44, 0.3), (2, 0.44, 0.3)])
    assert chosen({1.0: plain, 3.0: [0.5, np.nan, 0.2]}).factor == 1


def test_a_candidate_may_lose_a_point_of_the_mean_and_no_more():
    table = {1.0: [0.60, 0.60, 0.20], 2.0: [0.55, 0.55, 0.28], 3.0: [0.5, 0.5, 0.36]}
    assert chosen(table).factor == 2
    assert chosen(table, most_loss=0.02).factor == 3
    assert chosen(table, most_loss=0.0).factor == 1


def test_the_offsets_of_all_classes_follow_their_images_and_the_smallest_best_tau_wins():
    seen = []

    def robust_accuracy(factors):
        seen.append(factors)
        return np.array([0.5, np.nan, 0.1]) + (0.1 if factors[2] > 3 else 0)

    result = class_logit_offset.fit_prior(robust_accuracy, np.array([100, 50, 4]), taus=(0.5, 1.0))
    assert (result.tau, [trial[0] for trial in result.tried]) == (0.5, [0.0, 0.5, 1.0])
    np.testing.assert_allclose(seen[2], [1, 2, 25])
    np.testing.assert_allclose(result.factors(3), [1, 2**0.5, 5], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: chosen({1.0: [0.5] * 3, 0.5: [0.5] * 3}), r"factors are \[1.0, 0.5\]"),
        (lambda: chosen({1.0: [np.nan] * 3}), "no class has a validation image"),
        (lambda: class_logit_offset.fit_prior(lambda s: s, np.ones(3), taus=(-1.0,)), r"taus are \[-1.0\]"),
        (lambda: class_logit_offset.fit_prior(lambda s: s * np.nan, np.ones(3)), "no offset can be chosen"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
def test_of_a_finished_run_the_validation_part_decides_before_the_test_set_is_read(tiny, tmp_path, monkeypatch, capsys):
    with tiny.unlocked():
        tiny.student.method, tiny.student.epochs, tiny.eval.limit = "pgd_at", 1, 2
    runs.fit(tiny, tmp_path / "run")
    events, load, fit = [], sources.load, class_logit_offset.fit

    def watched_load(name, split, **settings):
        events.append(split)
        return load(name, split, **settings)

    def watched_fit(robust_accuracy, num_classes, **settings):
        events.append("fit begins")
        result = fit(robust_accuracy, num_classes, **settings)
        events.append("fit ends")
        return result

    monkeypatch.setattr(sources, "load", watched_load)
    monkeypatch.setattr(class_logit_offset, "fit", watched_fit)
    arguments = [f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'out'}", "--norm_equalise=0.5"]
    offset.main(arguments, "ltrobust offset")
    assert events == ["train", "fit begins", "fit ends", "test"]
    assert "validation PGD-20 over classes" in capsys.readouterr().out

    card = json.loads((tmp_path / "out" / "results" / "validation-class_logit_offset.json").read_text())
    (name,) = card["networks"]
    assert name == "student/last+norm_equalise+class_logit_offset"
    reported = card["config"]["inference"]
    assert reported["norm_equalise"] == 0.5
    assert len(reported["tried"]) == 5
    # The network that was evaluated is the plain one with these changes of its head.
    plain = teachers.from_checkpoints(str(tmp_path / "run"), "last", num_classes=10, image_shape=(8, 8, 1)).teacher
    factors = np.where(np.arange(10) == reported["weakest"], reported["factor"], 1).astype(np.float32)
    changed = last_layer.norm_equalise(plain.params, tau=0.5, num_classes=10)
    changed = last_layer.class_logit_offset(changed, jnp.asarray(factors))
    assert card["networks"][name]["params_sha256"] == cards.digest(jax.tree.leaves(jax.device_get(changed)))
    with pytest.raises(ValueError, match="does not exist"):
        offset.main(["--workdir=nowhere", f"--out={tmp_path / 'other'}"], "ltrobust offset")
