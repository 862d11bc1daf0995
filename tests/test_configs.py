"""Every configuration loads, locks, has exactly the keys of `default.py`, and describes phases that can be built."""

import importlib
import inspect
import json
import pathlib
from typing import Any

import jax
import numpy as np
import planned
import pytest

from configs import cifar10_distillation, default, published
from ltrobust import methods
from ltrobust.data import longtail, sources
from ltrobust.data.images import FileImages, take
from ltrobust.data.run_data import Examples, RunData
from ltrobust.evaluation import protocols
from ltrobust.plan import make_plan
from ltrobust.runtime.workdir import PHASES, flatten, plain
from ltrobust.training import devices, phases

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
CLASS_WISE = sorted(f"class_wise.{path.stem}" for path in (ROOT / "configs" / "class_wise").glob("*.py"))
NAMES = [name for name in FILES if name != "published"] + [f"published:{name}" for name in published.RECIPES]


def load(name: str):
    """The configuration of that file, or of that recipe in it."""
    file, *recipe = name.split(":")
    return importlib.import_module(f"configs.{file}").get_config(*recipe).lock()


def phase_of(config, name: str) -> phases.Phase:
    """A phase on blank images of three classes."""
    labels = np.repeat(np.arange(3), [900, 500, 300])
    blank: Any = np.zeros((len(labels), 8, 8, 3), np.uint8)
    if config.data.name == "image_list":  # a recipe may crop files, and not images that are decoded
        blank = FileImages("", ("",) * len(labels), np.zeros(len(labels), np.int64), 8, 8)
    run_data = RunData(Examples(blank, labels), Examples(take(blank, np.arange(3)), labels[:3]), ("a", "b", "c"))
    return planned.make_phase(config, name, run_data, devices.make_mesh(jax.devices()[:1]))


@pytest.mark.parametrize("name", [*NAMES, *CLASS_WISE])
def test_keys_are_those_of_default(name):
    assert set(flatten(plain(load(name)))) == set(flatten(plain(default.get_config())))


@pytest.mark.parametrize("name", NAMES)
def test_a_new_key_is_refused(name):
    config = load(name)
    with pytest.raises(AttributeError, match="epochz"):
        config.student.epochz = 1


@pytest.mark.parametrize("name", ["cifar10_distillation", "cifar100_distillation"])
def test_the_named_recipes_of_distillation(name):
    module = importlib.import_module(f"configs.{name}")
    for recipe in (*module.BASES, *(f"{base}+igdm" for base in module.BASES), *cifar10_distillation.OTHERS):
        config = module.get_config(recipe).lock()
        assert set(flatten(plain(config))) == set(flatten(plain(default.get_config())))
        base, _, wrapper = recipe.partition("+")
        method = planned.make_method(config, "student")
        assert method.name == {"ard_2020": "ard", "fair_ard": "ard+fair_ard"}.get(recipe, recipe)
        assert method.matches_gradients == (wrapper == "igdm")
        # The first epochs, counted from 1, at a lower rate; a drop at fraction d holds from floor(d E) + 1.
        firsts = [int(drop * config.student.epochs + 1e-9) + 1 for drop in config.student.optimizer.drops]
        usual = [216, 261, 286] if base in ("rslad", "mtard", "b_mtard") else [101, 151]
        once = {"ard_2020": [101], "fair_ard": [101], "iad2": [101]}
        assert firsts == {"rslad+igdm": [211, 259, 286], **once}.get(recipe, usual)
        attack = config.student.attack
        assert (attack.start, attack.bn) == (
            ("uniform_raw", "batch_frozen") if recipe in once else ("uniform" if base == "ard" else "gauss", "eval")
        )
        assert attack.step_size == (510 / 225 if base == "ard" else 2.0)
    assert module.get_config("adaad+igdm").methods.igdm.alpha == {"cifar10": 5.0, "cifar100": 15.0}[name.split("_")[0]]
    assert module.get_config("ard_2020").methods.ard.kl_scale == {"cifar10": 0.1, "cifar100": 0.01}[name.split("_")[0]]
    with pytest.raises(
        ValueError, match=r"there is no recipe 'mtard\+igdm'; did you mean ard\+igdm\? known: pgd_at, .*b_mtard"
    ):
        module.get_config("mtard+igdm")


@pytest.mark.parametrize("name", NAMES)
def test_both_phases_can_be_built(name):
    config = load(name)
    for phase_name in PHASES:
        phase = phase_of(config, phase_name)
        assert phase.total_steps > 0
        # sqrt(900 * 300): the geometric mean is the default size of the balanced subset.
        assert phase.class_counts.tolist() == ([520] * 3 if phase_name == "teacher" else [900, 500, 300])
    protocols.get(config.eval.protocol)


@pytest.mark.parametrize("name", CLASS_WISE)
def test_class_wise_configurations_train_one_balanced_phase(name):
    config = load(name)
    plan = make_plan(config, pathlib.Path("run"))
    assert [phase.name for phase in plan.phases] == ["student"]
    assert (plan.data.name in sources.NAMES, plan.data.imbalance_ratio) == (True, 1.0)
    wanted = (76.5, 2.55) if name.endswith(".mnist") else (8.0, 2.0)
    np.testing.assert_allclose((config.threat.radius, config.student.attack.step_size), wanted)


def test_the_published_recipe_is_the_default():
    config = default.get_config()
    assert (config.student.epochs, config.student.batch_size) == (100, 128)
    rates = config.student.optimizer
    assert (rates.learning_rate, rates.weight_decay, rates.momentum, rates.nesterov) == (0.1, 5e-4, 0.9, False)
    assert (config.student.attack.steps, config.student.attack.step_size) == (10, 2.0)
    assert (config.threat.norm, config.threat.radius) == ("linf", 8.0)
    assert config.teacher.epochs == 30


def test_the_recipe_for_imagenet_takes_large_steps_in_large_batches():
    config = load("imagenet_lt")
    plan = make_plan(config, pathlib.Path("run"))
    assert [phase.method.name for phase in plan.phases] == ["pgd_at", "self_distillation"]
    assert plan.model.name == "imagenet_resnet50"
    for phase in plan.phases:
        inner = phase.method.inner
        assert (inner.steps, 3 * inner.step_size, inner.threat.radius) == (3, 8.0, 4.0)
        assert (phase.batch_size, phase.accumulate, plan.model.remat) == (512, 1, False)
    assert plan.threat.radius == 4.0


def test_settings_of_methods_and_wrappers_are_those_of_the_record():
    """Keys, defaults and their types: a change here changes what recorded configurations mean."""
    recorded = json.loads((ROOT / "tests" / "config_methods.json").read_text())
    listed = default.get_config().methods.to_dict()
    # As text, because 1 == 1.0 == True.
    assert json.dumps(listed, sort_keys=True) == json.dumps(recorded, sort_keys=True)
    assert isinstance(listed["mtard"]["rate_drops"], tuple)
    known = methods.REGISTRY | methods.WRAPPERS
    assert set(known) - set(recorded) == {"pgd_at"}  # which has no settings
    for name, function in known.items():
        settings = list(inspect.signature(function).parameters.values())[1:]
        assert listed.get(name, {}) == {setting.name: setting.default for setting in settings}


# Recipe -> first epochs, counted from 1, at 0.1 and 0.01 of the first rate.
@pytest.mark.parametrize(
    ("name", "epochs"),
    [
        ("at_bsl", (75, 90)),
        ("reat", (61, 76)),
        ("robust_lt_at", (76, 91)),
        ("robust_lt_awp", (101, 151)),
        ("robust_lt_at_bsl", (76, 91)),
        ("robust_lt_robal", (61, 76)),
        ("robust_lt_reat", (61, 76)),
        ("robust_lt_taet", (76, 91)),
        ("robal_n", (60, 75)),
        ("mart", (75, 90)),
        ("taet", (76, 91)),
        ("cfa_at", (101, 151)),
        ("dafa", (100, 105)),
        ("bat", (75, 90)),
    ],
)
def test_published_rates_fall_in_the_published_epochs(name, epochs):
    phase = phase_of(load(f"published:{name}"), "student")
    first = phase.learning_rate(0)
    for epoch, factor in zip(epochs, (0.1, 0.01), strict=True):
        step = phase.schedule.first_step(epoch - 1)
        np.testing.assert_allclose(phase.learning_rate(step), factor * first, rtol=1e-5)
        np.testing.assert_allclose(phase.learning_rate(step - 1), 10 * factor * first, rtol=1e-5)


@pytest.mark.slow
def test_published_recipes_have_a_form_that_trains_on_all_images():
    labels = np.repeat(np.arange(10), 5000)
    chosen = labels[longtail.choose(labels, imbalance_ratio=50.0, profile="exp")]
    for name in published.ALL_IMAGES:
        base, config = load(f"published:{name.partition('+')[0]}"), load(f"published:{name}")
        changed = {key for key, value in flatten(plain(config)).items() if flatten(plain(base))[key] != value}
        assert changed == {"data.validation_fraction"}, name
        # Nothing of these methods waits for a validation part.
        assert planned.make_method(config, "student").end_epoch is None, name
        images = [
            len(longtail.carve_validation(chosen, fraction=one.data.validation_fraction, floor=10, cap=0.2).train)
            for one in (base, config)
        ]
        assert images == [13287, 13996], name
    with pytest.raises(ValueError, match=r"recipe is 'wat\+all_images'"):
        published.get_config("wat+all_images")


def test_averaging_by_the_step_and_by_a_wrappers_rule_are_not_mixed():
    config = default.get_config()
    config.student.method, config.student.wrappers, config.student.ema_decay = "trades", ("cfa",), 0.9
    with pytest.raises(ValueError, match=r"ema_decay is 0.9, but trades\+cfa averages weights itself; give 0"):
        phase_of(config, "student")
    config.student.ema_decay = 0.0
    assert phase_of(config, "student").settings.method.averaging is not None


def test_a_recipe_that_is_not_there_is_answered_with_those_that_are():
    with pytest.raises(
        ValueError, match=r"recipe is 'robal'; did you mean robal_r\? give .*published.py:NAME with one of .*robal_n"
    ):
        published.get_config("robal")


# The ablations of docs/methods/self_distillation.md: each row is reachable by values alone.
@pytest.mark.parametrize(
    "overrides",
    [
        {"methods.self_distillation.alpha": 0.0, "methods.self_distillation.beta": 0.0},
        {"methods.self_distillation.beta": 0.0},
        {"methods.self_distillation.alpha": 0.0},
        {"teacher.subset": "all"},
        {"teacher.subset": "all", "teacher.method": "at_bsl"},
        {"teacher.balanced.gamma": 2.0},
        {"teacher.balanced.count": 50, "teacher.steps": 40},
        {"methods.self_distillation.label_loss": "ce"},
        {"methods.self_distillation.teacher_input": "clean"},
        {"methods.self_distillation.inner_objective": "bsl"},
        {"methods.self_distillation.inner_objective": "teacher_kl"},
        {"student.initialize": "teacher"},
        {"student.initialize": "teacher", "student.method": "at_bsl"},
        {"teacher.epochs": 15},
        {"methods.self_distillation.temperature": 4.0},
        {"teacher.balanced.redraw": True},
        {"student.augmentation.policy": "randaugment"},
        {"teacher.augmentation.policy": "autoaugment"},
        {"model.name": "wrn_34_10"},
        {"teacher.attack.radius": 0.0},
        {"teacher.shuffle_labels": True},
        {"student.method": "at_bsl", "student.steps": 200},
        {"teacher.optimizer.name": "adam"},
        {"student.ema_decay": 0.999},
    ],
    ids=str,
)
def test_the_ablation_grid_is_reachable_by_configuration(overrides):
    config = load("digits")
    for key, value in overrides.items():
        config.update_from_flattened_dict({key: value})
    counts = np.array([90, 70, 60])
    labels = np.repeat(np.arange(3), counts)
    blank = np.zeros((len(labels), 8, 8, 3), np.uint8)
    run_data = RunData(Examples(blank, labels), Examples(blank[:3], labels[:3]), ("a", "b", "c"))
    mesh = devices.make_mesh(jax.devices()[:1])
    plan = make_plan(config, pathlib.Path("run"))
    wanted = [phase.name for phase in plan.phases]
    for phase in plan.phases:
        phases.make_phase(phase, plan.model, run_data, mesh)
    without_teacher = config.student.method == "at_bsl" and config.student.initialize == "scratch"
    settings = config.methods.self_distillation
    without_teacher |= config.student.method == "self_distillation" and settings.alpha == settings.beta == 0
    assert wanted == (["student"] if without_teacher else ["teacher", "student"])
