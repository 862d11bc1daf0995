"""Published results that a configuration here can be compared with: writes their table into docs/results/published.md.

    python -m tools.published_rows

`ROWS` is the one place where these numbers stand. Costs are arithmetic on the configuration: nothing is run or timed.
"""

import dataclasses
import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from ltrobust.data import batches, longtail  # noqa: E402
from ltrobust.plan import make_method  # noqa: E402
from ltrobust.report.numbers import markdown  # noqa: E402
from tools.committed import read_card  # noqa: E402
from tools.summary import rewrite  # noqa: E402

PAGE, MARKERS = "docs/results/published.md", "published"
# Training images per class, and classes.
SOURCES = {"cifar10": (5000, 10), "cifar100": (500, 100), "tiny_imagenet": (500, 200)}
LTD = "--config.teachers.teacher.path=FILE --config.teachers.teacher.architecture=wrn_34_10"
BDM = (
    "--config.teachers.teacher.path=FILE --config.teachers.teacher.architecture=dm_wrn_28_10 "
    "--config.teachers.teacher.activation=silu"
)


@dataclasses.dataclass(frozen=True)
class Source:
    """Where numbers are from: the paper, its evaluation, the columns that they are in, and what to keep in mind."""

    paper: str  # of arXiv
    name: str
    protocol: str
    pgd: str
    aa: str
    caveat: str


@dataclasses.dataclass(frozen=True)
class Row:
    """One published result.

    Attributes:
      source: of the numbers.
      config: file in `configs/`, with the recipe's name.
      what: data set, network, method, as published.
      clean, pgd, aa: percent, as published; empty where unknown.
      changes: keys of the configuration besides the recipe.
      flags: what the command needs besides and only the user has.
      note: on this row alone.
      card: our result, a file under `results/`; empty for none.
      network: of the card.
    """

    source: Source
    config: str
    what: str
    clean: str = ""
    pgd: str = ""
    aa: str = ""
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    flags: str = ""
    note: str = ""
    card: str = ""
    network: str = "student/last"


SELF = Source(
    "2503.06461",
    "self-distillation, ICLR 2025",
    "standard",
    "pgd20",
    "autoattack",
    "only gains in tail PGD-20 are known; the method they are measured against, the tail set and all absolute numbers "
    "are not",
)
AT_BSL = Source(
    "2403.10073",
    "AT-BSL, a third party's rerun of the released code",
    "legacy_at_bsl",
    "pgd20",
    "aa_ta10",
    "second-hand; the epoch with the best PGD-20 on the test set, 0.4 to 4.5 points above the last one: compare "
    "`student/last` with the last epoch, which is in the note; `aa_ta10` is weaker than AutoAttack",
)
ROBUST_LT = Source(
    "2605.13395",
    "RobustLT",
    "legacy_robustlt",
    "pgd20_1",
    "aa_ta10",
    "second-hand; mean of splits 102 to 104, ours is one split; last epoch; `aa_ta10` is weaker than AutoAttack",
)
REAT = Source(
    "2307.10205", "REAT", "standard", "pgd20", "autoattack", "second-hand; the best clean accuracy, settings unknown"
)
TAET = Source(
    "2503.01924",
    "TAET",
    "legacy_taet/b1",
    "pgd20_1",
    "aa_ta10",
    "read off a scatter plot; long-tailed test set, 224 pixels, ImageNet stem, a split without a seed: not comparable "
    "with anything else here",
)
IGDM = Source(
    "2312.03286",
    "IGDM, ICLR 2025",
    "standard",
    "pgd20",
    "autoattack",
    "last epoch on all 50,000 images, where a twentieth is held out here; gains over PGD-AT and TRADES are partly "
    "those of early stopping, since these baselines are overfitted",
)
CFA = Source(
    "2303.14460",
    "CFA, CVPR 2023",
    "standard",
    "pgd20",
    "autoattack",
    "mean of 5 runs at the epoch that was best on the test set; the worst class moves by almost 10 points between "
    "neighbouring epochs",
)
DAFA = Source(
    "2401.12532",
    "a figure of DAFA's code",
    "standard",
    "pgd20",
    "autoattack",
    "AutoAttack inferred, network and epoch not stated; the worst class moves by almost 10 points between neighbouring "
    "epochs",
)

WIDE_100 = {"data.name": "cifar100", "data.imbalance_ratio": 10.0, "model.name": "wrn_34_10"}
BARE: dict[str, Any] = {"student.wrappers": ()}
LT10, LT100 = "CIFAR-10-LT IR 50", "CIFAR-100-LT IR 10"

ROWS = (
    Row(SELF, "cifar10", f"{LT10}, ResNet-18", note="tail PGD-20 +20.3"),
    Row(SELF, "cifar100", f"{LT100}, ResNet-18", note="tail PGD-20 +7.1"),
    Row(SELF, "tiny_imagenet", "Tiny-ImageNet-LT IR 10, PreActResNet-18", note="tail PGD-20 +3.8"),
    Row(
        AT_BSL,
        "published:at_bsl+all_images",
        f"{LT10}, ResNet-18",
        "68.17",
        "36.93",
        "33.04",
        note="last epoch 70.00, PGD 32.40",
    ),
    Row(
        AT_BSL,
        "published:at_bsl_ra+all_images",
        f"{LT10}, ResNet-18, RandAugment",
        "69.76",
        "38.09",
        "33.76",
        note="last epoch 70.73, PGD 37.69",
    ),
    Row(
        AT_BSL,
        "published:at_bsl+all_images",
        f"{LT100}, WRN-34-10",
        "49.83",
        "19.99",
        "18.14",
        WIDE_100,
        note="last epoch 48.09, PGD 16.87",
    ),
    Row(
        AT_BSL,
        "published:at_bsl_aua+all_images",
        f"{LT100}, WRN-34-10, AutoAugment",
        "53.15",
        "25.12",
        "21.40",
        WIDE_100,
        note="last epoch 55.06, PGD 22.18",
    ),
    Row(ROBUST_LT, "published:robust_lt_at+all_images", f"{LT10}, WRN-28-10, AT", "58.25", "27.28", "", BARE),
    Row(ROBUST_LT, "published:robust_lt_at+all_images", f"{LT10}, WRN-28-10, AT + RobustLT", "61.59", "28.97"),
    Row(
        ROBUST_LT,
        "published:robust_lt_awp+all_images",
        f"{LT10}, WRN-28-10, AWP",
        "59.66",
        "28.50",
        "",
        {"student.wrappers": ("awp",)},
    ),
    Row(ROBUST_LT, "published:robust_lt_awp+all_images", f"{LT10}, WRN-28-10, AWP + RobustLT", "65.22", "29.11"),
    Row(
        ROBUST_LT,
        "published:robust_lt_robal+all_images",
        f"{LT10}, WRN-28-10, RoBal",
        "72.73",
        "32.29",
        "28.92",
        BARE,
        note="RobustLT's port of RoBal",
    ),
    Row(
        ROBUST_LT,
        "published:robust_lt_robal+all_images",
        f"{LT10}, WRN-28-10, RoBal + RobustLT",
        "74.63",
        "36.08",
        "31.03",
    ),
    Row(
        ROBUST_LT,
        "published:robust_lt_at_bsl+all_images",
        f"{LT10}, WRN-28-10, AT-BSL, AutoAugment",
        "77.09",
        "37.98",
        "34.57",
        BARE,
    ),
    Row(
        ROBUST_LT,
        "published:robust_lt_at_bsl+all_images",
        f"{LT10}, WRN-28-10, AT-BSL + RobustLT, AutoAugment",
        "77.61",
        "42.11",
        "37.49",
        note="AutoAttack in torchattacks' form; 30.70 of the rarest 80 %",
    ),
    Row(REAT, "published:reat+all_images", "CIFAR-10-LT, REAT", "73.16"),
    Row(
        TAET,
        "published:taet+all_images",
        "CIFAR-10-LT IR 10, TAET, balanced accuracy",
        "74.7",
        "35.2",
        "",
        {"data.imbalance_ratio": 10.0},
    ),
    Row(IGDM, "cifar10_distillation:pgd_at", "CIFAR-10, ResNet-18, PGD-AT", "84.52", "42.80", "41.12"),
    Row(IGDM, "cifar10_distillation:trades", "CIFAR-10, ResNet-18, TRADES", "82.46", "49.13", "47.09"),
    Row(
        IGDM,
        "cifar10_distillation:pgd_at+igdm",
        "CIFAR-10, PGD-AT + IGDM, LTD teacher",
        "84.15",
        "53.70",
        "49.63",
        flags=LTD,
    ),
    Row(IGDM, "cifar10_distillation:ard", "CIFAR-10, ARD, LTD teacher", "85.04", "53.27", "49.49", flags=LTD),
    Row(
        IGDM, "cifar10_distillation:ard+igdm", "CIFAR-10, ARD + IGDM, LTD teacher", "85.18", "54.75", "50.20", flags=LTD
    ),
    Row(IGDM, "cifar10_distillation:rslad", "CIFAR-10, RSLAD, LTD teacher", "83.59", "55.98", "52.13", flags=LTD),
    Row(
        IGDM,
        "cifar10_distillation:rslad+igdm",
        "CIFAR-10, RSLAD + IGDM, LTD teacher",
        "83.67",
        "57.34",
        "53.10",
        flags=LTD,
    ),
    Row(IGDM, "cifar10_distillation:adaad", "CIFAR-10, AdaAD, LTD teacher", "84.74", "56.78", "52.79", flags=LTD),
    Row(
        IGDM,
        "cifar10_distillation:adaad+igdm",
        "CIFAR-10, AdaAD + IGDM, LTD teacher",
        "84.83",
        "57.61",
        "54.02",
        flags=LTD,
    ),
    Row(IGDM, "cifar100_distillation:pgd_at", "CIFAR-100, ResNet-18, PGD-AT", "55.80", "19.88", "18.86"),
    Row(IGDM, "cifar100_distillation:trades", "CIFAR-100, ResNet-18, TRADES", "53.56", "25.85", "22.02"),
    Row(
        IGDM,
        "cifar100_distillation:pgd_at+igdm",
        "CIFAR-100, PGD-AT + IGDM, BDM teacher",
        "60.83",
        "35.09",
        "29.16",
        flags=BDM,
    ),
    Row(IGDM, "cifar100_distillation:ard", "CIFAR-100, ARD, BDM teacher", "61.51", "30.23", "24.77", flags=BDM),
    Row(
        IGDM,
        "cifar100_distillation:ard+igdm",
        "CIFAR-100, ARD + IGDM, BDM teacher",
        "61.62",
        "35.75",
        "28.79",
        flags=BDM,
    ),
    Row(IGDM, "cifar100_distillation:rslad", "CIFAR-100, RSLAD, BDM teacher", "60.22", "32.16", "26.76", flags=BDM),
    Row(
        IGDM,
        "cifar100_distillation:rslad+igdm",
        "CIFAR-100, RSLAD + IGDM, BDM teacher",
        "62.06",
        "35.67",
        "29.78",
        flags=BDM,
    ),
    Row(IGDM, "cifar100_distillation:adaad", "CIFAR-100, AdaAD, BDM teacher", "64.43", "33.21", "28.06", flags=BDM),
    Row(
        IGDM,
        "cifar100_distillation:adaad+igdm",
        "CIFAR-100, AdaAD + IGDM, BDM teacher",
        "64.44",
        "36.19",
        "30.32",
        flags=BDM,
        note="five seeds: 64.33, 36.15, 30.31; SD 0.22, 0.07, 0.03",
    ),
    Row(
        CFA,
        "published:cfa_at",
        "CIFAR-10, PreActResNet-18, AT + CFA",
        "80.8",
        "",
        "50.1",
        note="worst class 64.6 clean, 24.4 robust; last epoch 47.7, worst 20.5",
    ),
    Row(
        CFA,
        "published:cfa_trades",
        "CIFAR-10, PreActResNet-18, TRADES + CFA",
        "80.4",
        "",
        "50.1",
        note="worst class 66.2 clean, 26.5 robust",
    ),
    Row(DAFA, "published:dafa", "CIFAR-10, DAFA", "81.63", "", "49.05", note="worst class 30.53 robust"),
    Row(DAFA, "published:wat", "CIFAR-10, WAT", "80.97", "", "46.30", note="worst class 28.55 robust"),
    Row(
        DAFA,
        "published:bat",
        "CIFAR-10, BAT",
        "87.16",
        "",
        "45.89",
        note="worst class 17.82 robust; PGD flatters this method",
    ),
)


def configuration(row: Row) -> Any:
    """The row's configuration, locked.

    Raises:
      KeyError, ValueError: no such recipe, or a key that it does not have.
    """
    file, *recipe = row.config.split(":")
    config = importlib.import_module(f"configs.{file}").get_config(*recipe).lock()
    config.update_from_flattened_dict(row.changes)
    return config


def command(row: Row) -> str:
    """The flags of a row besides data folder and workdir."""
    file, *recipe = row.config.split(":")
    words = [f"--config=configs/{file}.py{''.join(f':{name}' for name in recipe)}"]
    for key, value in row.changes.items():
        words.append(f"--config.{key}=" + (f'"{value}"' if isinstance(value, tuple) else f"{value}"))
    return " ".join([*words, *([row.flags] if row.flags else []), f"--config.eval.protocol={row.source.protocol}"])


def cost(config: Any) -> str:
    """`updates x batch x passes = images`, of each phase that is trained, from the configuration alone.

    A pass is one forward and backward pass of an image: the attack's steps and the train-mode passes that the method
    names, twice where the weights are perturbed before the update. Not counted: forward passes in eval mode (a
    teacher's answers, a target of TRADES), validation, evaluation.
    """
    per_class, classes = SOURCES[config.data.name]
    labels = np.repeat(np.arange(classes), per_class)
    chosen = labels[longtail.choose(labels, imbalance_ratio=config.data.imbalance_ratio, profile=config.data.profile)]
    data = config.data
    part = longtail.carve_validation(
        chosen, fraction=data.validation_fraction, floor=data.validation_floor, cap=data.validation_cap
    )
    counts = longtail.count_classes(chosen[part.train])
    taught = config.student.method == "self_distillation" and not config.teachers.teacher.path
    result = []
    for name in (["teacher"] if taught else []) + ["student"]:
        phase, images = config[name], int(counts.sum())
        if phase.subset == "balanced":
            images = classes * longtail.balanced_count(counts, gamma=phase.balanced.gamma, count=phase.balanced.count)
        schedule = batches.make_schedule(images, phase.batch_size, phase.remainder)
        steps = phase.steps or schedule.first_step(phase.epochs)
        method = make_method(config.to_dict(), name)
        if method.passes is None:
            result.append(f"{steps:,} x {phase.batch_size}; passes not counted: {phase.method} uses its own attacks")
            continue
        again = 2 if "awp" in phase.get("wrappers", ()) else 1
        passes = phase.attack.steps + again * len(method.passes)
        millions = steps * phase.batch_size * passes / 1e6
        result.append(f"{steps:,} x {phase.batch_size} x {passes} = {millions:,.1f} million")
    names = ("teacher", "student") if taught else ("student",)
    return "; ".join(f"{what} ({name})" for what, name in zip(result, names, strict=True))


def ours(row: Row, root: Path = ROOT) -> str:
    """Our clean, PGD and AA, in percent, or that there is no run."""
    if not row.card:
        return "not run"
    columns = read_card(root / "results" / row.card).networks[row.network].columns
    result = [columns.get(name) for name in ("clean", row.source.pgd, row.source.aa)]
    return " / ".join(f"{100 * column.overall.value:.2f}" if column else "-" for column in result)


def table() -> str:
    """Markdown: the rows, then what is to be kept in mind of each source."""
    rows = [["", "published: clean / PGD / AA", "ours", "updates x batch x passes", "flags"]]
    sources = list(dict.fromkeys(row.source for row in ROWS))
    for row in ROWS:
        numbers = " / ".join(value or "-" for value in (row.clean, row.pgd, row.aa))
        what = f"{row.what} [{sources.index(row.source) + 1}]" + (f" ({row.note})" if row.note else "")
        rows.append([what, numbers, ours(row), cost(configuration(row)), f"`{command(row)}`"])
    notes = [
        f"{number}. [{source.name}](https://arxiv.org/abs/{source.paper}); protocol "
        f"`{source.protocol}`, PGD is `{source.pgd}`, AA is `{source.aa}`. Caveat: {source.caveat}."
        for number, source in enumerate(sources, start=1)
    ]
    return markdown(rows) + "\n" + "\n".join(notes) + "\n"


def main(root: Path) -> None:
    """Rewrites the table of docs/results/published.md under `root`."""
    rewrite(root / PAGE, table(), MARKERS)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
