"""Trained networks and their evaluation on validation and test images."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ltrobust import attacks, models
from ltrobust.analysis import card_parts, cards, sample
from ltrobust.analysis.schema.network import Classifier, NetworkResult, VerdictFile
from ltrobust.data import longtail, sources
from ltrobust.data.images import take
from ltrobust.data.run_data import RunData
from ltrobust.evaluation import protocols
from ltrobust.evaluation import store as stores
from ltrobust.evaluation.drive import Driver
from ltrobust.evaluation.judge import Apply
from ltrobust.evaluation.protocols import Protocol
from ltrobust.evaluator import Evaluator, make_evaluator
from ltrobust.methods import DecisionRule, Teacher
from ltrobust.plan import RunPlan
from ltrobust.runtime import ambient, processes
from ltrobust.runtime.workdir import PHASES
from ltrobust.sanity import panel
from ltrobust.training import devices
from ltrobust.training.state import Weights

# Ends of the names of networks that the validation part had a say in.
_BY_VALIDATION = ("/selected", "+class_logit_offset")


@dataclasses.dataclass(frozen=True)
class Network:
    """Trained weights, with the module and the rule that turn them into test-time logits.

    Attributes:
      apply: `(weights, images) -> logits` of a network that is not the plan's `model`; head and rule are not used then.
    """

    weights: Weights
    head: models.Head
    rule: DecisionRule
    apply: Apply | None = None


def evaluate(
    plan: RunPlan,
    run_data: RunData,
    networks: Mapping[str, Network],
    test: sources.Split,
    ids: np.ndarray,
    mesh: Mesh,
) -> dict[str, NetworkResult]:
    """Network -> the card's part on it, evaluated on the test images `ids`; empty but in process 0.

    Verdicts are kept in the plan's workdir. Networks of the same weights are evaluated once.

    Raises:
      ValueError: the plan names networks, and none of them is there.
    """
    settings, known_labels = plan.evaluation, test.labels[ids]
    evaluator_of = functools.cache(
        lambda head, rule, apply: make_network_evaluator(
            plan,
            run_data.num_classes,
            mesh,
            head=head,
            rule=rule,
            protocol=settings.protocol,
            images=len(ids),
            seed=settings.seed,
            apply=apply,
        )
    )
    results: dict[str, NetworkResult] = {}
    first_with: dict[Any, str] = {}  # what logits depend on -> the first network of which they are
    # Last weights first: they are what other networks of the same weights are shown as.
    chosen = [name for name in networks if not settings.networks or name in settings.networks]
    if not chosen:
        raise ValueError(
            f"eval.networks is {settings.networks}, but here are only {', '.join(networks)}; name one, or give "
            "another phase as eval.checkpoint."
        )
    for network in sorted(chosen, key=lambda name: not name.endswith("/last")):
        trained = networks[network]
        weights = trained.weights
        fingerprints = fingerprints_of(weights)
        same = first_with.setdefault((*fingerprints.values(), trained.head, trained.rule), network)
        if same != network:
            if processes.first():
                print(f"{network} has the weights of {same}: evaluated once", flush=True)
                results[network] = dataclasses.replace(results[same], same_as=same)
            continue
        store = plan.workdir / _store_name(plan, network, fingerprints, known_labels)
        evaluation = evaluator_of(trained.head, trained.rule, trained.apply)(
            weights,
            take(test.images, ids),
            known_labels,
            ids=ids,
            progress=f"evaluating {network}",
            store=store,
            about={
                "network": network,
                "class_names": list(run_data.class_names),
                "training_counts": run_data.class_counts.tolist(),
                **fingerprints,
            },
            selected_on=_selected_on(network),
            test_labels=None if settings.limit else test.labels,
            sample=sample.choose(known_labels, ids, run_data.class_counts, test.images.shape[1:]),
        )
        if not processes.first():
            continue
        results[network] = card_parts.describe_network(
            evaluation,
            run_data.class_counts,
            fingerprints=fingerprints,
            classifier=_describe_classifier(trained, run_data),
            verdicts=VerdictFile(str(store.relative_to(plan.workdir)), cards.digest_file(store / "verdicts.jsonl")),
        )
    return {name: results[name] for name in chosen if name in results}


def _selected_on(network: str) -> str | None:
    """What a network's weights were selected on, for the sanity panel; None: not known, as it was not trained here."""
    if network.endswith(_BY_VALIDATION):
        return "validation part"
    return "nothing" if network.partition("/")[0] in PHASES else None


def _describe_classifier(network: Network, run_data: RunData) -> Classifier | None:
    """The card's part on the last layer; None for a network whose last layer is not recognised."""
    outputs = run_data.num_classes + network.head.extra
    norms = models.class_norms(jax.device_get(network.weights.params), run_data.num_classes, outputs)
    return None if norms is None else Classifier(network.head.kind, norms.round(6).tolist())


def fingerprints_of(weights: Weights | Teacher) -> dict[str, str]:
    """SHA-256 of parameters and of running statistics."""
    return {
        "params_sha256": cards.digest(jax.tree.leaves(jax.device_get(weights.params))),
        "batch_stats_sha256": cards.digest(jax.tree.leaves(jax.device_get(weights.batch_stats))),
    }


def _store_name(plan: RunPlan, network: str, fingerprints: Mapping[str, str], labels: np.ndarray) -> str:
    """Folder of a network's verdicts, separate for each combination of everything that they depend on."""
    content = {
        "protocol": protocols.plain(plan.evaluation.protocol),
        "threat": dataclasses.asdict(plan.threat),
        "seed": plan.evaluation.seed,
        "keep_images": plan.evaluation.keep_images,
        "labels": longtail.fingerprint(labels),
        "limit": plan.evaluation.limit,
        "sanity": panel.VERSION,
        "format": stores.FORMAT,
        "attacks": attacks.VERSION,
        "ambient": ambient.describe(),
        "model": plan.model.describe(),
        "network": dict(fingerprints),
    }
    protocol = plan.evaluation.protocol.name.replace("/", "-")
    return f"verdicts/{protocol}-{network.replace('/', '-')}-{cards.digest_json(content)[:12]}"


def images_per_call(batch_size: int, mesh: Mesh) -> int:
    """Images in one compiled call of an evaluation, over all devices; `batch_size` is that of each, or 0 for the best.

    No verdict depends on it: every image is searched by itself.
    """
    if batch_size:
        return batch_size * mesh.size
    # A chip is busy from about 128 images on, by the TPU compiler's model. CPU devices share memory and cores.
    return 512 if devices.platform(mesh) == "cpu" else 128 * mesh.size


def make_network_evaluator(
    plan: RunPlan,
    num_classes: int,
    mesh: Mesh,
    *,
    head: models.Head,
    rule: DecisionRule,
    protocol: Protocol,
    images: int,
    seed: int,
    apply: Apply | None = None,
) -> Evaluator:
    """An evaluator of `Weights` on `images` images; batches are divided over the mesh, verdicts taken in float32.

    `apply` is of a network that is not the plan's.
    """
    settings = _settings(plan, num_classes, mesh, head=head, rule=rule, images=images, seed=seed, own=apply)
    return make_evaluator(**settings, protocol=protocol, keep_images=plan.evaluation.keep_images)


def make_network_driver(
    plan: RunPlan, num_classes: int, mesh: Mesh, *, head: models.Head, rule: DecisionRule, images: int
) -> Driver:
    """The driver of such an evaluator, with programs for the mesh's platform, which need not be there."""
    settings = _settings(plan, num_classes, mesh, head=head, rule=rule, images=images, seed=plan.seed)
    return Driver(**settings, platform=devices.platform(mesh))


def _settings(
    plan: RunPlan,
    num_classes: int,
    mesh: Mesh,
    *,
    head: models.Head,
    rule: DecisionRule,
    images: int,
    seed: int,
    own: Apply | None = None,
) -> dict[str, Any]:
    """The arguments that `make_evaluator` and `Driver` share; `own` is of a network that is not the plan's."""

    def applier(exact: bool):
        module = plan.model.create(num_classes, head=head, exact=exact, platform=devices.platform(mesh))

        def apply(weights: Weights, images: jax.Array) -> jax.Array:
            return rule(models.forward(module, weights.params, weights.batch_stats, images, bn="eval")[0])

        return apply

    where = devices.sharding(mesh, devices.divided())
    return {
        "apply": own or applier(exact=False),
        "exact_apply": own or applier(exact=True),
        "threat": plan.threat,
        "num_classes": num_classes,
        "batch_size": min(images_per_call(plan.evaluation.batch_size, mesh), max(images, 1)),
        "seed": seed,
        "place": lambda batch: processes.put(batch, where),
        "devices": mesh.size,
    }
