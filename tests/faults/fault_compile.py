"""Faults of `ltrobust compile`: met before anything is compiled, or what a compiler says."""

import importlib.metadata

import jax
from injection import TINY, Place, Reported, fault

from ltrobust.compilation import chips, programs, rows, topologies

# What XLA says of a program that is too large for a TPU's memory.
_EXHAUSTED = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (20.50G) exceeds "
    "available HBM (15.75G)."
)


def refused(place: Place, *words: str) -> Reported:
    """`ltrobust compile` with the tiny recipe, which must end with status 1 and write nothing."""
    return place.refused("compile", *TINY, *words)


def present(place: Place) -> None:
    """Four CPU devices in the place of those of any topology."""
    place.patch.setattr(topologies, "make_devices", lambda topology: jax.devices()[:4])


@fault(
    "unknown topology",
    "`ltrobust compile --topology=v5e:3x5`",
    value="'v5e:3x5'",
    allowed=("v5e:1x1, 2x2, 2x4", "v5p:2x2x1", "h100:1, 2, 4, 8"),
    remedy="CHIP:SHAPE",
)
def unknown_topology(place: Place) -> Reported:
    return refused(place, "--topology=v5e:3x5")


@fault(
    "TPU compiler not installed",
    "`ltrobust compile --topology=v5e:2x4`",
    value="libtpu",
    allowed="",
    remedy=("pip install", "tpu-compile"),
)
def no_libtpu(place: Place) -> Reported:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    place.patch.setattr(topologies.importlib.metadata, "version", version)
    return refused(place, "--topology=v5e:2x4")


@fault(
    "TPU compiler of another version",
    "`ltrobust compile --topology=v5e:2x4`",
    value="0.0.1",
    allowed="0.0.42.*",
    remedy=("pip install", "tpu-compile"),
)
def other_libtpu(place: Place) -> Reported:
    place.patch.setattr(topologies.importlib.metadata, "version", lambda name: "0.0.1")
    place.patch.setattr(topologies, "needed_version", lambda platform: "0.0.42.*")
    return refused(place, "--topology=v5e:2x4")


@fault(
    "batch that does not divide over the chips of a topology",
    "`ltrobust compile --topology=v5e:2x2 --batch=66`",
    value=("--batch", "66"),
    allowed="4 chips",
    remedy="multiple of 4",
)
def odd_batch(place: Place) -> Reported:
    present(place)
    return refused(place, "--topology=v5e:2x2", "--batch=66")


@fault(
    "file for numbers in a folder that is not there",
    "`ltrobust compile --topology=v5e:2x2 --json=DIR/none/out.json`",
    value=("--json", "DIR/none/out.json"),
    allowed="no folder",
    remedy="make it first",
)
def no_folder(place: Place) -> Reported:
    present(place)
    return refused(place, "--topology=v5e:2x2", f"--json={place.folder}/none/out.json")


@fault(
    "program that does not fit a chip",
    "`ltrobust compile --topology=v5e:2x2`, 20.5 of 15.75 GiB needed",
    value=("20.50 GiB", "4.75 too many"),
    allowed="15.75",
    remedy=(
        "student.batch_size=48 or less",
        "more chips",
        "student.accumulate=2",
        "model.remat=True",
    ),
)
def too_large(place: Place) -> Reported:
    present(place)

    def trace() -> None:
        raise jax.errors.JaxRuntimeError(_EXHAUSTED)

    remedies = ("student.accumulate=2", "model.remat=True")
    step = programs.Program(
        "student step", (), 64, (8, 8, 1), programs.STEP, True, "student.batch_size", trace, remedies
    )
    place.patch.setattr(rows, "programs", lambda *_: iter([step]))
    assert chips.parse("v5e:2x2").size == 4
    return refused(place, "--topology=v5e:2x2")
