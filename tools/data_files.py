"""Writes the table of published files of docs/guides/images.md from ltrobust/data/published.py. No JAX.

python -m tools.data_files
"""

import sys
from pathlib import Path

from ltrobust.data import published
from ltrobust.report.numbers import markdown
from tools.summary import rewrite

PAGE, MARKERS = "docs/guides/images.md", "data-files"


def table(root: Path) -> str:
    """Markdown: a row for each published file; data sets with the same files share their rows."""
    groups: dict[tuple[published.File, ...], dict[str, published.Published]] = {}
    for name, data in published.DATA.items():
        groups.setdefault(data.files, {})[name] = data
    rows = [["`data.name`", "file", "bytes", "checksum"]]
    for group in groups.values():
        title = ", ".join(f"[`{name}`]({data.page})" for name, data in group.items())
        for number, form in enumerate(next(iter(group.values())).forms):
            for file in form.files if any(file.checksum for file in form.files) else ():
                kind, _, checksum = file.checksum.partition(":")
                size = f"{file.size:,}" if file.size else "not known"
                link = f"{'or ' if number and file == form.files[0] else ''}[{file.name}]({file.url})"
                rows.append([title, link, size, f"{kind} `{checksum}`"])
                title = ""
    return markdown(rows)


def main(root: Path) -> None:
    """Rewrites the table of docs/guides/images.md under `root`."""
    rewrite(root / PAGE, table(root), MARKERS)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
