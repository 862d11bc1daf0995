"""Trains a balanced teacher and a distilled student, evaluates a checkpoint, or draws the page of a run.

ltrobust --config=configs/digits.py [--workdir=DIR] [--mode=train|evaluate|diagnose|report] [--config.key=value ...]
ltrobust --config=configs/published.py:robal_n ...
ltrobust --mode=evaluate --workdir=DIR [--config.key=value ...]

A configuration that does not lie here is looked for among those that come with the package (ltrobust/recipes.py).
Without --config, evaluate, diagnose and report use the one that the workdir's config.json records.
A method or a network of your own: --code=FILE.py loads the file that registers it (docs/extending.md).
ltrobust config [NAME] [--code=FILE.py] lists every key with its meaning: of a configuration, or under a key.
Several processes, one per host: --coordinator=HOST:PORT --num_processes=N --process_id=K, on a Cloud TPU nothing
(docs/tpu.md).
"""

import errno
import os
import pathlib
import re
import resource
import signal
import sys
import traceback
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

import ltrobust
from ltrobust import recipes, registry
from ltrobust.commands import diagnose, recorded
from ltrobust.runtime.terminal import accept_all_characters

# Below these the program ends without a message or with a traceback; `configs/digits.py` was measured.
_OPEN_FILES, _ADDRESS_SPACE = 64, 2_500_000_000
_FULL = "\nThe disk is full: free some space; the same command goes on from what is saved."
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EMFILE: "\nRaise the limit of open files with ulimit -n 4096; the same command goes on from what is saved.",
}
_DEFAULT = "configs/digits.py"
_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    f"Configuration file; default: the workdir's config.json, for training {_DEFAULT}.",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default: runs/<name of the configuration>.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "HOST:PORT of process 0; auto: found out from Cloud TPU, Slurm, Open MPI or Kubernetes."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes the run has.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
_PATIENCE = flags.DEFINE_integer("patience", 60, "Seconds after which processes give one another up.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate", "diagnose", "report"], "What to do.")
_ADOPT = flags.DEFINE_bool(
    "adopt", False, "Use a workdir that is neither empty nor a run's; its files stay as they are."
)
_CODE = flags.DEFINE_multi_string(
    "code", [], "Python file, or module by name, to import first: it registers methods and networks. May be repeated."
)
_VERSION = flags.DEFINE_bool("version", False, "Print the version and end.")
_OWN = (_WORKDIR, _COORDINATOR, _NUM_PROCESSES, _PROCESS_ID, _PATIENCE, _MODE, _ADOPT, _CODE, _VERSION)
FLAGS = ("config", *(flag.name for flag in _OWN))


def run() -> None:
    """The command `ltrobust`, `python -m ltrobust`, and `main.py`."""
    accept_all_characters()
    program = sys.modules["__main__"]
    program.__doc__ = program.__doc__ or __doc__  # what absl prints for --help ...
    for name in FLAGS:  # ... with the flags that it counts as the program's own
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
    app.run(main, flags_parser=parse)


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


def main(arguments: list[str]) -> None:
    if len(arguments) > 1:
        sys.exit(f"ltrobust: not understood: {' '.join(arguments[1:])}; settings are given as --config.key=value.")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    # Orbax warns of every read-only opening, and asyncio of what a failed save leaves; what matters is an exception.
    logging.get_absl_handler().addFilter(lambda record: "orbax" not in record.pathname and record.name != "asyncio")
    import jax

    from ltrobust import run as runs
    from ltrobust.runtime import processes
    from ltrobust.runtime.preemption import EXIT_STATUS, Preempted, Preemption

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/ltrobust/compiled"))
    # A recipe's name follows the file's: configs/published.py:robal_n.
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).name.replace(".py", "", 1)
    workdir = pathlib.Path(_WORKDIR.value or f"runs/{name.replace(':', '_')}")
    preemption = Preemption()
    try:
        processes.start(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value, _PATIENCE.value)
        processes.check_devices()
        with preemption.listening():
            if _MODE.value != "report":
                work = {"train": runs.train, "evaluate": runs.evaluate, "diagnose": diagnose.evaluate_first}
                work[_MODE.value](_CONFIG.value, workdir, preemption, adopt=_ADOPT.value)
            if processes.first():
                _draw(workdir, required=_MODE.value == "report")
    except Preempted as request:
        processes.leave(str(request), EXIT_STATUS)
    except KeyboardInterrupt:
        processes.leave("interrupted; the same command goes on from what is saved.", 128 + signal.SIGINT)
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        logging.debug("where it happened", exc_info=error)
        advice = _ADVICE.get(error.errno or 0, "") if isinstance(error, OSError) else ""
        processes.leave(f"{error}{advice}\n(--verbosity=1 shows where)", 1)
    except Exception:
        # A mistake of this program's. Alone it may end as it likes; of several, none may wait for this one.
        if not jax.distributed.is_initialized():
            raise
        processes.leave(traceback.format_exc(), 1)


def _draw(workdir: pathlib.Path, *, required: bool) -> None:
    """Writes the run's page. Unless it was asked for, a failure is one line: what was computed is not undone by it."""
    from ltrobust.runtime.preemption import Preempted

    data = _CONFIG.value.data
    try:
        from ltrobust.report import run_page

        print(f"report: {run_page.write(workdir, data_dir=data.dir, cache_dir=data.cache_dir)}")
    except Exception as error:
        if required or isinstance(error, Preempted):
            raise
        logging.debug("where it happened", exc_info=error)
        print(f"ltrobust: no report: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)


def parse(arguments: list[str]) -> list[str]:
    """Parses flags; a mistake in a configuration file, or in its name, a key or a value, is told in one line."""
    if {"--version", "-version"} & set(arguments[1:]):
        print(f"ltrobust {ltrobust.__version__}")
        sys.exit(0)
    try:
        check_limits()
    except ValueError as error:
        sys.exit(f"ltrobust: {error}")
    recipes.importable()
    _load_code(_taken(arguments[1:], "code")[0])
    words = _taken(arguments[1:], "code")[1]
    if words[:1] == ["config"]:
        _list_keys(words[1:])
    given, rest = _taken(arguments[1:], "config")
    name = given[-1] if given else _default(rest)
    # The flags' own messages on configurations hold tracebacks: what is wrong with one is found before.
    try:
        config = recipes.load(name)
    except FileNotFoundError as error:
        sys.exit(f"ltrobust: {error}")
    except Exception as error:  # a configuration is a program: anything may be raised in it
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        shown = name.removeprefix(f"{recorded.__file__}:")
        advice = "" if shown == name else "\nTo use another configuration, give --config=FILE."
        sys.exit(f"ltrobust: the configuration {shown} cannot be read: {kind}{error}{advice}")
    try:
        for word in rest:
            if override := re.fullmatch(r"--?(?:no)?config\.([^=]+)(?:=(.*))?", word, re.DOTALL):
                recipes.check_override(config, *override.groups())
    except ValueError as error:
        sys.exit(f"ltrobust: {error}")
    return app.parse_flags_with_usage([*arguments[:1], f"--config={recipes.find(name)}", *rest])


def _load_code(names: list[str]) -> None:
    """Imports the user's own files; a mistake in one is reported in one line."""
    for name in names:
        try:
            registry.load_code(name)
        except Exception as error:  # a file is a program: anything may be raised in it
            kind = "" if isinstance(error, ValueError) else f"{name} cannot be loaded: {type(error).__name__}: "
            sys.exit(f"ltrobust: {kind}{error}")


def _list_keys(names: list[str]) -> NoReturn:
    """Prints the keys of a configuration, or those under a key, and ends."""
    if len(names) > 1 or any(name.startswith("-") for name in names):
        sys.exit(f"ltrobust: config takes one name and --code=FILE.py; it cannot take {' '.join(names)}.")
    from ltrobust.commands import config as config_listing  # with JAX, so after the limits are checked

    try:
        print(config_listing.render(*names))
    except Exception as error:  # a configuration is a program: anything may be raised in it
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        sys.exit(f"ltrobust: {kind}{error}")
    sys.exit(0)


def _taken(arguments: list[str], flag: str) -> tuple[list[str], list[str]]:
    """The values that a flag is given among the words, and the other words."""
    values, rest, words = [], [], iter(arguments)
    for word in words:
        name, sign, value = word.partition("=")
        if name in (f"--{flag}", f"-{flag}"):
            values.append(value if sign else next(words, ""))
        else:
            rest.append(word)
    return values, rest


def _default(arguments: list[str]) -> str:
    """The configuration where none is given: the workdir's own, unless it is to be trained; else the package's."""
    modes, workdirs = (_taken(arguments, flag)[0] for flag in ("mode", "workdir"))
    file = pathlib.Path(workdirs[-1] if workdirs else "") / "config.json"
    if workdirs and modes and modes[-1] != "train" and file.is_file():
        return f"{recorded.__file__}:{file}"
    return _DEFAULT
