"""What separates the classes of one or several models on the same images, as plain values. NumPy and SciPy only.

After Tian, Kuang, Jiang, Wu and Wang, "Analysis and Applications of Class-wise Robustness in Adversarial Training" (KDD
2021). Accuracies and rates are fractions, intervals are 95 %: Wilson's for one proportion, else those of `spread`.
Classes without test images are left out of everything that joins classes.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from ltrobust.analysis import compare, homing, metrics, spread

_CHANGES = ("mean", "worst", "range", "sd", "nsd")  # of which the temperature's effect is shown


@dataclasses.dataclass(frozen=True)
class Model:
    """One model's verdicts on N images.

    Attributes:
      name: as it is to be called.
      labels: true classes, int64 [N].
      num_classes: C.
      predictions: column -> int64 [N], `clean` first, then attacks, then combinations.
      attacks: the attacks with their settings, as a store's passport has them.
      training_counts: training images per class [C], or None where they are not known.
      class_norms: lengths of the classifier's rows [C], or None where there is no classifier to look at.
    """

    name: str
    labels: np.ndarray
    num_classes: int
    predictions: Mapping[str, np.ndarray]
    attacks: Sequence[Mapping[str, Any]]
    training_counts: np.ndarray | None = None
    class_norms: np.ndarray | None = None

    @property
    def right(self) -> np.ndarray:
        """Whether each image is right in each column, bool [N, K]."""
        return np.stack([found == self.labels for found in self.predictions.values()], axis=1)


def diagnose(models: Sequence[Model], superclasses: tuple[Sequence[str], np.ndarray] | None = None) -> dict[str, Any]:
    """The diagnosis of each model, and what holds between them; the first model is the baseline of the others.

    Args:
      models: at least one, of the same images in the same order, and the same columns.
      superclasses: their names, and each class's superclass, integers [C].

    Returns:
      models: per model `columns` (see `describe_column`), `consistency` over columns, `homing`, `temperature` and
        `related` (see `temperature`, `related`).
      between: per pair of models and column the rank correlations of their class accuracies, and `rho` of the second
        against the first.

    Raises:
      ValueError: no model, two of one name, or models of other images, classes or columns.
    """
    _check(models)
    superclass = None if superclasses is None else superclasses[1]
    described = []
    for model in models:
        drawn = spread.resample(model.right, model.labels)
        entry = {
            "name": model.name,
            "columns": {
                column: describe_column(model, column, drawn[:, place], superclasses)
                for place, column in enumerate(model.predictions)
            },
            "consistency": _agreements(list(model.predictions), spread.accuracies(model.right, model.labels), drawn),
            "homing": _homing(model, superclass),
            "temperature": temperature(model),
            "related": _relations(model, drawn),
        }
        described.append(entry)
    return {"models": described, "between": _between(models)}


def _check(models: Sequence[Model]) -> None:
    """Refuses models that cannot be compared."""
    names = [model.name for model in models]
    if not models or len(set(names)) < len(names):
        raise ValueError(
            f"models are called {', '.join(names) or 'nothing'}; give at least one, each a name of its own."
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
) -> dict[str, Any]:
    """Everything about one column.

    Args:
      model: whose column it is.
      column: its name.
      drawn: its class accuracies in bootstrap draws, [2000, G].
      superclasses: as of `diagnose`.

    Returns:
      correct, total, per_class (Wilson); overall (Wilson); spread: `spread.spread` by measure, its minima with the
      intervals of `metrics.lowest`, as on a run's card; groups: means over the
      groups of `metrics.groups` where training counts are known; confusion: counts, row = true class; asymmetry; thief:
      see `metrics.thief`; favourites: see `homing.favourites`, not for `clean`; superclasses: see `_superclasses`.
    """
    predictions, labels, clean = model.predictions[column], model.labels, model.predictions["clean"]
    counts = metrics.count(predictions == labels, labels, model.num_classes)
    values, bootstrap = spread.spread(counts.accuracy[counts.total > 0]), spread.spread(drawn)
    matrix = metrics.confusion(predictions, labels, model.num_classes)
    known = {} if model.training_counts is None else metrics.groups(model.training_counts)
    inequality = {name: spread.estimate(value, bootstrap[name]) for name, value in values.items()}
    # A card shows these two as well: one network has one interval, on whatever page.
    inequality["worst"] = metrics.lowest(counts, 1)._asdict()
    inequality["worst10"] = metrics.lowest(counts, math.ceil(0.1 * np.count_nonzero(counts.total) - 1e-9))._asdict()
    found = {
        "correct": counts.correct.tolist(),
        "total": counts.total.tolist(),
        "per_class": [metrics.wilson(k, n)._asdict() for k, n in zip(counts.correct, counts.total, strict=True)],
        "overall": metrics.wilson(counts.correct.sum(), counts.total.sum())._asdict(),
        "spread": inequality,
        "groups": {name: metrics.macro(counts, members)._asdict() for name, members in known.items() if len(members)},
        "confusion": matrix.tolist(),
        "asymmetry": homing.asymmetry_estimate(matrix),
        "thief": metrics.thief(matrix),
    }
    if column != "clean":
        found["favourites"] = homing.favourites(labels, clean, predictions, model.num_classes)
    if superclasses is not None:
        found["superclasses"] = _superclasses(labels, clean, predictions, *superclasses)
    return found


def _superclasses(
    labels: np.ndarray, clean: np.ndarray, predictions: np.ndarray, names: Sequence[str], superclass: np.ndarray
) -> dict[str, Any]:
    """Scored by superclass: a prediction counts as right inside the true class's superclass.

    overall and per_superclass: that accuracy (Wilson), and `fine`, the usual one of the same images. broken_inside: of
    the images that are right when clean and wrong here, the share that stays in its superclass. The attacks were after
    any wrong class, so these are upper bounds of what an attack on the superclass would leave.
    """
    right, inside = predictions == labels, superclass[predictions] == superclass[labels]
    broken = (clean == labels) & ~right
    entries = []
    for index, name in enumerate(names):
        members = superclass[labels] == index
        scored, fine = (metrics.wilson(kind[members].sum(), members.sum())._asdict() for kind in (inside, right))
        entries.append({"name": name, **scored, "fine": fine})
    return {
        "overall": metrics.wilson(inside.sum(), len(labels))._asdict(),
        "per_superclass": entries,
        "broken_inside": metrics.wilson(inside[broken].sum(), broken.sum())._asdict(),
    }


def _agreements(names: Sequence[str], values: np.ndarray, drawn: np.ndarray) -> list[dict[str, Any]]:
    """Rank correlations of class accuracies for every pair of rows; values [K, G], draws [2000, K, G]."""
    pairs = list(itertools.combinations(range(len(names)), 2))
    found: list[dict[str, Any]] = [{"first": names[i], "second": names[j]} for i, j in pairs]
    for kind in (spread.spearman, spread.kendall):
        value, draws = kind(values), kind(drawn)
        for entry, (i, j) in zip(found, pairs, strict=True):
            entry[kind.__name__] = spread.estimate(value[i, j], draws[:, i, j])
    return found


def _homing(model: Model, superclass: np.ndarray | None) -> dict[str, Any]:
    """`homing.homing` over the attacks that saw every image that is right when clean."""
    attacks = [attack["name"] for attack in model.attacks if not attack["after"]]
    attacked = np.stack([model.predictions[name] for name in attacks])
    found = homing.homing(model.labels, model.predictions["clean"], attacked, superclass)
    return found | {"attacks": attacks}


def temperatures(attacks: Sequence[Mapping[str, Any]]) -> dict[float, str]:
    """1/T -> the attack's name, of Temperature-PGD and the PGD that is its 1/T = 1; empty without either.

    They have all settings but loss and scale in common.
    """
    # Other attacks lack some of these fields, and are compared like all others.
    plain = {"radius": None, "after": [], "decay": 0.0, "kappa": 50.0}
    rest = [
        {key: value for key, value in (plain | dict(attack)).items() if key not in ("name", "loss", "scale")}
        for attack in attacks
    ]
    for pgd, settings in zip(attacks, rest, strict=True):
        if pgd.get("loss") != "ce" or pgd.get("scale") != 1.0 or pgd.get("decay"):
            continue
        swept = {
            attack["scale"]: attack["name"]
            for attack, own in zip(attacks, rest, strict=True)
            if attack.get("loss") == "tempered" and own == settings and isinstance(attack["scale"], float)
        }
        if swept:
            return {1.0: pgd["name"], **dict(sorted(swept.items()))}
    return {}


def temperature(model: Model) -> list[dict[str, Any]]:
    """Every 1/T beside PGD, then `worst`, image by image over all of them; empty without Temperature-PGD.

    Returns:
      inverse: 1/T, or `worst`; column: its name, None for `worst`.
      rate: the attack's success rate on the images that are right when clean (Wilson).
      change: of that rate, minus PGD's, on the same images; with interval and McNemar's test, see `compare.compare`;
        `p_holm` is corrected over the list. None for PGD.
      spread: change of measures over classes, minus PGD's, on all images, paired. None for PGD.
    """
    swept = temperatures(model.attacks)
    clean = model.predictions["clean"] == model.labels
    if not swept or not clean.any():
        return []
    right = [model.predictions[name] == model.labels for name in swept.values()]
    # An image counts as right under `worst` only if no temperature breaks it.
    right.append(np.all(right, axis=0))
    labels, together = model.labels, np.stack(right, axis=1)
    values, drawn = spread.spread(spread.accuracies(together, labels)), spread.spread(spread.resample(together, labels))
    found = []
    for place, (inverse, column) in enumerate([*swept.items(), ("worst", None)]):
        rate = metrics.wilson(np.sum(clean & ~right[place]), clean.sum())._asdict()
        entry = {"inverse": inverse, "column": column, "rate": rate, "change": None, "spread": None}
        if place:
            # PGD's accuracy minus this one's is this one's rate minus PGD's.
            paired = compare.compare(right[0][clean], right[place][clean], labels[clean], model.num_classes)["overall"]
            entry["change"] = {"value": paired["difference"]} | {
                key: paired[key] for key in ("low", "high", "b", "c", "p")
            }
            entry["spread"] = {
                name: spread.estimate(values[name][place] - values[name][0], drawn[name][:, place] - drawn[name][:, 0])
                for name in _CHANGES
            }
        found.append(entry)
    corrected = compare.holm(np.array([entry["change"]["p"] for entry in found[1:]]))
    for entry, p in zip(found[1:], corrected, strict=True):
        entry["change"]["p_holm"] = float(p)
    return found


def related(values: np.ndarray, accuracies: np.ndarray, drawn: np.ndarray) -> dict[str, Any]:
    """Pearson's and Spearman's correlation between one number per class and class accuracies.

    Two intervals say two things. `low` and `high`: other test images of these classes. `classes_low`, `classes_high`:
    other classes, tanh(artanh r +- z s), with s = 1 / sqrt(G - 3) for Pearson (Fisher) and
    s = sqrt((1 + r^2 / 2) / (G - 3)) for Spearman (Bonett and Wright 2000); not for fewer than four classes.

    Args:
      values: [G], one per class with images.
      accuracies: [G].
      drawn: the accuracies in bootstrap draws, [2000, G].
    """
    found = {}
    repeated = np.broadcast_to(values, drawn.shape)
    for kind in (spread.pearson, spread.spearman):
        value = float(kind(np.stack([values, accuracies]))[0, 1])
        entry = spread.estimate(value, kind(np.stack([repeated, drawn], axis=1))[:, 0, 1])
        if len(values) > 3:
            deviation = np.sqrt((1 + value**2 / 2 if kind is spread.spearman else 1) / (len(values) - 3))
            # A correlation of exactly 1 would have an infinite centre.
            centre = np.arctanh(np.clip(value, -1 + 1e-9, 1 - 1e-9))
            low, high = np.tanh(centre + np.array([-1, 1]) * stats.norm.ppf(0.975) * deviation)
            entry |= {"classes_low": float(low), "classes_high": float(high)}
        found[kind.__name__] = entry
    return found


def _relations(model: Model, drawn: np.ndarray) -> dict[str, Any]:
    """`related` of the classifier's row norms, and of the training images, to every column; None where unknown."""
    present = np.unique(model.labels)
    values = spread.accuracies(model.right, model.labels)
    found: dict[str, Any] = {}
    for name, numbers in (("class_norms", model.class_norms), ("training_counts", model.training_counts)):
        found[name] = None
        if numbers is not None:
            numbers = np.asarray(numbers, float)
            columns = {
                column: related(numbers[present], values[place], drawn[:, place])
                for place, column in enumerate(model.predictions)
            }
            found[name] = {"values": numbers.tolist(), "columns": columns}
    return found


def _between(models: Sequence[Model]) -> list[dict[str, Any]]:
    """Rank correlations between models, column by column, and rho against the first model."""
    found = []
    names, labels = [model.name for model in models], models[0].labels
    for column in models[0].predictions if len(models) > 1 else ():
        right = np.stack([model.predictions[column] == labels for model in models], axis=1)
        values, drawn = spread.accuracies(right, labels), spread.resample(right, labels)
        (mean, worst), (means, worsts) = (
            (measures["mean"], measures["worst"]) for measures in (spread.spread(values), spread.spread(drawn))
        )
        scores = spread.rho(mean, worst, mean[0], worst[0])
        draws = spread.rho(means, worsts, means[:, :1], worsts[:, :1])
        for entry in _agreements(names, values, drawn):
            place = names.index(entry["second"])
            own = {"rho": spread.estimate(scores[place], draws[:, place])} if entry["first"] == names[0] else {}
            found.append({"column": column, **entry, **own})
    return found
