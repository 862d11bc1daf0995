"""The program `ltrobust`: chooses the verb, and turns errors into messages and exit statuses.

ltrobust VERB ...                        each verb is a file of this folder
ltrobust [--mode=MODE] ...               `ltrobust MODE ...`, or `ltrobust train ...`
python main.py [--mode=MODE] ...         the same in a checkout
"""

import errno
import importlib
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import ltrobust
from ltrobust.commands.parser import UsageError, taken
from ltrobust.runtime.names import nearest
from ltrobust.runtime.preemption import EXIT_STATUS, Preempted
from ltrobust.runtime.terminal import accept_all_characters

VERBS = {
    "train": "train what is not trained yet, evaluate it, and write the card and the page",
    "evaluate": "evaluate a checkpoint and write its card",
    "diagnose": "find what separates the classes of evaluated networks",
    "report": "write the page of a run again",
    "compare": "compare evaluated networks image by image, or methods over seeds",
    "sweep": "do many runs, one after the other or as jobs, and make one table of them",
    "agree": "compare the input gradients of a student and a teacher",
    "offset": "raise the logit of a network's weakest class and evaluate it",
    "export": "write a network for PyTorch, safetensors or StableHLO, or its model card",
    "compile": "compile for TPUs or GPUs that need not be there: does it fit, what does it cost",
    "data": "print where a data set is published, and where to put its files",
    "config": "list the keys of a configuration with their meaning",
}
MODES = ("train", "evaluate", "diagnose", "report")
_HELP = {"-h", "-help", "--help", "-helpshort", "--helpshort"}
_VERSION = {"-version", "--version"}
# Below these the program ends without a message or with a traceback; `configs/digits.py` was measured.
_OPEN_FILES, _ADDRESS_SPACE = 64, 2_500_000_000
_FULL = "\nThe disk is full: free some space; the same command resumes from what is saved."
_DISK = "\nLook at the disk or the network share that the file is on; then give the same command again."
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EIO: _DISK,
    errno.ESTALE: _DISK,
    errno.EMFILE: "\nRaise the limit of open files with ulimit -n 4096; the same command resumes from what is saved.",
}


def run() -> None:
    """The commands `ltrobust`, `python -m ltrobust`, and `python main.py`."""
    accept_all_characters()
    call(sys.argv[1:], "main.py" if Path(sys.argv[0]).name == "main.py" else "ltrobust")


def call(arguments: Sequence[str], program: str = "ltrobust") -> None:
    """Does what the words of a command line say.

    Args:
      arguments: words after the program's name.
      program: its name in messages.

    Raises:
      SystemExit: what went wrong is printed. Status 2: a wrong call of a verb; without a verb it is 1, as it always was
        for `main.py`. 75: the process was asked to stop. 1: everything else.
    """
    verb = arguments[0] if arguments and not arguments[0].startswith("-") else ""
    title = f"{program} {verb}" if verb in VERBS else program
    try:
        _do(verb, arguments, program, title)
    except UsageError as error:
        end(f"{title}: {error}", 2 if verb else 1)
    except Preempted as request:
        end(f"\n{title}: {request}", EXIT_STATUS)
    except KeyboardInterrupt:
        end(f"\n{title}: interrupted.", 128 + signal.SIGINT)
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        end(f"{title}: {error}{advice(error)}", 1)


def _do(verb: str, arguments: Sequence[str], program: str, title: str) -> None:
    """Calls the verb's `main`, or prints the help or the version."""
    if _VERSION & set(arguments):
        print(f"ltrobust {ltrobust.__version__}")
    elif verb:
        if verb not in VERBS:
            raise UsageError(f"there is no verb {verb!r}; {nearest(verb, VERBS)}verbs: {', '.join(VERBS)}.")
        check_limits()
        importlib.import_module(f"ltrobust.commands.{verb}").main(arguments[1:], title)
    elif _HELP & set(arguments):
        print(help_text(program))
    else:
        mode, words = split_mode(arguments)
        check_limits()
        module = importlib.import_module(f"ltrobust.commands.{mode}")
        # Without a verb, `diagnose` always evaluates first.
        (module.main_of_checkpoint if mode == "diagnose" else module.main)(words, title)


def split_mode(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The verb of a call without one, which is the last `--mode` or `train`, and its words.

    Raises:
      UsageError: an unknown mode.
    """
    modes, words = taken(arguments, "mode")
    mode = modes[-1] if modes else "train"
    if mode not in MODES:
        raise UsageError(f"--mode={mode} is unknown; {nearest(mode, MODES)}give one of {', '.join(MODES)}.")
    return mode, words


def help_text(program: str) -> str:
    """The list of verbs, one line each."""
    verbs = "\n".join(f"  {verb:10s}{text}" for verb, text in VERBS.items())
    return f"""usage: {program} VERB ...

Long-tailed adversarial robustness: training and evaluation.

verbs:
{verbs}

{program} VERB --help lists the flags of a verb; {program} --version prints the version.
Without a verb, the verb is train, or the one of --mode={"|".join(MODES)}."""


def check_limits() -> None:
    """Refuses limits on the process within which JAX ends it without a message, or the libraries with a traceback.

    Raises:
      ValueError: names the limit and the command that raises it.
    """
    files, space = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS))
    if 0 <= files < _OPEN_FILES:
        raise ValueError(f"the process may open {files} files; it needs at least {_OPEN_FILES}: ulimit -n 4096.")
    if 0 <= space < _ADDRESS_SPACE:
        raise ValueError(
            f"the process may use {space / 1e9:.1f} GB of address space; it needs at least {_ADDRESS_SPACE / 1e9:.1f} "
            "GB: ulimit -v unlimited."
        )


def advice(error: Exception) -> str:
    """Advice on an error of the operating system, on a separate line; empty if there is none."""
    return _ADVICE.get(error.errno or 0, "") if isinstance(error, OSError) else ""


def end(message: str, status: int) -> NoReturn:
    """Ends the program with a message."""
    print(message, file=sys.stderr)
    sys.exit(status)
