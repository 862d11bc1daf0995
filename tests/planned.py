"""Parts of a run, straight from a configuration."""

from typing import Any

from jax.sharding import Mesh

from ltrobust import plan as plans
from ltrobust import run
from ltrobust.data.run_data import DataPlan, RunData
from ltrobust.methods import Method
from ltrobust.models.model_plan import make_model_plan
from ltrobust.threat import Threat
from ltrobust.training import phases


def make_method(config: Any, name: str) -> Method:
    """The method of a phase."""
    return plans.make_method(config.to_dict(), name)


def make_phase(config: Any, name: str, run_data: RunData, mesh: Mesh, *, platform: str | None = None) -> phases.Phase:
    """A phase, whether or not the run would train it."""
    settings = config.to_dict()
    plan, model = plans.make_phase_plan(settings, name), make_model_plan(settings["model"])
    return phases.make_phase(plan, model, run_data, mesh, platform=platform)


def make_threat(config: Any) -> Threat:
    """The threat of evaluation."""
    return Threat(**config.threat.to_dict())


def load_run_data(config: Any) -> RunData:
    """Training and validation part."""
    return run.load_run_data(DataPlan(**config.data.to_dict()))
