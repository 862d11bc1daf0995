"""Long-tailed adversarial robustness: training that resists attack on every class, measurement that can be believed.

The public names are listed by `dir(ltrobust)` and imported when first used: tables and cards need no JAX.
`ltrobust.__version__` is also what the distribution is called; every room may read it.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltrobust import attacks, data, methods, models
    from ltrobust.analysis.evaluation import Evaluation
    from ltrobust.api import Run, open_run, train
    from ltrobust.data.dataset import Dataset
    from ltrobust.evaluator import evaluate
    from ltrobust.recipes import config
    from ltrobust.threat import Threat

__all__ = [
    "Dataset",
    "Evaluation",
    "Run",
    "Threat",
    "__version__",
    "attacks",
    "config",
    "data",
    "evaluate",
    "methods",
    "models",
    "open_run",
    "train",
]
__version__ = "0.1.0"

# Where each public name comes from; the name of a module alone is a module.
_PUBLIC = {
    "Dataset": "ltrobust.data.dataset",
    "Evaluation": "ltrobust.analysis.evaluation",
    "Run": "ltrobust.api",
    "Threat": "ltrobust.threat",
    "config": "ltrobust.recipes",
    "evaluate": "ltrobust.evaluator",
    "open_run": "ltrobust.api",
    "train": "ltrobust.api",
}
_MODULES = ("attacks", "data", "methods", "models")


# `python -m ltrobust.NAME` imports this package before it looks for NAME, with "-m" as the program's name.
if sys.argv[:1] == ["-m"]:
    from ltrobust.commands import moved

    moved.check(sys.orig_argv, sys.argv)


def __getattr__(name: str) -> Any:
    """The public names, imported on demand."""
    if name in _MODULES:
        return importlib.import_module(f"ltrobust.{name}")
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'ltrobust' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted(__all__)
