"""The page of a run, `DIR/report.html`, drawn from its cards, verdicts and records. Evaluates no network. No JAX.

`ltrobust report` calls `write`; so do training and evaluation when they are done.
"""

import collections
import functools
import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ltrobust.analysis import compare, confidence, results
from ltrobust.analysis.evaluated_networks import GROUPS, EvaluatedNetworks
from ltrobust.analysis.intervals import Estimate
from ltrobust.evaluation import lines, store
from ltrobust.evaluation.lines import AttackVerdicts, Line, Lines
from ltrobust.report.material import Comparison, Effort, Material, Picture, Teaching
from ltrobust.runtime.files import write_text
from ltrobust.training import records

NAME = "report.html"
_SEAL = re.compile(rb"<!-- ltrobust report ([0-9a-f]{64}) -->\n\Z")
_PAIRS = (
    ("student/last", "teacher/last"),
    ("student/last", "student/selected"),
    ("student/averaged", "student/last"),
    ("teacher/last", "teacher/selected"),
)
# Of a chart: an attack may take thousands of evaluations.
_POINTS = 60


def write(workdir: Path, *, data_dir: str = "", cache_dir: str = "~/.cache/ltrobust") -> Path:
    """Writes `workdir/report.html` and returns its path. An earlier page is replaced, anything else never.

    Args:
      workdir: of a run that has at least begun.
      data_dir, cache_dir: where test images lie; only pictures need them.

    Raises:
      ValueError: nothing to report, or a `report.html` that is not a page as this function left it.
    """
    from ltrobust.report import page  # Altair takes a second to import

    path, drawn = workdir / NAME, None
    # Another process may write a card and its page in the meantime, which an older drawing must not replace.
    while drawn != (names := sorted((workdir / "results").glob("*.json"))):
        _check_replaceable(path)
        drawn, text = names, page.render(gather(workdir, data_dir=data_dir, cache_dir=cache_dir))
        digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()  # as `write_text` writes it
        write_text(path, f"{text}<!-- ltrobust report {digest} -->\n")
    return path


def write_figures(workdir: Path, folder: Path, *, cache_dir: str = "~/.cache/ltrobust") -> list[Path]:
    """Writes the charts of a run's page and the tables behind them; see `frame.write_figures`.

    Raises:
      ValueError: nothing to report, or a file that exists.
    """
    from ltrobust.report import frame, page  # Altair takes a second to import

    _check_replaceable(workdir / NAME)  # the page is written after the figures
    return frame.write_figures(folder, page.figures(gather(workdir, cache_dir=cache_dir)))


def _check_replaceable(path: Path) -> None:
    """Refuses a file without a seal, or with a seal that does not match its text."""
    if path.is_symlink() or path.exists():
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        seal = _SEAL.search(content)
        if seal is None or hashlib.sha256(content[: seal.start()]).hexdigest().encode() != seal[1]:
            raise ValueError(
                f"{path} is not a page as ltrobust wrote it, so it is not replaced; move it away and start again."
            )


def gather(workdir: Path, *, data_dir: str = "", cache_dir: str = "~/.cache/ltrobust") -> Material:
    """Collects the data for the page of a run.

    Raises:
      ValueError: the folder holds neither records of training nor result cards.
    """
    missing: dict[str, list[str]] = collections.defaultdict(list)
    result = results.evaluations(workdir, missing)
    history = records.read(workdir / "metrics.jsonl") if (workdir / "metrics.jsonl").is_file() else []
    if not result and not history:
        raise ValueError(f"{workdir} holds no result card and no metrics.jsonl to report on; train in it first.")
    if not result:
        return Material(workdir.resolve().name, records=history, missing=missing)
    first = result[0]
    # Only the store read last is kept in memory: those of large test sets are large, and reading takes seconds.
    read = functools.lru_cache(maxsize=1)(lambda name: results.read_store(workdir, first.networks[name]))
    answers = functools.cache(lambda name: store.correct(*read(name)))
    comparisons = _comparisons(first, answers, missing)
    teaching = _teaching(first, read, missing)
    efforts: list[Effort] = []
    pictures: list[Picture] = []
    # Attacks in a sequence end at their first success, so that their effort differs from image to image.
    curved = (e for e in result if first.same_subject(e) and any(a.after for a in e.card.protocol.attacks))
    searched = next(curved, first)
    try:
        provenance, verdicts = read(first.main)
        pictures = _pictures(workdir, first, provenance, verdicts, missing, data_dir, cache_dir)
        if searched is not first:
            provenance, verdicts = results.read_store(workdir, searched.networks[first.main])
        efforts = _efforts(provenance, verdicts)
    except (ValueError, OSError) as error:
        for section in ("effort", "pictures"):
            missing[section].append(f"{first.main}: {error}")
    return Material(
        name=workdir.resolve().name,
        evaluations=result,
        records=history,
        comparisons=comparisons,
        teaching=teaching,
        searched=searched,
        efforts=efforts,
        pictures=pictures,
        missing=missing,
    )


def _comparisons(
    evaluation: EvaluatedNetworks,
    answers: Callable[[str], tuple[np.ndarray, np.ndarray, np.ndarray]],
    missing: dict[str, list[str]],
) -> list[Comparison]:
    """The pairs that were evaluated, image by image under the headline."""
    counts = np.array(evaluation.card.data.class_counts)
    result = []
    for first, second in _PAIRS:
        if first not in evaluation.networks or second not in evaluation.networks:
            continue
        one, other = evaluation.networks[first], evaluation.networks[second]
        if (one.params_sha256, one.batch_stats_sha256) == (other.params_sha256, other.batch_stats_sha256):
            result.append(Comparison(first, second, None))
            continue
        try:
            (ids, labels, right), (other_ids, _, other_right) = (answers(name) for name in (first, second))
        except (ValueError, OSError) as error:
            missing["comparison"].append(f"{first} and {second}: {error}")
            continue
        if not np.array_equal(ids, other_ids):
            missing["comparison"].append(f"{first} and {second} were evaluated on other images; evaluate them alike.")
            continue
        result.append(Comparison(first, second, compare.compare(right, other_right, labels, len(counts), counts)))
    return result


def _teaching(
    evaluation: EvaluatedNetworks, read: Callable[[str], tuple[dict[str, Any], Lines]], missing: dict[str, list[str]]
) -> Teaching:
    """How sure teacher and student are of the true class, and where they agree, under the headline."""
    if "teacher" not in evaluation.card.training:
        return Teaching()
    sure: dict[str, dict[str, list[Estimate]]] = {}
    right: dict[str, np.ndarray] = {}
    labels = np.zeros(0, np.int64)
    for name in ("teacher/last", "student/last"):
        try:
            provenance, verdicts = read(name)
            _, labels, right[name] = store.correct(provenance, verdicts)
            groups = [np.flatnonzero(labels == index) for index in range(provenance["num_classes"])]
            result = zip(("clean", "attacked"), confidence.true_probabilities(provenance, verdicts), strict=True)
            sure[name] = {how: confidence.mean_by(groups, values) for how, values in result}
        except KeyError:
            remedy = "run ltrobust evaluate --workdir=DIR."
            missing["teacher"].append(f"{name} is not evaluated under this protocol: {remedy}")
        except (ValueError, OSError) as error:
            missing["teacher"].append(f"{name}: {error}")
    if len(right) < 2 or len({len(result) for result in right.values()}) > 1:
        return Teaching(sure)
    chosen = {"overall": np.ones(len(labels), bool)}
    chosen |= {group: np.isin(labels, members) for group, members in evaluation.groups.items()}
    teacher, student = right.values()
    agreement = {group: compare.agreement(teacher[of], student[of]) for group, of in chosen.items() if of.any()}
    return Teaching(sure, agreement)


def _efforts(provenance: Mapping[str, Any], verdicts: Mapping[str, AttackVerdicts]) -> list[Effort]:
    """Survivors of each attack."""
    clean = verdicts["clean"].rows
    remaining = clean["image"][clean["prediction"] == clean["label"]]
    result = []
    for attack in provenance["protocol"]["attacks"]:
        seen = verdicts.get(attack["name"], lines.empty(attack["name"])).rows
        broken = seen[seen["prediction"] != seen["label"]]
        remaining = np.setdiff1d(remaining, broken["image"])
        longest = int(max(seen["evaluations"], default=1))
        spent = np.sort(broken["evaluations"])
        round_numbers = [number for number in (1, 10, 100, 1000) if number <= longest]
        points = np.unique([*round_numbers, *np.geomspace(1, max(longest, 1), _POINTS).round()]).astype(int)
        survivors = len(seen) - np.searchsorted(spent, points, side="right")
        result.append(Effort(attack["name"], len(seen), points.tolist(), survivors.tolist(), len(remaining)))
    return result


def _pictures(
    workdir: Path,
    evaluation: EvaluatedNetworks,
    provenance: Mapping[str, Any],
    verdicts: Mapping[str, AttackVerdicts],
    missing: dict[str, list[str]],
    data_dir: str,
    cache_dir: str,
) -> list[Picture]:
    """Of head, middle and tail one image that survives every attack and one that breaks, of the main network."""
    network = evaluation.networks[evaluation.main]
    try:
        kept = _first_kept(provenance, verdicts)
        if not any(kept):
            raise ValueError(
                "no adversarial images were kept; run ltrobust evaluate --workdir=DIR "
                "--config.eval.keep_images=True to have them."
            )
        ids = verdicts["clean"].rows["image"]
        images = results.evaluated_images(
            evaluation.card, provenance, ids, data_dir=data_dir, cache_dir=cache_dir, workdir=workdir
        )
    except (ValueError, OSError) as error:
        missing["pictures"].append(f"{evaluation.main}: {error}")
        return []
    folder, result = workdir / (network.verdicts.folder if network.verdicts else ""), []
    for by_class in kept:
        for group, members in evaluation.groups.items():
            present = [index for index in evaluation.classes if index in members and index in by_class]
            if not present:
                continue
            label = present[len(present) // 2]
            record = by_class[label]
            clean = verdicts["clean"][record.image]
            result.append(
                Picture(
                    group=GROUPS[group],
                    image_id=record.image,
                    attack=record.attack,
                    label=label,
                    clean_prediction=clean.prediction,
                    adv_prediction=record.prediction,
                    clean_confidence=clean.confidence,
                    adv_confidence=record.confidence,
                    image=images[record.image] / np.float32(255),
                    adv_image=store.read_adversarial(folder, record, tuple(provenance["images"]["shape"])),
                )
            )
    return result


def _first_kept(
    provenance: Mapping[str, Any], verdicts: Mapping[str, AttackVerdicts]
) -> tuple[dict[int, Line], dict[int, Line]]:
    """Class -> the record of the lowest image id that survives the headline's attacks, and of the lowest that breaks.

    The record is that of the first attack that broke the image, or of the last one that it survived; only records whose
    adversarial image was kept count.
    """
    attacks = {attack["name"]: attack for attack in provenance["protocol"]["attacks"]}
    _, members = (provenance["protocol"]["combined"] or [["", [name]] for name in attacks])[-1]
    survived: dict[int, Line] = {}
    broken: dict[int, Line] = {}
    # Kept images are few: the others are not looked at.
    kept = [known.rows["image"][known.rows["adversarial_at"] >= 0] for known in verdicts.values()]
    clean = verdicts["clean"].rows
    right = clean[(clean["prediction"] == clean["label"]) & np.isin(clean["image"], np.concatenate(kept))]
    for image, label in zip(right["image"].tolist(), right["label"].tolist(), strict=True):
        seen = [verdicts[name][image] for name in members if image in verdicts.get(name, ())]
        breaking = [record for record in seen if record.prediction != label]
        wanted, record = (broken, breaking[0]) if breaking else (survived, seen[-1] if seen else None)
        if record is not None and record.adversarial_at is not None:
            wanted.setdefault(label, record)
    return survived, broken
