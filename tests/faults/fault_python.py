"""Faults of `ltrobust.train` and `ltrobust.open_run`."""

import flax.linen as nn
import jax
from injection import Place, Reported, fault

import ltrobust
from ltrobust.api import with_model
from ltrobust.models import REGISTERED
from ltrobust.runtime import workdir as workdirs


class OwnNet(nn.Module):
    """A network of a user."""

    num_classes: int = 10
    width: int = 4
    activation: object = nn.relu

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        return nn.Dense(self.num_classes)(nn.relu(nn.Conv(self.width, (3, 3))(images)).reshape(len(images), -1))


def started(place: Place) -> None:
    """Makes a workdir of `OwnNet`, in which nothing is trained yet."""
    workdirs.claim(place.folder / "run", workdirs.plain(with_model(configuration(), OwnNet(width=6))))
    REGISTERED.pop("OwnNet")


def configuration():
    """Of a student alone."""
    config = ltrobust.config("digits")
    config.student.method = "at_bsl"
    return config


@fault(
    "run resumed from Python with another network",
    "`lt.train(config, DIR/run, model=OwnNet(width=7))` in the workdir of a run with `OwnNet(width=6)`",
    value=("DIR/run", "model.OwnNet.width: 6 -> 7"),
    remedy="values on the left",
)
def another_network(place: Place) -> Reported:
    started(place)
    reported = place.raised(
        ValueError, lambda: ltrobust.train(configuration(), place.folder / "run", model=OwnNet(width=7))
    )
    REGISTERED.pop("OwnNet")
    return reported


@fault(
    "misspelt key of an unlocked configuration",
    "`lt.train(config, DIR/run)` after `config.unlock().threat.raduis = 8.0`",
    value="threat.raduis",
    allowed="",
    remedy="threat.radius",
)
def misspelt_key(place: Place) -> Reported:
    config = configuration().unlock()
    config.threat.raduis = 8.0
    return place.raised(ValueError, lambda: ltrobust.train(config, place.folder / "run"))


@fault(
    "run opened from Python with another network",
    "`lt.open_run(DIR/run, model=OwnNet(width=7))` of a run with `OwnNet(width=6)`",
    value=("DIR/run", "OwnNet", "width 6 instead of 7"),
    remedy="",
)
def opened_with_another_network(place: Place) -> Reported:
    started(place)
    reported = place.raised(ValueError, lambda: ltrobust.open_run(place.folder / "run", model=OwnNet(width=7)))
    REGISTERED.pop("OwnNet")
    return reported


@fault(
    "network that cannot be recorded",
    "`lt.train(config, DIR/run, model=OwnNet(activation=nn.silu))`",
    value="field activation of OwnNet",
    remedy="give a function that returns the module",
)
def not_recorded(place: Place) -> Reported:
    network = OwnNet(activation=nn.silu)
    reported = place.raised(ValueError, lambda: ltrobust.train(configuration(), place.folder / "run", model=network))
    REGISTERED.pop("OwnNet")
    return reported


@fault(
    "folder opened as a run",
    "`lt.open_run(DIR)` of a folder without a run",
    value="DIR",
    remedy="Give the workdir of a run",
)
def no_run(place: Place) -> Reported:
    return place.raised(ValueError, lambda: ltrobust.open_run(place.folder))


@fault(
    "network that was not evaluated",
    '`lt.open_run(DIR/run).evaluation("student/best")`',
    value=("DIR/run", "'student/best'"),
    allowed="student/last",
    remedy="",
)
def not_evaluated(place: Place) -> Reported:
    run = ltrobust.open_run(place.finished())
    return place.raised(ValueError, lambda: run.evaluation("student/best"))
