"""Comparisons of evaluated networks, image by image: two stores, several networks, or seeds of two methods. No JAX."""

import collections
import re
from collections.abc import Sequence

import numpy as np

from ltrobust.analysis import compare, flips, intervals, results, seeds
from ltrobust.analysis.results import Model
from ltrobust.analysis.schema.card import ProtocolSettings, ThreatSettings
from ltrobust.analysis.schema.comparison import (
    Breakers,
    ComparedNetwork,
    NetworkComparison,
    NetworkPair,
    SeedComparison,
)
from ltrobust.analysis.schema.paired import PairedComparison
from ltrobust.evaluation import store


def compare_all(arguments: Sequence[str], against: Sequence[str] = (), column: str | None = None) -> NetworkComparison:
    """Everything that the command prints.

    Args:
      arguments: the reference and the models; with `against`, the models alone.
      against: the reference; or several runs of a second method, in the same order of seeds as `arguments`, which are
        then the runs of the first.
      column: `clean`, an attack, or a combination; None for the protocol's headline.

    Raises:
      ValueError: as `read`; too few arguments, or numbers of seeds or seeds that do not pair.
    """
    check_numbers(arguments, against)
    return compare_models(*read(arguments, against), column)


def read(arguments: Sequence[str], against: Sequence[str]) -> tuple[list[Model], int]:
    """The networks, a single reference first, and how many runs of a second method end the list."""
    if len(against) == 1:
        return results.read_alike([*against, *arguments]), 0
    return results.read_alike([*arguments, *against]), len(against)


def compare_models(models: Sequence[Model], against: int = 0, column: str | None = None) -> NetworkComparison:
    """`compare_all` of networks that were read; the last `against` ones are the second method's, or else 0 of them."""
    pairs = [(model, models[0]) for model in models[1:]]
    if against:
        pairs = list(zip(models[:against], models[against:], strict=True))
        _check_seeds(pairs)
    compared = [_pair(model, reference, column) for model, reference in pairs]
    provenance = models[0].of.provenance
    return NetworkComparison(
        column=column or store.columns(provenance)[-1],
        protocol=ProtocolSettings.of(provenance["protocol"]),
        threat=ThreatSettings(**provenance["threat"]),
        images=provenance["images"]["number"],
        class_names=_class_names(models),
        training_counts=provenance["about"].get("training_counts"),
        notes=[*_notes(models), seeds.primary_note(provenance["protocol"]["name"])],
        models=[_describe(model, column) for model in models],
        comparisons=compared,
        seeds=_over_seeds(compared, [reference for _, reference in pairs], column) if against else None,
        sides=[_side([a.name for a, _ in pairs]), _side([b.name for _, b in pairs])] if against else None,
    )


def _over_seeds(compared: Sequence[NetworkPair], references: Sequence[Model], column: str | None) -> SeedComparison:
    """The comparisons of all seeds; the primary one is in the headline of its protocol."""
    provenance = references[0].of.provenance
    headline = column in (None, store.columns(provenance)[-1])
    primary = seeds.PRIMARY_VIEW if provenance["protocol"]["name"] == seeds.PRIMARY_PROTOCOL and headline else None
    counts = [reference.of.provenance["about"].get("training_counts") for reference in references]
    return seeds.over_seeds([p.result for p in compared], [p.columns for p in compared], counts, primary=primary)


def check_numbers(arguments: Sequence[str], against: Sequence[str]) -> None:
    """Refuses numbers of networks that make no comparison."""
    if len(against) > 1 and len(arguments) != len(against):
        raise ValueError(
            f"{len(arguments)} runs against {len(against)}: give one reference, or as many runs of the second method "
            "as of the first."
        )
    if not against and len(arguments) < 2:
        raise ValueError(f"{len(arguments)} network: a comparison needs a reference and at least one more.")


def _pair(model: Model, reference: Model, column: str | None) -> NetworkPair:
    """Everything on two networks."""
    provenance = reference.of.provenance
    flipped = flips.flips(provenance, model.verdicts, reference.verdicts, column)
    return NetworkPair(
        model=model.name,
        reference=reference.name,
        difference=f"{model.name} minus {reference.name}",
        result=_compare(model, reference, column),
        columns=flips.by_column(provenance, model.verdicts, reference.verdicts),
        flips=flipped,
        breakers=Breakers(*(flips.breakers(provenance, result, column) for result in (flipped.won, flipped.lost))),
    )


def _compare(first: Model, second: Model, column: str | None) -> PairedComparison:
    """`first` minus `second`, with the groups of the second's training counts, where it has any."""
    (_, labels, right), (_, _, other) = (
        store.correct(model.of.provenance, model.verdicts, column) for model in (first, second)
    )
    counts = second.of.provenance["about"].get("training_counts")
    counts = None if counts is None else np.asarray(counts)
    return compare.compare(right, other, labels, second.of.provenance["num_classes"], counts)


def _check_seeds(pairs: Sequence[tuple[Model, Model]]) -> None:
    """Refuses pairs of other seeds, and a seed that occurs twice, as far as seeds are known."""
    known = [(_seed(first), _seed(second)) for first, second in pairs]
    for side in zip(*known, strict=True):
        twice = [seed for seed, number in collections.Counter(side).items() if number > 1 and seed is not None]
        if twice:
            raise ValueError(f"training seed {twice[0]} occurs twice on one side; give each seed once.")
    for (first, second), (one, other) in zip(pairs, known, strict=True):
        if one is not None and other is not None and one != other:
            raise ValueError(
                f"{first.name} has training seed {one} and {second.name} {other}; give both methods' runs in the same "
                "order of seeds."
            )


def _seed(model: Model) -> int | None:
    """Training seed, if a card records it."""
    return None if model.of.card is None else model.of.card.seed


def _side(names: Sequence[str]) -> str:
    """What the runs of one method are called: their common name without the seed, or the first run's and how many."""
    without = {re.sub(r"[-_.]?seed[-_=]?\d+", "", name) for name in names}
    return without.pop() if len(without) == 1 else f"{names[0]} and {len(names) - 1} more"


def _class_names(models: Sequence[Model]) -> list[str]:
    """The first class names that the provenance or the card of a model has, else numbers."""
    class_names = [model.of.provenance["about"].get("class_names") for model in models]
    class_names += [list(model.of.card.data.class_names) for model in models if model.of.card]
    return next(filter(None, class_names), None) or [str(n) for n in range(models[0].of.provenance["num_classes"])]


def _notes(models: Sequence[Model]) -> list[str]:
    """Notes for the reader."""
    reference, *others = models
    counts = reference.of.provenance["about"].get("training_counts")
    other = [m.name for m in others if m.of.provenance["about"].get("training_counts") != counts]
    where = f"groups of classes are those of {reference.name}" if counts else "groups are those of each reference"
    return [f"{', '.join(other)}: trained on other numbers of images per class; {where}."] if other else []


def _describe(model: Model, column: str | None) -> ComparedNetwork:
    """A network and its accuracies over all images."""
    provenance = model.of.provenance
    columns = {}
    for name in store.columns(provenance):
        right = store.correct(provenance, model.verdicts, name)[2]
        columns[name] = intervals.wilson(int(right.sum()), len(right))
    robust = columns[column or store.columns(provenance)[-1]]
    network = model.of.network or provenance["about"].get("network")
    return ComparedNetwork(model.name, network, _seed(model), columns, robust)
