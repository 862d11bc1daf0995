"""Differences between the classes of one or several models on the same images. NumPy and SciPy only.

After Tian, Kuang, Jiang, Wu and Wang, "Analysis and Applications of Class-wise Robustness in Adversarial Training" (KDD
2021). Accuracies and rates are fractions, intervals are 95 %: Wilson's for one proportion, else those of `spread`.
Classes without test images are left out of everything that joins classes.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from ltrobust.analysis import attack_targets, compare, intervals, metrics, spread
from ltrobust.analysis.intervals import Estimate
from ltrobust.analysis.schema.card import AttackRecord
from ltrobust.analysis.schema.diagnosed_column import (
    DiagnosedColumn,
    Inequality,
    SuperclassAccuracy,
    SuperclassScores,
)
from ltrobust.analysis.schema.diagnosis import (
    Correlation,
    Correlations,
    DiagnosedModel,
    InequalityChange,
    ModelAgreement,
    RankAgreement,
    RateChange,
    Relation,
    TemperatureEffect,
)
from ltrobust.analysis.schema.network import Confusion

_CHANGES = ("sd", "nsd")  # of which the temperature's effect is shown, by bootstrap


@dataclasses.dataclass(frozen=True)
class Model:
    """One model's verdicts on N images.

    Attributes:
      name: as it is to be called.
      labels: true classes, int64 [N].
      num_classes: C.
      predictions: column -> int64 [N], `clean` first, then attacks, then combinations.
      attacks: the attacks with their settings.
      training_counts: training images per class [C], or None where they are not known.
      class_norms: lengths of the classifier's rows [C], or None where there is no classifier to look at.
    """

    name: str
    labels: np.ndarray
    num_classes: int
    predictions: Mapping[str, np.ndarray]
    attacks: Sequence[AttackRecord]
    training_counts: np.ndarray | None = None
    class_norms: np.ndarray | None = None

    @property
    def right(self) -> np.ndarray:
        """Whether each image is right in each column, bool [N, K]."""
        return np.stack([result == self.labels for result in self.predictions.values()], axis=1)


def diagnose(
    models: Sequence[Model], superclasses: tuple[Sequence[str], np.ndarray] | None = None
) -> tuple[list[DiagnosedModel], list[ModelAgreement]]:
    """The diagnosis of each model, and what holds between them; the first model is the baseline of the others.

    Args:
      models: at least one, of the same images in the same order, and the same columns.
      superclasses: their names, and each class's superclass, integers [C].

    Raises:
      ValueError: no model, two of one name, or models of other images, classes or columns.
    """
    _check(models)
    return [_diagnose(model, superclasses) for model in models], _between(models)


def _diagnose(model: Model, superclasses: tuple[Sequence[str], np.ndarray] | None) -> DiagnosedModel:
    """One model."""
    drawn = spread.resample(model.right, model.labels)
    values = spread.accuracies(model.right, model.labels)
    attacks = [attack.name for attack in model.attacks if not attack.after]
    return DiagnosedModel(
        name=model.name,
        columns={
            column: describe_column(model, column, drawn[:, place], superclasses)
            for place, column in enumerate(model.predictions)
        },
        consistency=[
            RankAgreement(*names, *estimates)
            for names, estimates in _agreements(list(model.predictions), values, drawn)
        ],
        target_agreement=attack_targets.target_agreement(
            attacks,
            model.labels,
            model.predictions["clean"],
            np.stack([model.predictions[name] for name in attacks]),
            None if superclasses is None else superclasses[1],
        ),
        temperature=temperature(model),
        class_norms=_relation(model, model.class_norms, values, drawn),
        training_counts=_relation(model, model.training_counts, values, drawn),
    )


def _check(models: Sequence[Model]) -> None:
    """Refuses models that cannot be compared."""
    names = [model.name for model in models]
    if not models or len(set(names)) < len(names):
        raise ValueError(
            f"models are called {', '.join(names) or 'nothing'}; give at least one, each with a name that no other has."
        )
    first = models[0]
    for model in models:
        if model.num_classes != first.num_classes or not np.array_equal(model.labels, first.labels):
            raise ValueError(f"{first.name} and {model.name} were evaluated on other images; evaluate them alike.")
        if list(model.predictions) != list(first.predictions):
            raise ValueError(
                f"{first.name} has the columns {', '.join(first.predictions)}, {model.name} has "
                f"{', '.join(model.predictions)}; evaluate them under one protocol."
            )


def describe_column(
    model: Model, column: str, drawn: np.ndarray, superclasses: tuple[Sequence[str], np.ndarray] | None
) -> DiagnosedColumn:
    """Everything about one column.

    Args:
      model: whose column it is.
      column: its name.
      drawn: its class accuracies in bootstrap draws, [2000, G].
      superclasses: as of `diagnose`.

    The mean and the minima have the intervals of `metrics.macro` and `metrics.lowest`, as on a run's card, the highest
    and the range those of `intervals.highest_and_range`.
    """
    predictions, labels, clean = model.predictions[column], model.labels, model.predictions["clean"]
    counts = metrics.count(predictions == labels, labels, model.num_classes)
    values, bootstrap = spread.spread(counts.accuracy[counts.total > 0]), spread.spread(drawn)
    matrix = metrics.confusion(predictions, labels, model.num_classes)
    known = {} if model.training_counts is None else metrics.groups(model.training_counts)
    inequality = {name: intervals.percentile(float(value), bootstrap[name]) for name, value in values.items()}
    # A card shows these as well: one network has one interval, on whatever page.
    inequality["mean"] = metrics.macro(counts, np.arange(model.num_classes))
    inequality["worst"] = metrics.lowest(counts, 1)
    inequality["worst10"] = metrics.worst10(counts)
    seen = counts.total > 0
    inequality["best"], inequality["range"] = intervals.highest_and_range(counts.correct[seen], counts.total[seen])
    attacked = column != "clean"
    return DiagnosedColumn(
        correct=counts.correct.tolist(),
        total=counts.total.tolist(),
        per_class=[intervals.wilson(k, n) for k, n in zip(counts.correct, counts.total, strict=True)],
        overall=intervals.wilson(counts.correct.sum(), counts.total.sum()),
        inequality=Inequality(**inequality),
        groups={name: metrics.macro(counts, members) for name, members in known.items() if len(members)},
        confusion=matrix.tolist(),
        asymmetry=attack_targets.asymmetry_estimate(matrix),
        most_frequent_confusion=[entry and Confusion(*entry) for entry in metrics.most_frequent_confusion(matrix)],
        top_wrong=attack_targets.top_wrong_classes(labels, clean, predictions, model.num_classes) if attacked else None,
        superclasses=None if superclasses is None else _superclasses(labels, clean, predictions, *superclasses),
    )


def _superclasses(
    labels: np.ndarray, clean: np.ndarray, predictions: np.ndarray, names: Sequence[str], superclass: np.ndarray
) -> SuperclassScores:
    """Scored by superclass: a prediction counts as right inside the true class's superclass."""
    right, inside = predictions == labels, superclass[predictions] == superclass[labels]
    broken = (clean == labels) & ~right
    entries = []
    for index, name in enumerate(names):
        members = superclass[labels] == index
        scored, fine = (intervals.wilson(kind[members].sum(), members.sum()) for kind in (inside, right))
        entries.append(SuperclassAccuracy(name, *scored, fine=fine))
    return SuperclassScores(
        overall=intervals.wilson(inside.sum(), len(labels)),
        per_superclass=entries,
        broken_inside=intervals.wilson(inside[broken].sum(), broken.sum()),
    )


def _agreements(
    names: Sequence[str], values: np.ndarray, drawn: np.ndarray
) -> list[tuple[tuple[str, str], tuple[Estimate, Estimate]]]:
    """Names, and Spearman's and Kendall's correlation, of every pair of rows; values [K, G], draws [2000, K, G]."""
    kinds = [(kind(values), kind(drawn)) for kind in (spread.spearman, spread.kendall)]
    result = []
    for i, j in itertools.combinations(range(len(names)), 2):
        spearman, kendall = (intervals.percentile(value[i, j], draws[:, i, j]) for value, draws in kinds)
        result.append(((names[i], names[j]), (spearman, kendall)))
    return result


def temperatures(attacks: Sequence[AttackRecord]) -> dict[float, str]:
    """1/T -> the attack's name, of Temperature-PGD and the PGD that is its 1/T = 1; empty without either.

    They have all settings but loss and scale in common.
    """
    # Other attacks lack some of these fields, and are compared like all others.
    plain = {"radius": None, "decay": 0.0, "kappa": 50.0}
    rest = [
        (list(attack.after), {k: v for k, v in {**plain, **attack.settings}.items() if k not in ("loss", "scale")})
        for attack in attacks
    ]
    for pgd, own in zip(attacks, rest, strict=True):
        settings = pgd.settings
        if settings.get("loss") != "ce" or settings.get("scale") != 1.0 or settings.get("decay"):
            continue
        swept = {
            attack.settings["scale"]: attack.name
            for attack, others in zip(attacks, rest, strict=True)
            if attack.settings.get("loss") == "tempered"
            and others == own
            and isinstance(attack.settings["scale"], float)
        }
        if swept:
            return {1.0: pgd.name, **dict(sorted(swept.items()))}
    return {}


def temperature(model: Model) -> list[TemperatureEffect]:
    """Every 1/T beside PGD, then the worst, image by image over all of them; empty without Temperature-PGD."""
    swept = temperatures(model.attacks)
    clean = model.predictions["clean"] == model.labels
    if not swept or not clean.any():
        return []
    right = [model.predictions[name] == model.labels for name in swept.values()]
    # An image counts as right under the worst only if no temperature breaks it.
    right.append(np.all(right, axis=0))
    labels, together = model.labels, np.stack(right, axis=1)
    values, drawn = spread.spread(spread.accuracies(together, labels)), spread.spread(spread.resample(together, labels))
    rates = [intervals.wilson(np.sum(clean & ~kept), clean.sum()) for kept in right]
    # PGD's accuracy minus another one's is that one's rate minus PGD's.
    paired = [compare.overall(right[0][clean], kept[clean]) for kept in right[1:]]
    corrected = intervals.holm(np.array([view.test.p for view in paired]))
    result = [TemperatureEffect(1.0, swept[1.0], rates[0], change=None, inequality=None)]
    names: list[tuple[float | None, str | None]] = [*list(swept.items())[1:], (None, None)]
    for place, ((inverse, column), view, p) in enumerate(zip(names, paired, corrected, strict=True), start=1):
        test = view.test
        change = RateChange(view.difference, view.low, view.high, test.b, test.c, test.p, p_holm=float(p))
        changed = {
            name: intervals.percentile(values[name][place] - values[name][0], drawn[name][:, place] - drawn[name][:, 0])
            for name in _CHANGES
        }
        # A resampled minimum is biased twice: its interval would not hold the true difference.
        table = compare.outcomes(right[place], right[0], labels, model.num_classes)
        table = table[table.any(axis=1)]
        changed["worst"], changed["range"] = intervals.lowest_difference(table), intervals.range_difference(table)
        changed["mean"] = compare.mean_difference(table)
        result.append(TemperatureEffect(inverse, column, rates[place], change, InequalityChange(**changed)))
    return result


def related(values: np.ndarray, accuracies: np.ndarray, drawn: np.ndarray) -> Correlations:
    """Pearson's and Spearman's correlation between one number per class and class accuracies.

    Two intervals say two things. `low` and `high`: other test images of these classes. `classes_low`, `classes_high`:
    other classes, see `intervals.correlation_bounds`; not for fewer than four classes.

    Args:
      values: [G], one per class with images.
      accuracies: [G].
      drawn: the accuracies in bootstrap draws, [2000, G].
    """
    result = []
    repeated = np.broadcast_to(values, drawn.shape)
    for kind in (spread.pearson, spread.spearman):
        value = float(kind(np.stack([values, accuracies]))[0, 1])
        entry = intervals.percentile(value, kind(np.stack([repeated, drawn], axis=1))[:, 0, 1])
        low = high = math.nan
        if len(values) > 3:
            low, high = intervals.correlation_bounds(value, len(values), ranks=kind is spread.spearman)
        result.append(Correlation(*entry, classes_low=low, classes_high=high))
    return Correlations(*result)


def _relation(model: Model, numbers: np.ndarray | None, values: np.ndarray, drawn: np.ndarray) -> Relation | None:
    """`related` of one number per class [C] to every column; None where the numbers are not known."""
    if numbers is None:
        return None
    numbers, present = np.asarray(numbers, float), np.unique(model.labels)
    columns = {
        column: related(numbers[present], values[place], drawn[:, place])
        for place, column in enumerate(model.predictions)
    }
    return Relation(numbers.tolist(), columns)


def _counts(model: Model, column: str) -> metrics.ClassCounts:
    """A column's counts of the classes with images."""
    counts = metrics.count(model.predictions[column] == model.labels, model.labels, model.num_classes)
    return metrics.ClassCounts(counts.correct[counts.total > 0], counts.total[counts.total > 0])


def _between(models: Sequence[Model]) -> list[ModelAgreement]:
    """Rank correlations between models, column by column, and rho against the first model."""
    result = []
    names, labels = [model.name for model in models], models[0].labels
    for column in models[0].predictions if len(models) > 1 else ():
        right = np.stack([model.predictions[column] == labels for model in models], axis=1)
        values, drawn = spread.accuracies(right, labels), spread.resample(right, labels)
        for (first, second), estimates in _agreements(names, values, drawn):
            place = names.index(second)
            rho = (
                spread.rho_estimate(*(_counts(models[at], column) for at in (place, 0))) if first == names[0] else None
            )
            result.append(ModelAgreement(first, second, *estimates, column=column, rho=rho))
    return result
