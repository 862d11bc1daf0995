"""From networks to numbers: evaluation on the test set, the card, and the tables that are printed from it."""

import dataclasses
import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from ltrobust import ambient, attacks, checks, models, processes
from ltrobust.data import identity, longtail, overlap, sources
from ltrobust.data.splits import Splits, describe, first_of_each_class
from ltrobust.evaluation import metrics, protocols, sanity
from ltrobust.evaluation import store as stores
from ltrobust.evaluation.evaluate import Evaluator, make_evaluator
from ltrobust.evaluation.evaluation import Evaluation
from ltrobust.methods import DecisionRule, Teacher
from ltrobust.reporting import cards, inventory, tables
from ltrobust.training import devices, phases
from ltrobust.training.state import Weights

SELECTION_RULE = (
    "highest running mean of three balanced PGD-20 accuracies on the validation part, ties to the later epoch"
)
# Ends of the names of networks that the validation part had a say in.
_BY_VALIDATION = ("/selected", "+class_logit_offset")


@dataclasses.dataclass(frozen=True)
class Network:
    """Trained weights, with what turns them into logits at test time."""

    weights: Weights
    head: models.Head
    rule: DecisionRule


def report(
    config: Any,
    settings: Mapping[str, Any],
    workdir: Path,
    name: str,
    splits: Splits,
    networks: Mapping[str, Network],
    training: Mapping[str, Any],
    mesh: Mesh,
    began: float,
) -> Path:
    """Evaluates every network on the test set, writes the card and prints its tables (process 0).

    `settings` are what the card says: the training's configuration with this evaluation's settings.
    """
    with processes.all_or_none():
        data = config.data
        test = sources.load(data.name, "test", data_dir=data.dir, cache_dir=data.cache_dir, **sources.form(data))
    show_source(test)
    processes.check_same(
        {"test set": cards.digest([test.images, test.labels])} if processes.several() else {}, checks.SAME_DATA
    )
    ids = first_of_each_class(test.labels, config.eval.limit)
    overlaps = find_overlaps(config, splits, test, ids) if processes.first() else {}
    evaluator_of = functools.cache(
        lambda head, rule: make_network_evaluator(
            config,
            splits.num_classes,
            mesh,
            head=head,
            rule=rule,
            protocol=config.eval.protocol,
            images=len(ids),
            seed=config.eval.seed,
        )
    )
    results: dict[str, dict[str, Any]] = {}
    first_with: dict[Any, str] = {}  # what logits depend on -> the first network of which they are
    # Last weights first: they are what other networks of the same weights are shown as.
    for network in sorted(networks, key=lambda name: not name.endswith("/last")):
        trained = networks[network]
        weights = trained.weights
        fingerprints = fingerprints_of(weights)
        same = first_with.setdefault((*fingerprints.values(), trained.head, trained.rule), network)
        if same != network:
            if processes.first():
                print(f"{network} has the weights of {same}: evaluated once", flush=True)
                results[network] = results[same] | {"same_as": same}
            continue
        store = workdir / _store_name(config, network, fingerprints, test.labels[ids])
        evaluation = evaluator_of(trained.head, trained.rule)(
            weights,
            test.images[ids],
            test.labels[ids],
            ids=ids,
            progress=f"evaluating {network}",
            store=store,
            about={
                "network": network,
                "class_names": list(splits.class_names),
                "training_counts": splits.class_counts.tolist(),
                **fingerprints,
            },
            selected_on="validation part" if network.endswith(_BY_VALIDATION) else "nothing",
            test_labels=None if config.eval.limit else test.labels,
        )
        if not processes.first():
            continue
        verdicts = {"folder": str(store.relative_to(workdir)), "sha256": cards.digest_file(store / "verdicts.jsonl")}
        described = describe_network(evaluation, splits.class_counts)
        norms = models.class_norms(jax.device_get(weights.params), splits.num_classes)
        classifier = {"head": trained.head.kind, "class_norms": norms.round(6).tolist()}
        results[network] = fingerprints | described | {"classifier": classifier, "verdicts": verdicts}
    if not processes.first():
        return processes.share(None)
    results = {name: results[name] for name in networks}
    local = ("dir", "cache_dir")  # this machine's, not the run's
    data = {key: value for key, value in settings["data"].items() if key not in local}
    checkpoint = {key: value for key, value in settings["checkpoint"].items() if key not in local}
    teachers = {key: {**entry, "path": Path(entry["path"]).name} for key, entry in settings.get("teachers", {}).items()}
    of_phases = {key: settings[key] | {"initialize": Path(settings[key]["initialize"]).name} for key in phases.NAMES}
    card = {
        "config": {**settings, **of_phases, "data": data, "checkpoint": checkpoint, "teachers": teachers},
        "model": {
            "name": config.model.name,
            "parameters": models.count_parameters(next(iter(networks.values())).weights.params),
        },
        "data": describe_data(config, splits, test, ids) | {"overlap": overlaps},
        "threat": dataclasses.asdict(phases.make_threat(config)) | {"epsilon": phases.make_threat(config).epsilon},
        "protocol": describe_protocol(config, splits.num_classes),
        "selection_rule": describe_selection(networks, splits),
        "training": training,
        "numerics": _describe_numerics(config, mesh),
        "networks": results,
        "seconds": round(time.monotonic() - began, 1),
    }
    path = cards.write(workdir / "results", name, card)
    last = "student/last" if "student/last" in results else next(iter(results))
    print(f"\n{tables.render(card)}\n\n{tables.render_classes(card, last)}\n\ncard: {path}")
    return processes.share(path)


def show_source(source: sources.Split) -> None:
    """Prints how many images there are, where they come from and what was passed over (process 0)."""
    if source.origin and processes.first():
        images, classes = len(source.labels), source.num_classes
        print(f"{source.split} of {source.name}: {images:,} images in {classes} classes; {source.origin}")
        if source.files:
            print(inventory.render(source.files, source.class_names), flush=True)


def describe_selection(networks: Mapping[str, Network], splits: Splits) -> str:
    """The card's `selection_rule`: of the selected weights, or that there are none."""
    if any(name.endswith("/selected") for name in networks):
        return SELECTION_RULE
    if len(splits.validation_labels) == 0:
        return "no weights (no validation part)"
    return f"no weights (fewest validation images of a class: {splits.validation_counts.min()})"


def fingerprints_of(weights: Weights | Teacher) -> dict[str, str]:
    """SHA-256 of parameters and of running statistics."""
    return {
        "params_sha256": cards.digest(jax.tree.leaves(jax.device_get(weights.params))),
        "batch_stats_sha256": cards.digest(jax.tree.leaves(jax.device_get(weights.batch_stats))),
    }


def _store_name(config: Any, network: str, fingerprints: Mapping[str, str], labels: np.ndarray) -> str:
    """Where a network's verdicts lie: a folder of its own for everything that they depend on."""
    content = {
        "protocol": dataclasses.asdict(protocols.get(config.eval.protocol)),
        "threat": dataclasses.asdict(phases.make_threat(config)),
        "seed": config.eval.seed,
        "keep_images": config.eval.keep_images,
        "labels": longtail.fingerprint(labels),
        "limit": config.eval.limit,
        "sanity": sanity.VERSION,
        "format": stores.FORMAT,
        "attacks": attacks.VERSION,
        "ambient": ambient.describe(),
        "model": config.model.to_dict(),
        "network": dict(fingerprints),
    }
    protocol = config.eval.protocol.replace("/", "-")
    return f"verdicts/{protocol}-{network.replace('/', '-')}-{cards.digest_json(content)[:12]}"


def describe_network(evaluation: Evaluation, class_counts: np.ndarray) -> dict[str, Any]:
    """The card's part on one network: counts and views per column, and what verification found."""
    columns = {}
    for column in evaluation.columns:
        counts = evaluation.counts(column)
        plain = {"correct": counts.correct.tolist(), "total": counts.total.tolist()}
        columns[column] = plain | metrics.views(counts, class_counts)
    headline = evaluation.protocol.headline
    worst = evaluation.final_predictions(headline)
    rounded = metrics.count(evaluation.correct_after_rounding(headline), evaluation.labels, evaluation.num_classes)
    confusions = {
        name: metrics.confusion(predictions, evaluation.labels, evaluation.num_classes)
        for name, predictions in (("clean", evaluation.predictions["clean"]), (headline, worst))
    }
    return {
        "max_violation": evaluation.max_violation,
        "refuted": evaluation.refuted,
        "clean_tied": int(np.sum(evaluation.clean_tied)),
        "rounded_to_8_bits": {"column": headline, "correct": rounded.correct.tolist()},
        "confusion": {name: matrix.tolist() for name, matrix in confusions.items()},
        "thief": metrics.thief(confusions[headline]),
        "columns": columns,
        "sanity": [dataclasses.asdict(item) for item in evaluation.sanity],
        "sanity_verdict": sanity.verdict(evaluation.sanity) if evaluation.sanity else None,
    }


def describe_protocol(config: Any, num_classes: int) -> dict[str, Any]:
    """The card's part on the protocol: every setting, and what its columns may be called."""
    protocol = protocols.get(config.eval.protocol)
    columns = [attack.name for attack in protocol.attacks] + [name for name, _ in protocol.combined]
    return dataclasses.asdict(protocol) | {
        "seed": config.eval.seed,
        "headline": protocol.headline,
        "titles": {column: protocols.title(column, num_classes) for column in columns},
    }


def find_overlaps(config: Any, splits: Splits, test: sources.Split, ids: np.ndarray) -> dict[str, Any]:
    """Compares what is trained on, validated on and evaluated (`overlap.describe`); warnings go to the log."""
    positions = {"training": splits.positions, "validation": splits.validation_positions, "test": ids}
    labels = {"training": splits.labels, "validation": splits.validation_labels, "test": test.labels[ids]}

    def names(part: str, rows: np.ndarray) -> list[str]:
        split = "test" if part == "test" else "train"
        return sources.image_names(
            test.name,
            split,
            positions[part][rows],
            labels[part][rows],
            splits.class_names,
            data_dir=config.data.dir,
            files=test.files if part == "test" else splits.files,
        )

    found = overlap.describe(
        {"training": splits.images, "validation": splits.validation_images, "test": test.images[ids]},
        labels,
        names,
        official=splits.claim == test.claim == identity.OFFICIAL,
    )
    for sentence in found["warnings"]:
        logging.warning("%s.", sentence)
    return found


def describe_data(config: Any, splits: Splits, test: sources.Split, ids: np.ndarray) -> dict[str, Any]:
    """The card's part on the data."""
    totals = np.bincount(test.labels[ids], minlength=splits.num_classes)
    chosen = splits.class_counts + np.bincount(splits.validation_labels, minlength=splits.num_classes)
    return {
        **describe(splits),
        "name": config.data.name,
        # Where all images are kept, the ratio is what the data have.
        "imbalance_ratio": config.data.imbalance_ratio or float(chosen.max() / chosen.min()),
        "profile": config.data.profile,
        "split_seed": config.data.split_seed,
        "class_names": list(splits.class_names),
        "test_images": len(test.labels),
        "evaluated": len(ids),
        "test_balanced": bool(totals.min() == totals.max()),
        "test_labels_sha256": longtail.fingerprint(test.labels[ids]),
        "test_images_sha256": test.fingerprint,
        "test_claim": test.claim,
        "test_notes": list(test.notes),
        **({"files": {"train": dict(splits.files), "test": dict(test.files)}} if test.files else {}),
    }


def _describe_numerics(config: Any, mesh: Mesh) -> dict[str, Any]:
    """The card's part on devices and precision."""
    return {
        "backend": jax.default_backend(),
        "device": mesh.devices.flat[0].device_kind,
        "devices": int(mesh.size),
        "processes": jax.process_count(),
        "compute_dtype": config.model.dtype,
        "search_matmul_precision": str(jax.config.values["jax_default_matmul_precision"] or "backend default"),
        "verdicts": "float32, highest matmul precision",
        "ambient": ambient.describe(),
    }


def make_network_evaluator(
    config: Any,
    num_classes: int,
    mesh: Mesh,
    *,
    head: models.Head,
    rule: DecisionRule,
    protocol: str,
    images: int,
    seed: int,
) -> Evaluator:
    """An evaluator of `Weights` on `images` images; batches are divided over the mesh, verdicts taken in float32."""

    def applier(exact: bool):
        module = phases.make_module(config, num_classes, head=head, exact=exact)

        def apply(weights: Weights, images: jax.Array) -> jax.Array:
            return rule(models.forward(module, weights.params, weights.batch_stats, images, bn="eval")[0])

        return apply

    where = devices.sharding(mesh, devices.divided())
    return make_evaluator(
        applier(exact=False),
        protocol=protocols.get(protocol),
        threat=phases.make_threat(config),
        num_classes=num_classes,
        batch_size=min(config.eval.batch_size, max(images, 1)),
        seed=seed,
        keep_images=config.eval.keep_images,
        exact_apply=applier(exact=True),
        place=lambda batch: processes.put(batch, where),
        devices=mesh.size,
    )
