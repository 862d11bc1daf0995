"""Long-tailed adversarial robustness: trains image classifiers that resist attack on every class, and measures it.

`dir(ltrobust)` lists the public names; each is imported on first use, because tables and cards do not need JAX.
`ltrobust.__version__` is the version of the distribution.
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
    from ltrobust.models.torch_modules import from_torch
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
    "from_torch",
    "methods",
    "models",
    "open_run",
    "train",
]
__version__ = "0.1.0"

# Public name -> the module that defines it.
_PUBLIC = {
    "Dataset": "ltrobust.data.dataset",
    "Evaluation": "ltrobust.analysis.evaluation",
    "Run": "ltrobust.api",
    "Threat": "ltrobust.threat",
    "config": "ltrobust.recipes",
    "evaluate": "ltrobust.evaluator",
    "from_torch": "ltrobust.models.torch_modules",
    "open_run": "ltrobust.api",
    "train": "ltrobust.api",
}
_MODULES = ("attacks", "data", "methods", "models")


# `python -m ltrobust.NAME` imports this package before it looks for NAME, with "-m" as the program's name.
if sys.argv[:1] == ["-m"]:
    from ltrobust.commands import moved

    moved.check(sys.orig_argv, sys.argv)


def __getattr__(name: str) -> Any:
    """Imports a public name on first use."""
    if name in _MODULES:
        return importlib.import_module(f"ltrobust.{name}")
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'ltrobust' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted(__all__)
