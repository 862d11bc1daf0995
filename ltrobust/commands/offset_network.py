"""The work of `ltrobust offset`: fits an offset of a finished network's logits, then evaluates it."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ltrobust import run as runs
from ltrobust.analysis import card_parts, class_logit_offset
from ltrobust.analysis.class_logit_offset import Offset, PriorOffset
from ltrobust.evaluation import protocols
from ltrobust.models import last_layer
from ltrobust.plan import make_plan
from ltrobust.runtime import workdir as workdirs
from ltrobust.runtime.files import hold
from ltrobust.training import compatibility, devices, networks, saved, teachers
from ltrobust.training.checkpoints import Checkpoints
from ltrobust.training.networks import Network
from ltrobust.training.state import Weights
from ltrobust.training.teacher_student import Trained


def apply(
    run: str,
    out: Path,
    *,
    weights: str = "last",
    tau: float = 0.0,
    prior: bool = False,
    protocol: str | None = None,
    data_dir: str | None = None,
) -> tuple[Offset | PriorOffset, Path]:
    """Fits the offset for a finished network, evaluates the changed one and writes its card into `out`.

    Args:
      run: a workdir or a folder of checkpoints.
      out: folder of the card and the verdicts; the same call resumes an evaluation that was interrupted.
      weights: `last`, `selected` or `averaged`.
      tau: of `norm_equalise`, which comes before the offset is fitted; 0: none.
      prior: fit one number for all classes by their training images (`fit_prior`), not the weakest class's offset.
      protocol: of the evaluation; None for the run's.
      data_dir: of the data set; None for the run's.

    Raises:
      ValueError: a path that does not exist, weights that are not there, other images than the run was trained on, no
        validation part, a head without a linear layer, or an `out` that is neither empty nor of this run.
    """
    began = time.monotonic()
    folder = saved.find(run, "--workdir")
    with Checkpoints(folder, read_only=True) as checkpoints:
        there = saved.read(checkpoints)
    config: Any = ConfigDict(there.metadata.config)
    config.eval.protocol, config.eval.networks = protocol or config.eval.protocol, ()
    config.data.dir = config.data.dir if data_dir is None else data_dir
    plan = make_plan(config, out, training=False)
    run_data = runs.load_run_data(plan.data)
    compatibility.same_images(there.metadata, run_data, folder)
    if not len(run_data.validation.labels):
        raise ValueError(f"{folder} was trained without a validation part, on which the offset is fitted.")
    classes, mesh = run_data.num_classes, devices.make_mesh()
    known = teachers.from_checkpoints(
        run,
        weights,
        label="--workdir",
        weights_label="--weights",
        num_classes=classes,
        image_shape=run_data.image_shape,
    ).teacher
    params = last_layer.norm_equalise(known.params, tau=tau, num_classes=classes) if tau else known.params
    head = there.method.head
    evaluator = networks.make_network_evaluator(
        plan,
        classes,
        mesh,
        head=head,
        rule=known.rule,
        protocol=protocols.get("validation"),
        images=len(run_data.validation.labels),
        seed=plan.seed,
    )

    workdirs.claim(out, plan.recorded)  # before the work, not after it

    def changed(factors: np.ndarray) -> Weights:
        offset = last_layer.class_logit_offset(params, jnp.asarray(factors))
        return devices.replicate(Weights(offset, known.batch_stats), mesh)

    def robust_accuracy(factors: np.ndarray) -> np.ndarray:
        evaluation = evaluator(changed(factors), run_data.validation.images, run_data.validation.labels)
        return evaluation.counts("pgd20").accuracy

    if prior:
        offset = class_logit_offset.fit_prior(robust_accuracy, run_data.class_counts)
    else:
        offset = class_logit_offset.fit(robust_accuracy, classes)
    name = f"{there.phase}/{weights}{'+norm_equalise' if tau else ''}+class_logit_offset"
    network = Network(changed(offset.factors(classes)), head, known.rule)
    settings = {**plan.recorded, "inference": {"norm_equalise": tau, **dataclasses.asdict(offset)}}
    training = {there.phase: card_parts.describe_training(there.metadata.plain())}
    trained = Trained({name: network}, training, run_data, mesh)
    with hold(out):
        path = runs.write_card(plan, settings, f"{plan.evaluation.protocol.name}-class_logit_offset", trained, began)
    return offset, path
