"""Items of the sanity panel that compare attacks: which attacks, on which images (P01, P05 to P12, P18, P19, P30).

Attacks that the protocol has run are read from its verdicts. The others have names that begin with `panel/`, and
their verdicts are kept like all others. All PGD attacks here are one compiled program, that of the protocol's PGD-20;
so are both lengths of APGD.
"""

import dataclasses

import numpy as np

from ltrobust.evaluation import protocols
from ltrobust.evaluation.protocols import Attack, Pgd, Protocol
from ltrobust.evaluation.session import Session
from ltrobust.sanity.rules import (
    EIGHT_BITS,
    OVERALL,
    STRENGTH,
    STRENGTH_IMAGES,
    STRENGTH_PER_CLASS,
    Item,
    grade,
    measured,
    stated,
)

LONGER_IMAGES = 1000  # P08, at most
CURVE_IMAGES = 500  # P10, P11, at most: one image is the 0.2 % that P10 allows
STARTS = 5  # P09
RADII = (1, 2, 4, 6, 8, 10, 12, 16, 24, 32, 64, 128)  # P10, in 1/255 for linf; for l2 in 1/8 of the threat's radius
USUAL = {"linf": 8, "l2": 128}  # P01, in 1/255: 8/255 and 0.5
TOO_SMALL = 16  # P01: how far below a usual radius one fails
SCALES = (0.1, 3.0, 10.0, 100.0)  # P18; scale 1 is PGD-20 itself
MARGIN_SCALES = (1.0, 3.0, 10.0)  # P18, over the class's median clean margin

_STANDARD = {attack.name: attack for attack in protocols.get("standard").attacks}
_FGSM, _LSA20, _APGD = _STANDARD["fgsm"], _STANDARD["lsa20"], _STANDARD["apgd-ce"]


class Runs:
    """The verdicts of one session, and the attacks that are added to them.

    Attributes:
      session, protocol: what the panel belongs to.
      labels, num_classes: of the images.
      clean: bool [N], right when clean.
    """

    def __init__(self, session: Session, protocol: Protocol) -> None:
        self.session, self.protocol = session, protocol
        self.labels, self.num_classes = session.subject.labels, session.driver.num_classes
        self.clean = session.predictions["clean"] == self.labels

    @property
    def headline(self) -> tuple[str, ...]:
        """Names of the attacks behind the protocol's headline."""
        return dict(self.protocol.combined).get(self.protocol.headline, (self.protocol.headline,))

    @property
    def robust(self) -> np.ndarray:
        """Whether each image is right under all of them, bool [N]."""
        return np.all([self.session.predictions[name] == self.labels for name in self.headline], axis=0)

    def per_class(self, chosen: np.ndarray) -> np.ndarray:
        """Number of chosen images of each class, [C]; `chosen` holds booleans [N] or positions."""
        return np.bincount(self.labels[chosen], minlength=self.num_classes)

    def right(self, attack: Attack, rows: np.ndarray | None = None) -> np.ndarray:
        """Whether each image is right under an attack, bool [N]; False where it is not among `rows` (default: all)."""
        if attack in self.protocol.attacks:
            right = self.session.predictions[attack.name] == self.labels
        else:
            clean = self.session.right
            right = (
                self._run(attack, clean, len(self.labels))
                if rows is None
                else self._run(attack, np.intersect1d(rows, clean), len(rows))
            )
        chosen = np.ones(len(right), bool) if rows is None else np.isin(np.arange(len(right)), rows)
        return right & chosen

    def sample(self, size: int) -> np.ndarray:
        """A fixed stratified sample of at most `size` positions, ascending."""
        # A fixed seed: a repeated panel looks at the same images.
        shuffled = np.random.RandomState(0).permutation(len(self.labels))
        rank = np.zeros(len(shuffled), int)
        for members in (shuffled[self.labels[shuffled] == number] for number in range(self.num_classes)):
            rank[members] = np.arange(len(members))
        return np.sort(np.lexsort((self.labels, rank))[:size])

    def _run(self, attack: Attack, rows: np.ndarray, of: int) -> np.ndarray:
        """Whether each image at `rows` is right under an attack of the panel, bool [N]; False for all others."""
        # The panel's attacks are ordinary ones in the same store. The prefix keeps their draws and lines apart from the
        # protocol's.
        named = dataclasses.replace(attack, name=f"panel/{attack.name}", after=())
        record = self.session.attack(named, rows, of)
        right = np.zeros(len(self.labels), bool)
        right[rows] = record["prediction"][rows] == self.labels[rows]
        return right


def items(runs: Runs) -> list[Item]:
    """P05 to P12, P18, P19 and P30."""
    pgd20 = runs.right(protocols.PGD20)
    return [
        *_steps(runs, pgd20),
        _longer(runs),
        _restarts(runs, pgd20),
        *_curve(runs),
        _square(runs),
        _scales(runs, pgd20),
        _strength(runs, pgd20),
        rounding(runs),
    ]


def _difference(runs: Runs, identifier: str, first: np.ndarray, second: np.ndarray, note: str = "") -> Item:
    """Accuracy under `first` above that under `second`, of all images."""
    excess = runs.per_class(first) - runs.per_class(second)
    return measured(identifier, excess, runs.per_class(runs.labels >= 0), note=note)


def _percent(right: np.ndarray) -> str:
    """Accuracy in percent."""
    return f"{100 * np.mean(right):.2f}"


def _steps(runs: Runs, pgd20: np.ndarray) -> list[Item]:
    """P05, P06, P07: one step, twenty, a hundred."""
    fgsm = runs.right(_FGSM)
    longer = runs.right(dataclasses.replace(protocols.PGD20, name="pgd100", steps=100))
    single = runs.per_class(~fgsm & pgd20)
    return [
        measured("P05", single, runs.per_class(runs.labels >= 0)),
        _difference(runs, "P06", fgsm, pgd20, f"{_percent(fgsm)} above {_percent(pgd20)}"),
        _difference(runs, "P07", pgd20, longer, f"{_percent(pgd20)} above {_percent(longer)}"),
    ]


def _longer(runs: Runs) -> Item:
    """P08: APGD-CE with twice the iterations, on a sample."""
    rows = runs.sample(LONGER_IMAGES)
    short = runs.right(_APGD, rows)
    long = runs.right(dataclasses.replace(_APGD, name="apgd-ce-200", steps=200), rows)
    return measured(
        "P08", runs.per_class(short) - runs.per_class(long), runs.per_class(rows), note="a stratified sample"
    )


def _restarts(runs: Runs, pgd20: np.ndarray) -> Item:
    """P09: PGD-20 from further random starts; an image counts as broken if any of them breaks it."""
    every = pgd20
    # Start 1 is PGD-20 itself. Another name is another random start, because draws are addressed by name.
    for number in range(2, STARTS + 1):
        every = every & runs.right(dataclasses.replace(protocols.PGD20, name=f"pgd20-start{number}"))
    return _difference(runs, "P09", pgd20, every, f"{_percent(pgd20)} above {_percent(every)}")


def _curve(runs: Runs) -> list[Item]:
    """P10, P11: margin-PGD-100 at many radii, on a sample; a rise is measured from the lowest accuracy before it."""
    rows, threat = runs.sample(CURVE_IMAGES), runs.session.driver.threat
    unit = 1.0 if threat.norm == "linf" else threat.radius / 8
    counts = [runs.per_class(rows[runs.clean[rows]])]
    for radius in RADII:
        attack = _margin100(f"{radius}", radius * unit)
        counts.append(runs.per_class(runs.right(attack, rows)))
    table, totals = np.array(counts), runs.per_class(rows)
    # From the lowest accuracy at any smaller radius, so that several small rises add up.
    rises = np.max(table - np.minimum.accumulate(table, axis=0), axis=0)
    whole = table.sum(axis=1)
    rise = float(np.max(whole - np.minimum.accumulate(whole)))
    shown = " ".join(
        f"{radius}:{100 * number / len(rows):.1f}" for radius, number in zip((0, *RADII), whole, strict=True)
    )
    kind = "1/255" if threat.norm == "linf" else "eighths of the threat's"
    return [
        measured(
            "P10", rises, totals, overall=rise, note=f"a stratified sample; accuracy by radius in {kind}: {shown}"
        ),
        measured("P11", table[-1], totals, note="the same sample"),
    ]


def _margin100(name: str, radius: float) -> Pgd:
    """Margin-PGD-100 at a radius in 1/255."""
    return Pgd(f"margin100-{name}", "margin", 100, 1 / 4, "uniform_raw", radius=radius)


def radius(runs: Runs) -> Item:
    """P01: fails a radius at which no image breaks although four times a usual radius breaks all.

    This detects a radius in another unit than 1/255, which no other check does.
    """
    threat = runs.session.driver.threat
    text = f"{threat}, pixels in [{threat.lower:g}, {threat.upper:g}], untargeted goal, white box, fixed weights"
    large = 4 * USUAL[threat.norm]
    if not np.any(runs.clean) or np.any(runs.robust != runs.clean) or threat.radius >= large:
        return stated("P01", "pass", text)
    rows = runs.sample(CURVE_IMAGES)
    left = runs.right(_margin100(f"{large}/255", large), rows)
    limit = OVERALL["P11"]
    if grade(float(np.sum(left)), len(rows), limit, runs.num_classes) == "fail":
        return stated("P01", "pass", text)
    status = "fail" if threat.radius < USUAL[threat.norm] / TOO_SMALL else "warn"
    note = (
        f"the attacks break no image at this radius, but {large}/255 leaves {100 * np.sum(left) / len(rows):.2f} %; "
        "radii are in 1/255"
    )
    return stated("P01", status, f"{text}; {note}")


def _square(runs: Runs) -> Item:
    """P12: images that Square breaks and no attack with gradients, at the same radius, does."""
    threat = runs.session.driver.threat
    searches = [attack for attack in runs.protocol.attacks if isinstance(attack, protocols.Square)]
    if not searches:
        return stated("P12", "skipped", "the protocol has no gradient-free attack")
    radius = protocols.radius_of(searches[-1], threat)
    others = [
        runs.right(attack)
        for attack in runs.protocol.attacks
        if not isinstance(attack, protocols.Square) and protocols.radius_of(attack, threat) == radius
    ]
    result = runs.session.records[searches[-1].name]["prediction"]
    # Images that an attack with gradients broke first are not attacked by Square, and have -1.
    broken = (result >= 0) & (result != runs.labels) & np.all([runs.clean, *others], axis=0)
    return measured("P12", runs.per_class(broken), runs.per_class(runs.labels >= 0))


def _scales(runs: Runs, pgd20: np.ndarray) -> Item:
    """P18: PGD-20 on rescaled logits; the scale at which it is strongest counts, for each class its own."""
    medians = _median_margins(runs)
    attacks: dict[str, Attack] = {
        f"{scale:g}": dataclasses.replace(protocols.PGD20, name=f"pgd20-scale{scale:g}", scale=scale)
        for scale in SCALES
        # Scale 10 is LSA-20, which the protocol may have run.
        if scale != 10.0
    }
    attacks["10"] = _LSA20
    for factor in MARGIN_SCALES:
        scale = tuple((factor / medians).tolist())
        attacks[f"{factor:g}/margin"] = dataclasses.replace(
            protocols.PGD20, name=f"pgd20-margin{factor:g}", scale=scale
        )
    right = {name: runs.right(attack) for name, attack in attacks.items()}
    excess = np.array([runs.per_class(pgd20) - runs.per_class(values) for values in right.values()])
    strongest = list(right)[int(np.argmax(excess.sum(axis=1)))]
    note = f"strongest at scale {strongest}: {_percent(pgd20)} above {_percent(right[strongest])}"
    totals = runs.per_class(runs.labels >= 0)
    return measured("P18", excess.max(axis=0), totals, overall=float(excess.sum(axis=1).max()), note=note)


def _median_margins(runs: Runs) -> np.ndarray:
    """Median clean margin of the right images of each class, [C]; that of all where a class has none, 1 if it is 0."""
    margins = np.asarray(runs.session.clean.margins, float)
    whole = float(np.median(margins[runs.clean])) if np.any(runs.clean) else 1.0
    medians = np.full(runs.num_classes, whole)
    for number in np.flatnonzero(runs.per_class(runs.clean)):
        medians[number] = np.median(margins[runs.clean & (runs.labels == number)])
    return np.where(medians > 0, medians, 1.0)


def _strength(runs: Runs, pgd20: np.ndarray) -> Item:
    """P19: accuracy under the protocol's headline over that under PGD-20."""
    robust = runs.robust
    if not np.any(pgd20):
        return stated("P19", "skipped", "PGD-20 leaves no image")
    left, remaining = runs.per_class(pgd20), runs.per_class(robust)
    per_class = []
    for number in np.flatnonzero(left >= STRENGTH_IMAGES):
        ratio = remaining[number] / left[number]
        if ratio < STRENGTH_PER_CLASS[0]:
            status = "warn" if ratio >= STRENGTH_PER_CLASS[1] else "fail"
            per_class.append((int(number), status, f"{remaining[number]} of {left[number]} images, {ratio:.2f}"))
    ratio = np.sum(robust) / np.sum(pgd20)
    status = "pass" if ratio >= STRENGTH[0] else "warn" if ratio >= STRENGTH[1] else "fail"
    evidence = (
        f"overall {ratio:.2f} (limit {STRENGTH[0]:.2f}/{STRENGTH[1]:.2f}), {_percent(robust)} against "
        f"{_percent(pgd20)}: {100 * (np.mean(pgd20) - np.mean(robust)):.2f} points"
    )
    return stated("P19", status, evidence, per_class)


def rounding(runs: Runs) -> Item:
    """P30: images that some attack breaks, and none does with its adversarial image as an 8-bit image.

    Every attack of the protocol counts on both sides: those of a sequence stop at the first point that is wrong, which
    rounding often undoes, and leave the image to no other.
    """
    images = runs.session.subject.images
    if (
        isinstance(images, np.ndarray)  # files hold bytes
        and images.dtype != np.uint8
        and np.max(np.abs(255 * images - np.round(255 * images))) > EIGHT_BITS
    ):
        return stated("P30", "skipped", "the images themselves are not 8-bit images")
    robust, rounded = runs.clean, runs.clean
    for name, record in runs.session.records.items():
        robust = robust & (runs.session.predictions[name] == runs.labels)
        rounded = rounded & ((record["rounded"] < 0) | (record["rounded"] == runs.labels))
    return _difference(runs, "P30", rounded, robust, f"{_percent(rounded)} above {_percent(robust)}")
