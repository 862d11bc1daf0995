"""Trains a balanced teacher and a distilled student, evaluates a checkpoint, or draws the page of a run.

python main.py --config=configs/digits.py [--workdir=DIR] [--mode=train|evaluate|report] [--config.key=value ...]
"""

import os
import pathlib
import sys
from typing import TYPE_CHECKING

from absl import app, flags, logging
from ml_collections import config_flags

if TYPE_CHECKING:
    from ltrobust.preemption import Preemption

_CONFIG = config_flags.DEFINE_config_file("config", "configs/digits.py", "Configuration file.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default: runs/<name of the configuration>.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate", "report"], "What to do.")


def main(arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise app.UsageError(f"not understood: {' '.join(arguments[1:])}; settings are given as --config.key=value.")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    # Orbax warns of every read-only opening; what matters of it comes as an exception.
    logging.get_absl_handler().addFilter(lambda record: "orbax" not in record.pathname)
    from ltrobust.preemption import EXIT_STATUS, Preempted, Preemption

    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    workdir = pathlib.Path(_WORKDIR.value or f"runs/{name}")
    preemption = Preemption()
    try:
        with preemption.listening():
            if _MODE.value != "report":
                _work(workdir, preemption)
            _draw(workdir, required=_MODE.value == "report")
    except Preempted as request:
        print(f"\nltrobust: {request}", file=sys.stderr)
        sys.exit(EXIT_STATUS)
    except (ValueError, OSError, FloatingPointError) as error:
        logging.debug("where it happened", exc_info=error)
        sys.exit(f"\nltrobust: {error}\n(--verbosity=1 shows where)")


def _work(workdir: pathlib.Path, preemption: "Preemption") -> None:
    """Trains or evaluates."""
    import jax

    from ltrobust import experiment

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/ltrobust/compiled"))
    {"train": experiment.train, "evaluate": experiment.evaluate}[_MODE.value](_CONFIG.value, workdir, preemption)


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
    """Parses flags; a mistake in a configuration file's name, key or value is told in one line."""
    try:
        return app.parse_flags_with_usage(arguments)
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        sys.exit(f"ltrobust: {error.args[-1] if isinstance(error, KeyError) else error}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
