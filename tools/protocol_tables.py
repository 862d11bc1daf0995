"""Tables of docs/concepts/, made from the protocols, the sanity panel's rules, the sampler and the fields of a verdict.

python -m tools.protocol_tables      rewrites the tables
python -m tools.check_pages          names the pages that are older than the code
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ltrobust.attacks import kinds
from ltrobust.commands.config import arguments
from ltrobust.data import blank, identity, longtail
from ltrobust.evaluation import protocols
from ltrobust.evaluation.lines import Line
from ltrobust.evaluation.verdict import Verdict
from ltrobust.sanity import panel, rules
from tools.method_tables import table
from tools.summary import rewrite

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path("docs") / "concepts"
# What attacks climb, by the name of their loss.
LOSSES = {
    "ce": "CE(z, y)",
    "margin": "-max(z_y - max_{j != y} z_j + κ, 0)",
    "tempered": "logsumexp_{j != y}(s z_j) - s z_y",
    "targeted_dlr": "targeted DLR",
}
RATIO_LIMITS = (rules.STRENGTH, rules.STRENGTH_PER_CLASS)
# Data set -> classes, images of each, ratios.
SPLITS = {"CIFAR-10": (10, 5000), "CIFAR-100": (100, 500), "Tiny-ImageNet": (200, 500)}
RATIOS = (10, 20, 50, 100, 200)
# SHA-256 of the chosen positions in the official order, seed 0: they need the real labels.
POSITIONS = {
    ("CIFAR-10", 10): "a17d69f192b1cf6df09676b6c424e2ad5e7d7863ccc4b9ba70ef128885973218",
    ("CIFAR-10", 20): "fed8b23a7a778a4094b8c5301522600105c4441811d1ef239ae7fc72c42f7fe5",
    ("CIFAR-10", 50): "d7edcfaf02772bee1e2310a33be8b6c46232f043641158348b9de3ec731e26ac",
    ("CIFAR-10", 100): "4bf45bff8878d2786e47dccd702f96ff33b2b11d8c7da3b5015f10937290f866",
    ("CIFAR-10", 200): "a88004a1d13610934f4f0b642dab5e5df26f0d0ef20408bd092f25ab81103334",
    ("CIFAR-100", 10): "b4fbf1bf0a7f33381467493f50b953ce21b03a2b6d45b0d5e8da5d95d9ffd736",
    ("CIFAR-100", 20): "1410f105fffda31596c5af26b044a4545124854811b80ec57538a067be3420e4",
    ("CIFAR-100", 50): "561fa940cc7d3551d441643e310c7e439bf84f86b7863a3f7364963522d2984a",
    ("CIFAR-100", 100): "e0d58a4d2700c46062da852554e5d185bbee74d3c612b052ea2a839bdadf939e",
    ("CIFAR-100", 200): "2f00ccd33da379d5e64ce9442512a16e9e1eb3f1bb3a90316aac08c69a441157",
}


def attacks() -> str:
    """Markdown: every attack of the protocols, with what decides its numbers."""
    result = {attack.name: attack for protocol in protocols.PROTOCOLS.values() for attack in protocol.attacks}
    head = ["name", "climbs", "steps", "step", "start", "an image is broken by", "passes, at most"]
    return table(head, [[f"`{name}`", *_attack(attack)] for name, attack in result.items()])


def _attack(attack: kinds.Attack) -> list[str]:
    """One attack: loss, steps, step, start, judgement, passes through the network."""
    if isinstance(attack, kinds.Pgd):
        loss = LOSSES[attack.loss]
        if attack.loss == "margin":
            loss += f", κ = {attack.kappa:g}"
        elif attack.scale != 1:
            loss = loss.replace("z, y", f"{attack.scale:g} z, y") + (f", s = {attack.scale:g}" if "s z" in loss else "")
        loss += f", momentum {attack.decay:g}" if attack.decay else ""
        step = {1: "ε", 1 / 4: "ε/4", 1 / 8: "ε/8"}.get(attack.step, f"{attack.step:.4g} ε")
        return [loss, str(attack.steps), step, f"`{attack.start}`", "the last iterate", str(attack.steps)]
    if isinstance(attack, kinds.Apgd):
        runs = _runs(attack.targets)
        start = "random" + (", for each target" if runs else "")
        passes = f"{attack.steps + 1}{' ' + runs if runs else ''}"
        return [LOSSES[attack.loss], f"{attack.steps} {runs}".strip(), "adaptive", start, "any iterate", passes]
    if isinstance(attack, kinds.Fab):
        runs = _runs(attack.targets)
        passes = f"{2 * attack.steps + 1} {runs}"
        judged = "the nearest point, within ε"
        return ["z_t - z_y, linearised", f"{attack.steps} {runs}", "onto the boundary", "the image", judged, passes]
    if isinstance(attack, kinds.Square):
        schedule = "squeezed schedule" if attack.rescale else "schedule of 10,000, cut off"
        steps = f"{attack.queries:,} proposals, {schedule}"
        return ["margin, no gradient", steps, "2 ε in a square", "stripes", "any proposal", f"{attack.queries + 1:,}"]
    if isinstance(attack, kinds.CwL2):
        judged = "the nearest wrong iterate, at any distance"
        return ["distance and margin", str(attack.steps), "Adam, 0.01", "the image", judged, str(attack.steps)]
    judged = "the last point, at any distance"
    passes = f"{attack.steps} (C - 1)"
    return ["nearest linearised boundary", str(attack.steps), "onto the boundary", "the image", judged, passes]


def _runs(targets: int) -> str:
    """How many runs an attack makes on an image, in words; empty for one."""
    if not targets:
        return ""
    return "for each of C - 1 targets" if targets > kinds.MOST_TARGETS else f"for each of {targets} targets"


def named_protocols() -> str:
    """Markdown: every protocol with its columns."""
    rows = []
    for name, protocol in protocols.PROTOCOLS.items():
        combined = "; ".join(f"`{column}`: {_names(parts)}" for column, parts in protocol.combined)
        radius = "any" if protocol.radius is None else f"{protocol.radius:g}/255"
        listed = _names([attack.name for attack in protocol.attacks])
        rows.append([f"`{name}`", listed, combined, radius, "yes" if protocol.sanity else "", protocol.note])
    return table(["protocol", "attacks, in order", "combinations", "radius", "sanity checks", "note"], rows)


def _names(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def checks() -> str:
    """Markdown: the items of the sanity panel, with their limits in percent."""
    rows = []
    for identifier, (required, text) in rules.CHECKS.items():
        if identifier in panel.LEFT_OUT:
            rows.append([identifier, text, "not run", panel.LEFT_OUT[identifier].removeprefix("not run: "), ""])
            continue
        limits = [_limits(group, identifier) for group in (rules.OVERALL, rules.PER_CLASS)]
        if identifier == "P19":
            limits = [f"ratio at least {first:g} / {second:g}" for first, second in RATIO_LIMITS]
        rows.append([identifier, text, "yes" if required else "no", *limits])
    return table(["id", "check", "required", "all images: pass / warn up to, %", "each class"], rows)


def _limits(group: dict[str, rules.Limit], identifier: str) -> str:
    """`1 / 3`, and what belongs to it."""
    parts = []
    for key in (name for name in group if name.split()[0] == identifier):
        limit = group[key]
        warns = "any" if limit.warns is None else f"{limit.warns:g}{' + 100/C' if limit.chance else ''}"
        label = "CE: " if key.endswith(" ce") else "margin, DLR: " if f"{key} ce" in group else ""
        warning = "" if limit.warns is None else f" / {limit.warns_images:g}"
        images = f", or {limit.passes_images:g}{warning} images" if limit.passes_images else ""
        parts.append(f"{label}{limit.passes:g} / {warns}{images}")
    return "; ".join(parts)


def fields() -> str:
    """Markdown: the fields of a line of a verdict store."""
    meanings = arguments(Verdict) | arguments(Line)
    rows = [[f"`{field.name}`", meanings[field.name]] for field in dataclasses.fields(Line)]
    return table(
        ["field", "meaning"], [*rows, ["`crc`", "CRC-32 of the line without this field, hexadecimal; always last."]]
    )


def sources() -> str:
    """Markdown: the named data sets whose sizes are known before they are read."""
    rows = []
    for name, shape in blank.SHAPES.items():
        counts, test = (identity.COUNTS[name, split] for split in ("train", "test"))
        sizes = [f"{sum(numbers):,}" for numbers in (counts, test)]
        rows.append([f"`{name}`", str(len(counts)), *sizes, "x".join(map(str, shape))])
    return table(["`data.name`", "classes", "training images", "test images", "pixels"], rows)


@functools.cache
def _parts() -> list[tuple[str, int, int, dict[str, np.ndarray], np.ndarray]]:
    """Data set, images of a class, ratio, positions of each part, and labels, for labels in ascending order."""
    result = []
    for name, (classes, each) in SPLITS.items():
        labels = np.repeat(np.arange(classes), each)
        for ratio in RATIOS:
            chosen = longtail.choose(labels, imbalance_ratio=ratio)
            train, validation = (chosen[part] for part in longtail.carve_validation(labels[chosen]))
            result.append((name, each, ratio, {"all": chosen, "training": train, "validation": validation}, labels))
    return result


def split_counts() -> str:
    """Markdown: the class counts of long-tailed lists, and the sizes of their parts."""
    rows = []
    for name, _, ratio, parts, labels in _parts():
        counts = {part: np.bincount(labels[kept], minlength=labels[-1] + 1) for part, kept in parts.items()}
        few = {p: " ".join(map(str, c)) if len(c) == 10 else f"{c[0]} … {c[-1]}" for p, c in counts.items()}
        rows.append([name, str(ratio), *(f"{len(kept):,}" for kept in parts.values()), few["all"], few["validation"]])
    return table(
        ["data set", "ratio", *_parts()[0][3], "images of each class", "validation images of each class"], rows
    )


def fingerprints() -> str:
    """Markdown: fingerprints of the kept ranks, and of the chosen positions."""
    rows = []
    for name, each, ratio, parts, _ in _parts():
        prints = {f"ranks, {part}": longtail.fingerprint(kept % each) for part, kept in parts.items()}
        if (name, ratio) in POSITIONS:
            prints["positions, all"] = POSITIONS[name, ratio]
        rows += [[name, str(ratio), what, f"`{digest}`"] for what, digest in prints.items()]
    return table(["data set", "ratio", "of", "SHA-256"], rows)


def official() -> str:
    """Markdown: the digests that a copy of a data set is compared with."""
    rows = [[f"`{name}`", split, "labels", f"`{digest}`"] for (name, split), digest in identity.LABELS.items()]
    rows += [[f"`{name}`", split, "pixels, then labels", f"`{d}`"] for (name, split), d in identity.PIXELS.items()]
    return table(["data set", "split", "of", "SHA-256"], rows)


TABLES: dict[tuple[str, str], Callable[[], str]] = {
    ("attacks.md", "attacks"): attacks,
    ("protocols.md", "protocols"): named_protocols,
    ("protocols.md", "verdict-fields"): fields,
    ("sanity.md", "checks"): checks,
    ("data.md", "sources"): sources,
    ("data.md", "split-counts"): split_counts,
    ("data.md", "fingerprints"): fingerprints,
    ("data.md", "official"): official,
}


def blocks(root: Path) -> Iterator[tuple[str, str, Callable[[], str]]]:
    """Page, marker and the function that makes the text between."""
    del root
    for (page, marker), make in TABLES.items():
        yield str(FOLDER / page), marker, make


def main(root: Path = ROOT) -> None:
    """Rewrites the tables of the pages under `root`."""
    for page, marker, make in blocks(root):
        path = root / page
        rewrite(path, make(), marker)


if __name__ == "__main__":
    main()
