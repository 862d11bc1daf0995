"""The verbs of `ltrobust`: help, mistakes, old spellings, and that `main.py` and the verbs are the same commands."""

import contextlib
import os
import pathlib
import re
import subprocess
import sys

import fabricated
import pytest
from absl import app, flags

from ltrobust.commands import diagnose, launch, main, moved, train
from ltrobust.runtime import cores

ROOT = pathlib.Path(__file__).resolve().parents[1]
OF_A_RUN = {"train", "evaluate", "report"}
FLAGS = {
    "diagnose": {"column", "out"},
    "compare": {"against", "column", "html", "json", "data_dir", "cache_dir"},
    "sweep": {"out", "only", "table", "launcher", "jobs", "code"},
    "agree": {"student", "student_weights", "teacher", "teacher_weights", "images", "seed", "data_dir", "json", "code"},
    "offset": {"workdir", "out", "weights", "prior", "norm_equalise", "protocol", "data_dir", "code"},
    "data": {"dir", "check"},
    "config": {"code"},
} | {verb: {*launch.FLAGS, "config.KEY", "verbosity"} for verb in OF_A_RUN}
FLAGS["report"].add("figures")
FLAGS["evaluate"] |= {"torch", "weights", "key"}
FLAGS["export"] = {"to", "network", "out", "code"}
FLAGS["compile"] = {*FLAGS["train"], "topology", "phase", "protocol", "batch", "json"}


@pytest.fixture(autouse=True)
def _flags(monkeypatch):
    """Flags as a new process has them, and no handler of absl for the log of later tests."""
    monkeypatch.setattr(app, "run", lambda main, argv, flags_parser: main(flags_parser(argv)))
    yield
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:
        delattr(flags.FLAGS, name)
    for name in launch.FLAGS:
        flags.FLAGS[name].unparse()
    flags.FLAGS.unparse_flags()


def ended(capsys, *words, program="ltrobust"):
    """Status and message of a command that ends in this process."""
    with pytest.raises(SystemExit) as end:
        main.call(words, program)
    return end.value.code, capsys.readouterr().err


def started(*words, folder, **environment):
    """A command in another process."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_help_lists_every_verb_on_one_line(capsys):
    for words in (["--help"], ["-h"], ["--mode=evaluate", "--help"]):
        main.call(words)
        printed = capsys.readouterr().out
        assert re.findall(r"^  ([a-z]+) {2,}\S.*$", printed, re.MULTILINE) == list(main.VERBS)
        assert max(map(len, printed.splitlines())) <= 120
    main.call(["--help"], "main.py")
    assert capsys.readouterr().out.startswith("usage: main.py VERB ...")
    page = (ROOT / "docs" / "reference" / "commands.md").read_text()
    assert re.findall(r"^## (.*)\n\n```\{ltrobust\} (.*)$", page, re.M) == [
        (verb, f"{verb} --help") for verb in main.VERBS
    ]
    files = {path.stem for path in (ROOT / "ltrobust" / "commands").glob("*.py")}
    assert files - set(main.VERBS) == {
        "__init__",
        "agreement",
        "launch",
        "main",
        "moved",
        "offset_network",
        "parser",
        "recorded",
        "sweep_cell",
        "sweep_file",
        "sweep_job",
        "sweep_jobs",
        "sweep_local",
        "sweep_slurm",
        "torch_module",
        "weights_file",
    }


@pytest.mark.parametrize("verb", main.VERBS)
def test_every_verb_lists_its_flags_in_one_form(capsys, verb):
    with contextlib.suppress(SystemExit):
        main.call([verb, "--help"])
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: ltrobust {verb} [-h]")
    assert f"\n    ltrobust {verb}" in printed, "an example"
    listed = set(re.findall(r"^  --([\w.]+)", printed, re.MULTILINE))
    assert listed == FLAGS[verb]
    assert not any("-" in name for name in listed), "names have underscores"
    assert all(re.search(rf"^  --{re.escape(name)}\b.*\S", printed, re.MULTILINE) for name in listed)


def test_commands_on_pages_and_in_messages_exist():
    """Every `ltrobust VERB --flag` that is shown somewhere has a verb and flags that exist."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "configs").rglob("*.py")]
    pages += [*(ROOT / "examples").glob("*.*"), *(ROOT / "ltrobust").rglob("*.py")]
    count = 0
    for page in pages:
        text = page.read_text()
        assert page.name in ("design.md", "faults.md") or not re.search(r"python -m ltrobust\.[a-z]", text), page
        lines = text.replace("\\\n", " ")
        for shown in re.findall(r"(?:^ *|`|run |with )ltrobust ([a-z|]+\b[^`\n]*)", lines, re.MULTILINE):
            verbs, *words = shown.split()
            names = {re.match(r"\[?--([\w.]*)", word)[1] for word in words if word.lstrip("[").startswith("--")}
            for verb in set(verbs.split("|")) & set(main.VERBS):
                known = FLAGS[verb] | (FLAGS["evaluate"] if verb == "diagnose" else set()) | {"help"}
                assert {name for name in names if not name.startswith("config.")} <= known, (page, shown)
                count += 1
    assert count > 50


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["trian"], 2, "ltrobust: there is no verb 'trian'; did you mean train? verbs: train, evaluate, diagnose, "),
        (["weather"], 2, "ltrobust: there is no verb 'weather'; verbs: train, evaluate, diagnose, report, compare, "),
        (["train", "--epochs=3"], 2, "ltrobust train: Unknown command line flag 'epochs'"),
        (["train", "--mode=evaluate"], 2, "ltrobust train: Unknown command line flag 'mode'"),
        (["train", "--patience=long"], 2, "ltrobust train: flag --patience=long: invalid literal for int()"),
        (["train", "surplus"], 2, "ltrobust train: not understood: surplus; settings are given as --config.key=value."),
        (
            ["evaluate", "--config=digts.py"],
            2,
            "ltrobust evaluate: there is no configuration 'digts.py'; did you mean",
        ),
        (
            ["evaluate", "--config.threat.raduis=8"],
            2,
            "ltrobust evaluate: the configuration has no key threat.raduis; ",
        ),
        (
            ["diagnose"],
            2,
            "ltrobust diagnose: the following arguments are required: RUN; ltrobust diagnose --help",
        ),
        (["compare", "--jsn=x", "a", "b"], 2, "ltrobust compare: unrecognized arguments: --jsn=x; ltrobust compare --"),
        (
            ["compare", "--js=x", "a", "b"],
            2,
            "ltrobust compare: unrecognized arguments: --js=x; ltrobust compare ",
        ),
        (["compare", "a"], 1, "ltrobust compare: 1 network: a comparison needs a reference and at least one more."),
        (["agree", "--student=a", "--images=x"], 2, "ltrobust agree: argument --images: invalid int value: 'x'; "),
        (
            ["agree", "--student=a", "--teacher=b", "--code=c.py"],
            2,
            "ltrobust agree: --code is 'c.py', and there is",
        ),
        (
            ["offset", "--workdir=a", "--out=b"],
            1,
            "ltrobust offset: --workdir is 'a', which does not exist; give a workdir or a phase's folder of "
            "checkpoints.\n",
        ),
        (
            ["agree", "--student=a", "--teacher=b"],
            1,
            "ltrobust agree: --student is 'a', which does not exist; give a workdir or a phase's folder of "
            "checkpoints.\n",
        ),
        (["config", "methods.trade"], 2, "ltrobust config: 'methods.trade' is neither a key nor a configuration; did "),
        (["--epochs=3"], 1, "ltrobust: Unknown command line flag 'epochs'"),
        (["--config.threat.raduis=8"], 1, "ltrobust: the configuration has no key threat.raduis; "),
        (["--mode=evalute"], 1, "ltrobust: --mode=evalute is unknown; did you mean evaluate? give one of train, "),
    ],
    ids=str,
)
def test_mistakes_have_one_form_and_status_2_where_a_verb_is_given(
    capsys, monkeypatch, tmp_path, words, status, message
):
    monkeypatch.chdir(tmp_path)
    reported = ended(capsys, *words)
    assert (reported[0], reported[1][: len(message)]) == (status, message)
    assert not any(tmp_path.iterdir())
    program = "main.py" + message[len("ltrobust") : message.index(":") + 1]
    assert ended(capsys, *words, program="main.py")[1].startswith(program)


def test_a_call_without_a_verb_is_the_verb_that_its_mode_names(monkeypatch):
    calls = []
    monkeypatch.setattr(train, "main", lambda words, program: calls.append(("train", words, program)))
    monkeypatch.setattr(
        diagnose, "main_of_checkpoint", lambda words, program: calls.append(("diagnose", words, program))
    )
    monkeypatch.setattr(diagnose, "main", lambda words, program: pytest.fail("of evaluated networks"))
    main.call([])
    main.call(["--config=a.py", "--mode", "train", "--workdir=b"], "main.py")
    main.call(["--mode=train", "--mode=diagnose", "--config.seed=1"])
    main.call(["-mode=diagnose"])
    main.call(["train", "--workdir=b"])
    assert calls == [
        ("train", [], "ltrobust"),
        ("train", ["--config=a.py", "--workdir=b"], "main.py"),
        ("diagnose", ["--config.seed=1"], "ltrobust"),
        ("diagnose", [], "ltrobust"),
        ("train", ["--workdir=b"], "ltrobust train"),
    ]


@pytest.mark.parametrize(
    ("words", "evaluates"),
    [
        (["--workdir=runs/a"], True),
        (["--workdir", "runs/a", "--config.eval.limit=2"], True),
        (["--noconfig.eval.keep_images"], True),
        (["--config=configs/digits.py"], True),
        (["runs/a", "runs/b:teacher", "--out=there"], False),
        (["--column=pgd20", "runs/workdir"], False),
    ],
)
def test_diagnose_evaluates_a_workdir_first_and_takes_other_runs_as_they_are(monkeypatch, words, evaluates):
    calls = []
    monkeypatch.setattr(launch, "launch", lambda words, *rest, trains: calls.append(words))
    monkeypatch.setattr(diagnose, "run", lambda runs, *rest: calls.append(runs))
    diagnose.main(words, "ltrobust diagnose")
    assert calls == [words if evaluates else [word for word in words if word.startswith("runs/")]]


def test_a_stopped_command_and_a_full_disk_are_one_sentence(capsys, monkeypatch):
    def fails(error):
        def raises(words, program):
            raise error

        monkeypatch.setattr(train, "main", raises)
        return ended(capsys, "train")

    assert fails(KeyboardInterrupt()) == (130, "\nltrobust train: interrupted.\n")
    assert fails(main.Preempted("stopped")) == (75, "\nltrobust train: stopped\n")
    assert fails(OSError(28, "No space left")) == (
        1,
        "ltrobust train: [Errno 28] No space left\n"
        "The disk is full: free some space; the same command resumes from what is saved.\n",
    )
    with pytest.raises(ZeroDivisionError):
        fails(ZeroDivisionError())


@pytest.mark.parametrize(
    ("module", "words", "new"),
    [
        ("compare", ["runs/my a", "runs/b", "--html=x.html"], "compare 'runs/my a' runs/b --html=x.html"),
        ("diagnose", ["runs/a", "--column", "pgd20"], "diagnose runs/a --column pgd20"),
        ("sweep", ["configs/sweeps/digits.py", "--out=my-runs", "--table"], "sweep configs/sweeps/digits.py --out=my-"),
        ("agreement", ["--student-weights=last", "--data-dir", "a-b"], "agree --student_weights=last --data_dir a-b"),
        ("class_logit_offset", ["--run=a", "--norm-equalise=1"], "offset --workdir=a --norm_equalise=1"),
    ],
)
def test_old_spellings_say_the_new_one(capsys, module, words, new):
    with pytest.raises(SystemExit) as end:
        moved.check(["python", "-W", "error", "-m", f"ltrobust.{module}", *words], ["-m", *words])
    assert end.value.code == 2
    reported = capsys.readouterr().err
    assert reported.startswith(
        f"ltrobust: python -m ltrobust.{module} is a verb of one program now; give python -m ltrobust "
    )
    assert f"give python -m ltrobust {new}" in reported
    assert reported.count("\n") == 1
    # The new words are understood.
    verb, *rest = moved.new_words(f"ltrobust.{module}", words)
    assert verb in main.VERBS
    assert {word.partition("=")[0].removeprefix("--") for word in rest if word.startswith("--")} <= FLAGS[verb]


def test_python_looks_for_an_old_command_and_finds_the_new_spelling(tmp_path):
    reported = started("-m", "ltrobust.compare", "a", "--against", "b", folder=tmp_path)
    assert reported.returncode == 2
    assert reported.stderr.endswith("give python -m ltrobust compare a --against b\n")
    assert "Traceback" not in reported.stderr
    reported = started("-mltrobust.sweep", "x.py", folder=tmp_path)
    assert (reported.returncode, reported.stdout) == (2, "")
    assert "give python -m ltrobust sweep x.py" in reported.stderr
    reported = started("-m", "ltrobust.commands.compare", "a", folder=tmp_path)
    assert (reported.returncode, reported.stdout) == (2, "")
    assert reported.stderr == "ltrobust: ltrobust.commands.compare is not a program; give python -m ltrobust compare\n"
    assert "No module named ltrobust.nothing" in started("-m", "ltrobust.nothing", folder=tmp_path).stderr
    code = "import sys; sys.argv = ['-m']; import ltrobust; print('imported')"
    assert started("-c", code, folder=tmp_path).stdout == "imported\n", "as for another package's module"


@pytest.mark.slow
def test_a_page_needs_no_device(tmp_path):
    (tmp_path / "run").mkdir()
    fabricated.write_run(tmp_path / "run")
    reported = started("-m", "ltrobust", "report", "--workdir=run", folder=tmp_path, JAX_PLATFORMS="cuda")
    assert (reported.returncode, reported.stdout) == (0, "report: run/report.html\n"), reported.stderr


def test_a_page_that_cannot_be_drawn_is_status_1_with_a_reason(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, message = ended(capsys, "report", "--workdir=nowhere")
    assert status == 1
    assert message.startswith("\nltrobust report: nowhere holds no result card and no metrics.jsonl to report on; ")
    main.call(["report", "--workdir=nowhere", "--process_id=1"])  # the first one writes
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_help_and_configurations_wait_for_no_more_than_they_need():
    """Help imports no JAX, `ltrobust.config` no Orbax."""
    code = (
        "import sys, contextlib; from ltrobust.commands import main\n"
        "for verb in main.VERBS:\n"
        "    with contextlib.suppress(SystemExit): main.call([verb, '--help'])\n"
        "    assert 'jax' not in sys.modules, verb\n"
        "import ltrobust; ltrobust.config('digits'); assert 'orbax' not in sys.modules"
    )
    reported = started("-c", code, folder=ROOT)
    assert reported.returncode == 0, reported.stderr


@pytest.mark.slow
@pytest.mark.ci
def test_a_verb_writes_what_main_py_writes(tmp_path):
    fabricated.write_run(tmp_path / "run")
    pages = []
    for words in (
        [str(ROOT / "main.py"), "--mode=report", "--workdir=run"],
        [str(ROOT / "main.py"), "report", "--workdir=run"],
        ["-m", "ltrobust", "report", "--workdir", "run"],
    ):
        reported = started(*words, folder=tmp_path)
        assert (reported.returncode, reported.stdout) == (0, "report: run/report.html\n"), reported.stderr
        pages.append((tmp_path / "run" / "report.html").read_bytes())
        (tmp_path / "run" / "report.html").unlink()
    assert pages[0] == pages[1] == pages[2]


@pytest.mark.slow
def test_batches_are_divided_over_the_cpu_devices_that_are_asked_for(tmp_path):
    code = (
        "import sys; from ltrobust.commands.launch import launch\n"
        "def work(*given, **settings): import jax; print('devices', jax.device_count())\n"
        "launch(sys.argv[1:], 'ltrobust train', '', work, trains=True)"
    )
    reported = started("-c", code, "--config=configs/digits.py", "--cpu_devices=3", "--workdir=run", folder=tmp_path)
    assert reported.stdout.splitlines()[0] == "devices 3", reported.stderr
    reported = started("-c", code, "--config=configs/digits.py", "--workdir=run", folder=tmp_path)
    *advice, last = reported.stdout.splitlines()[: 1 + (cores.usable() > 1)]
    assert last == "devices 1", reported.stderr
    assert all("--cpu_devices=" in line for line in advice)
