"""The sanity panel: checks that a robust accuracy must pass, overall and per class, before it can be trusted.

The panel runs after a protocol's attacks, on their verdicts and on those of further attacks. `rules.py` lists its
checks and limits; most follow Carlini et al., "On Evaluating Adversarial Robustness" (2019), and the checks in the
AutoAttack code. The panel does not replace an attack that is designed for the defence.
"""

import numpy as np

from ltrobust.data import longtail
from ltrobust.evaluation import protocols
from ltrobust.evaluation.judge import TOLERANCE
from ltrobust.evaluation.protocols import Protocol
from ltrobust.evaluation.session import Session
from ltrobust.sanity import control, tracing
from ltrobust.sanity import probes as sanity_probes
from ltrobust.sanity import runs as sanity_runs
from ltrobust.sanity.rules import COLLAPSE, COLLAPSE_CLASSES, Item, measured, probabilities, stated, verdict
from ltrobust.sanity.runs import Runs

__all__ = ["Item", "panel", "verdict"]

# Checks that do not run here, with the reason.
LEFT_OUT = {
    "P13": "needs other networks to take adversarial images from",
    "P14": "not run: random noise is far weaker than Square, which P12 checks",
    "P15": "not run: no hard-label attack here",
    "P26": "not run: a substitute has to be written for each defence",
    "P33": "not run: other threat models are separate evaluations",
    "P34": "not run: the parts of the defence are not known",
}


# Version of the panel's attacks: a store that was written with another version is refused.
VERSION = 2


def panel(
    session: Session,
    protocol: Protocol,
    *,
    selected_on: str | None = None,
    test_labels: np.ndarray | None = None,
) -> tuple[Item, ...]:
    """Runs every check; returns the items in order of their ids.

    Args:
      session: in which the protocol's attacks have been run.
      protocol: of the session.
      selected_on: what the network was selected on; `test` fails P31, None skips it.
      test_labels: of the complete test set, by image id, for P04; None skips it.

    Raises:
      FloatingPointError: an attack outside of its ball, or NaN logits.
    """
    runs = Runs(session, protocol)
    result = [
        sanity_runs.radius(runs),
        _subsets(runs),
        validity(runs),
        bookkeeping(runs, test_labels),
        *sanity_runs.items(runs),
        _kinds(runs),
        *sanity_probes.items(runs),
        _probabilities(runs),
        ties(runs),
        _classes(runs),
        _trace(runs),
        dead_classes(runs),
        selection(selected_on),
        control.item(),
        *(stated(identifier, "skipped", reason) for identifier, reason in LEFT_OUT.items()),
    ]
    return tuple(sorted(result, key=lambda item: item.id))


def _subsets(runs: Runs) -> Item:
    """P02: no column counts an image as right that is wrong when clean."""
    columns = runs.session.predictions
    stray = np.any([(result == runs.labels) & ~runs.clean for result in columns.values()], axis=0)
    note = f"clean accuracy {100 * np.mean(runs.clean):.2f}"
    return measured("P02", runs.per_class(stray), runs.per_class(runs.labels >= 0), note=note)


def validity(runs: Runs) -> Item:
    """P03: each counted success is in ball and bounds and not right; rejected claims are reported."""
    invalid = np.zeros(len(runs.labels), bool)
    largest, rejected = 0.0, 0
    for record in runs.session.records.values():
        broken = (record["prediction"] >= 0) & (record["prediction"] != runs.labels)
        allowed = (record["violation"] <= TOLERANCE) & np.isfinite(record["norm"]) & (record["margin"] <= 0)
        invalid |= broken & ~allowed
        largest = max(largest, float(np.nanmax(record["violation"], initial=0)))
        rejected += int(np.sum(record["rejected_claims"] > 0))
    note = f"largest excess {largest:.1e}; {rejected} claims of success rejected and not counted"
    return measured("P03", runs.per_class(invalid), runs.per_class(runs.labels >= 0), note=note)


def bookkeeping(runs: Runs, test_labels: np.ndarray | None) -> Item:
    """P04: ids are unique, each attack judged exactly the images it had to, and the test set is complete."""
    session, ids = runs.session, runs.session.subject.ids
    unjudged = np.zeros(len(ids), bool)
    for attack in runs.protocol.attacks:
        before = session.predictions[attack.after[-1] if attack.after else "clean"]
        # The attack must have judged exactly the images that were right before it.
        judged = session.records[attack.name]["prediction"] >= 0
        unjudged |= judged != (before == runs.labels)
    consistent = len(np.unique(ids)) == len(ids) and not np.any(unjudged)
    digest = longtail.fingerprint(runs.labels)[:16]
    evidence = f"{len(ids)} images, SHA-256 of the labels {digest}, {np.sum(unjudged)} without exactly one verdict"
    if not consistent:
        return stated("P04", "fail", evidence + ("" if np.any(unjudged) else ", ids occur twice"))
    if test_labels is None:
        return stated("P04", "skipped", f"{evidence}; the complete test set is not known")
    # Compared per class: the total would hide a class that is missing.
    missing = np.bincount(test_labels, minlength=runs.num_classes) - runs.per_class(runs.labels >= 0)
    per_class = [(int(number), "fail", f"{missing[number]} images missing") for number in np.flatnonzero(missing)]
    order = np.argsort(ids)
    same = len(ids) == len(test_labels) and np.array_equal(runs.labels[order], test_labels)
    status = "pass" if same else "fail"
    return stated("P04", status, f"{evidence}; the test set has {len(test_labels)}", per_class)


def _kinds(runs: Runs) -> Item:
    """P16: both kinds in the headline."""
    members = [attack for attack in runs.protocol.attacks if attack.name in runs.headline]
    targeted = [attack.name for attack in members if getattr(attack, "targets", 0)]
    untargeted = [attack.name for attack in members if not getattr(attack, "targets", 0)]
    evidence = f"targeted: {', '.join(targeted) or 'none'}; untargeted: {', '.join(untargeted) or 'none'}"
    return stated("P16", "pass" if targeted and untargeted else "fail", evidence)


def _probabilities(runs: Runs) -> Item:
    """P22: the rule of the AutoAttack code, on all clean images."""
    logits = np.asarray(runs.session.clean.logits, float)
    low, high, off = logits.min(), logits.max(), np.max(np.abs(logits.sum(axis=1) - 1))
    evidence = f"values in [{low:.4g}, {high:.4g}], row sums up to {off:.2g} from 1"
    return stated("P22", "fail" if probabilities(logits) else "pass", evidence)


def ties(runs: Runs) -> Item:
    """P23: on clean images between any classes, on adversarial ones between the label and another."""
    highest = np.sort(np.asarray(runs.session.clean.logits), axis=1)[:, -2:]
    clean = highest[:, 0] == highest[:, 1]
    attacked = np.any([record["tied"] for record in runs.session.records.values()], axis=0)
    note = f"{np.sum(clean)} clean, {np.sum(attacked)} adversarial"
    return measured("P23", runs.per_class(clean | attacked), runs.per_class(runs.labels >= 0), note=note)


def _classes(runs: Runs) -> Item:
    """P24: the attacks that the protocol can make with so few classes, and what the result may be called."""
    name = protocols.title(runs.protocol.headline, runs.num_classes)
    targets = max((getattr(attack, "targets", 0) for attack in runs.protocol.attacks), default=0)
    needs = 3 if any(getattr(attack, "loss", "") == "dlr" for attack in runs.protocol.attacks) else 2
    evidence = f"{runs.num_classes} classes, {min(targets, runs.num_classes - 1)} targets: {name}"
    return stated("P24", "pass" if runs.num_classes >= needs else "fail", evidence)


def _trace(runs: Runs) -> Item:
    """P25: what the traced network does to gradients."""
    subject = runs.session.subject
    result = tracing.trace(runs.session.driver.apply, subject.variables, subject.images.shape[1:])
    parts = [
        f"{label}: {', '.join(f'{name} x{number}' for name, number in sorted(counter.items()))}"
        for label, counter in zip(("known and sound", "unexplained", "not allowed"), result, strict=True)
        if counter
    ]
    status = "fail" if result.forbidden else "warn" if result.hiding else "pass"
    return stated("P25", status, "; ".join(parts) or "none")


def dead_classes(runs: Runs) -> Item:
    """P27: classes with images that are never predicted, and one class that takes most predictions."""
    predicted = np.bincount(runs.session.predictions["clean"], minlength=runs.num_classes)
    share, most = float(np.max(predicted)) / len(runs.labels), int(np.argmax(predicted))
    dead = np.flatnonzero((predicted == 0) & (runs.per_class(runs.labels >= 0) > 0))
    collapsed = runs.num_classes >= COLLAPSE_CLASSES and share > COLLAPSE
    number = "1 class" if len(dead) == 1 else f"{len(dead)} classes"
    evidence = f"{number} never predicted; class {most} takes {100 * share:.1f} % of the predictions"
    per_class = [(int(index), "warn", "never predicted") for index in dead]
    return stated("P27", "fail" if collapsed else "pass", evidence, per_class)


def selection(selected_on: str | None) -> Item:
    """P31: what the caller states."""
    if selected_on is None:
        return stated("P31", "skipped", "how the network was selected is not known")
    return stated("P31", "fail" if selected_on == "test" else "pass", f"selected on: {selected_on}")
