"""The accelerator's queue: what it costs by arithmetic, held to the phases that the configurations make."""

import numpy as np
import planned
import pytest

from benchmarks.accelerator import jobs
from ltrobust import recipes
from ltrobust.data import longtail
from ltrobust.data.run_data import Examples, RunData
from ltrobust.training import devices

JOBS = jobs.every()
RUNS = [(job, part.run) for job in JOBS for part in job.parts if part.run]


def configured(run: jobs.Run):
    """The configuration of a run, without its data folder."""
    config = recipes.load(run.config)
    config.update_from_flattened_dict(dict(run.changes))
    return config


def run_data_of(config, classes: int, each: int) -> RunData:
    """Blank pixels under the labels that the configuration's split has."""
    counts = longtail.class_counts(np.full(classes, each), imbalance_ratio=config.data.imbalance_ratio)
    labels = np.repeat(np.arange(classes), counts)
    carve = longtail.carve_validation(
        labels,
        fraction=config.data.validation_fraction,
        floor=config.data.validation_floor,
        cap=config.data.validation_cap,
    )
    blank = np.zeros((len(labels), 32, 32, 3), np.uint8)
    names = tuple(map(str, range(classes)))
    train, validation = carve
    return RunData(*(Examples(blank[rows], labels[rows]) for rows in (train, validation)), names)


def test_the_jobs_are_in_the_order_of_their_value():
    names = [job.name for job in JOBS]
    seeds = [f"{kind}-seed{seed}" for kind in ("trio", "controls", "full") for seed in (0, 1, 2)]
    assert names == ["check", "speed", *seeds, "cifar100", "wrn"]
    assert all(len({part.name for part in job.parts}) == len(job.parts) for job in JOBS)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_a_faster_device_needs_less_time_but_never_less_than_what_is_fixed(job):
    fixed = sum(part.fixed for part in job.parts)
    assert fixed <= job.seconds(300) <= job.seconds(150)
    assert job.seconds(1e12) == pytest.approx(fixed)


@pytest.mark.parametrize(("job", "run"), RUNS, ids=[f"{job.name}-{run.name}" for job, run in RUNS])
def test_work_is_that_of_the_phases_which_the_configuration_makes(job, run):
    config = configured(run)
    run_data = run_data_of(config, *((100, 500) if job.packs == ("cifar100",) else (10, 5000)))
    names = ["student"] if config.student.method != "self_distillation" else ["teacher", "student"]
    mesh = devices.make_mesh(devices.make_mesh().devices.flat[:1])
    per_image = jobs.floors()["networks"][config.model.name]["step_flops"]
    work = 0.0
    for name in names:
        phase = planned.make_phase(config, name, run_data, mesh)
        method = {"pgd_at": "at_bsl"}.get(phase.settings.method.name, phase.settings.method.name)
        work += phase.total_steps * phase.schedule.batch_size * per_image[method]
    assert jobs.training_work(run, job.packs[0]) == pytest.approx(work)


def test_the_first_trio_trains_for_the_seconds_that_were_planned():
    trio = jobs.get("trio-seed0")
    seconds = sum(jobs.training_work(part.run, "cifar10") for part in trio.parts) / 150e12
    assert 240 < seconds < 290


def test_controls_are_matched():
    student, baseline = jobs.trio(0, jobs.EPOCHS, jobs.TEACHER_EPOCHS)
    matched, balanced, taught = jobs.controls(0)
    wanted = jobs.training_work(student, "cifar10")
    # To the nearest whole epoch.
    epoch = jobs.training_work(baseline, "cifar10") / jobs.EPOCHS
    assert abs(jobs.training_work(matched, "cifar10") - wanted) <= epoch / 2
    assert balanced.value("student.steps") == jobs.steps("cifar10", 0.05, jobs.EPOCHS)
    assert taught.value("teacher.steps") == jobs.balanced_steps("cifar10", 0.05, jobs.TEACHER_EPOCHS)
    assert jobs.training_work(taught, "cifar10") == pytest.approx(wanted)
    assert (taught.value("teacher.method"), taught.value("teacher.subset")) == ("at_bsl", "all")


@pytest.mark.parametrize("seed", jobs.SEEDS)
def test_runs_of_a_job_differ_only_in_what_they_compare(seed):
    first, second = jobs.trio(seed, jobs.EPOCHS, jobs.TEACHER_EPOCHS)
    assert set(dict(second.changes).items()) - set(dict(first.changes).items()) == {("student.method", "at_bsl")}
    assert first.changes["seed"] == seed


def test_full_runs_are_the_published_recipe():
    for part in jobs.get("full-seed1").parts:
        config = configured(part.run)
        assert (config.student.epochs, config.teacher.epochs, config.data.validation_fraction) == (100, 30, 0.0)
        assert config.student.optimizer.drops == (0.74, 0.89, 0.99)
        assert config.seed == 1


def test_an_unknown_job_is_named_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"job is 'trio-sed1'; did you mean trio-seed1\? Known jobs: check, speed"):
        jobs.get("trio-sed1")
