"""JSON on disk: whole files or none, and nothing in them that is not JSON."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Writes JSON beside the target and renames it, so that a reader never sees half a file."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(without_nan(value), indent=1, sort_keys=True, allow_nan=False) + "\n")
    partial.replace(path)


def without_nan(value: Any) -> Any:
    """The value with null for every number that is not finite, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
