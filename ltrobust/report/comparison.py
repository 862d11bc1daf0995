"""Plain text of a paired comparison of two models, made from its dictionary alone. No JAX."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ltrobust.report import tables

_LEVEL = 0.05
_FEW_CLASSES = 20
_OPEN = "no difference shown"
# Rows in this order, wherever JSON put them; other groups follow, the worst class ends.
_VIEWS = ("overall", "balanced", "head_third", "medium_third", "tail_third", "tail_rare80")
_VIEWS += ("many_count", "medium_count", "few_count", "rarest1")
_DEFINITIONS = {
    "third": "third: by index from the most frequent class, head below floor(C/3), tail beyond 2 floor(C/3)",
    "rare80": "rare80: the rarest ceil(0.8 C) classes",
    "count": "count: many >= 100, medium 20-99, few < 20 training images",
    "rarest1": "rarest1: the rarest class",
}


def render(result: Mapping[str, Any], names: tuple[str, str], class_names: Sequence[str] | None = None) -> str:
    """Overall, balanced, groups and worst class, then the classes, in percent with two decimals.

    A model is called ahead only where the interval of the difference excludes 0 and, where the pooled test is of the
    same difference, p < 0.05: intervals of few differing images are too narrow, 5 against 0 of 1,000 have p = 0.06. A
    class needs a corrected p < 0.05; of more than 20 classes only such are printed.

    Args:
      result: what `ltrobust.analysis.compare.compare` returned, or the same read from JSON.
      names: of the first and the second model.
      class_names: one per class; default: their indices.

    Raises:
      ValueError: both models have one name, or the number of class names is another.
    """
    classes = result["per_class"]
    class_names = [str(entry["class"]) for entry in classes] if class_names is None else list(class_names)
    if names[0] == names[1]:
        raise ValueError(f"both models are called {names[0]!r}: two different names are needed to say which is ahead.")
    if len(class_names) != len(classes):
        raise ValueError(f"{len(class_names)} class names for {len(classes)} classes; pass one per class, or None.")
    title = f"{names[0]} minus {names[1]}, the same {result['images']} test images; percent with 95 % intervals"
    worst = [class_names[result["worst"][f"{which}_class"]] for which in ("first", "second")]
    legend = f"worst class: {worst[0]} of {names[0]}, {worst[1]} of {names[1]}.\n{_legend(result, names)}"
    parts = [title, _summary(result, names), legend, _classes(classes, names, class_names)]
    if result["classes_without_images"]:
        absent = ", ".join(str(class_names[index]) for index in result["classes_without_images"])
        parts.append(f"without test images, left out: {absent}.")
    return "\n\n".join(parts)


def _summary(result: Mapping[str, Any], names: tuple[str, str]) -> str:
    """One line per view that joins classes."""
    views = [name for name, view in result.items() if isinstance(view, Mapping) and name != "worst"]
    shown = [*(name for name in _VIEWS if name in views), *(name for name in views if name not in _VIEWS), "worst"]
    header = ["", *names, "difference", "interval", "b", "c", "p", "mid-p", "ahead"]
    return tables.align([header, *(_line(name, result[name], names) for name in shown)])


def _line(name: str, view: Mapping[str, Any], names: tuple[str, str]) -> list[str]:
    """Cells of one view."""
    test = view.get("pooled", view)
    label = f"{name} ({view['classes']} class{'es' if view['classes'] > 1 else ''})" if "classes" in view else name
    return [
        label if name != "worst" else "worst class",
        *_values(view),
        f"[{100 * view['low']:+.2f}, {100 * view['high']:+.2f}]",
        *(_test(test, ("p", "mid_p")) if "p" in test else ["-"] * 4),
        _ahead(view, names),
    ]


def _ahead(view: Mapping[str, Any], names: tuple[str, str]) -> str:
    """The model that a view shows to be better, if any."""
    test = view.get("pooled", view)
    # Classes of equal size: the mean over classes is the pooled accuracy, and its exact test applies.
    pooled = (test["b"] - test["c"]) / view["images"] if "pooled" in view else view["difference"]
    if "p" in test and test["p"] >= _LEVEL and math.isclose(pooled, view["difference"], abs_tol=1e-9):
        return _OPEN
    # The sign is asked as well: the interval of a minimum is biased and need not hold it.
    if view["low"] > 0 and view["difference"] > 0:
        return names[0]
    return names[1] if view["high"] < 0 and view["difference"] < 0 else _OPEN


def differs(view: Mapping[str, Any]) -> bool:
    """Whether a view, or a class, shows one model ahead, by the rule of `render`."""
    return view["p_holm"] < _LEVEL if "p_holm" in view else _ahead(view, ("first", "second")) != _OPEN


def _legend(result: Mapping[str, Any], names: tuple[str, str]) -> str:
    """What the columns and the rows mean."""
    lines = [
        f"b, c: images that only {names[0]}, only {names[1]} gets right, pooled; p: exact McNemar test of b = c.",
        "intervals: normal for overall, otherwise paired bootstrap inside each class; the worst class is chosen anew",
        "for each model in every draw.",
        f"ahead: the interval excludes 0, and p < {_LEVEL} where the pooled test is of the same difference.",
    ]
    used = [f"  {text}" for key, text in _DEFINITIONS.items() if any(name.endswith(key) for name in result)]
    return "\n".join([*lines, *(["groups, means over classes:", *used] if used else [])])


def _classes(classes: Sequence[Mapping[str, Any]], names: tuple[str, str], class_names: Sequence[str]) -> str:
    """One line per class with images: all of few classes, otherwise those that differ after correction."""
    seen = [entry for entry in classes if entry["images"]]
    few = len(classes) <= _FEW_CLASSES
    shown = [entry for entry in seen if few or entry["p_holm"] < _LEVEL]
    family = f"p corrected by Holm over {len(seen)} classes"
    if not shown:
        return f"per class: none of {len(seen)} classes differs at corrected p < {_LEVEL} ({family})."
    header = ["class", "images", *names, "difference", "b", "c", "p", "mid-p", "corrected p", "ahead"]
    rows = [
        [
            class_names[entry["class"]],
            str(entry["images"]),
            *_values(entry),
            *_test(entry, ("p", "mid_p", "p_holm")),
            _OPEN if entry["p_holm"] >= _LEVEL else names[0] if entry["b"] > entry["c"] else names[1],
        ]
        for entry in shown
    ]
    which = "" if few else f"{len(shown)} of {len(seen)} classes, those with corrected p < {_LEVEL}; "
    title = f"per class ({which}{family}; ahead: corrected p < {_LEVEL}):"
    return f"{title}\n{tables.align([header, *rows])}"


def _values(view: Mapping[str, Any]) -> list[str]:
    """Both accuracies and the signed difference, in percent."""
    return [f"{100 * view['first']:.2f}", f"{100 * view['second']:.2f}", f"{100 * view['difference']:+.2f}"]


def _test(test: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """Discordant counts and p-values; a tiny p-value as a bound."""
    return [str(test["b"]), str(test["c"]), *(f"{test[key]:.4f}" if test[key] >= 1e-4 else "<0.0001" for key in keys)]
