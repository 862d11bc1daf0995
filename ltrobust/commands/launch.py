"""Shared by the verbs that take a configuration: flags, choice of the configuration, start and end of the work."""

import functools
import os
import pathlib
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from ltrobust import recipes
from ltrobust.commands import main, recorded
from ltrobust.commands.parser import CODE_HELP, Parser, UsageError, load_code, taken
from ltrobust.runtime import logs
from ltrobust.runtime import workdir as workdirs
from ltrobust.runtime.preemption import EXIT_STATUS, Preempted, Preemption

# Called with configuration, workdir, preemption, and `adopt`.
Work = Callable[..., Any]

_DEFAULT = "configs/digits.py"
_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    f"configuration file, FILE:RECIPE or a run's config.json; default: the workdir's, for training {_DEFAULT}",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run; default: runs/<name of the configuration>")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "HOST:PORT of process 0; auto: found out from Cloud TPU, Slurm, Open MPI or Kubernetes"
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "number of processes of the run")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "index of this process, starting at 0")
_PATIENCE = flags.DEFINE_integer("patience", 60, "timeout in seconds for processes that stop responding")
_CPU_DEVICES = flags.DEFINE_string(
    "cpu_devices", "", "devices that batches are divided over on a CPU: a number, or auto for the cores; default: 1"
)
_ADOPT = flags.DEFINE_bool(
    "adopt", False, "use a workdir that is neither empty nor a run's; its files stay as they are"
)
flags.DEFINE_multi_string("code", [], CODE_HELP)  # `resolve` reads it, before flags are parsed
# Flag -> what stands for its value in help; empty: it has none.
FLAGS = {
    "config": "FILE",
    "workdir": "DIR",
    "code": "FILE.py",
    "adopt": "",
    "coordinator": "HOST:PORT",
    "num_processes": "N",
    "process_id": "K",
    "patience": "SECONDS",
    "cpu_devices": "N",
}


def launch(
    arguments: Sequence[str],
    program: str,
    text: str | None,
    work: Work,
    *,
    trains: bool,
    computes: bool = True,
    more: Mapping[str, tuple[str, str]] = MappingProxyType({}),
) -> None:
    """Does a verb's work under the configuration and in the workdir that the words name.

    Args:
      arguments: words after the verb.
      program: name in messages, such as `ltrobust train`.
      text: what `--help` prints above the flags.
      work: what to do.
      trains: whether the work trains; other work takes the workdir's own configuration, unless one is given.
      computes: whether the work needs JAX's devices and may be shared by processes; the run's page is written then.
      more: flags that the verb has taken from the words itself -> what stands for the value in help, and the help.

    Raises:
      UsageError: a mistake in the words, in the configuration, or in a file that they name.
      SystemExit: the work has ended.
    """
    if {"-h", "-help", "--help"} & set(arguments):
        print(_help(program, text, more))
        return
    app.run(
        functools.partial(_launched, program, _compute if computes else _draw_alone, work),
        argv=[sys.argv[0], *arguments],
        flags_parser=lambda words: [words[0], *_parse(resolve(words[1:], trains=trains), program)],
    )


def resolve(words: Sequence[str], *, trains: bool) -> list[str]:
    """Adds the path of the configuration to the words, after importing `--code`.

    Raises:
      UsageError: a mistake in a configuration file, or in its name, a key or a value. The flags' own messages on these
        hold tracebacks.
    """
    recipes.importable()
    load_code(taken(words, "code")[0])
    given, rest = taken(words, "config")
    name = given[-1] if given else _default(rest, trains)
    if name.endswith(".json") and pathlib.Path(name).is_file():  # a run's record, which belongs to the run's folder
        if not taken(rest, "workdir")[0]:
            rest = [f"--workdir={pathlib.Path(name).parent}", *rest]
        name = f"{recorded.__file__}:{name}"
    try:
        config = recipes.load(name)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from error
    except Exception as error:  # a configuration is a program: anything may be raised in it
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        shown = name.removeprefix(f"{recorded.__file__}:")
        advice = "" if shown == name else "\nTo use another configuration, give --config=FILE."
        raise UsageError(f"the configuration {shown} cannot be read: {kind}{error}{advice}") from error
    try:
        for word in rest:
            if override := re.fullmatch(r"--?(?:no)?config\.([^=]+)(?:=(.*))?", word, re.DOTALL):
                recipes.check_override(config, *override.groups())
    except ValueError as error:
        raise UsageError(str(error)) from error
    return [f"--config={recipes.find(name)}", *rest]


def _default(words: Sequence[str], trains: bool) -> str:
    """Default configuration: that of the workdir, except for training; else that of the package."""
    workdirs = taken(words, "workdir")[0]
    file = pathlib.Path(workdirs[-1] if workdirs else "") / "config.json"
    if workdirs and not trains and file.is_file():
        return f"{recorded.__file__}:{file}"
    return _DEFAULT


def _parse(words: Sequence[str], program: str) -> list[str]:
    """Sets the flags. Returns the words that are none.

    Raises:
      UsageError: an unknown flag, a value of another type, a surplus word.
    """
    try:
        surplus = flags.FLAGS([program, *words])[1:]
    except flags.Error as error:
        raise UsageError(str(error)) from error
    if surplus:
        raise UsageError(f"not understood: {' '.join(surplus)}; settings are given as --config.key=value.")
    return surplus


def _help(program: str, text: str | None, more: Mapping[str, tuple[str, str]]) -> str:
    """Flags in the form of all verbs."""
    parser = Parser(program, text)
    parser.add_argument("--config.KEY", metavar="VALUE", help="change a key; `ltrobust config` lists all of them")
    for name, value in FLAGS.items():
        form: dict[str, Any] = {"metavar": value} if value else {"action": "store_true"}
        parser.add_argument(f"--{name}", help=flags.FLAGS[name].help, **form)
    for name, (value, line) in more.items():
        parser.add_argument(f"--{name}", metavar=value, help=line)
    parser.add_argument("--verbosity", metavar="V", help="1 prints where an error happened; default: warnings only")
    return parser.format_help().rstrip()


def _launched(program: str, do: Callable[[str, Work, pathlib.Path], None], work: Work, arguments: list[str]) -> None:
    """Runs the work after flags are set."""
    del arguments  # none are left
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    logging.get_absl_handler().addFilter(logs.matters)
    # A recipe's name follows the file's: configs/published.py:robal_n.
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).name.replace(".py", "", 1)
    do(program, work, pathlib.Path(_WORKDIR.value or f"runs/{name.replace(':', '_')}"))


def _compute(program: str, work: Work, workdir: pathlib.Path) -> None:
    """Work with JAX, by all processes of the run, and then the page."""
    import jax

    from ltrobust.runtime import cores, processes

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/ltrobust/compiled"))
    preemption = Preemption()
    try:
        batch_sizes = [_CONFIG.value[phase].batch_size for phase in workdirs.PHASES]
        if _CPU_DEVICES.value:
            count = cores.count_devices(_CPU_DEVICES.value, batch_sizes, cores.usable())
            jax.config.update("jax_num_cpu_devices", count)
        processes.start(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value, _PATIENCE.value)
        processes.check_devices()
        alone = not _CPU_DEVICES.value and jax.default_backend() == "cpu" and jax.device_count() == 1
        if alone and (advice := cores.advice(batch_sizes, cores.usable())):
            print(advice, flush=True)
        with preemption.listening():
            work(_CONFIG.value, workdir, preemption, adopt=_ADOPT.value)
            if processes.first():
                _draw(workdir, program)
    except Preempted as request:
        processes.leave(str(request), EXIT_STATUS, program)
    except KeyboardInterrupt:
        processes.leave("interrupted; the same command resumes from what is saved.", 128 + signal.SIGINT, program)
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        processes.leave(_message(error), 1, program)
    except Exception:
        # A mistake of this program's. Alone it may end as it likes; of several, none may wait for this one.
        if not jax.distributed.is_initialized():
            raise
        processes.leave(traceback.format_exc(), 1, program)


def _draw_alone(program: str, work: Work, workdir: pathlib.Path) -> None:
    """Runs work that needs no device, in the first of several processes and without waiting for the others."""
    if _PROCESS_ID.value:
        return
    try:
        with Preemption().listening():
            work(_CONFIG.value, workdir)
    except (ValueError, OSError, MemoryError) as error:
        main.end(f"\n{program}: {_message(error)}", 1)


def _message(error: Exception) -> str:
    """Text of an error, with advice."""
    logging.debug("where it happened", exc_info=error)
    return f"{error}{main.advice(error)}\n(--verbosity=1 shows where)"


def _draw(workdir: pathlib.Path, program: str) -> None:
    """Writes the run's page. A failure is one line: what was computed is not undone by it."""
    data = _CONFIG.value.data
    try:
        from ltrobust.report import run_page

        print(f"report: {run_page.write(workdir, data_dir=data.dir, cache_dir=data.cache_dir)}")
    except Preempted:
        raise
    except Exception as error:
        logging.debug("where it happened", exc_info=error)
        print(f"{program}: no report: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
