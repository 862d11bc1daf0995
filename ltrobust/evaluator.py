"""Clean and robust predictions of a network, image by image, under a named protocol."""

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from typing import Protocol as TypingProtocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ltrobust import attacks
from ltrobust.analysis.evaluation import Evaluation
from ltrobust.attacks import ball
from ltrobust.attacks.inputs import count_classes
from ltrobust.data import images as image_files
from ltrobust.data import longtail
from ltrobust.data.images import Images
from ltrobust.evaluation import inputs, probe, protocols
from ltrobust.evaluation.drive import Driver, Subject
from ltrobust.evaluation.judge import Apply
from ltrobust.evaluation.progress import AttackProgress
from ltrobust.evaluation.session import Session
from ltrobust.evaluation.store import Store
from ltrobust.runtime import ambient, processes
from ltrobust.sanity import panel
from ltrobust.sanity.rules import probabilities
from ltrobust.threat import Threat

# Reported through `jax.monitoring`: seconds of each evaluation.
EVALUATION_EVENT = "/ltrobust/evaluation"


class Evaluator(TypingProtocol):
    """What `make_evaluator` returns."""

    def __call__(
        self,
        variables: Any,
        images: Images,
        labels: np.ndarray,
        *,
        ids: np.ndarray | None = None,
        progress: str = "",
        store: str | Path | None = None,
        about: Mapping[str, Any] | None = None,
        selected_on: str | None = None,
        test_labels: np.ndarray | None = None,
        sample: np.ndarray | None = None,
    ) -> Evaluation: ...


def make_evaluator(
    apply: Apply,
    *,
    protocol: protocols.Protocol,
    threat: Threat,
    num_classes: int,
    batch_size: int,
    seed: int = 0,
    exact_apply: Apply | None = None,
    place: Callable[[Any], Any] = jax.device_put,
    devices: int = 1,
    keep_images: bool = False,
) -> Evaluator:
    """A compiled evaluation, see `Evaluator`.

    Attacks search with `apply`; a verdict is the prediction of `exact_apply` (default: `apply`) at highest matmul
    precision. Only images that are right when clean are attacked, packed into full batches. Every random draw is keyed
    by (seed, attack, id of the image), so a verdict does not depend on batch size or order of work. Ids are positions
    in the test set; default: positions in `images`. `store` is a folder of verdicts (`store.py`), `about` plain values
    that are added to its provenance. For the sanity panel: `selected_on`, what the weights were selected on, and
    `test_labels`, the labels of the complete test set by image id. `sample`: ids of images whose adversarial images a
    store keeps although `keep_images` is False.

    Args:
      apply: `(variables, images float32 [B,H,W,C]) -> logits [B, C]`, each image for itself.
      protocol: from `protocols.get`.
      threat: for attacks that do not set their own radius.
      num_classes: C, checked against the logits.
      batch_size: images per compiled call; on the CPU at least as many as keep last bits (`padding`), 64 or fewer per
        device. Halved when memory runs out.
      seed: of the attacks' random draws.
      exact_apply: the same function in float32, where `apply` computes in less.
      place: puts a pytree of arrays with leading axis B on the devices.
      devices: over how many devices `place` divides.
      keep_images: whether a store keeps all adversarial images.

    Raises:
      ValueError: the protocol does not exist at this threat, or a setting of JAX under which results are not
        reproducible (`ambient.check`). When called: images or labels of a wrong type or range,
        logits of another number of classes, a store of something else.
      FloatingPointError (when called): an adversarial image outside of ball or bounds, or not finite, which is a bug in
        an attack; NaN logits.
    """
    ambient.check()
    protocols.check_threat(protocol, threat)
    inputs.check_numbers(batch_size, seed)
    driver = Driver(
        apply,
        exact_apply or apply,
        threat=threat,
        num_classes=num_classes,
        batch_size=batch_size,
        seed=seed,
        place=place,
        devices=devices,
    )

    def evaluate(
        variables,
        images,
        labels,
        *,
        ids=None,
        progress="",
        store=None,
        about=None,
        selected_on=None,
        test_labels=None,
        sample=None,
    ) -> Evaluation:
        began = time.monotonic()
        images, labels = inputs.check_inputs(images, labels, num_classes, threat)
        ids = np.arange(len(labels)) if ids is None else inputs.check_ids(ids, len(labels))
        subject = Subject(variables, images, labels, ids)
        driver.pad_as_needed(subject)
        bar = AttackProgress(progress if processes.first() else "", len(labels))
        bar.begin("clean", len(labels), len(labels))
        # Computed even if the store has clean predictions: they show whether the store belongs to this network.
        clean = driver.clean(subject, bar.advance)
        _warn_of_probabilities(clean.logits)
        with contextlib.ExitStack() as closing:
            closing.callback(bar.close)
            opened = None
            probed = probe.take(driver, subject, clean.logits) if store is not None else {}
            # The store is opened by process 0 alone; if it is refused there, all processes must end.
            with processes.all_or_none():
                if store is not None and processes.first():
                    provenance = describe(protocol, threat, seed, subject, num_classes, probed)
                    provenance["about"] = dict(about or {})
                    opened = Store(store, provenance, keep_images=keep_images, sample=() if sample is None else sample)
                    closing.callback(opened.close)
                    for note in opened.notes:
                        bar.say(note)
            session = Session(driver, subject, clean, opened, bar)
            for attack in protocol.attacks:
                session.run(attack)
            items = ()
            if protocol.sanity:
                items = panel.panel(session, protocol, selected_on=selected_on, test_labels=test_labels)
        jax.monitoring.record_event_duration_secs(EVALUATION_EVENT, time.monotonic() - began)
        return Evaluation(
            ids=np.asarray(ids, np.int64),
            labels=labels,
            num_classes=num_classes,
            protocol=protocol,
            threat=threat,
            predictions=session.predictions,
            records={"clean": session.clean_record, **session.records},
            sanity=items,
        )

    return evaluate


def describe(
    protocol: protocols.Protocol,
    threat: Threat,
    seed: int,
    subject: Subject,
    num_classes: int,
    network: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that verdicts depend on: the provenance of a store. `network` is from `probe.take`."""
    return {
        "protocol": protocols.plain(protocol),
        "threat": dataclasses.asdict(threat),
        "seed": seed,
        "num_classes": num_classes,
        "images": {
            "number": len(subject.labels),
            "shape": list(subject.images.shape[1:]),
            "dtype": str(subject.images.dtype),
            "sha256": image_files.digest(subject.images),
            "labels_sha256": longtail.fingerprint(subject.labels),
            "ids_sha256": longtail.fingerprint(subject.ids),
        },
        **image_files.contents([subject.images]),
        "sanity": panel.VERSION if protocol.sanity else None,
        # Verdicts of other versions of the attacks, or of other settings of JAX, are never mixed with these.
        "attacks": attacks.VERSION,
        "ambient": ambient.describe(),
        "network": dict(network),
    }


def evaluate(
    logits_fn: Any,
    images: Any,
    labels: Any,
    *,
    protocol: str | protocols.Protocol = "standard",
    threat: Threat = Threat(),  # noqa: B008 - frozen
    seed: int = 0,
    batch_size: int = 128,
    ids: Any = None,
    store: str | Path | None = None,
    keep_images: bool = False,
    progress: bool = True,
) -> Evaluation:
    """Evaluates a network, given as a JAX function from images to logits or as a PyTorch module.

    Args:
      logits_fn: a function that maps float32 [B,H,W,C] in [0,1] to logits [B,K]; or a `torch.nn.Module` that maps
        [B,C,H,W] to logits, which is translated to JAX and compared with PyTorch first (`ltrobust.from_torch`). Images
        must not influence each other. Input normalisation belongs inside.
      images: uint8 [N,H,W,C], or float32 [N,H,W,C] in [0,1]; or those of an image list (`lt.data.load`), which are
        decoded as they are needed.
      labels: integers [N], 0 to K - 1.
      protocol: a name from `protocols.PROTOCOLS`, or a `Protocol` with your attacks; `standard` is AutoAttack with its
        sanity panel.
      threat: norm and radius, in 1/255.
      seed: seed of the attacks' random draws.
      batch_size: images per compiled call; verdicts do not depend on it.
      ids: integers [N], the images' positions in their test set, which address random draws; default: 0 to N - 1.
      store: a folder for verdicts; the same call resumes from it.
      keep_images: store all adversarial images.
      progress: show a progress line, and a module's differences from PyTorch.

    Returns:
      Verdicts on the N images under every attack.

    Raises:
      ValueError: arguments that do not fit together, such as images with channels first, labels that are not one class
        per image, or a function that JAX cannot trace and differentiate; a module that `from_torch` refuses; or a store
        of another evaluation.
      FloatingPointError: NaN logits, or an adversarial image outside of its ball.

    Example:
      >>> import jax.numpy as jnp, ltrobust as lt
      >>> images, labels = jnp.array([0.2, 0.4, 0.49, 0.9]).reshape(4, 1, 1, 1), jnp.array([0, 0, 0, 1])
      >>> logits_fn = lambda x: jnp.concatenate([0.5 - x[:, 0, 0], x[:, 0, 0] - 0.5], axis=1)
      >>> evaluation = lt.evaluate(logits_fn, images, labels, protocol="validation", progress=False)
      >>> evaluation.clean.tolist(), evaluation.robust.tolist()
      ([True, True, True, True], [True, True, False, True])
      >>> evaluation.counts("pgd20").correct, evaluation.counts("pgd20").total
      (array([2, 1]), array([3, 1]))
    """
    if not isinstance(threat, Threat):
        raise ValueError(f"threat is {threat!r}; give a Threat, such as ltrobust.Threat('linf', 8) for linf 8/255.")
    images = image_files.as_images(images)
    ball.check_shape(images.shape)
    inputs.check_numbers(batch_size, seed)
    inputs.check_store(store, keep_images=keep_images, progress=progress)
    if len(images) == 0:
        raise ValueError("there are 0 images; give at least 1.")
    logits_fn, apply, variables = _with_weights(logits_fn, images, progress=progress)
    num_classes = count_classes(logits_fn, images.shape[1:])
    # Divided over all devices; on a CPU `jax.config.update("jax_num_cpu_devices", 2)` makes two of two cores.
    where = NamedSharding(Mesh(np.array(jax.devices()), ("devices",)), PartitionSpec("devices"))
    evaluator = make_evaluator(
        apply,
        protocol=protocols.get(protocol),
        threat=threat,
        num_classes=num_classes,
        batch_size=min(batch_size, len(images)),
        seed=seed,
        place=lambda batch: processes.put(batch, where),
        devices=jax.device_count(),
        keep_images=keep_images,
    )
    # A network's arrays lie on every device.
    variables = processes.put(variables, NamedSharding(where.mesh, PartitionSpec()))
    return evaluator(variables, images, labels, ids=ids, progress="evaluating" if progress else "", store=store)


def _with_weights(
    network: Any, images: Images, *, progress: bool
) -> tuple[Callable[[jax.Array], jax.Array], Apply, Any]:
    """The network as a function of images, as one of weights and images, and its weights.

    A PyTorch module is translated and compared with PyTorch on these images; with `progress` the differences are
    printed. A function has no weights.
    """
    homes = {base.__module__ for base in (network if isinstance(network, type) else type(network)).__mro__}
    if homes & {"torch.nn.modules.module", "ltrobust.models.torch_modules"}:
        from ltrobust.models import torch_modules  # with Flax, which functions do not need

        if not isinstance(network, torch_modules.TorchNetwork):
            network = torch_modules.from_torch(network)
        parity = network.compare(images)
        if progress and processes.first():
            print(f"{type(network.module).__name__}: {parity}", flush=True)
        return network, network.apply, network.weights
    return network, lambda variables, points: network(points).astype(jnp.float32), ()


def _warn_of_probabilities(logits: np.ndarray) -> None:
    """Warns where every row looks like a softmax's output."""
    if probabilities(logits):
        warnings.warn(
            "the network seems to give probabilities instead of logits: their gradients vanish where it is confident, "
            "so attacks look weaker than they are. Leave the softmax out.",
            stacklevel=3,
        )
