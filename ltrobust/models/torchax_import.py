"""Imports torchax. The one place that knows which versions of torchax and PyTorch work together.

torchax 0.0.13 lists overloads of operations for tensors with named dimensions, such as `aten.prod.dim_Dimname` and
`aten.norm.names_out`. PyTorch 2.13 removed them, so that the import fails with an AttributeError. During the import
a placeholder stands for each of them, which no module can call.
"""

import contextlib
import importlib
import re
from collections.abc import Iterator
from typing import Any

from ltrobust.models import torchax_convolution
from ltrobust.models.torch_files import optional

_NAMED = re.compile(r"dimname|\bnames|_names", re.IGNORECASE)


def import_torchax() -> Any:
    """The module `torchax`.

    Raises:
      ValueError: it is not installed, or cannot be imported with this version of PyTorch.
    """
    torch = optional("torch")
    try:
        with placeholders_for_named_overloads(importlib.import_module("torch._ops").OpOverloadPacket):
            torchax = importlib.import_module("torchax")
            torchax.default_env()  # imports the tables of operations
            torchax_convolution.replace(torchax, torch)
            return torchax
    except ModuleNotFoundError as error:
        raise ValueError("torchax is not installed; run: pip install -e '.[torch]'") from error
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"torchax cannot be imported with torch {torch.__version__} ({error}); run: pip install -e '.[torch]'"
        ) from error


@contextlib.contextmanager
def placeholders_for_named_overloads(packet: Any) -> Iterator[None]:
    """Lets an operation's overloads for named dimensions be looked up although PyTorch has none."""
    original = packet.__getattr__

    def look_up(self: Any, name: str) -> Any:
        try:
            return original(self, name)
        except AttributeError:
            if _NAMED.search(name):
                return object()
            raise

    packet.__getattr__ = look_up
    try:
        yield
    finally:
        packet.__getattr__ = original
