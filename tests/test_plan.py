"""Configurations as plans: what is read, what is made once, and every value that is refused without data."""

import dataclasses
import pathlib
import typing

import pytest
from ml_collections import ConfigDict

from configs import default, digits
from ltrobust import methods, plan, recipes
from ltrobust.data.run_data import DataPlan
from ltrobust.evaluation import protocols
from ltrobust.models.model_plan import ModelPlan, make_model_plan
from ltrobust.runtime.workdir import plain
from ltrobust.threat import Threat

RUN = pathlib.Path("runs/none")


def changed(**overrides):
    config = digits.get_config()
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in overrides.items()})
    return config.lock()


def test_a_plan_holds_what_the_configuration_says():
    config = changed(seed=3, checkpoint__dir="/elsewhere", student__wrappers=("awp",), eval__seed=5)
    made = plan.make_plan(config, RUN)
    assert made.recorded == plain(config)
    assert (made.workdir, made.seed, made.threat) == (RUN, 3, Threat("linf", 32.0))
    assert made.evaluation.protocol is protocols.get("quick")
    assert made.evaluation.seed == 5
    assert str(made.checkpoints.folder) == "/elsewhere"
    assert made.model == make_model_plan(config.model.to_dict())
    teacher, student = made.phases
    assert (teacher.name, teacher.method.name, teacher.subset) == ("teacher", "pgd_at", "balanced")
    assert (student.name, student.method.name, student.seed) == ("student", "self_distillation+awp", 3)
    assert student.method.inner.threat == made.threat
    assert student.optimizer.drops == config.student.optimizer.drops
    assert made.teachers == {}


def test_checkpoints_lie_in_the_workdir_unless_told_otherwise():
    assert plan.make_plan(changed(), RUN).checkpoints.folder == RUN / "checkpoints"


@pytest.mark.parametrize(
    ("kind", "group"),
    [
        (DataPlan, "data"),
        (ModelPlan, "model"),
        (plan.OptimizerPlan, "student.optimizer"),
        (plan.BalancedPlan, "student.balanced"),
        (plan.AugmentationPlan, "student.augmentation"),
        (plan.TeacherPlan, "teachers.teacher"),
        (plan.EvaluationPlan, "eval"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_every_key_of_a_group_has_a_field(kind, group):
    """A new key of `configs/default.py` that no plan takes would do nothing."""
    keys: typing.Any = default.get_config()
    for part in group.split("."):
        keys = keys[part]
    fields = {field.name for field in dataclasses.fields(kind)}
    other_plans = {"also"} if kind is plan.EvaluationPlan else set()  # RunPlan.also
    assert fields == set(keys) - other_plans | ({"options"} if kind is ModelPlan else set())


def test_every_key_of_a_phase_and_of_the_whole_has_a_field():
    config = default.get_config()
    phase = {field.name for field in dataclasses.fields(plan.PhasePlan)}
    assert set(config.student) - phase == {"wrappers", "attack"}  # parts of the method
    assert phase - set(config.student) == {"name", "seed", "compiler"}
    assert set(config.student.attack) == {"steps", "step_size", "start", "bn", "radius"}
    assert set(config) == {
        *("seed", "data", "threat", "model", "teacher", "student", "teachers", "methods", "eval", "compiler", "log"),
        "checkpoint",
    }
    assert set(config.log) == {"wandb"}  # RunPlan.wandb


def test_defaults_of_the_data_are_those_of_the_configuration():
    config = default.get_config().data.to_dict()
    assert DataPlan(**config) == DataPlan(config["name"])


def test_a_method_is_made_once_for_each_phase(monkeypatch):
    made = []
    create = methods.create
    monkeypatch.setattr(
        methods, "create", lambda name, *rest, **named: made.append(name) or create(name, *rest, **named)
    )
    plan.make_plan(changed(), RUN)
    assert made == ["self_distillation", "pgd_at"]
    made.clear()
    plan.make_plan(changed(student__method="at_bsl"), RUN)
    assert made == ["at_bsl"]


def test_an_evaluation_makes_no_method():
    """Those are the checkpoint's."""
    config = changed(student__method="not there", teacher__validate_every=0)
    made = plan.make_plan(config, RUN, training=False)
    assert (made.phases, made.teachers) == ((), {})


def test_a_recorded_configuration_gives_the_same_method_and_network():
    config = changed(student__method="mtard", student__wrappers=("igdm",))
    recorded = plain(config)
    seen = []

    def spy(inner, **settings):
        seen.append(settings)
        return methods.REGISTRY["pgd_at"](inner)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "create", lambda name, inner, **settings: spy(inner, **settings))
        patch.setattr(methods, "wrap", lambda method, name, **settings: seen.append(settings) or method)
        for values in (config.to_dict(), recorded):
            plan.make_method(values, "student")
    assert seen[:2] == seen[2:], "JSON has lists for tuples"
    assert isinstance(seen[2]["rate_drops"], tuple)
    assert make_model_plan(recorded["model"]) == make_model_plan(config.model.to_dict())


def test_the_radius_of_a_phase_replaces_the_threats():
    made = plan.make_plan(changed(student__attack__radius=4.0, teacher__attack__radius=0.0), RUN)
    assert [phase.method.inner.threat.radius for phase in made.phases] == [0.0, 4.0]
    assert made.threat.radius == 32.0


def test_teachers_are_those_that_the_method_asks_for():
    paths = {"teachers.teacher.path": "a", "teachers.clean_teacher.path": "b"}
    config = changed(**{key.replace(".", "__"): value for key, value in paths.items()})
    assert list(plan.make_plan(config, RUN).teachers) == ["teacher"]
    with config.unlocked():
        config.student.method = "mtard"
    assert {name: entry.path for name, entry in plan.make_plan(config, RUN).teachers.items()} == {
        "teacher": "a",
        "clean_teacher": "b",
    }
    with config.unlocked():
        config.student.method = "at_bsl"
    assert plan.make_plan(config, RUN).teachers == {}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"seed": -1}, "seed is -1; a seed is at least 0"),
        ({"checkpoint.keep": 0}, "checkpoint.keep is 0 and checkpoint.minutes is 10.0; they must be at least 1 and 0"),
        ({"checkpoint.minutes": -1.0}, "checkpoint.minutes is -1.0; they must be at least 1 and 0"),
        ({"threat.norm": "l1"}, "threat norm is 'l1'.*known norms: linf, l2"),
        ({"eval.protocol": "autoattack"}, r"protocol is 'autoattack'; did you mean standard\? known protocols"),
        ({"eval.protocol": "legacy_robal"}, "is defined at linf 7.905/255 only"),
        ({"eval.batch_size": -1}, "eval.batch_size is -1 and eval.limit is 0; they must be at least 0"),
        ({"eval.networks": ("student",)}, r"eval\.networks has 'student'; did you mean .*known networks: teacher/last"),
        ({"eval.networks": ("student/averaged",)}, r"but this run trains teacher/last, .*student/selected; name one"),
        ({"eval.also": ("quick",)}, r"eval\.also has 'quick': it is not a dict; give a dict of keys of eval"),
        ({"eval.also": ({"student.epochs": 3},)}, r"eval\.also has .*: student\.epochs cannot be changed; give a dict"),
        ({"eval.also": ({"eval.limitt": 3},)}, r"eval\.also has .*limitt.*; give a dict"),
        ({"eval.also": ({"eval.limit": "3"},)}, r"eval\.also has \{'eval\.limit': '3'\}: .*; give a dict"),
        ({"eval.also": ({"eval.limit": -1},)}, r"eval\.also has .*: eval\.batch_size is .* eval\.limit is -1"),
        ({"eval.also": ({"eval.protocol": "autoattack"},)}, r"eval\.also has .*: evaluation protocol is 'autoattack'"),
        (
            {"eval.also": ({"threat.radius": True},)},
            r"eval\.also has .*: threat\.radius is True, where 32\.0 was; give",
        ),
        ({"eval.also": ({"eval.limit": True},)}, r"eval\.also has .*: eval\.limit is True, where 0 was; give a dict"),
        ({"eval.also": ({},), "data.residence": "gpu"}, r"^data\.residence is 'gpu'"),
        ({"eval.also": ({},), "data.workers": -1}, r"^data\.workers is -1"),
        ({"eval.limit": -1}, "eval.limit is -1; they must be at least 0"),
        ({"student.method": "at-bsl"}, r"student: method is 'at-bsl'; did you mean at_bsl\? known methods"),
        ({"student.wrappers": ("awq",)}, "student: wrapper is 'awq'"),
        ({"teacher.method": "trade"}, r"teacher: method is 'trade'; did you mean trades\?"),
        ({"student.attack.steps": -1}, "student: attack steps is -1"),
        ({"student.attack.start": "middle"}, "student: .*known starts"),
        ({"student.attack.bn": "train"}, "student: attack bn is 'train'; known: eval, batch_frozen"),
        ({"student.attack.radius": 0.01}, "student: threat radius is 0.01, in units of 1/255"),
        ({"student.method": "mtard"}, "student.method mtard needs a clean_teacher; give teachers.clean_teacher.path"),
        (
            {"student.initialize": "teacher", "teachers.teacher.path": "a"},
            "student.initialize is 'teacher', which is the run's own teacher phase, but teachers.teacher.path names",
        ),
        (
            {"student.initialize": "teacher", "student.method": "robal"},
            "student.initialize is 'teacher', but robal has another head than pgd_at; use 'scratch'",
        ),
        ({"teacher.method": "ard"}, "teacher.method is 'ard', which itself needs a teacher; choose one that does"),
        ({"teacher.initialize": "teacher"}, "teacher.method is 'pgd_at', which itself needs a teacher"),
        ({"teachers.teacher.path": "a", "teachers.teacher.weights": "best"}, "teacher.weights is 'best'; known: last"),
        ({"student.validate_every": 0}, "student.validate_every is 0; give a number of epochs, at least 1"),
        ({"student.selection_floor": -1}, "student.selection_floor is -1; give a number of images, at least 0"),
        ({"student.ema_decay": 1.0}, "student.ema_decay is 1.0; give 0 for no average, or a number below 1"),
        ({"teacher.ema_decay": -0.1}, "teacher.ema_decay is -0.1"),
        ({"teacher.subset": "half"}, "teacher.subset is 'half'; known subsets: balanced, all"),
        ({"student.accumulate": True}, "student.accumulate is True; give a number of parts, at least 1"),
        ({"student.epochs": 0}, "student.epochs is 0 and student.steps is 0; give at least one epoch or step"),
        ({"student.steps": -1}, "student.steps is -1; give at least one epoch or step"),
        (
            {"student.method": "trades", "student.wrappers": ("cfa",), "student.ema_decay": 0.9},
            r"student.ema_decay is 0.9, but trades\+cfa averages weights itself; give 0",
        ),
        ({"student.accumulate": 0}, r"^student\.accumulate is 0; give a number of parts"),
        ({"student.method": "reat", "student.accumulate": 2}, r"^student\.accumulate is 2, but the loss of reat"),
        ({"student.augmentation.jitter": (0.4, 2.0, 0.4)}, r"^student: jitter is \(0\.4, 2\.0, 0\.4\); give three"),
        ({"data.name": "image_list", "data.image_size": 0}, r"^data\.image_size is 0"),
        ({"data.name": "image_list", "data.resize": 7}, r"^data\.resize is 7; give pixels"),
        ({"data.name": "folder", "data.cache_check": "all"}, r"^data\.cache_check is 'all'; known: sample, full"),
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_refused_without_data(overrides, message):
    config = changed(**{key.replace(".", "__"): value for key, value in overrides.items()})
    with pytest.raises(ValueError, match=message):
        plan.make_plan(config, RUN)
    assert not RUN.exists()


def test_what_is_no_configuration_is_refused():
    with pytest.raises(ValueError, match=r"the configuration is a dict; give a ConfigDict, such as ltrobust\.config"):
        plan.make_plan({"seed": 0}, RUN)  # pyright: ignore
    with pytest.raises(ValueError, match=r"seed is 4294967296; finite numbers are allowed"):
        plan.make_plan(changed(seed=2**32), RUN)


@pytest.mark.parametrize("name", recipes.shipped())
def test_every_configuration_that_comes_with_the_package_is_a_plan(name):
    if name == "published":  # has recipes; see test_configs.py
        return
    config = recipes.load(name)
    assert isinstance(config, ConfigDict)
    assert plan.make_plan(config, RUN).recorded == plain(config)


def test_options_of_the_compiler_are_those_of_every_phase():
    config = default.get_config().unlock()
    config.compiler.xla_a = True
    assert [dict(phase.compiler) for phase in plan.make_plan(config, RUN).phases] == [{"xla_a": True}] * 2
    assert plan.make_plan(config, RUN).recorded["compiler"] == {"xla_a": True}
