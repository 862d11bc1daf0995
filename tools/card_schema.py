"""Writes the JSON Schema of a result card, docs/card.schema.json, from the classes in ltrobust/analysis/schema/.

python -m tools.card_schema
"""

import json
from pathlib import Path

from ltrobust.analysis.schema.card import Card
from ltrobust.runtime import typed_json

ROOT = Path(__file__).resolve().parents[1]
FILE = Path("docs") / "card.schema.json"


def text() -> str:
    """The file's text."""
    return json.dumps(typed_json.schema(Card), indent=1) + "\n"


if __name__ == "__main__":
    (ROOT / FILE).write_text(text())
