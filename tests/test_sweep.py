"""A sweep runs every cell once, continues where it was, survives a failing cell and makes one table."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import planned
import pytest

from ltrobust import recipes
from ltrobust.commands import sweep, sweep_cell
from ltrobust.plan import make_plan
from ltrobust.runtime.files import hold
from ltrobust.runtime.preemption import EXIT_STATUS

ROOT = pathlib.Path(__file__).resolve().parents[1]
CARD = ROOT / "results" / "digits" / "at_bsl-seed0.json"

# Stands in for the real program: notes its flags, then does what the method's name says.
PROGRAM = """
import ast, json, pathlib, re, sys, time
flags = dict(re.match(r"--([^=]+)=(.*)", word).groups() for word in sys.argv[1:])
with open("calls", "a") as calls:
    calls.write(" ".join(f"{key}={flags[key]}" for key in sorted(flags) if key.startswith("config.")) + "\\n")
method = flags["config.student.method"]
if method == "trades":
    sys.exit("trades did not work")
if method == "mart":
    time.sleep(60)
config = json.loads(pathlib.Path("config.json").read_text())
for key, value in flags.items():
    if key.startswith("config."):
        *groups, name = key.removeprefix("config.").split(".")
        group = config
        for part in groups:
            group = group[part]
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            pass
        group[name] = type(group[name])(value)
results = pathlib.Path(flags["workdir"]) / "results"
results.mkdir(parents=True)
from ltrobust.analysis import cards
card = json.loads(pathlib.Path("card.json").read_text()) | {"config": cards.describe_config(config)}
(results / "quick.json").write_text(json.dumps(card | {"sha256": cards.seal(card)}))
"""

SWEEP = """
CONFIG = CONFIG_FILE
VARIANTS = {
    "plain": {"student.method": "at_bsl"},
    "fails": {"student.method": "trades"},
    "after": {"student.method": "pgd_at", "student.wrappers": ("one", "two"), "data.dir": "{out}/plain-seed{seed}"},
}
AXES = {"seed": (0, 1)}
"""


def prepare(folder, patch):
    """The folder with a sweep and what stands in for the program; it becomes the current one."""
    card = json.loads(CARD.read_text())
    card["networks"]["student/averaged"] = card["networks"]["student/last"]
    (folder / "card.json").write_text(json.dumps(card))
    # Without JAX, which takes seconds to import.
    (folder / "config.json").write_text(json.dumps(recipes.load("digits").to_dict()))
    (folder / "main.py").write_text(PROGRAM)
    write(folder, SWEEP)
    patch.chdir(folder)
    patch.setattr(sweep_cell, "PROGRAM", (sys.executable, "main.py"))
    return folder


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    return prepare(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A folder whose sweep has ended."""
    with pytest.MonkeyPatch.context() as patch:
        folder = prepare(tmp_path_factory.mktemp("ended"), patch)
        with pytest.raises(SystemExit):
            go()
    return folder


@pytest.fixture
def swept(ended, workplace):
    """A copy of it."""
    return shutil.copytree(ended, workplace, dirs_exist_ok=True)


def write(folder, text):
    (folder / "sweep.py").write_text(text.replace("CONFIG_FILE", repr(str(ROOT / "configs" / "digits.py"))))


def go(*more):
    sweep.main(["sweep.py", "--out=out", *more], "ltrobust sweep")


@pytest.mark.slow
def test_every_cell_runs_once_and_a_failing_one_is_passed_over(workplace, capsys):
    with pytest.raises(SystemExit) as ended:
        go()
    assert ended.value.code == 1
    calls = (workplace / "calls").read_text().splitlines()
    assert len(calls) == 6
    assert calls[2] == (
        "config.data.dir=out/plain-seed0 config.eval.also=() config.seed=0 config.student.method=pgd_at "
        "config.student.wrappers=('one', 'two')"
    )
    printed = capsys.readouterr().out
    assert "trades did not work" in printed
    assert "6 cells: 4 finished, 2 failed, 0 running" in printed
    with pytest.raises(SystemExit):
        go()
    again = (workplace / "calls").read_text().splitlines()[6:]
    assert len(again) == 2, "only the failed ones are tried again"
    assert all("method=trades" in call for call in again)


@pytest.mark.slow
def test_the_table_has_one_row_a_variant_over_seeds(swept, capsys):
    go("--table")
    table = (swept / "out" / "table.md").read_text()
    columns = json.loads(CARD.read_text())["networks"]["student/last"]["columns"]
    overall = columns["clean"]["overall"]["value"]
    assert table in capsys.readouterr().out
    assert re.search(rf"\| plain \| 2 \| {100 * overall:.2f} ± 0\.00", table)
    spread = rf"{100 * columns['pgd20']['sd']:.2f} ± 0\.00 \[\S+ \S+\] \|$"
    assert re.search(rf"^\| plain, averaged \| 2 \|.*{spread}", table, re.MULTILINE)
    assert "| fails" not in table
    assert "| after | " in table.split("by class")[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ('{"student.method": "at_bsl"}', '{"student.method": "reat"}', "student.method: 'at_bsl' -> 'reat'"),
        (
            '{"student.method": "at_bsl"}',
            '{"student.method": "at_bsl", "threat.radius": 8.0}',
            "threat.radius: 32.0 -> 8.0",
        ),
        ('{"student.method": "at_bsl"}', '{"student.method": "at_bsl", "eval.limit": 5}', "eval.limit: 0 -> 5"),
    ],
)
def test_a_run_of_another_configuration_is_no_finished_cell(swept, capsys, old, new, line):
    card = swept / "out" / "plain-seed0" / "results" / "quick.json"
    before = card.read_bytes()
    assert old in SWEEP
    write(swept, SWEEP.replace(old, new))
    with pytest.raises(SystemExit) as ended:
        go()
    assert ended.value.code == 1
    printed = capsys.readouterr().out
    assert f"plain-seed0 holds a finished run of another configuration:\n  {line}" in printed
    assert "| plain |" not in printed, "its old card is not shown under the new label"
    assert printed.count("another configuration") == 2, "each seed is reported once"
    go("--table")
    printed = capsys.readouterr().out
    assert re.search(rf"^plain-seed0 is not in the table: .*:\n  {re.escape(line)}", printed, re.MULTILINE)
    assert card.read_bytes() == before


@pytest.mark.slow
def test_a_cell_in_other_hands_is_left_to_them(workplace, capsys):
    (workplace / "out" / "plain-seed1").mkdir(parents=True)
    with hold(workplace / "out" / "plain-seed1"), pytest.raises(SystemExit):
        go()
    printed = capsys.readouterr().out
    assert "plain-seed1: another process is at it" in printed
    assert "3 finished, 2 failed, 1 running" in printed
    assert len((workplace / "calls").read_text().splitlines()) == 5


@pytest.mark.slow
def test_a_cell_that_another_process_took_just_now_has_not_failed(workplace, monkeypatch, capsys):
    answers = {"fails-seed0": [True, False]}  # free when asked first, taken when its run could not begin
    monkeypatch.setattr(sweep_cell, "at_work", lambda folder: (answers.get(folder.name) or [False]).pop())
    with pytest.raises(SystemExit):
        go()
    printed = capsys.readouterr().out
    assert "fails-seed0: running" in printed
    assert "4 finished, 1 failed, 1 running" in printed


@pytest.mark.slow
def test_a_sweep_that_is_asked_to_stop_asks_its_cell(workplace):
    write(workplace, SWEEP.replace("at_bsl", "mart"))
    code = (
        "import sys; from ltrobust.commands import main, sweep_cell; "
        "sweep_cell.PROGRAM = (sys.executable, 'main.py'); main.run()"
    )
    command = [sys.executable, "-c", code, "sweep", "sweep.py", "--out=out"]
    calls = workplace / "calls"
    with subprocess.Popen(command, cwd=workplace, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        end = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < end and not (calls.exists() and calls.read_text()):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == EXIT_STATUS
    assert len(calls.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("VARIANTS", "VARIANT", "lacks VARIANTS"),
        (
            '"student.method": "at_bsl"',
            '"student.methd": "at_bsl"',
            r"sweep\.py, plain-seed0: the configuration has no key student\.methd; did you mean",
        ),
        ('"student.method": "at_bsl"', '"student.epochs": "many"', "student.epochs cannot be 'many'"),
        ('"student.method": "at_bsl"', '"eval.protocol": "standard"', "quick, standard; one table"),
        ('{"seed": (0, 1)}', '{"seed": (0, 0)}', "cells of the same name"),
        (
            "AXES",
            'PRIMARY = ("plain", "at_bsl")\nAXES',
            r"PRIMARY \('plain', 'at_bsl'\); give a tuple of two different",
        ),
    ],
)
def test_mistakes_are_told_before_the_first_run(workplace, old, new, message):
    write(workplace, SWEEP.replace(old, new, 1) if old != "VARIANTS" else SWEEP.replace(old, new))
    with pytest.raises(ValueError, match=message):
        go()
    assert not (workplace / "calls").exists()


def refuse(folder, text, message):
    """The sweep is refused in one sentence that begins with its file."""
    write(folder, text)
    with pytest.raises(ValueError, match=message) as raised:
        go()
    assert str(raised.value).startswith("sweep sweep.py")
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "config.json", "main.py", "sweep.py"]


@pytest.mark.parametrize(
    "given", ["{'plain', 'after'}", "('plain', 'plain')", "'pa'", "None", "(['plain'], 'after')", "('plain',)", "3"]
)
def test_a_primary_comparison_is_a_tuple_of_two_variants(workplace, given):
    message = r"PRIMARY .*; give a tuple of two different variants: after, fails, plain\.$"
    refuse(workplace, f"{SWEEP}PRIMARY = {given}\n", message)


def test_a_primary_comparison_keeps_its_order(workplace):
    write(workplace, f"{SWEEP}PRIMARY = ['plain', 'after']\n")
    assert sweep.read(workplace / "sweep.py", workplace).primary == ("plain", "after")


@pytest.mark.parametrize(("plain", "primary"), [("plain", None), ("at_bsl", ("self_distillation", "at_bsl"))])
def test_the_default_primary_comparison_is_that_of_a_sweep_with_both_variants(workplace, plain, primary):
    write(workplace, SWEEP.replace('"plain"', f'"{plain}"').replace('"fails"', '"self_distillation"'))
    assert sweep.read(workplace / "sweep.py", workplace).primary == primary


@pytest.mark.parametrize("name", ["../esc", "a/b", "a\\b", "", ".", ".hidden", "a\nb", 1, None, ("a", "b")])
def test_a_name_that_is_no_name_of_a_folder_is_refused(workplace, name):
    message = f"variant {re.escape(repr(name))}; a name is a text without slashes"
    refuse(workplace, SWEEP.replace('"plain":', f"{name!r}:"), message)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "lambda place: 1 / 0",
            r"variant plain: its function fails at {'seed': 0}: ZeroDivisionError: division by zero",
        ),
        ("lambda place: exit('no')", r"variant plain: its function fails at {'seed': 0}: SystemExit: no\.$"),
        ("lambda place: place['ratio']", r"variant plain: its function fails at {'seed': 0}: KeyError: 'ratio'\.$"),
        ("lambda: {}", r"variant plain: its function fails .*: TypeError: .* takes 0 positional arguments"),
        ("lambda place: None", r"variant plain has changes None; give a dict of keys and values"),
        ("[('student.method', 'trades')]", r"variant plain has changes \[\('student.method', .*; give a dict"),
        ("'at_bsl'", r"variant plain has changes 'at_bsl'; give a dict"),
        ("{1: 2}", r"variant plain changes 1; give a key of the configuration"),
        (
            "{'data.dir': '{nope}'}",
            r"variant plain: data.dir is '{nope}'; it may have {out}, {seed}, and {{ for a brace",
        ),
        ("{'data.dir': '{'}", r"variant plain: data.dir is '{'; it may have {out}"),
        ("{'data.dir': '{}'}", r"variant plain: data.dir is '{}'; it may have {out}"),
        ("{'data.dir': '{seed.x}'}", r"variant plain: data.dir is '{seed.x}'; it may have {out}"),
        ("{'student': 3}", r"plain-seed0: student is a group of keys and cannot be 3; give one of its keys"),
        ("{'data.imbalance': 3}", r"plain-seed0: the configuration has no key data.imbalance; .* has every key"),
    ],
)
def test_mistakes_in_changes_name_file_variant_and_key(workplace, given, message):
    refuse(workplace, SWEEP.replace('{"student.method": "at_bsl"}', given), message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("VARIANTS = ['plain']", r"has VARIANTS \['plain'\]; give a dict of at least one name"),
        ("VARIANTS = {}", r"has VARIANTS {}; give a dict of at least one name"),
        ("AXES = ('seed',)", r"has AXES \('seed',\); give a dict of keys and their values"),
        ("AXES = {0: (1, 2)}", r"has 0 in AXES; give a key"),
        ("AXES = {'seed': ()}", r"has \(\) for seed in AXES; give a tuple of at least one value"),
        ("AXES = {'seed': 3}", r"has 3 for seed in AXES; give a tuple"),
        ("AXES = {'seed': '012'}", r"has '012' for seed in AXES; give a tuple"),
        ("AXES = {'seed': {0, 1}}", r"has {0, 1} for seed in AXES; give a tuple"),
        (
            "VARIANTS = {'plain': {}}; AXES = {'data.dir': ('/../../esc',)}",
            r"has a cell 'plain-dir/\.\./\.\./esc'; give axes values without slashes",
        ),
        (
            "VARIANTS = {'plain': {}}; AXES = {'sed': (0,)}",
            r"plain-sed0: the configuration has no key sed; did you mean seed\?",
        ),
        (
            "VARIANTS = {'plain': {}}; AXES = {'data.imbalance_ratio': (2.0, 1.0, 1)}",
            r"has cells plain-imbalance_ratio1\.0 and plain-imbalance_ratio1 of the same configuration; leave one",
        ),
        (
            "VARIANTS = {'plain': {}}; AXES = {'seed': (1, True)}",
            r"has cells plain-seed1 and plain-seedTrue of the same",
        ),
        ("CONFIG = None", r"has CONFIG None; give a text"),
        ("CONFIG = {'seed': 0}", r"has CONFIG {'seed': 0}; give a text"),
        ("AXES = {", r"cannot be read: SyntaxError: '{' was never closed \(sweep\.py, line \d+\)\.$"),
        ("1 / 0", r"cannot be read: ZeroDivisionError: division by zero in line 9\.$"),
        ("import sys; sys.exit(3)", r"cannot be read: SystemExit: 3 in line 9\.$"),
        ("import no_such_module", r"cannot be read: ModuleNotFoundError: .* in line 9\.$"),
        ("\0", r"cannot be read: \w+: .*null bytes"),
    ],
)
def test_mistakes_in_the_file_name_it(workplace, line, message):
    refuse(workplace, f"{SWEEP}{line}\n", message)


@pytest.mark.parametrize("mode", [[], ["--table"]])
@pytest.mark.parametrize(
    ("only", "message"),
    [
        (",", r"--only=, names no variant; variants: after, fails, plain\.$"),
        ("", r"--only= names no variant"),
        (" , ", r"names no variant"),
        ("plane", r"--only has 'plane'; did you mean plain\? variants: after, fails, plain\.$"),
    ],
)
def test_only_names_variants_with_and_without_table(workplace, mode, only, message):
    with pytest.raises(ValueError, match=message):
        go(f"--only={only}", *mode)
    assert not (workplace / "calls").exists()
    assert not (workplace / "out").exists()


@pytest.mark.slow
def test_a_part_of_the_table_is_printed_and_does_not_replace_it(swept, capsys):
    go("--table")
    whole = (swept / "out" / "table.md").read_text()
    capsys.readouterr()
    go("--table", "--only=after")
    printed = capsys.readouterr().out
    assert "| after | " in printed
    assert "| plain | " not in printed
    assert "| plain | " in whole
    assert (swept / "out" / "table.md").read_text() == whole


def test_changes_may_be_a_function_of_the_place_and_a_filled_text_a_number(workplace):
    write(
        workplace,
        SWEEP.replace('{"student.method": "at_bsl"}', 'lambda place: {"student.epochs": 5 + place["seed"]}').replace(
            '"student.method": "trades"', '"data.split_seed": "{seed}", "threat.radius": "{seed}"'
        ),
    )
    result = sweep.read(workplace / "sweep.py", workplace)
    configs = {cell.name: result.config_of(cell) for cell in result.cells}
    assert [configs[f"plain-seed{seed}"].student.epochs for seed in (0, 1)] == [5, 6]
    filled = configs["fails-seed1"]
    assert (filled.data.split_seed, filled.threat.radius) == (1, 1.0)


def test_a_sweep_may_run_some_of_its_variants(workplace, capsys):
    go("--only=plain")
    printed = capsys.readouterr().out
    assert "2 cells: 2 finished" in printed
    assert "Primary comparison" not in printed, "the sweep lacks the variants of the default"
    write(workplace, f"{SWEEP}PRIMARY = ('after', 'plain')\n")
    go("--table")
    assert "after minus plain: missing**" in capsys.readouterr().out
    assert len((workplace / "calls").read_text().splitlines()) == 2
    write(workplace, SWEEP.replace("(0, 1)", "(1,)"))
    go("--only=plain")
    assert "1 cell: 1 finished" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"--only has 'plane'; .*variants: after, fails, plain"):
        go("--only=plane")


TINY = """
CONFIG = "configs/digits.py"
SMALL = {"model.width": 4, "student.epochs": 1, "student.attack.steps": 1, "eval.protocol": "validation"}
SMALL |= {"student.method": "my_at", "data.imbalance_ratio": 4.0, "eval.limit": 2}
VARIANTS = {"mine": SMALL | {"methods.my_at.gamma": 1.5}}
AXES = {"seed": (0,)}
"""
MY_AT = """
from ltrobust import methods


@methods.register
def my_at(inner, *, gamma: float = 2.0):
    return methods.REGISTRY["at_bsl"](inner)
"""


@pytest.mark.slow
@pytest.mark.ci
def test_a_sweep_runs_in_a_folder_without_a_checkout(tmp_path):
    """Its runs are `ltrobust train` of the same interpreter, and know the same methods of one's own."""
    (tmp_path / "sweep.py").write_text(TINY)
    (tmp_path / "my_methods.py").write_text(MY_AT)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "ltrobust", "sweep", "sweep.py", "--out=out", "--code=my_methods.py"]
    reported = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert reported.returncode == 0, reported.stdout + reported.stderr
    assert "1 cell: 1 finished, 0 failed, 0 running; table: out/table.md" in reported.stdout
    card = json.loads((tmp_path / "out" / "mine-seed0" / "results" / "validation.json").read_text())
    assert card["config"]["methods"]["my_at"] == {"gamma": 1.5}
    assert card["command"].startswith("ltrobust train --config=configs/digits.py --code=my_methods.py")
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"sweep.py", "my_methods.py", "out"}
    again = subprocess.run([*command, "--table"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "| mine | 1 |" in again.stdout


def test_the_sweeps_of_the_package_are_found_from_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sweep.main(["configs/sweeps/digits.py", "--out=out", "--table"], "ltrobust sweep")
    assert re.fullmatch(r"0 of \d\d cells are finished\n", (tmp_path / "out" / "table.md").read_text())
    with pytest.raises(ValueError, match=r"there is no sweep configs/sweeps/nothing\.py; give a Python file with"):
        sweep.main(["configs/sweeps/nothing.py", "--out=out"], "ltrobust sweep")


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "sweeps").glob("*.py")), ids=lambda path: path.stem)
def test_every_sweep_can_be_made_and_names_runs_that_come_before(file, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    result = sweep.read(file, tmp_path)
    before = set()
    for cell in result.cells:
        for key, value in cell.changes.items():
            if key.startswith("teachers."):
                assert pathlib.Path(value).relative_to(tmp_path).parts[0] in before, f"{cell.name}: {key}"
        config = result.config_of(cell)
        assert planned.make_method(config, "student").name.startswith(config.student.method)
        make_plan(config, tmp_path)
        before.add(cell.name)
