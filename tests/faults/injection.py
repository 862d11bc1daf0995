"""What a fault is, which facts its message must hold, and the page that is made of the messages (docs/faults.md)."""

import contextlib
import dataclasses
import io
import pathlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from absl import app, flags, logging

from ltrobust.commands import launch
from ltrobust.commands import main as command

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "faults.md"
BEGIN, END = "<!-- faults:begin -->", "<!-- faults:end -->"
LONGEST = 400  # characters of a message on the page

# A run that trains for seconds: real digits, a network that is soon traced, both phases by one compiled program.
_PHASE = ("method=pgd_at", "subset=all", "remainder=drop", "epochs=2", "optimizer.drops=()", "attack.steps=1")
TINY = (
    "--config=configs/digits.py",
    "--config.data.imbalance_ratio=4.0",
    "--config.model.name=own:Normed",
    "--config.model.width=4",
    *(f"--config.{phase}.{setting}" for phase in ("teacher", "student") for setting in _PHASE),
    "--config.student.initialize=teacher",
    "--config.checkpoint.minutes=0",
    "--config.checkpoint.keep=100",  # so that nothing at all may disappear
    "--config.eval.protocol=validation",
    "--config.eval.limit=2",
    "--config.eval.also=()",
    "--config.eval.batch_size=64",
)
# The same without a teacher.
ALONE = (*TINY, "--config.student.initialize=scratch")


@dataclasses.dataclass(frozen=True)
class Reported:
    """What the user sees: what happens, and the message."""

    happens: str
    message: str


# Of a workdir.
MADE_ANEW = ("lock", "report.html", "metrics.csv")
# One text, or several; each a few words of a message, which may otherwise be worded as one likes.
Texts = str | tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the message of a fault must hold: the value that is wrong, what is allowed instead, and what to do.

    Empty where the message has no such thing. A fact is written as `plain` leaves the message (`DIR`, `SHA`, ...).
    """

    value: Texts
    allowed: Texts
    remedy: Texts

    def missing(self, text: str) -> list[str]:
        """The facts that a text lacks. A fact is found as whole words, and no two facts in the same place."""
        lacking = []
        for texts in (self.value, self.allowed, self.remedy):
            for fact in filter(None, (texts,) if isinstance(texts, str) else texts):
                # `student.epoch` is not in `student.epochs`.
                begin, end = r"(?<!\w)" * bool(re.match(r"\w", fact)), r"(?!\w)" * bool(re.search(r"\w\Z", fact))
                text, times = re.subn(begin + re.escape(fact) + end, "\0", text, count=1)
                lacking += [] if times else [fact]
        return lacking


@dataclasses.dataclass(frozen=True)
class Fault:
    """One row: a title, how the fault is made, the function that makes it, and the facts that it must be told with.

    The function itself asserts the exit status or the exception, and that nothing was deleted.
    """

    title: str
    how: str
    inject: Callable[["Place"], Reported]
    facts: Facts


FAULTS: list[Fault] = []


def fault(title: str, how: str, *, value: Texts, remedy: Texts, allowed: Texts = "") -> Callable:
    """Registers a function from a `Place` to what was `Told` there, with the facts that must be in it."""

    def register(inject: Callable[["Place"], Reported]) -> Callable[["Place"], Reported]:
        FAULTS.append(Fault(title, how, inject, Facts(value, allowed, remedy)))
        return inject

    return register


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a fault is injected: an empty folder, and a patch that is undone.

    `copy_finished` copies the workdir of a finished `TINY` run to a path; `uninterrupted` names that of an `ALONE` run.
    """

    folder: pathlib.Path
    patch: pytest.MonkeyPatch
    copy_finished: Callable[[pathlib.Path], pathlib.Path]
    uninterrupted: Callable[[], pathlib.Path]

    def main(self, *arguments: str, workdir: pathlib.Path | None = None) -> tuple[Any, str]:
        """Status and printed text of `main.py`, in this process. Whatever was in `folder` must still be there."""
        workdir = workdir or self.folder / "run"
        with unharmed(self.folder):
            return run_main(self.patch, *arguments, f"--workdir={workdir}")

    def refused(self, *arguments: str, workdir: pathlib.Path | None = None, writes: bool = False) -> Reported:
        """`main`, which must end with status 1; it `writes` nothing unless said."""
        before = sorted(self.folder.rglob("*"))
        status, text = self.main(*arguments, workdir=workdir)
        assert status == 1, (status, text)
        assert writes or sorted(self.folder.rglob("*")) == before
        return Reported("exit status 1" + ("" if writes else ", nothing is written"), last_words(text))

    def raised(self, error: type[Exception], call: Callable[[], Any]) -> Reported:
        """What a call says that must raise exactly this exception, and must not change the folder, but for its lock."""
        before = sorted(path for path in self.folder.rglob("*") if path.name != "lock")
        with unharmed(self.folder):
            reported = raised(error, call)
        assert sorted(path for path in self.folder.rglob("*") if path.name != "lock") == before
        return reported

    def finished(self, name: str = "run") -> pathlib.Path:
        """A copy of the finished run's workdir."""
        return self.copy_finished(self.folder / name)


def run_main(patch: pytest.MonkeyPatch, *arguments: str) -> tuple[Any, str]:
    """Status and printed text of `main.py` with these arguments, as a shell would see them."""
    words = ["main.py", *arguments]
    patch.setattr(sys, "argv", words)
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:
        delattr(flags.FLAGS, name)
    for name in launch.FLAGS:
        flags.FLAGS[name].unparse()
    flags.FLAGS.unparse_flags()
    printed, status = io.StringIO(), 0
    handler = logging.get_absl_handler().python_handler
    patch.setattr(handler, "stream", printed)
    patch.setattr(app, "run", lambda main, argv, flags_parser: main(flags_parser(argv)))
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), contextlib.chdir(ROOT):
        try:
            command.call(words[1:], words[0])
        except SystemExit as end:
            status = end.code or 0
    assert "Traceback" not in printed.getvalue(), printed.getvalue()
    return status, printed.getvalue()


@contextlib.contextmanager
def unharmed(folder: pathlib.Path, moved: tuple[pathlib.Path, ...] = ()) -> Iterator[None]:
    """Checks that every file in the folder is still there afterwards, with nothing but additions at its end.

    Folders that are `moved` are found under their names with `.damaged` behind. The run's page and `metrics.csv` are
    made again from other files.
    """
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in MADE_ANEW]
    before = {path: path.read_bytes() for path in files if ".orbax-checkpoint-tmp" not in str(path)}  # never finished
    yield
    for path, content in before.items():
        for old in moved:
            if path.is_relative_to(old):
                path = old.with_name(f"{old.name}.damaged") / path.relative_to(old)
        assert path.exists(), f"{path} was deleted"
        assert path.read_bytes().startswith(content), f"{path} was changed"


def last_words(text: str) -> str:
    """The message at the end of what was printed."""
    text = re.split(r"(?:main\.py|ltrobust)(?: [a-z]+)?: ", text)[-1]
    return text.replace("(--verbosity=1 shows where)", "")


def raised(error: type[Exception], call: Callable[[], Any]) -> Reported:
    """What a call says that must raise exactly this exception."""
    with pytest.raises(error) as result:
        call()
    assert type(result.value) is error
    return Reported(error.__name__, str(result.value))


def plain(message: str, folder: pathlib.Path) -> str:
    """A message on one line, the same on every machine."""
    text = message.replace(str(folder), "DIR").replace(str(ROOT), ".")
    for pattern, replacement in (
        (r"process \d+ on [^)]*", "process N on HOST"),
        (r" at 0x[0-9a-f]+", " at ADDRESS"),
        (r"\b[0-9a-f]{64}\b", "SHA"),
        (r"/[0-9a-f]{32}\b", "/FILE"),  # orbax draws its files' names
        (r"\s+", " "),
    ):
        text = re.sub(pattern, replacement, text)
    return text.strip()


def shortened(text: str) -> str:
    """A plain message as the page has it: without lists that grow, and not too long."""
    text = re.sub(r"(known( \w+)?: )[^.;]*", r"\1...", text).replace("|", "\\|")
    return text if len(text) <= LONGEST else text[:LONGEST].rpartition(" ")[0] + " ..."


def row(fault: Fault, happens: str, text: str) -> str:
    """A line of the table, for a plain message."""
    return f"| {fault.title} | {fault.how} | {happens} | {f'`{shortened(text)}`' if text else ''} |"


def page_rows() -> dict[str, str]:
    """The table's lines on the committed page, by title."""
    table = PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip().splitlines()[2:]
    return {line.split(" | ")[0].removeprefix("| "): line for line in table}


def write_page(found: dict[str, str]) -> None:
    """Puts rows into the page, in the order of `FAULTS`; rows that were not found now keep what they said."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    kept = page_rows() | found
    table = [
        "| fault | how it is made | what happens | message |",
        "|---|---|---|---|",
        *(kept[fault.title] for fault in FAULTS if fault.title in kept),
    ]
    lines = "\n".join(table)
    PAGE.write_text(f"{before}{BEGIN}\n{lines}\n{END}{rest.partition(END)[2]}")
