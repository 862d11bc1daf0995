"""A run that nobody trained: its verdicts are drawn, its files are written by the writers of real runs."""

import dataclasses
import json

import numpy as np

from configs import digits
from ltrobust.analysis import card_parts, cards
from ltrobust.analysis.evaluation import Evaluation
from ltrobust.analysis.schema.card import Card, ModelRecord, Numerics, ThreatRecord
from ltrobust.analysis.schema.network import Classifier, VerdictFile
from ltrobust.analysis.schema.training import TrainingExamples, TrainingRecord, TrainingThreat
from ltrobust.data import sources
from ltrobust.data.run_data import DataPlan, first_of_each_class, make_run_data
from ltrobust.evaluation import protocols, verdict
from ltrobust.evaluation.drive import Subject
from ltrobust.evaluation.store import Store
from ltrobust.evaluator import describe
from ltrobust.runtime import workdir as workdirs
from ltrobust.sanity.panel import Item
from ltrobust.threat import Threat
from ltrobust.training.records import Records

PARTS = {"validation_fraction": 0.05, "validation_floor": 10, "validation_cap": 0.2}
NETWORKS = {"teacher/last": 0.6, "student/last": 0.75, "student/selected": 0.75}
PANEL = (
    Item("P05", "pass", "broken by FGSM, but not by PGD-20", "0 of 797 images"),
    Item("P12", "warn", "broken by Square only", "3 <b>images</b>", ((7, "warn", "2 of 79"),)),
)


def write_run(
    workdir,
    *,
    protocol="quick",
    radius=32.0,
    classes=10,
    test_images=20,
    names=None,
    keep_images=False,
    skills=None,
    limit=0,
    kept=(),
):
    """Writes (or adds to) a run on digits, or on `classes` classes of noise with so many test images each.

    `skills` are accuracies by network; `limit` is of test images by class; adversarial images
    are kept of the ids `kept`, or of all.
    """
    generator = np.random.RandomState(0)
    config = digits.get_config()
    config.eval.protocol, config.threat.radius, config.eval.keep_images = protocol, radius, keep_images
    train, test = (_source(part, classes, names, test_images) for part in ("train", "test"))
    run_data = make_run_data(train, imbalance_ratio=10.0, profile="exp", seed=0, **PARTS)
    if not (workdir / "metrics.jsonl").exists():
        workdirs.claim(workdir, workdirs.plain(config))
        _write_records(workdir, run_data.num_classes)
    threat, ids = Threat("linf", radius), first_of_each_class(test.labels, limit)
    seen = dataclasses.replace(test, images=test.images[ids], labels=test.labels[ids])
    networks = {}
    for name, skill in (skills or NETWORKS).items():
        evaluation, adv_images = _evaluation(generator, skill, seen, protocols.get(protocol), threat)
        about = {"network": name, "training_counts": run_data.class_counts.tolist()}
        about |= {"class_names": list(run_data.class_names), "params_sha256": f"{name} {skill}"}
        folder = workdir / "verdicts" / f"{protocol}-{radius:g}-{name.replace('/', '-')}"
        subject = Subject({}, seen.images, seen.labels, ids)
        _write_store(folder, evaluation, subject, about, adv_images, {"keep_images": keep_images, "sample": kept})
        networks[name] = card_parts.describe_network(
            evaluation,
            run_data.class_counts,
            fingerprints={"params_sha256": f"{name} {skill}", "batch_stats_sha256": "0"},
            classifier=Classifier("linear", np.linspace(1, 2, run_data.num_classes).round(6).tolist()),
            verdicts=VerdictFile(str(folder.relative_to(workdir)), cards.digest_file(folder / "verdicts.jsonl")),
        )
    classes = run_data.num_classes
    trained = {
        "teacher": TrainingExamples(27 * classes, [27] * classes, "0"),
        "student": TrainingExamples(len(run_data.training), run_data.class_counts.tolist(), "1"),
    }
    data = card_parts.describe_data(DataPlan(**config.data.to_dict()), run_data, test, ids, None)
    card = Card(
        created=cards.now(),
        command=cards.command(),
        software=cards.software(),
        config=cards.describe_config(workdirs.plain(config)),
        model=ModelRecord("small_resnet", 77754),
        data=dataclasses.replace(data, name=train.name),
        threat=ThreatRecord(**dataclasses.asdict(threat), epsilon=threat.epsilon),
        protocol=card_parts.describe_protocol(protocols.get(protocol), config.eval.seed, classes),
        selection_rule=card_parts.SELECTION_RULE,
        training={
            phase: TrainingRecord(0, 10, cards.software(), TrainingThreat("linf", 32.0), examples)
            for phase, examples in trained.items()
        },
        numerics=Numerics("cpu", "cpu", 1, 1, "float32", "backend default", "float32, highest matmul precision", None),
        networks=networks,
        seconds=12.5,
    )
    return cards.write(workdir / "results", protocol, card)


def change_card(path, change):
    """Changes a card's JSON by a function of it, and seals it again."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content | {"sha256": cards.seal(content)}))


def _source(part, classes, names, test_images):
    """Digits, or noise under the name of a set that has as many classes."""
    if classes == 10:
        result = sources.load("digits", part, cache_dir="")
        return dataclasses.replace(result, class_names=tuple(names)) if names else result
    labels = np.repeat(np.arange(classes), 100 if part == "train" else test_images)
    images = np.random.RandomState(1).randint(0, 256, (len(labels), 8, 8, 1)).astype(np.uint8)
    class_names = tuple(names or (f"class {index}" for index in range(classes)))
    return sources.Split("cifar100", part, images, labels.astype(np.int64), class_names)


def _evaluation(generator, skill, test, protocol, threat):
    """Drawn verdicts: rare classes are broken more often, mostly in favour of the next class."""
    number, classes = len(test.labels), test.num_classes
    wrong = (test.labels + generator.choice([1, 2, 3], number, p=[0.6, 0.3, 0.1])) % classes
    predictions = {"clean": np.where(generator.rand(number) < 0.9, test.labels, wrong)}
    records = {"clean": verdict.unseen(number)}
    records["clean"]["prediction"] = records["clean"]["rounded"] = predictions["clean"]
    records["clean"]["margin"], records["clean"]["probability"] = 1.0, 0.875
    records["clean"]["confidence"] = 0.9375
    survival = skill ** (0.5 + 2 * test.labels / classes)
    for attack in protocol.attacks:
        column = predictions[attack.after[-1] if attack.after else "clean"].copy()
        rows = np.flatnonzero(column == test.labels)
        broken = rows[generator.rand(len(rows)) > survival[rows]]
        record = verdict.unseen(number)
        early = not isinstance(attack, protocols.Pgd)
        spent = np.ceil(generator.exponential(100, number)).astype(int)
        steps = 1 if attack.name == "fgsm" else 20
        record["evaluations"][rows] = np.clip(spent[rows], 1, 500) if early else steps
        column[broken] = wrong[broken]
        record["prediction"][rows] = record["rounded"][rows] = column[rows]
        record["norm"][rows], record["margin"][rows] = threat.epsilon, 0.5
        record["probability"][rows] = np.where(column[rows] == test.labels[rows], 0.75, 0.125)
        record["confidence"][rows] = np.where(column[rows] == test.labels[rows], 0.75, 0.625)
        predictions[attack.name], records[attack.name] = column, record
    signs = generator.choice([-1, 1], test.images.shape).astype(np.float32)
    adv_images = np.clip(test.images / np.float32(255) + np.float32(threat.epsilon) * signs, 0, 1)
    items = PANEL if protocol.sanity else ()
    made = Evaluation(np.arange(number), test.labels, classes, protocol, threat, predictions, records, items)
    return made, adv_images


def _write_store(folder, evaluation, subject, about, adv_images, kept):
    """The store of an evaluation's verdicts."""
    network = {"logits": np.zeros((8, evaluation.num_classes)).tolist()}
    described = describe(evaluation.protocol, evaluation.threat, 0, subject, evaluation.num_classes, network)
    store = Store(folder, described | {"about": about}, **kept)
    for name, record in evaluation.records.items():
        rows = np.flatnonzero(record["prediction"] >= 0)
        shown = None if name == "clean" else adv_images[rows]
        store.append(name, subject.ids[rows], subject.labels[rows], record[rows], shown)
    store.close()


def _write_records(workdir, classes):
    """Six epochs of each phase."""
    with Records(workdir) as records:
        for phase in ("teacher", "student"):
            for epoch in range(1, 7):
                view = {"overall": epoch / 10, "balanced": epoch / 10, "tail_third": epoch / 20}
                validation = {column: view | {"per_class": [0.1] * classes} for column in ("clean", "pgd20")}
                train = {"loss": 2 / epoch, "robust_correct": epoch / 12}
                records.write(
                    {
                        "phase": phase,
                        "epoch": epoch,
                        "step": 4 * epoch,
                        "learning_rate": 0.05,
                        "train": train,
                        "seconds": 9.5 if epoch == 1 else 1.5,
                        **({"validation": validation, "selected_epoch": 4} if epoch % 2 == 0 else {}),
                    }
                )
