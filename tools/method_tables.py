"""Tables of docs/methods/, made from the registered methods, their signatures and docstrings, and the recipes.

    python -m tools.method_tables        rewrites the tables
    python -m tools.check_pages          names the pages that are older than the code

A method named NAME has its table between the markers `method-NAME`, on whichever page has them.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from configs import cifar10_distillation, default, published
from configs.sweeps import ablation_cifar10
from ltrobust import methods
from ltrobust.commands import config as config_listing
from ltrobust.report.numbers import markdown
from ltrobust.runtime.workdir import flatten
from tools.summary import rewrite

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path("docs") / "methods"
BEGIN = re.compile(r"<!-- ([\w-]+):begin -->")
RELEASED = Path("tests") / "methods" / "released_values.npz"
# What the page calls what a train-mode pass sees.
PASSES = {"adv": "x'", "clean": "x", "minus": "x - d"}


def blocks(root: Path) -> Iterator[tuple[str, str, Callable[[], str]]]:
    """Page, marker and the function that makes the text between, for every marker on the pages of methods."""
    for path in sorted((root / FOLDER).glob("*.md")):
        for marker in BEGIN.findall(path.read_text()):
            yield str(path.relative_to(root)), marker, _maker(marker, root)


def _maker(marker: str, root: Path) -> Callable[[], str]:
    """What makes the text between markers of that name.

    Raises:
      ValueError: no table has this name.
    """
    others = {
        "methods": lambda: index(root),
        "phase-keys": phase_keys,
        "recipes": recipes,
        "distillation-recipes": distillation_recipes,
        "ablation": ablation,
    }
    kind, _, name = marker.partition("-")
    if kind == "method" and name in methods.REGISTRY | methods.WRAPPERS:
        return lambda: settings(name)
    if marker not in others:
        raise ValueError(f"no table is called {marker}; known: method-NAME, {', '.join(others)}.")
    return others[marker]


def settings(name: str) -> str:
    """Markdown: where a method is written, what it needs, and its settings with defaults and meanings."""
    function = (methods.REGISTRY | methods.WRAPPERS)[name]
    facts = [f"Source: {_source(function)}", *_facts(name)]
    defaults = methods.defaults().get(name, {})
    if not defaults:
        return "; ".join(facts) + ". No settings."
    meanings = config_listing.arguments(function)
    rows = [
        [f"`{key}`", f"`{_plain(value)}`", re.sub(r" \(docs/[^)]*\)", "", meanings.get(key, ""))]
        for key, value in defaults.items()
    ]
    return "; ".join(facts) + ".\n\n" + table([f"`methods.{name}`", "default", "meaning"], rows)


def _facts(name: str) -> Iterator[str]:
    """The train-mode passes of a method, and the teachers that it needs."""
    if name not in methods.REGISTRY:
        yield "a wrapper"
        return
    method = methods.create(name, methods.InnerAttack())
    if method.passes:
        yield f"train-mode passes: {_passes(method)}"
    if "variant" in methods.defaults().get(name, {}):
        released = methods.create(name, methods.InnerAttack(), variant="as_released")
        if released.passes and released.passes != method.passes:
            yield f"`as_released`: {_passes(released)}"
    if method.teachers:
        yield f"teachers: {', '.join(f'`{teacher}`' for teacher in method.teachers)}"


def _passes(method: methods.Method) -> str:
    return ", ".join(PASSES[one] for one in method.passes or ())


def index(root: Path) -> str:
    """Markdown: every method and wrapper, its page, and the released code that its numbers were compared with."""
    pages = {
        marker.partition("-")[2]: path.name
        for path in sorted((root / FOLDER).glob("*.md"))
        for marker in BEGIN.findall(path.read_text())
        if marker.startswith("method-")
    }
    with np.load(ROOT / RELEASED) as values:
        provenance = json.loads(str(values["provenance"]))
    rows = []
    for name in (*methods.REGISTRY, *methods.WRAPPERS):
        code = {text.partition(":")[0] for key, text in provenance.items() if re.fullmatch(rf"{name}(_\w+)?", key)}
        kind = "wrapper" if name in methods.WRAPPERS else "method"
        page = f"[{pages[name][:-3].replace('_', ' ')}]({pages[name]})" if name in pages else ""
        rows.append([f"`{name}`", kind, page, ", ".join(f"`{one}`" for one in sorted(code)) or "none"])
    return table(["name", "kind", "page", "compared with released code"], rows)


def phase_keys() -> str:
    """Markdown: the keys of optimiser, augmentation and attack, with the values of both phases."""
    values, meanings = flatten(default.get_config().to_dict()), config_listing.meanings()
    shown = ("epochs", "batch_size", "remainder", "ema_decay", "optimizer.", "augmentation.", "attack.", "subset")
    rows = []
    for key, value in sorted(values.items()):
        phase, _, rest = key.partition(".")
        if phase == "student" and rest.startswith((*shown, "balanced.")):
            teacher = values[f"teacher.{rest}"]
            rows.append([f"`{rest}`", f"`{_plain(value)}`", f"`{_plain(teacher)}`", meanings.get(key, "")])
    return table(["key of a phase", "student", "teacher", "meaning"], rows)


def recipes() -> str:
    """Markdown: every recipe of configs/published.py, as what it changes in configs/default.py."""
    return table(["recipe", "sets"], [[f"`{name}`", _changes(result)] for name, result in published.RECIPES.items()])


def distillation_recipes() -> str:
    """Markdown: every recipe of configs/cifar10_distillation.py, as what it changes in configs/default.py."""
    bases = cifar10_distillation.BASES
    names = [*bases, *(f"{name}+igdm" for name in bases), *cifar10_distillation.OTHERS]
    before = flatten(default.get_config().to_dict())
    always = {"data.name", "data.imbalance_ratio"}
    rows = []
    for name in names:
        after = flatten(cifar10_distillation.get_config(name).to_dict())
        method = {key for key in after if key.startswith("methods.")}
        used = {key for key in method if key.split(".")[1] in (after["student.method"], *after["student.wrappers"])}
        changed = {key: value for key, value in after.items() if value != before[key] and key not in always}
        rows.append([f"`{name}`", _changes({key: changed[key] for key in changed if key not in method - used})])
    return table(["recipe", "sets"], rows)


def ablation() -> str:
    """Markdown: the variants of the ablation sweep."""
    rows = []
    for question, variants in ablation_cifar10.QUESTIONS.items():
        for name, changes in variants.items():
            rows.append([f"`{name}`", question, _changes(changes) or "nothing"])
            question = ""
    return table(["variant", "question", "sets"], rows)


def _changes(changes: dict[str, Any]) -> str:
    return ", ".join(f"`{key}={_plain(value)}`" for key, value in changes.items())


def _plain(value: Any) -> str:
    """A value as a configuration file has it, long fractions rounded."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_plain, value))}{',' if len(value) == 1 else ''})"
    return f"{value:.6g}" if isinstance(value, float) else str(value) or '""'


def _source(function: Callable[..., Any]) -> str:
    """A link to the file that defines a function, from a page of methods."""
    path = Path(inspect.getfile(function)).relative_to(ROOT)
    return f"[{path.name}](../../{path})"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    return markdown([[cell.replace("|", r"\|") for cell in row] for row in (head, *rows)]).rstrip("\n")


def main(root: Path = ROOT) -> None:
    """Rewrites the tables of the pages under `root`."""
    for page, marker, make in blocks(root):
        path = root / page
        rewrite(path, make(), marker)


if __name__ == "__main__":
    main()
