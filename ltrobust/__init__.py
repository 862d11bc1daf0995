"""Long-tailed adversarial robustness: training that resists attack on every class, measurement that can be believed.

`ltrobust.evaluate` and `ltrobust.Threat` are imported when first used: tables and cards need no JAX.
`ltrobust.__version__` is also what the distribution is called; every room may read it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltrobust import methods, models
    from ltrobust.evaluation.evaluate import evaluate
    from ltrobust.evaluation.evaluation import Evaluation
    from ltrobust.threat import Threat

__all__ = ["Evaluation", "Threat", "__version__", "evaluate", "methods", "models"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The public names, imported on demand."""
    if name in ("methods", "models"):
        import importlib

        return importlib.import_module(f"ltrobust.{name}")
    if name == "evaluate":
        from ltrobust.evaluation.evaluate import evaluate

        return evaluate
    if name == "Evaluation":
        from ltrobust.evaluation.evaluation import Evaluation

        return Evaluation
    if name == "Threat":
        from ltrobust.threat import Threat

        return Threat
    raise AttributeError(f"module 'ltrobust' has no attribute {name!r}")
