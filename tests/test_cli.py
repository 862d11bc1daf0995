"""The command line: which configuration is meant, and mistakes in a sentence, from any folder."""

import errno
import json
import os
import pathlib
import re
import resource
import subprocess
import sys

import numpy as np
import pytest

import ltrobust
from ltrobust import recipes
from ltrobust import run as runs
from ltrobust.commands import launch, main, recorded
from ltrobust.commands.parser import UsageError
from ltrobust.evaluation import protocols
from ltrobust.runtime import workdir

ROOT = pathlib.Path(__file__).resolve().parents[1]
pytest_plugins = ["tests.training.conftest"]


def resolved(*words):
    """The words that are parsed as flags."""
    mode, rest = main.split_mode(words)
    return launch.resolve(rest, trains=mode == "train")


def refused(*words):
    """The message of a command that ends before flags are parsed."""
    with pytest.raises(UsageError) as error:
        resolved(*words)
    return str(error.value)


MINE = "from configs import default\n\n\ndef get_config():\n    config = default.get_config()\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--config=foldr.py"],
            "there is no configuration 'foldr.py'; did you mean folder? known configurations: cifar10, ",
        ),
        (
            ["--config", "nowhere/digts.py"],
            "did you mean digits? known configurations: cifar10, ",
        ),
        (["--config=configs/published.py:robl_n"], "recipe is 'robl_n'; did you mean robal_n? give --config="),
        (["--config=configs/published.py"], "give --config=configs/published.py:NAME with one of pgd_at, "),
        (["--config=configs/cifar10_distillation.py:adaadd"], "no recipe 'adaadd'; did you mean adaad? known: pgd_at"),
        (["--config=configs/digits.py:small"], "configs/digits.py has no recipes; give configs/digits.py."),
        (["--config=several.py"], "several.py has several recipes; give several.py:NAME."),
        (["--config.model=small_resnet"], "model is a group of keys and cannot be small_resnet; give one of its keys,"),
        (["--config.student=trades"], "student is a group of keys and cannot be trades; .* such as student.method."),
        (["--config.student.epoch=3"], "has no key student.epoch; did you mean student.epochs?"),
        (["--config.threat.raduis", "8"], "has no key threat.raduis; did you mean threat.radius?"),
        (["--noconfig.eval.keep_image"], "has no key eval.keep_image; did you mean eval.keep_images?"),
        (["--config.weather.optimizer.options.b1=1"], "has no key weather.optimizer.options.b1"),
        (["--config.weather=fine"], "has no key weather; configs/default.py has every key that exists."),
        (["--config.student.optimizer.options.b1=0.9"], "options.b1 is not set in the configuration file"),
        (["--config.compiler.xla_a=1"], "compiler.xla_a is not set in the configuration file"),
        (["--config=dict.py"], "dict.py cannot be read: the configuration is a dict; get_config must return"),
        (["--config=part.py"], "part.py cannot be read: the configuration has no key checkpoint.dir; begin with"),
        (["--config=numbers.py"], "type <class 'numpy.float32'> .* make a plain number of a NumPy one, by float"),
    ],
    ids=str,
)
def test_mistakes_in_configurations_are_sentences_from_any_folder(monkeypatch, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dict.py").write_text("def get_config():\n    return {'seed': 0}\n")
    (tmp_path / "part.py").write_text(
        "from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict({'seed': 0})\n"
    )
    (tmp_path / "several.py").write_text("def get_config(name):\n    return {}\n")
    (tmp_path / "numbers.py").write_text(
        f"import numpy as np\n{MINE}    config.threat.radius = np.float32(8)\n    return config\n"
    )
    reported = refused(*words)
    assert "Traceback" not in reported
    assert "\n" not in reported
    first, _, last = message.partition(" .* ")
    assert first in reported, reported
    assert last in reported, reported
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("AutoAttack", "did you mean standard? "),
        ("auto-attack", "did you mean standard? "),
        ("Quik", "did you mean quick? "),
        ("legacy-robal", "did you mean legacy_robal? "),
        ("weather", ""),
        (3, ""),
    ],
)
def test_the_nearest_name_is_said_where_one_is_near(name, hint):
    with pytest.raises(ValueError, match=rf"is {name!r}; {re.escape(hint)}known protocols: validation, quick"):
        protocols.get(name)


def test_groups_may_be_given_as_dicts_and_options_that_are_set_may_be_changed(tmp_path):
    options = "    config.student.optimizer.options.b1 = 0.9\n    config.compiler.xla_a = True\n"
    (tmp_path / "mine.py").write_text(f"{MINE}{options}    return config\n")
    words = [
        f"--config={tmp_path / 'mine.py'}",
        "--config.student.optimizer.options={'b2': 0.9}",
        "--config.student.optimizer.options.b1=0.8",
        "--config.compiler.xla_a=False",
        "--config.threat={'radius': 4.0}",
        "--config.student.optimizer.drops[0]=0.5",
    ]
    assert resolved(*words) == words


def test_the_default_comes_with_the_package(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for words in ([], ["--mode=report"], ["--workdir=run"], ["--workdir=run", "--mode=evaluate"]):
        flags = [word for word in words if "mode" not in word]
        assert resolved(*words) == [f"--config={ROOT}/configs/digits.py", *flags]
    assert resolved("--config=published:mart") == [f"--config={ROOT}/configs/published.py:mart"]


def test_without_a_configuration_a_workdirs_own_is_used_for_everything_but_training(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run:1"
    run.mkdir()
    config = recipes.load("configs/published.py:robal_n").unlock()
    config.student.optimizer.options.b1 = 0.95
    (run / "config.json").write_text(json.dumps(config.to_dict()))
    name = f"{recorded.__file__}:{run}/config.json"
    for words in ([f"--workdir={run}", "--mode=evaluate"], ["-mode", "diagnose", "--workdir", str(run)]):
        flags = [word for word in words if word not in ("--mode=evaluate", "-mode", "diagnose")]
        assert resolved(*words) == [f"--config={name}", *flags]
        given = [*words, "--config=configs/folder.py"]
        assert resolved(*given) == [f"--config={ROOT}/configs/folder.py", *flags]
    words = [f"--workdir={run}", "--mode=train"]
    assert resolved(*words) == [f"--config={ROOT}/configs/digits.py", f"--workdir={run}"]
    result = recipes.load(name)
    assert result == config.lock()
    assert isinstance(result.student.optimizer.drops, tuple)


def test_the_record_of_a_run_is_a_configuration_of_its_folder(tmp_path):
    file, name = tmp_path / "run:1" / "config.json", f"{recorded.__file__}:{tmp_path}/run:1/config.json"
    file.parent.mkdir()
    file.write_text(json.dumps(recipes.load("digits").to_dict() | {"seed": 7}))
    assert recipes.load(str(file)).seed == recipes.load(name).seed == 7
    for verb in ("train", "evaluate"):
        assert resolved(f"--config={file}", f"--mode={verb}") == [f"--config={name}", f"--workdir={file.parent}"]
        assert resolved(f"--config={file}", "--workdir=new", f"--mode={verb}") == [f"--config={name}", "--workdir=new"]
    file.write_text("{}")
    with pytest.raises(ValueError, match="is not the configuration of a run"):
        recipes.load(str(file))
    assert "is not the configuration of a run" in refused(f"--config={file}", "--mode=evaluate")


def test_a_recorded_configuration_may_be_older_but_not_of_other_keys(tmp_path):
    config = recipes.load("configs/digits.py").to_dict()
    del config["model"]["activation"]
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    assert recipes.load(f"{recorded.__file__}:{file}").model.activation == "relu"
    words = [f"--workdir={tmp_path}", "--mode=evaluate"]
    for content, message in ((config | {"weather": 1}, "unknown key weather"), ("{", "is damaged")):
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        assert f"the configuration {file} cannot be read: " in refused(*words)
        assert message in refused(*words)


def run(*words, folder, **environment):
    return subprocess.run(
        [sys.executable, "-m", "ltrobust", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
    )


def test_the_package_is_a_program_and_has_a_version(tmp_path):
    reported = run("--version", folder=tmp_path)
    assert (reported.returncode, reported.stdout) == (0, f"ltrobust {ltrobust.__version__}\n")


@pytest.mark.ci
@pytest.mark.slow
def test_a_workdir_is_evaluated_without_its_flags_on_a_terminal_that_has_only_ascii(tiny, tmp_path):
    """With other values where flags say so; a training key that differs is refused as before."""
    config = tiny.copy_and_resolve_references().unlock()
    config.student.method, config.student.epochs, config.model.width = "at_bsl", 1, 8
    config.eval.protocol = "validation"
    folder = tmp_path / "run"
    card = json.loads(runs.train(config.lock(), folder).read_text())
    words = [f"--workdir={folder}", "--mode=evaluate", "--config.eval.limit=1"]
    reported = run(*words, folder=tmp_path, PYTHONIOENCODING="ascii")
    assert reported.returncode == 0, reported.stderr
    again = json.loads((folder / "results" / "validation-student.json").read_text())
    assert again["config"]["model"] == card["config"]["model"]
    assert again["data"]["evaluated"] == 10
    assert again["command"].startswith("ltrobust --mode=evaluate")
    other = run(*words, "--config.model.width=4", folder=tmp_path)
    assert other.returncode == 1
    assert "model.width: 8 -> 4" in other.stderr


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cuda", "tpu", "nonsense"])
def test_a_platform_that_is_not_here_is_a_sentence(tmp_path, platform):
    reported = run("--workdir=run", folder=tmp_path, JAX_PLATFORMS=platform)
    assert reported.returncode == 1
    assert f"JAX finds no device for JAX_PLATFORMS={platform}: " in reported.stderr
    assert "Traceback" not in reported.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "limit", "message"),
    [
        (resource.RLIMIT_NOFILE, 24, "may open 24 files; it needs at least 64: ulimit -n 4096."),
        (resource.RLIMIT_AS, 10**9, "may use 1.0 GB of address space; it needs at least 2.5 GB: ulimit -v unlimited."),
    ],
)
def test_limits_within_which_the_program_cannot_run_are_sentences(monkeypatch, kind, limit, message):
    real = resource.getrlimit
    monkeypatch.setattr(resource, "getrlimit", lambda asked: (limit, limit) if asked == kind else real(asked))
    with pytest.raises(ValueError, match=message):
        main.check_limits()
    monkeypatch.setattr(resource, "getrlimit", lambda asked: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    main.check_limits()


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EMFILE", "EIO", "ESTALE"])
def test_failures_of_the_machine_have_a_remedy_and_the_way_to_go_on(name):
    number = getattr(errno, name)
    # A disk fails in commands that save nothing, too.
    way = (
        "then give the same command again"
        if name in ("EIO", "ESTALE")
        else "the same command resumes from what is saved"
    )
    assert main.advice(OSError(number, os.strerror(number))).endswith(f"; {way}.")
    assert main.advice(OSError("no number")) == main.advice(ValueError()) == ""


def test_values_that_are_not_plain_are_named():
    config = recipes.load("configs/digits.py").unlock()
    config.student.optimizer.drops = (np.float32(0.5),)
    with pytest.raises(
        ValueError, match=r"student\.optimizer\.drops is .*float32 is not JSON serializable\. Make a plain"
    ):
        workdir.check_values(config)
    with pytest.raises(ValueError, match="the configuration is a dict; give a ConfigDict"):
        workdir.check_values({"seed": 0})
