"""Whole runs on a tiny scale: card, evaluation of checkpoints, ablations, and refusals before anything is lost."""

import dataclasses
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import types

import numpy as np
import pages
import planned
import pytest
from absl import logging

from ltrobust import methods, plan
from ltrobust import run as runs
from ltrobust.analysis import cards
from ltrobust.api import Run
from ltrobust.commands import diagnose
from ltrobust.evaluation import store
from ltrobust.report import page as page_of_run
from ltrobust.report import run_page, tables
from ltrobust.training import initial, teacher_student, teachers
from ltrobust.training.checkpoints import Checkpoints

ROOT = pathlib.Path(__file__).resolve().parents[1]
pytest_plugins = ["tests.training.conftest"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A configuration and the workdir of its finished run."""
    from configs import digits

    config = digits.get_config()
    config.data.imbalance_ratio = 4.0
    config.model.name = "own:Normed"  # soon traced
    config.model.width = 4
    config.teacher.epochs = config.student.epochs = 1
    config.student.attack.steps = config.teacher.attack.steps = 1
    config.student.ema_decay = 0.5
    config.eval.limit = 4
    config.eval.also = (
        {"eval.protocol": "validation", "eval.limit": 2, "eval.networks": ("student/last",), "threat.radius": 16.0},
    )
    workdir = tmp_path_factory.mktemp("run") / "répertoire"
    return config.lock(), workdir, runs.train(config, workdir)


def test_a_command_opens_the_test_set_once_and_searches_it_once_for_each_limit(tmp_path, monkeypatch):
    """Whatever the number of further evaluations."""
    from configs import digits

    config, opened, evaluated, searched = digits.get_config(), [], [], []
    trained = types.SimpleNamespace(run_data=runs.load_run_data(plan.make_plan(config, tmp_path).data))

    def write_card(plan, settings, name, trained, began, test_set):
        evaluated.append(name)
        test_set.overlaps(plan.evaluation.limit)

    monkeypatch.setattr(teacher_student, "prepare", lambda *_: None)
    monkeypatch.setattr(teacher_student, "train", lambda *_: trained)
    monkeypatch.setattr(runs, "write_card", write_card)
    monkeypatch.setattr(runs, "show_source", lambda source: opened.append(source.split))
    monkeypatch.setattr(runs.card_parts, "find_overlaps", lambda data, test, ids: searched.append(len(ids)))
    runs.train(config, tmp_path)
    assert evaluated == ["standard", "quick-linf16", "quick-linf48", "quick"]
    assert len(searched) == len(set(searched)) == 2
    assert opened == ["train", "test"]


@pytest.mark.slow
def test_the_card_says_what_the_numbers_depend_on(finished):
    config, _, path = finished
    card = json.loads(path.read_text())
    assert cards.read(path).networks.keys() == card["networks"].keys()
    assert list(card["networks"]) == [
        "student/averaged",
        "student/last",
        "student/selected",
        "teacher/last",
        "teacher/selected",
    ]
    assert card["data"]["evaluated"] == 40
    assert card["data"]["test_balanced"]
    assert set(card["data"]["fingerprints"]) == {"chosen", "train", "validation", "pixels"}
    assert card["data"]["claim"] == card["data"]["test_claim"] == "official pixels and labels"
    assert card["data"]["overlap"]["warnings"] == []
    assert card["config"]["seed"] == config.seed
    assert "dir" not in card["config"]["data"]
    for network in card["networks"].values():
        assert len(network["params_sha256"]) == 64
        assert network["max_violation"] <= 1e-6
        for column in network["columns"].values():
            assert sum(column["total"]) == 40
            assert column["overall"]["value"] == sum(column["correct"]) / 40
        clean, worst = network["columns"]["clean"], network["columns"]["worst"]
        assert all(robust <= right for robust, right in zip(worst["correct"], clean["correct"], strict=True))


def test_tables_come_from_the_card_alone(finished):
    card = cards.read(finished[2])
    text = tables.render(card)
    assert text.count("\n") > 6
    assert all(name in text for name in card.networks)
    lines = [len(line) for line in text.splitlines()[2:]]
    assert max(lines[:8]) <= 160
    assert "digit 9" in tables.render_classes(card, "student/last") or "9" in tables.render_classes(
        card, "student/last"
    )


def test_networks_of_the_same_weights_are_evaluated_and_shown_once(finished):
    """After one epoch the selected weights are the last."""
    _, workdir, path = finished
    card = json.loads(path.read_text())
    networks = card["networks"]
    same = {name: network.get("same_as") for name, network in networks.items()}
    assert same == {
        "student/averaged": None,
        "student/last": None,
        "student/selected": "student/last",
        "teacher/last": None,
        "teacher/selected": "teacher/last",
    }
    assert networks["student/selected"] == networks["student/last"] | {"same_as": "student/last"}
    stores = {network["verdicts"]["folder"] for network in networks.values()}
    assert len(stores) == 3
    assert {str(result.relative_to(workdir)) for result in (workdir / "verdicts").glob("quick-*")} == stores
    text = tables.render(cards.read(path))
    assert "student/selected: the same weights as student/last, shown once." in text
    assert not any(line.startswith("student/selected ") for line in text.splitlines())
    page = pages.Page(page_of_run.render(run_page.gather(workdir)))
    headers = [row for row in page.rows["networks"] if "student/last" in row]
    assert headers
    assert not any("student/selected" in row for row in headers)


def test_further_evaluations_have_separate_cards(finished):
    config, workdir, path = finished
    card = json.loads((workdir / "results" / "validation-linf16.json").read_text())
    assert list(card["networks"]) == ["student/last"]
    assert (card["protocol"]["name"], card["threat"]["radius"], card["data"]["evaluated"]) == ("validation", 16.0, 20)
    assert (card["config"]["eval"]["protocol"], card["config"]["eval"]["also"]) == ("validation", [])
    main = cards.read(path)
    assert path.name == "quick.json"
    assert main.threat.radius == config.threat.radius
    assert Run(workdir).card == main


def test_a_run_keeps_the_images_of_its_pictures(finished):
    _, workdir, path = finished
    folder = workdir / json.loads(path.read_text())["networks"]["student/last"]["verdicts"]["folder"]
    provenance, verdicts = store.read(folder)
    for name in (attack["name"] for attack in provenance["protocol"]["attacks"]):
        assert verdicts[name]
        for record in verdicts[name].values():
            result = store.read_adversarial(folder, record, (8, 8, 1))
            assert np.all((result >= 0) & (result <= 1))
    page = pages.Page(page_of_run.render(run_page.gather(workdir)))
    assert "\N{NO-BREAK SPACE}%" in page.text["pictures"]
    for record in verdicts["clean"].values():
        assert record.confidence >= record.probability
        assert record.prediction != record.label or record.confidence == record.probability


@pytest.mark.parametrize("checkpoint", ["student", "teacher", "{workdir}", "{workdir}/checkpoints/teacher"])
def test_restored_networks_have_the_numbers_of_the_run(finished, checkpoint):
    config, workdir, path = finished
    trained = json.loads(path.read_text())["networks"]
    settings = {"eval.checkpoint": checkpoint.format(workdir=workdir), "student.method": "trades"}
    card = json.loads(runs.evaluate(changed(config, **settings), workdir).read_text())
    restored = card["networks"]
    # What training was is the checkpoint's to say, whatever this call's settings are.
    assert card["config"]["student"]["method"] == "self_distillation"
    assert list(card["training"]) == ["teacher" if "teacher" in checkpoint else "student"]
    phase = "teacher" if "teacher" in checkpoint else "student"
    assert restored == {name: value for name, value in trained.items() if name.startswith(phase)}


def test_a_checkpoint_is_not_evaluated_into_the_workdir_of_another_run(finished, tmp_path):
    config, workdir, _ = finished
    recorded = json.loads((workdir / "config.json").read_text())
    other = changed(config, **{"eval.checkpoint": str(workdir), "eval.limit": 1, "threat.radius": 16.0})
    (tmp_path / "config.json").write_text(json.dumps(recorded | {"seed": 7}))
    with pytest.raises(
        ValueError, match=r"(?s)holds another run than .*\n  seed: 7 -> 0\nEvaluate .* in another folder"
    ):
        runs.evaluate(other, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    # The same run, evaluated in two folders, under another threat.
    (tmp_path / "config.json").write_text(json.dumps(recorded))
    assert runs.evaluate(other, tmp_path).exists()


def test_the_card_of_an_unfinished_training_says_so(finished, tmp_path, monkeypatch, caplog):
    config, workdir, _ = finished
    about = Checkpoints.about
    monkeypatch.setattr(Checkpoints, "about", lambda *args: {**about(*args), "steps": 10**6})
    partial = changed(config, **{"eval.checkpoint": str(workdir), "eval.limit": 1})
    training = json.loads(runs.evaluate(partial, tmp_path).read_text())["training"]["student"]
    assert 0 < training["evaluated_step"] < training["steps"] == 10**6
    assert f"training has not ended: step {training['evaluated_step']} of 1000000" in caplog.text


# For tests in which numbers do not matter: clean accuracy and one attack, and a network that is soon traced.
SHORT = {"eval.protocol": "validation", "eval.also": ()}
SMALL = {"model.name": "own:Normed"}


def changed(config, **overrides):
    config = config.copy_and_resolve_references().unlock()
    config.update_from_flattened_dict(overrides)
    return config.lock()


def test_a_workdir_of_another_configuration_is_refused_with_the_difference(finished):
    config, workdir, _ = finished
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"(?s)seed: 0 -> 7.*student.batch_size: 64 -> 32.*--workdir=DIR"):
        runs.train(changed(config, **{"seed": 7, "student.batch_size": 32}), workdir)
    assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_longer_run_is_refused_with_the_flags_that_start_it_from_the_last_weights(finished, tmp_path, capsys):
    config, workdir, path = finished
    taught = f"--config.teachers.teacher.path={shlex.quote(f'{workdir}/checkpoints/teacher')}"
    with pytest.raises(ValueError, match=r"student.epochs: 1 -> 3") as refused:
        runs.train(changed(config, **{"student.epochs": 3}), workdir)
    assert str(refused.value).endswith(
        f"--workdir=NEW --config.student.initialize={shlex.quote(str(workdir))} {taught}"
    )
    with pytest.raises(ValueError, match="seed: 0 -> 1") as refused:
        runs.train(changed(config, **{"student.epochs": 3, "seed": 1}), workdir)
    assert "initialize" not in str(refused.value)

    flags = {"student.initialize": str(workdir), "teachers.teacher.path": f"{workdir}/checkpoints/teacher"}
    flags |= {"student.epochs": 3, "student.optimizer.drops": (1 / 3,), **SHORT}
    longer = changed(config, **flags)
    card = json.loads(runs.train(longer, tmp_path / "run").read_text())
    start = card["training"]["student"]["initial"]
    assert start["params_sha256"] == json.loads(path.read_text())["networks"]["student/last"]["params_sha256"]
    assert (start["path"], start["step"], start["same_images"]) == (workdir.name, 7, True)
    reported = "3 epochs (21 steps), learning rate 0.05 from epoch 1, 0.005 from epoch 2"
    assert start["schedule"] == reported
    assert f"student: starts from student/last of {workdir.name} (step 7, self_distillation)" in capsys.readouterr().out
    assert card["config"]["student"]["initialize"] == workdir.name
    text = (run_page.write(tmp_path / "run")).read_text()
    assert f"student starts from</dt><dd>student/last of {workdir.name} (step 7), the same images; {reported}" in text
    # The same command continues without the other run.
    again = json.loads(runs.train(longer, tmp_path / "run").read_text())
    assert again["training"]["student"]["initial"] == start


@pytest.mark.slow
def test_a_run_that_starts_from_another_has_its_first_weights_and_statistics(finished, tmp_path):
    config, workdir, path = finished
    still = {"student.initialize": str(workdir), "student.method": "at_bsl", "student.steps": 1, **SHORT}
    card = runs.train(changed(config, **still, **{"student.optimizer.learning_rate": 1e-30}), tmp_path)
    first = json.loads(path.read_text())["networks"]["student/last"]["params_sha256"]
    assert json.loads(card.read_text())["networks"]["student/last"]["params_sha256"] == first


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"student.initialize": "nowhere"}, "student.initialize is 'nowhere', and there is no such folder"),
        ({"student.initialize": str(ROOT / "docs")}, "docs has no checkpoint; give a run that has trained"),
        ({"model.width": 8}, "has model.width 4; here it is 8"),
        ({"student.method": "robal"}, "whose head is not that of student.method"),
    ],
)
def test_first_weights_that_do_not_fit_are_refused(finished, tmp_path, overrides, message):
    config, workdir, _ = finished
    settings = {"student.initialize": str(workdir), "student.method": "at_bsl", **overrides}
    with pytest.raises(ValueError, match=message):
        runs.train(changed(config, **settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("path", "run"),
    [("runs/a", "a"), ("/x/runs/a/checkpoints/teacher", "a"), ("checkpoints/student", "student"), ("b/", "b")],
)
def test_cards_name_the_run_that_first_weights_are_of(path, run):
    assert initial.run_of(path) == run


@pytest.mark.slow
def test_first_weights_of_other_images_are_warned_of(finished, tmp_path, monkeypatch):
    config, workdir, _ = finished
    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    settings = {"student.initialize": str(workdir), "student.method": "at_bsl", "data.split_seed": 1, **SHORT}
    card = json.loads(runs.train(changed(config, **settings), tmp_path).read_text())
    assert not card["training"]["student"]["initial"]["same_images"]
    assert any("trained on other images than this run's" in line for line in lines)


@pytest.mark.slow
def test_evaluation_settings_may_change_between_starts(finished):
    config, workdir, _ = finished
    path = runs.evaluate(changed(config, **{"eval.limit": 2, "eval.batch_size": 8}), workdir)
    assert json.loads(path.read_text())["data"]["evaluated"] == 20


@pytest.mark.slow
def test_a_diagnosis_evaluates_the_checkpoint_and_writes_a_page(finished, capsys):
    config, workdir, _ = finished
    path = diagnose.evaluate_first(changed(config, **{"eval.limit": 2}), workdir)
    assert path == workdir / "diagnosis" / "diagnosis.html"
    assert config.eval.protocol == "quick"
    result = json.loads(path.with_suffix(".json").read_text())
    assert result["protocol"]["name"] == "diagnose"
    (model,) = result["models"]
    assert model["name"] == "student/last"
    assert [entry["inverse"] for entry in model["temperature"]] in ([], [1, 2, 5, 10, 50, None])
    assert len(model["class_norms"]["values"]) == 10
    assert min(model["class_norms"]["values"]) > 0
    assert f"diagnosis: {path}" in capsys.readouterr().out


@pytest.mark.slow
def test_checkpoints_elsewhere_go_on_in_a_new_workdir_and_only_under_the_same_configuration(finished, tmp_path):
    config, workdir, path = finished
    external = {"checkpoint.dir": str(workdir / "checkpoints"), **SHORT}
    card = json.loads(runs.train(changed(config, **external), tmp_path / "new").read_text())
    networks = json.loads(path.read_text())["networks"]
    hashes = [{name: result[name]["params_sha256"] for name in result} for result in (card["networks"], networks)]
    assert hashes[0] == hashes[1]
    assert "dir" not in card["config"]["checkpoint"]
    assert not (tmp_path / "new" / "checkpoints").exists()
    assert runs.evaluate(changed(config, **external), tmp_path / "third").exists()
    with pytest.raises(ValueError, match=r"(?s)checkpoints of another configuration:.*seed: 0 -> 7.*checkpoint.dir"):
        runs.train(changed(config, **external, seed=7), tmp_path / "other")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model.width": 8}, "model.width: 4 -> 8"),
        ({"model.name": "resnet18"}, "model.name: 'own:Normed' -> 'resnet18'"),
        ({"data.imbalance_ratio": 5.0}, "data.imbalance_ratio: 4.0 -> 5.0"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_with_the_difference(finished, overrides, message):
    config, workdir, _ = finished
    with pytest.raises(ValueError, match=message):
        runs.evaluate(changed(config, **overrides), workdir)


@pytest.mark.parametrize("call", [runs.train, runs.evaluate])
def test_other_images_under_the_same_name_are_refused(finished, monkeypatch, call):
    config, workdir, _ = finished
    real = planned.load_run_data(config)
    other = dataclasses.replace(real, fingerprints=dict.fromkeys(real.fingerprints, "0" * 64))
    monkeypatch.setattr(runs, "load_run_data", lambda plan: other)
    with pytest.raises(ValueError, match=r"other images than those found now.*now 000000000000"):
        call(config, workdir)


def test_a_missing_checkpoint_names_what_was_looked_for(finished, tmp_path):
    config, _, _ = finished
    with pytest.raises(FileNotFoundError, match=r"eval.checkpoint is 'student'.*checkpoints/student"):
        runs.evaluate(config, tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        runs.evaluate(changed(config, **{"eval.checkpoint": "nowhere"}), tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data.name": "cifar11"}, "cifar11"),
        ({"model.name": "resnet19"}, "resnet19.*known"),
        ({"student.method": "at-bsl"}, "known methods: pgd_at"),
        ({"teacher.subset": "half"}, "known subsets: balanced, all"),
        ({"teacher.method": "self_distillation"}, "itself needs a teacher"),
        ({"student.initialize": "zeros"}, "scratch, teacher"),
        ({"student.augmentation.policy": "mixup"}, "mixup"),
        ({"student.attack.start": "middle"}, "known starts"),
        ({"student.batch_size": 10**6}, "choose a size in"),
        ({"student.epochs": 0}, "at least one epoch"),
        ({"teacher.balanced.count": 200, "teacher.balanced.up_sample": False}, "allow up-sampling"),
        ({"data.imbalance_ratio": 0.5}, "imbalance ratio is 0.5"),
        ({"data.imbalance_ratio": 1000.0}, "leaves class"),
        ({"eval.protocol": "autoattack"}, "known protocols"),
        ({"student.optimizer.name": "adamm"}, "adamm"),
        ({"threat.norm": "l1"}, "known norms"),
        ({"model.dtype": "float16"}, "float16"),
        ({"student.validate_every": 0}, "validate_every is 0"),
        ({"student.selection_floor": -1}, "selection_floor is -1"),
        ({"student.attack.steps": -1}, "attack steps is -1"),
        ({"student.augmentation.policy": "randaugment"}, "randaugment"),
        ({"student.wrappers": ("awp", "awp")}, "in the wrapper awp already"),
        ({"teacher.wrappers": ("robust_lt",)}, "all 10 classes have"),
        ({"eval.limit": -1}, "eval.limit is -1"),
        ({"eval.batch_size": -1}, "eval.batch_size is -1"),
    ],
    ids=str,
)
def test_bad_settings_are_refused_before_anything_is_written(tiny, tmp_path, overrides, message):
    workdir = tmp_path / "run"
    with pytest.raises(ValueError, match=message):
        runs.train(changed(tiny, **overrides), workdir)
    assert not workdir.exists()


def test_a_workdir_that_cannot_be_written_is_named(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be written.*--workdir=DIR"):
        runs.train(tiny, tmp_path / "file" / "run")


@pytest.mark.slow
def test_a_loss_that_is_not_finite_names_step_and_last_good_checkpoint(tiny, tmp_path):
    config = changed(tiny, **{"teacher.optimizer.learning_rate": 1e30}, **SMALL)
    with pytest.raises(FloatingPointError, match=r"teacher: loss or update is not finite at step 0 of 9.*nothing was"):
        runs.train(config, tmp_path / "at once")
    # Warm-up makes the first step one of rate 0; the second destroys the weights, which are not saved.
    config = changed(config, **{"teacher.optimizer.warmup_epochs": 1})
    with pytest.raises(
        FloatingPointError, match=r"not finite at step 1 of 9.*last good checkpoint is .*teacher/1\. Lo"
    ):
        runs.train(config, tmp_path / "later")


@pytest.mark.slow
def test_without_validation_only_the_last_weights_are_reported(tiny, tmp_path):
    config = changed(tiny, **{"data.validation_fraction": 0.0, "student.method": "at_bsl"}, **SMALL)
    card = json.loads(runs.train(config, tmp_path).read_text())
    assert list(card["networks"]) == ["student/last"]


@pytest.mark.slow
def test_a_methods_own_head_and_rule_are_used_by_training_validation_and_evaluation(tiny, tmp_path):
    # A rule that takes everything for the rarest class shows wherever it is applied.
    settings = {"student.method": "robal", "methods.robal.tau_p": 100.0, "student.epochs": 1, **SMALL}
    config = changed(tiny, **settings)
    trained = json.loads(runs.train(config, tmp_path).read_text())["networks"]
    restored = json.loads(runs.evaluate(config, tmp_path).read_text())["networks"]
    assert trained == restored
    for network in restored.values():
        assert network["columns"]["clean"]["correct"] == network["columns"]["pgd20"]["correct"] == [0] * 9 + [3]
    (record,) = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert record["validation"]["clean"]["per_class"] == [0.0] * 9 + [1.0]
    assert set(record["train"]) >= {"label_loss", "robust_loss"}


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "main.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/digits.py", "--config.student.epoch=3"], "epochs"),
        (["--config=configs/digits.py", "--config.student.epochs=three"], "three"),
        (["--config=configs/digits.py", "--mode=test"], "give one of train, evaluate"),
        (["--config=configs/nothing.py"], "nothing.py"),
        (["--config=configs/published.py"], "published.py:NAME with one of pgd_at"),
        (["--config=configs/digits.py", "surplus"], "surplus"),
        (["--config=configs/cifar10.py", "--config.data.dir=no/such/folder"], "cifar-10-binary.tar.gz"),
    ],
    ids=str,
)
def test_the_command_line_explains_mistakes_in_one_line(arguments, message, tmp_path):
    result = run(*arguments, f"--workdir={tmp_path / 'run'}")
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_relative_checkpoint_dir_is_the_same_place_from_every_folder(tiny, tmp_path, monkeypatch):
    config = changed(tiny, **{"checkpoint.dir": "saved", "student.epochs": 1, "student.method": "at_bsl"}, **SMALL)
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "first")
    workdir = tmp_path / "run"
    card = json.loads(runs.train(config, workdir).read_text())
    assert json.loads((workdir / "config.json").read_text())["checkpoint"]["dir"] == str(tmp_path / "first" / "saved")
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    monkeypatch.chdir(tmp_path / "second")
    again = json.loads(runs.train(config, workdir).read_text())
    assert again["networks"] == card["networks"]
    assert json.loads(runs.evaluate(config, workdir).read_text())["networks"] == card["networks"]
    assert (workdir / "metrics.jsonl").read_text().splitlines() == lines
    assert not any((tmp_path / "second").iterdir())
    # A place without checkpoints is not trained into again.
    for other in ("elsewhere", str(tmp_path / "second" / "saved")):
        with pytest.raises(ValueError, match=r"records of a finished student phase.*Give its checkpoint\.dir"):
            runs.train(changed(config, **{"checkpoint.dir": other}), workdir)
    (tmp_path / "first" / "saved").rename(tmp_path / "second" / "saved")
    moved = json.loads(runs.train(config, workdir).read_text())
    assert moved["networks"] == card["networks"], "a place that is moved is found from where it is"


FOREIGN = {"notes.txt": "mine", "lock": "mine too", "metrics.jsonl": "{}\n"}


@pytest.mark.parametrize(
    "files", [*({name: text} for name, text in FOREIGN.items()), {"config.json": '{"layers": 12}'}]
)
def test_a_folder_of_somebody_else_is_refused_and_left_as_it_is(tiny, finished, tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    message = r"config\.json is not the configuration of a run" if "config.json" in files else "is not empty.*--adopt"
    checkpoint = changed(finished[0], **{"eval.checkpoint": str(finished[1])})
    for call, config in ((runs.train, tiny), (runs.fit, tiny), (runs.evaluate, checkpoint)):
        with pytest.raises(ValueError, match=message):
            call(config, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


@pytest.mark.slow
def test_a_folder_of_somebody_else_is_used_where_asked_for(tiny, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    config = changed(tiny, **{"student.epochs": 1, "student.method": "at_bsl"}, **SMALL)
    runs.train(config, tmp_path, adopt=True)
    runs.train(config, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    other = tmp_path / "with a lock"
    other.mkdir()
    (other / "lock").write_text("mine too")
    with pytest.raises(ValueError, match="holds lock, which a run would write to"):
        runs.train(config, other, adopt=True)
    assert not (other / "config.json").exists()
    assert (other / "lock").read_text() == "mine too"


def test_a_file_that_a_run_would_write_to_is_never_adopted(tiny, tmp_path):
    text = '{"phase": "pretrain", "loss": 1}'
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"holds metrics\.jsonl, which a run would write to"):
        runs.train(tiny, tmp_path, adopt=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"metrics.jsonl": text}


@pytest.mark.slow
def test_an_evaluation_of_another_workdirs_checkpoint_makes_a_workdir(finished, tmp_path):
    config, workdir, _ = finished
    (tmp_path / "config.json.0a1b2c3d.partial").write_text("{")  # of a process that died
    changes = {"eval.checkpoint": str(workdir), "eval.limit": 1}
    runs.evaluate(changed(config, **changes), tmp_path)
    recorded = json.loads((tmp_path / "config.json").read_text())
    assert recorded["eval"]["checkpoint"] == str(workdir)
    assert recorded["student"] == json.loads((workdir / "config.json").read_text())["student"]
    runs.evaluate(changed(config, **changes, seed=7), tmp_path)


def test_folders_of_checkpoints_that_were_swapped_are_refused(finished, tmp_path):
    config, workdir, _ = finished
    shutil.copytree(workdir, tmp_path / "run")
    saved = tmp_path / "run" / "checkpoints"
    for old, new in (("teacher", "other"), ("student", "teacher"), ("other", "student")):
        (saved / old).rename(saved / new)
    before = sorted(saved.rglob("*"))
    message = "checkpoints of the teacher phase, not of the student phase; were folders swapped"
    for checkpoint in ("student", str(tmp_path / "run")):
        with pytest.raises(ValueError, match=message):
            runs.evaluate(changed(config, **{"eval.checkpoint": checkpoint}), tmp_path / "run")
    with pytest.raises(ValueError, match="checkpoints of the student phase, not of the teacher phase"):
        runs.train(config, tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        teachers.from_checkpoints(str(tmp_path / "run"), "last", num_classes=10, image_shape=(8, 8, 1))
    with pytest.raises(ValueError, match=message):
        runs.train(changed(config, **{"student.initialize": str(tmp_path / "run")}), tmp_path / "new")
    assert sorted(saved.rglob("*")) == before


def named_loss(inner):
    """A method of a user, with a metric of a name that every method has, that is taught."""
    ard = methods.REGISTRY["ard"](inner)

    def loss(learner, batch, adv):
        value, outcome = ard.loss(learner, batch, adv)
        return value, dataclasses.replace(outcome, metrics={"loss": value})

    return dataclasses.replace(ard, loss=loss)


def test_a_students_loss_that_breaks_the_contract_is_refused_before_the_workdir_is_claimed(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(methods.REGISTRY, "named_loss", named_loss)
    with tiny.unlocked():
        tiny.student.method = "named_loss"
    with pytest.raises(ValueError, match=r"^student: method 'named_loss': a metric is called 'loss'"):
        runs.train(tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()
