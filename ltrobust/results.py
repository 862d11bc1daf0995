"""From networks to numbers: evaluation on the test set, the card, and the tables that are printed from it."""

import dataclasses
import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ltrobust import attacks, card_parts, checks, models
from ltrobust.analysis import cards
from ltrobust.data import longtail, sources
from ltrobust.data.run_data import RunData, first_of_each_class
from ltrobust.evaluation import protocols
from ltrobust.evaluation import store as stores
from ltrobust.evaluation.evaluate import Evaluator, make_evaluator
from ltrobust.methods import DecisionRule, Teacher
from ltrobust.report import inventory, tables
from ltrobust.runtime import ambient, processes
from ltrobust.sanity import panel
from ltrobust.training import devices, phases
from ltrobust.training.state import Weights

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
    run_data: RunData,
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
    processes.check_same({"test set": test.fingerprint}, checks.SAME_DATA)
    ids = first_of_each_class(test.labels, config.eval.limit)
    overlaps = card_parts.find_overlaps(run_data, test, ids) if processes.first() else {}
    results = _evaluate(config, workdir, run_data, networks, test, ids, mesh)
    if not processes.first():
        return processes.share(None)
    card = {
        "config": card_parts.describe_config(settings),
        "model": {
            "name": config.model.name,
            "parameters": models.count_parameters(next(iter(networks.values())).weights.params),
        },
        "data": card_parts.describe_data(config, run_data, test, ids) | {"overlap": overlaps},
        "threat": dataclasses.asdict(phases.make_threat(config)) | {"epsilon": phases.make_threat(config).epsilon},
        "protocol": card_parts.describe_protocol(config, run_data.num_classes),
        "selection_rule": card_parts.describe_selection(networks, run_data),
        "training": training,
        "numerics": card_parts.describe_numerics(config, mesh),
        "networks": results,
        "seconds": round(time.monotonic() - began, 1),
    }
    path = cards.write(workdir / "results", name, card)
    last = "student/last" if "student/last" in results else next(iter(results))
    print(f"\n{tables.render(card)}\n\n{tables.render_classes(card, last)}\n\ncard: {path}")
    return processes.share(path)


def _evaluate(
    config: Any,
    workdir: Path,
    run_data: RunData,
    networks: Mapping[str, Network],
    test: sources.Split,
    ids: np.ndarray,
    mesh: Mesh,
) -> dict[str, dict[str, Any]]:
    """Network -> the card's part on it, evaluated on the test images `ids`; empty but in process 0."""
    evaluator_of = functools.cache(
        lambda head, rule: make_network_evaluator(
            config,
            run_data.num_classes,
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
                "class_names": list(run_data.class_names),
                "training_counts": run_data.class_counts.tolist(),
                **fingerprints,
            },
            selected_on="validation part" if network.endswith(_BY_VALIDATION) else "nothing",
            test_labels=None if config.eval.limit else test.labels,
        )
        if not processes.first():
            continue
        verdicts = {"folder": str(store.relative_to(workdir)), "sha256": cards.digest_file(store / "verdicts.jsonl")}
        described = card_parts.describe_network(evaluation, run_data.class_counts)
        results[network] = fingerprints | described | _describe_classifier(trained, run_data) | {"verdicts": verdicts}
    return {name: results[name] for name in networks if name in results}


def _describe_classifier(network: Network, run_data: RunData) -> dict[str, Any]:
    """The card's part on the last layer; empty for a network in which it cannot be told from other layers."""
    outputs = run_data.num_classes + network.head.extra
    norms = models.class_norms(jax.device_get(network.weights.params), run_data.num_classes, outputs)
    if norms is None:
        return {}
    return {"classifier": {"head": network.head.kind, "class_norms": norms.round(6).tolist()}}


def show_source(source: sources.Split) -> None:
    """Prints how many images there are, where they come from and what was passed over (process 0)."""
    if source.origin and processes.first():
        images, classes = len(source.labels), source.num_classes
        print(f"{source.split} of {source.name}: {images:,} images in {classes} classes; {source.origin}")
        if source.files:
            print(inventory.render(source.files, source.class_names), flush=True)


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
        "sanity": panel.VERSION,
        "format": stores.FORMAT,
        "attacks": attacks.VERSION,
        "ambient": ambient.describe(),
        "model": phases.describe_model(config.model),
        "network": dict(fingerprints),
    }
    protocol = config.eval.protocol.replace("/", "-")
    return f"verdicts/{protocol}-{network.replace('/', '-')}-{cards.digest_json(content)[:12]}"


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
        module = phases.make_module(config, num_classes, head=head, exact=exact, platform=devices.platform(mesh))

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
