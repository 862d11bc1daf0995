"""Class-wise diagnosis against values worked out by hand, SciPy, and what permutations must not change."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from ltrobust.analysis import attack_targets, diagnosis, metrics, spread
from ltrobust.analysis.schema.card import ProtocolSettings
from ltrobust.data import superclasses
from ltrobust.evaluation import protocols
from ltrobust.runtime import typed_json

# The official numbers of the superclasses, fine classes in alphabetical order.
COARSE = """4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 6 11 5 10 7 6 13 15 3 15 0 11 1 10 12 14 16 9 11 5 5 19 8 8 15
13 14 17 18 10 16 4 17 4 2 0 17 4 18 17 10 3 2 12 12 16 12 1 9 19 2 10 0 1 16 12 9 13 15 13 16 19 2 4 6 19 5 5 8 19 18 1
2 15 6 0 17 8 14 13"""
FINE = sorted(name for members in superclasses.CIFAR100.values() for name in members)


def value(record):
    """Field -> value of each estimate of a record."""
    return {name: estimate.value for name, estimate in vars(record).items()}


def test_measures_are_those_worked_out_by_hand():
    result = spread.spread(np.array([0.6, 0.5, 0.4, 0.3, 0.2]))
    expected = {"mean": 0.4, "worst": 0.2, "worst10": 0.2, "best": 0.6, "range": 0.4, "var": 0.02, "sd": 0.02**0.5}
    assert {name: pytest.approx(result[name]) for name in expected} == expected
    assert result["nsd"] == pytest.approx(0.3536, abs=5e-5)
    assert spread.spread(np.arange(20) / 20)["worst10"] == pytest.approx(0.025)
    assert np.isnan(spread.spread(np.zeros(3))["nsd"])


@pytest.mark.parametrize(("mean", "worst", "expected"), [(50.78, 27.62, 0.316), (45.89, 17.82, -0.242)])
def test_rho_has_the_published_values(mean, worst, expected):
    assert spread.rho(mean, worst, 49.80, 21.31) == pytest.approx(expected, abs=5e-4)
    assert spread.rho(49.80, 21.31, 49.80, 21.31) == 0
    assert np.isnan(spread.rho(mean, worst, 49.80, 0.0))


def test_rank_correlations_are_scipys_also_with_ties():
    values = np.random.RandomState(0).randint(0, 6, (3, 4, 12)) / 7
    ours = spread.spearman(values), spread.kendall(values), spread.pearson(values)
    for draw in range(3):
        for i in range(4):
            for j in range(4):
                pair = values[draw, i], values[draw, j]
                expected = stats.spearmanr(*pair)[0], stats.kendalltau(*pair)[0], stats.pearsonr(*pair)[0]
                np.testing.assert_allclose([kind[draw, i, j] for kind in ours], expected, atol=1e-6)
    constant = np.stack([np.full(5, 0.1), np.arange(5.0)])
    assert all(np.isnan(kind(constant)[0, 1]) for kind in (spread.spearman, spread.kendall, spread.pearson))


def test_resampling_is_paired_and_blind_to_order():
    draws = np.random.RandomState(0)
    labels = np.repeat([0, 1, 3], [40, 60, 20])
    right = draws.rand(120, 2) < 0.6
    right = np.column_stack([right, right[:, 0], np.ones(120, bool)])
    result = spread.resample(right, labels)
    assert result.shape == (spread.DRAWS, 4, 3)
    np.testing.assert_array_equal(result[:, 0], result[:, 2])
    np.testing.assert_array_equal(result[:, 3], 1)
    np.testing.assert_allclose(result.mean(axis=0), spread.accuracies(right, labels), atol=0.01)
    binomial = np.sqrt(spread.accuracies(right, labels)[0] * (1 - spread.accuracies(right, labels)[0]) / [40, 60, 20])
    np.testing.assert_allclose(result[:, 0].std(axis=0), binomial, rtol=0.06)
    order = draws.permutation(120)
    np.testing.assert_array_equal(spread.resample(right[order], labels[order]), result)


def test_asymmetry_by_hand():
    assert attack_targets.asymmetry(np.array([[1, 1], [0, 2]])) == pytest.approx((1 / 3) ** 0.5)
    assert attack_targets.asymmetry(np.array([[1, 2], [4, 2]])) == pytest.approx(0, abs=1e-12)
    circle = np.roll(np.eye(4, dtype=int), 1, axis=1) * 5
    assert attack_targets.asymmetry_estimate(circle) == pytest.approx((2**0.5,) * 3)
    counts = np.random.RandomState(0).randint(1, 30, (5, 5))
    result = attack_targets.asymmetry_estimate(counts)
    assert result.low < result.value < result.high
    assert result.value == attack_targets.asymmetry(7 * counts)


def test_top_wrong_classes_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    clean = np.array([0, 0, 0, 1, 1, 1, 2])
    attacked = np.array([1, 1, 2, 1, 1, 0, 2])  # the fourth image was wrong before
    result = attack_targets.top_wrong_classes(labels, clean, attacked, 3)
    assert [(entry.broken, entry.predicted) for entry in result.classes] == [(3, 1), (1, 0), (0, None)]
    assert [entry.share.value for entry in result.classes[:2]] == [pytest.approx(2 / 3), 1]
    assert result.share.value == 0.75
    assert result.even == 0.5


def test_target_agreement_by_hand():
    superclass = np.array([0, 0, 1, 1])
    labels, clean = np.array([0, 0, 0, 0, 0, 2, 0]), np.array([0, 0, 0, 0, 0, 2, 1])
    attacked = np.array(
        # one class, own superclass; other, one; mixed; once only; never; own superclass; wrong when clean
        [[1, 2, 1, 0, 0, 3, 1], [1, 3, 2, 3, 0, 2, 1], [0, 2, 0, 0, 0, 3, 1]]
    )
    result = attack_targets.target_agreement("abc", labels, clean, attacked, superclass)
    assert result.images == 4
    assert (result.one_class.value, result.one_superclass.value, result.own_superclass.value) == (0.5, 0.75, 0.5)
    without = attack_targets.target_agreement("abc", labels, clean, attacked)
    assert (without.one_class, without.one_superclass, without.own_superclass) == (result.one_class, None, None)


def test_superclasses_are_the_official_ones_whatever_the_order():
    assert list(superclasses.CIFAR100) == sorted(superclasses.CIFAR100)
    assert len(set(FINE)) == 100
    names, result = superclasses.of(FINE)
    assert len(names) == 20
    np.testing.assert_array_equal(result, np.array(COARSE.split(), int))
    np.testing.assert_array_equal(superclasses.of(FINE[::-1])[1], result[::-1])
    assert superclasses.of([*FINE[:-1], FINE[0]]) is None
    assert superclasses.of([str(index) for index in range(10)]) is None


def attacks_of(protocol):
    return ProtocolSettings.of(typed_json.plain(dataclasses.asdict(protocols.get(protocol)))).attacks


ATTACKS = attacks_of("diagnose")


def model(name="a", seed=0, classes=5, number=200, **changes):
    """Drawn verdicts under `diagnose`, without its combinations."""
    draws = np.random.RandomState(seed)
    labels = np.random.RandomState(9).randint(0, classes, number)
    wrong = (labels + draws.randint(1, classes, (len(ATTACKS), number))) % classes
    clean = np.where(draws.rand(number) < 0.9, labels, wrong[0])
    predictions = {"clean": clean}
    for place, attack in enumerate(ATTACKS):
        broken = (draws.rand(number) < 0.2 + labels / 10) | (clean != labels)
        predictions[attack.name] = np.where(broken, np.where(clean != labels, clean, wrong[place]), labels)
    fields = {"training_counts": np.arange(50, 50 - classes, -1), "class_norms": np.linspace(2, 1, classes)} | changes
    return diagnosis.Model(name, labels, classes, predictions, ATTACKS, **fields)


def test_images_in_another_order_are_the_same_diagnosis():
    models, groups = [model(), model("b", 1)], (("even", "odd"), np.arange(5) % 2)
    order = np.random.RandomState(0).permutation(200)
    shuffled = [
        dataclasses.replace(
            one, labels=one.labels[order], predictions={k: result[order] for k, result in one.predictions.items()}
        )
        for one in models
    ]
    assert typed_json.plain(diagnosis.diagnose(models, groups)) == typed_json.plain(
        diagnosis.diagnose(shuffled, groups)
    )


def test_other_numbers_for_the_classes_change_no_value_over_classes():
    one, names = model(), np.random.RandomState(1).permutation(5)
    back = np.argsort(names)
    other = dataclasses.replace(
        one,
        labels=names[one.labels],
        predictions={column: names[result] for column, result in one.predictions.items()},
        training_counts=one.training_counts[back],
        class_norms=one.class_norms[back],
    )
    (first,), (second,) = (diagnosis.diagnose([result])[0] for result in (one, other))
    for column, entry in first.columns.items():
        renamed = second.columns[column]
        assert value(entry.inequality) == pytest.approx(value(renamed.inequality))
        assert entry.asymmetry.value == pytest.approx(renamed.asymmetry.value)
        assert [entry.correct[index] for index in back] == renamed.correct
        np.testing.assert_array_equal(np.array(entry.confusion)[np.ix_(back, back)], renamed.confusion)
    for pair, renamed in zip(first.consistency, second.consistency, strict=True):
        assert pair.spearman.value == pytest.approx(renamed.spearman.value)
    assert first.target_agreement == second.target_agreement
    for relation, other_relation in (
        (first.class_norms, second.class_norms),
        (first.training_counts, second.training_counts),
    ):
        for column, entry in relation.columns.items():
            assert value(entry) == pytest.approx(value(other_relation.columns[column]))


def test_the_temperatures_of_a_protocol_are_found_by_their_settings():
    assert diagnosis.temperatures(ATTACKS) == {
        1.0: "pgd20",
        **{float(scale): f"pgd20@{scale}" for scale in (2, 5, 10, 50)},
    }
    assert diagnosis.temperatures(ATTACKS[:4]) == {}
    longer = [
        dataclasses.replace(attack, settings=attack.settings | {"steps": 40})
        if attack.settings["loss"] == "tempered"
        else attack
        for attack in ATTACKS
    ]
    assert diagnosis.temperatures(longer) == {}
    assert diagnosis.temperatures(attacks_of("quick")) == {}


def test_temperature_is_compared_with_pgd_image_by_image():
    one = model()
    pgd, *swept, worst = diagnosis.temperature(one)
    clean = one.predictions["clean"] == one.labels
    broken = {name: clean & (result != one.labels) for name, result in one.predictions.items()}
    assert pgd.change is None
    assert pgd.rate.value == broken["pgd20"].sum() / clean.sum()
    for entry in swept:
        own, base = broken[entry.column], broken["pgd20"]
        assert entry.rate.value == own.sum() / clean.sum()
        assert entry.change.value == pytest.approx(entry.rate.value - pgd.rate.value)
        assert (entry.change.b, entry.change.c) == (np.sum(own & ~base), np.sum(base & ~own))
        assert entry.change.p <= entry.change.p_holm
        difference = [spread.spread(_accuracy(one, name))["sd"] for name in (entry.column, "pgd20")]
        assert entry.inequality.sd.value == pytest.approx(difference[0] - difference[1])
    together = np.any([broken[name] for name in diagnosis.temperatures(ATTACKS).values()], axis=0)
    assert worst.rate.value == together.sum() / clean.sum()
    assert worst.change.c == 0
    nothing = dict.fromkeys(one.predictions, (one.labels + 1) % 5)
    assert diagnosis.temperature(dataclasses.replace(one, predictions=nothing)) == []


def _accuracy(one, column):
    return np.array([np.mean(one.predictions[column][one.labels == label] == label) for label in range(5)])


def test_norms_are_correlated_as_scipy_does():
    one = model()
    result = diagnosis.diagnose([one])[0][0].class_norms.columns["pgd20"]
    expected = stats.pearsonr(one.class_norms, _accuracy(one, "pgd20"))
    assert result.pearson.value == pytest.approx(expected.statistic)
    interval = expected.confidence_interval()
    assert (result.pearson.classes_low, result.pearson.classes_high) == pytest.approx(tuple(interval))
    assert result.spearman.value == pytest.approx(stats.spearmanr(one.class_norms, _accuracy(one, "pgd20"))[0])
    unknown = diagnosis.diagnose([dataclasses.replace(one, class_norms=None, training_counts=None)])[0][0]
    assert unknown.class_norms is unknown.training_counts is None
    assert unknown.columns["clean"].groups == {}


def test_a_correlation_over_three_classes_has_no_interval_over_classes():
    values, accuracies = np.array([1.0, 2.0, 3.0]), np.array([0.2, 0.4, 0.9])
    drawn = accuracies + 0.01 * np.random.RandomState(0).randn(2000, 3)
    for result in vars(diagnosis.related(values, accuracies, drawn)).values():
        assert np.isnan([result.classes_low, result.classes_high]).all()
        assert result.value == pytest.approx(1, abs=0.1)


def test_superclass_scores_count_any_class_of_the_superclass():
    one, group = model(), np.array([0, 0, 1, 1, 1])
    result = diagnosis.diagnose([one], (("low", "high"), group))[0][0].columns["pgd20"].superclasses
    inside = group[one.predictions["pgd20"]] == group[one.labels]
    assert result.overall.value == inside.mean()
    assert [entry.value for entry in result.per_superclass] == [
        inside[group[one.labels] == 0].mean(),
        inside[group[one.labels] == 1].mean(),
    ]
    broken = (one.predictions["clean"] == one.labels) & (one.predictions["pgd20"] != one.labels)
    assert result.broken_inside.value == inside[broken].mean()


def test_models_are_held_against_the_first():
    first, second = model(), model("b", 1)
    between = {entry.column: entry for entry in diagnosis.diagnose([first, second])[1]}
    assert list(between) == list(first.predictions)
    a, b = (_accuracy(one, "mim20") for one in (first, second))
    assert between["mim20"].kendall.value == pytest.approx(stats.kendalltau(a, b)[0])
    assert between["mim20"].rho.value == pytest.approx(spread.rho(b.mean(), b.min(), a.mean(), a.min()))
    alike = diagnosis.diagnose([first, dataclasses.replace(first, name="b")])[1]
    for entry in alike:
        assert entry.rho.value == 0
        assert entry.rho.low < 0
        assert not entry.rho.high <= 0  # NaN: the baseline's worst class may be 0


def test_a_class_without_images_is_left_out():
    one = model()
    kept = one.labels != 2
    one = dataclasses.replace(
        one, labels=one.labels[kept], predictions={column: result[kept] for column, result in one.predictions.items()}
    )
    result = diagnosis.diagnose([one])[0][0]
    present = _accuracy_of(one, [0, 1, 3, 4])
    inequality = result.columns["fgsm"].inequality
    assert inequality.worst.value == present.min()
    # Mean and minima are the card's.
    counts = metrics.count(one.predictions["fgsm"] == one.labels, one.labels, 5)
    views = metrics.views(counts, np.full(5, 9))
    assert inequality.mean._asdict() == views["balanced"]
    assert inequality.worst10._asdict() == views["worst10"]
    assert np.isnan(result.columns["fgsm"].per_class[2].value)


def _accuracy_of(one, classes):
    return np.array([np.mean(one.predictions["fgsm"][one.labels == label] == label) for label in classes])


def test_models_that_differ_in_images_columns_or_not_in_name_are_refused():
    one = model()
    with pytest.raises(ValueError, match="a name that no other has"):
        diagnosis.diagnose([one, one])
    with pytest.raises(ValueError, match="give at least one"):
        diagnosis.diagnose([])
    with pytest.raises(ValueError, match="a and b were evaluated on other images"):
        diagnosis.diagnose([one, dataclasses.replace(one, name="b", labels=(one.labels + 1) % 5)])
    fewer = {column: one.predictions[column] for column in ("clean", "fgsm")}
    with pytest.raises(ValueError, match="b has clean, fgsm; evaluate them under one protocol"):
        diagnosis.diagnose([one, dataclasses.replace(one, name="b", predictions=fewer)])
