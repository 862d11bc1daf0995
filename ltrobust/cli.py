"""Trains a balanced teacher and a distilled student, evaluates a checkpoint, or draws the page of a run.

ltrobust --config=configs/digits.py [--workdir=DIR] [--mode=train|evaluate|diagnose|report] [--config.key=value ...]
ltrobust --config=configs/published.py:robal_n ...

A configuration that does not lie here is looked for among those that come with the package (ltrobust/recipes.py).
Several processes, one per host: --coordinator=HOST:PORT --num_processes=N --process_id=K, on a Cloud TPU nothing
(docs/tpu.md).
"""

import errno
import os
import pathlib
import signal
import sys
import traceback

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from ltrobust import recipes

_CONFIG = config_flags.DEFINE_config_file("config", "configs/digits.py", "Configuration file.", lock_config=True)
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
_OWN = (_WORKDIR, _COORDINATOR, _NUM_PROCESSES, _PROCESS_ID, _PATIENCE, _MODE, _ADOPT)
_FLAGS = ("config", *(flag.name for flag in _OWN))


def run() -> None:
    """The command `ltrobust`, and `main.py`."""
    program = sys.modules["__main__"]
    program.__doc__ = program.__doc__ or __doc__  # what absl prints for --help ...
    for name in _FLAGS:  # ... with the flags that it counts as the program's own
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
    app.run(main, flags_parser=parse)


def main(arguments: list[str]) -> None:
    if len(arguments) > 1:
        sys.exit(f"ltrobust: not understood: {' '.join(arguments[1:])}; settings are given as --config.key=value.")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    # Orbax warns of every read-only opening, and asyncio of what a failed save leaves; what matters is an exception.
    logging.get_absl_handler().addFilter(lambda record: "orbax" not in record.pathname and record.name != "asyncio")
    import jax

    from ltrobust import experiment, processes
    from ltrobust.preemption import EXIT_STATUS, Preempted, Preemption

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/ltrobust/compiled"))
    # A recipe's name follows the file's: configs/published.py:robal_n.
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).name.replace(".py", "", 1)
    workdir = pathlib.Path(_WORKDIR.value or f"runs/{name.replace(':', '_')}")
    preemption = Preemption()
    try:
        processes.start(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value, _PATIENCE.value)
        with preemption.listening():
            if _MODE.value != "report":
                work = {"train": experiment.train, "evaluate": experiment.evaluate, "diagnose": experiment.diagnose}
                work[_MODE.value](_CONFIG.value, workdir, preemption, adopt=_ADOPT.value)
            if processes.first():
                _draw(workdir, required=_MODE.value == "report")
    except Preempted as request:
        processes.leave(str(request), EXIT_STATUS)
    except KeyboardInterrupt:
        processes.leave("interrupted; the same command goes on from what is saved.", 128 + signal.SIGINT)
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        logging.debug("where it happened", exc_info=error)
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "\nThe disk is full: free some space; the same command goes on from what is saved." if full else ""
        processes.leave(f"{error}{advice}\n(--verbosity=1 shows where)", 1)
    except Exception:
        # A mistake of this program's. Alone it may end as it likes; of several, none may wait for this one.
        if not jax.distributed.is_initialized():
            raise
        processes.leave(traceback.format_exc(), 1)


def _draw(workdir: pathlib.Path, *, required: bool) -> None:
    """Writes the run's page. Unless it was asked for, a failure is one line: what was computed is not undone by it."""
    from ltrobust.preemption import Preempted

    data = _CONFIG.value.data
    try:
        from ltrobust import report

        print(f"report: {report.write(workdir, data_dir=data.dir, cache_dir=data.cache_dir)}")
    except Exception as error:
        if required or isinstance(error, Preempted):
            raise
        logging.debug("where it happened", exc_info=error)
        print(f"ltrobust: no report: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)


def parse(arguments: list[str]) -> list[str]:
    """Parses flags; a mistake in a configuration file, or in its name, a key or a value, is told in one line."""
    recipes.importable()
    try:
        rest = app.parse_flags_with_usage(_with_shipped(arguments))
        assert _CONFIG.value is not None
        if isinstance(_CONFIG.value, ConfigDict):  # else a stand-in that says, when it is used, why there is none
            recipes.check_keys(_CONFIG.value)
        return rest
    except (AttributeError, KeyError) as error:
        # ml_collections quotes the message on a key inside another one.
        text = str(error).replace("\\n", " ").replace("\\'", "'").strip("'\"")
        sys.exit(f"ltrobust: the configuration has no key '{text}")
    except OSError as error:
        sys.exit(f"ltrobust: {error}\nGive the path of a configuration, such as --config=configs/digits.py.")
    except Exception as error:  # a configuration is a program: anything may be raised in it
        sys.exit(f"ltrobust: the configuration cannot be read: {type(error).__name__}: {error}")


def _with_shipped(arguments: list[str]) -> list[str]:
    """The words, with a configuration that is not here replaced by the path of one that comes with the package."""
    words, value_follows = [], False
    for word in arguments:
        name, sign, value = word.partition("=")
        if value_follows:
            words.append(recipes.find(word))
        elif name in ("--config", "-config") and sign:
            words.append(f"{name}={recipes.find(value)}")
        else:
            words.append(word)
        value_follows = word in ("--config", "-config")
    return words
