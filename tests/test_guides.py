"""Code blocks on pages run as they stand. CONTRIBUTING.md has the rules for writers."""

import ast
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from absl import app, flags

from ltrobust import methods, models
from ltrobust.commands import launch, main
from ltrobust.commands.parser import Parser

ROOT = pathlib.Path(__file__).resolve().parents[1]
PATTERNS = ("README.md", "CONTRIBUTING.md", "docs/index.md", "docs/getting_started.md", "docs/*/*.md")
PAGES = [str(path.relative_to(ROOT)) for pattern in PATTERNS for path in sorted(ROOT.glob(pattern))]
COMMANDS = ("bash", "console", "sh")
OTHERS = ("bibtex", "json", "math", "text", "toml", "{toctree}", "{eval-rst}", "{ltrobust}")
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
# Reads the steps of a page and does them in order; a block's lines have the numbers that they have on the page. Runs
# evaluate two images of each class, once.
CHILD = """
import json, subprocess, sys
import ltrobust

full = ltrobust.config

def short(*given):
    config = full(*given)
    config.eval.limit, config.eval.also = 2, ()
    return config

ltrobust.config = short
namespace = {"__name__": "__main__"}
for place, code, runs in json.load(sys.stdin):
    if runs:
        subprocess.run(["bash", "-euc", code], check=True)
    else:
        exec(compile(code, place, "exec"), namespace)
"""


class Block(NamedTuple):
    """A fenced block, or Python in a comment, which a page runs and does not show.

    Attributes:
      language: after the fence.
      code: the lines inside.
      line: number of the first of them, starting at 1.
      directive, value: of the comment on the line before, such as `file` and `mine.py`; or empty.
    """

    language: str
    code: str
    line: int
    directive: str
    value: str


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a page in order."""
    pattern = re.compile(
        r"(?:^ *<!-- (?P<directive>file|run|skip)(?:: (?P<value>.*?))? -->\n)?"
        r"(?P<open>^(?P<indent> *)(?P<fence>```+)(?P<language>.*)\n)(?P<code>(?:.*\n)*?)^ *(?P=fence)$"
        r"|^<!-- python\n(?P<hidden>(?:.*\n)*?)-->$",
        re.MULTILINE,
    )
    for result in pattern.finditer(text):
        shown = result["hidden"] is None
        line = text.count("\n", 0, result.start("code" if shown else "hidden")) + 1
        code = re.sub(rf"^{result['indent'] or ''}", "", result["code" if shown else "hidden"], flags=re.MULTILINE)
        yield Block(
            result["language"].strip() if shown else "python",
            code,
            line,
            result["directive"] or "",
            result["value"] or "",
        )


def commands(block: Block) -> list[str]:
    """The commands of a shell block, comments removed; in a `console` block those after a `$`."""
    text = block.code.replace("\\\n", " ")
    if block.language == "console":
        text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
    words = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [shlex.join(line) for line in words if line]


class ParsedError(Exception):
    """The words were understood."""


@pytest.fixture
def _only_parsed(monkeypatch, tmp_path):
    """Verbs end when their words are parsed; flags are afterwards as they were."""

    def parse(self, words):
        Parser.__bases__[0].parse_args(self, words)
        raise ParsedError

    def run(work, argv, flags_parser):
        del work
        monkeypatch.setattr(sys, "argv", argv)  # ml_collections reads from it which keys are given
        flags_parser(argv)
        raise ParsedError

    monkeypatch.setattr(Parser, "parse_args", parse)
    monkeypatch.setattr(app, "run", run)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    tables = (methods.REGISTRY, methods.WRAPPERS, models.REGISTERED)
    before, modules = [dict(table) for table in tables], set(sys.modules)
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)
    for name in [name for name in sys.modules if name.startswith("my_") and name not in modules]:
        del sys.modules[name]
    forget()


def forget() -> None:
    """Makes the flags those before a command, so that the next one on the page may have the same."""
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:
        delattr(flags.FLAGS, name)
    for name in launch.FLAGS:
        flags.FLAGS[name].unparse()
    flags.FLAGS.unparse_flags()


def check_command(command: str) -> None:
    """Fails if a command of this project is not one that exists. Others are not looked at."""
    for part in re.split(r" (?:&&|'&&') ", command):
        words = shlex.split(part)
        words = words[next((i for i, word in enumerate(words) if not re.fullmatch(r"[A-Z_]+=.*", word)), 0) :]
        program = pathlib.Path(words[0]).name
        if program.startswith("python") and words[1:3] == ["-m", "ltrobust"]:
            words, program = words[2:], "ltrobust"
        if program.startswith("python") and words[1:2] == ["main.py"]:
            words, program = words[1:], "ltrobust"
        if program == "ltrobust" and "--help" not in words and "--version" not in words:
            with pytest.raises(ParsedError):
                main.call(words[1:])
            forget()
        elif (
            program.startswith("python") and words[1:2] == ["-m"] and words[2].split(".")[0] in ("benchmarks", "tools")
        ):
            module = ROOT / words[2].replace(".", "/")
            assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file(), command
        elif program.startswith("python") and words[1:2] and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file() or pathlib.Path(words[1]).is_file(), command
        for extras in re.findall(r"\.\[([\w,-]+)\]", part):
            assert set(extras.split(",")) <= EXTRAS, command


@pytest.mark.usefixtures("_only_parsed")
@pytest.mark.parametrize("page", PAGES)
def test_blocks_name_their_language_and_are_understood(page, tmp_path):
    for block in blocks((ROOT / page).read_text()):
        place = f"{page}:{block.line}"
        assert block.language.partition(" ")[0] in ("python", *COMMANDS, *OTHERS), (
            f"{place}: the language is {block.language!r}"
        )
        if block.directive == "file":
            (tmp_path / block.value).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.value).write_text(block.code)
        if block.language == "python":
            ast.parse(block.code, place)
        if block.language in COMMANDS:
            for command in commands(block):
                check_command(command)


@pytest.mark.ci
@pytest.mark.parametrize("page", PAGES)
def test_blocks_run_in_order(page, tmp_path):
    text = (ROOT / page).read_text()
    for module in re.findall(r"^<!-- needs: (\w+) -->$", text, re.MULTILINE):
        pytest.importorskip(module)
    steps = []
    functions = f'python() {{ "{sys.executable}" "$@"; }}; ltrobust() {{ python -m ltrobust "$@"; }}\n'
    for block in blocks(text):
        place = f"{page}:{block.line}"
        if block.directive == "file":
            (tmp_path / block.value).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.value).write_text(block.code)
        elif block.directive == "run":
            steps.append((place, functions + "\n".join(commands(block)), True))
        elif block.language == "python" and block.directive != "skip":
            steps.append((page, "\n" * (block.line - 1) + block.code, False))
    if not steps:
        pytest.skip("no block of this page runs")
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": paths, "JAX_PLATFORMS": "cpu", "HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", CHILD]
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, input=json.dumps(steps), capture_output=True, text=True, timeout=1200
    )
    assert ran.returncode == 0, ran.stderr[-4000:]


PAGE = """
<!-- needs: json -->
<!-- python
from pathlib import Path
-->
<!-- file: mine.py -->
```python
VALUE = 3
```

- In a list:

  ```python
  import mine
  ```
<!-- run -->
```bash
python -c "import mine" \\
  # a comment
```
<!-- skip: needs a TPU -->
```python
raise SystemExit
```
```console
$ ltrobust train --config=digits
epoch 1
```
"""


def test_blocks_of_a_page_are_found_with_their_lines():
    result = list(blocks(PAGE))
    assert [(b.language, b.line, b.directive, b.value) for b in result] == [
        ("python", 4, "", ""),
        ("python", 8, "file", "mine.py"),
        ("python", 14, "", ""),
        ("bash", 18, "run", ""),
        ("python", 23, "skip", "needs a TPU"),
        ("console", 26, "", ""),
    ]
    assert result[2].code == "import mine\n"
    assert [commands(block) for block in (result[3], result[5])] == [
        ["python -c 'import mine'"],
        ["ltrobust train --config=digits"],
    ]


@pytest.mark.usefixtures("_only_parsed")
@pytest.mark.parametrize(
    "command",
    [
        "ltrobust train --config=digits --config.student.epochs=2 --workdir=runs/a",
        "JAX_PLATFORMS=cpu python -m ltrobust compare runs/a runs/b --html=page.html",
        ".venv/bin/pip install -e '.[test]' && .venv/bin/python main.py --config=configs/digits.py",
        "ltrobust sweep --help",
        "python -m tools.check_pages",
        "nvidia-smi",
    ],
)
def test_commands_that_exist_pass(command):
    check_command(command)


@pytest.mark.usefixtures("_only_parsed")
@pytest.mark.parametrize(
    "command",
    [
        "ltrobust train --config=digits --config.student.epoch=2",
        "ltrobust trian",
        "python -m ltrobust compare runs/a --hmtl=page.html",
        "pip install -e '.[tests]'",
        "python -m tools.gone",
        "python gone.py",
    ],
)
def test_commands_that_do_not_exist_are_found(command):
    with pytest.raises((AssertionError, SystemExit)):
        check_command(command)
