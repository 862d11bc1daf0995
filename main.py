"""Trains a balanced teacher and a distilled student, or evaluates a checkpoint.

python main.py --config=configs/digits.py [--workdir=DIR] [--mode=train|evaluate] [--config.key=value ...]
python main.py --config=configs/published.py:robal_n ...

Several processes, one per host: --coordinator=HOST:PORT --num_processes=N --process_id=K, on a Cloud TPU nothing
(docs/tpu.md).
"""

import os
import pathlib
import sys
import traceback

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", "configs/digits.py", "Configuration file.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default: runs/<name of the configuration>.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "HOST:PORT of process 0; auto: found out from Cloud TPU, Slurm, Open MPI or Kubernetes."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes the run has.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
_PATIENCE = flags.DEFINE_integer("patience", 60, "Seconds after which processes give one another up.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do.")


def main(arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise app.UsageError(f"not understood: {' '.join(arguments[1:])}; settings are given as --config.key=value.")
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
            {"train": experiment.train, "evaluate": experiment.evaluate}[_MODE.value](
                _CONFIG.value, workdir, preemption
            )
    except Preempted as request:
        processes.leave(str(request), EXIT_STATUS)
    except (ValueError, OSError, FloatingPointError) as error:
        logging.debug("where it happened", exc_info=error)
        processes.leave(f"{error}\n(--verbosity=1 shows where)", 1)
    except Exception:
        # A mistake of this program's. Alone it may end as it likes; of several, none may wait for this one.
        if not jax.distributed.is_initialized():
            raise
        processes.leave(traceback.format_exc(), 1)


def parse(arguments: list[str]) -> list[str]:
    """Parses flags; a mistake in a configuration file's name, key or value is told in one line."""
    try:
        return app.parse_flags_with_usage(arguments)
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        sys.exit(f"ltrobust: {error.args[-1] if isinstance(error, KeyError) else error}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
