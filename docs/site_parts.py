"""Parts of the site that Sphinx lacks: formulas as MathML, and pages of the files and folders that are linked."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.highlighting import PygmentsBridge
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

LOGGER = logging.getLogger(__name__)
FOLDER = "source"
LANGUAGES = {
    ".py": "python",
    ".toml": "toml",
    ".json": "json",
    ".sh": "bash",
    "": "bash",
    ".txt": "text",
    ".cff": "yaml",
}
LARGEST = 200_000  # bytes of a file that is shown


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.config.html_math_renderer = "mathml"  # type: ignore[attr-defined]
    # Before Sphinx copies the files that are linked.
    app.connect("doctree-read", _link_sources, priority=100)
    app.connect("env-purge-doc", lambda app, env, docname: _linked(env).pop(docname, None))
    app.connect("doctree-resolved", _address_sources)
    app.connect("html-collect-pages", _source_pages)
    # After the theme has written the list of all pages, which would be most of every source file's page.
    app.connect("html-page-context", _without_navigation, priority=900)
    return {"version": "1", "parallel_read_safe": False}


def _inline(self: HTML5Translator, node: nodes.Element) -> None:
    self.body.append(latex2mathml.tex2mathml(node.astext()))
    raise nodes.SkipNode


def _block(self: HTML5Translator, node: nodes.Element) -> None:
    self.body.append(f'<div class="math">{latex2mathml.tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def _linked(env: Any) -> dict[str, set[str]]:
    """Page -> the files and folders that it links, by their paths from the root of the checkout."""
    if not hasattr(env, "linked_sources"):
        env.linked_sources = {}
    return env.linked_sources


def _link_sources(app: Sphinx, doctree: nodes.document) -> None:
    """Replaces links to files and folders that are no pages by references to their own pages."""
    root, docname = Path(app.srcdir), app.env.docname
    found = _linked(app.env).setdefault(docname, set())
    for node in [*doctree.findall(addnodes.download_reference), *doctree.findall(addnodes.pending_xref)]:
        target = node.get("reftarget", "")
        if isinstance(node, addnodes.pending_xref) and (node.get("refdomain") not in ("doc", "", None) or not target):
            continue
        if target == "README":  # the start page stands in for it
            node["reftarget"], node["reftargetid"] = app.config.root_doc, None
            continue
        path = (root / docname).parent / target
        if isinstance(node, addnodes.download_reference):
            path = Path(app.env.relfn2path(target, docname)[1])
        if not path.exists() or (path.is_file() and path.suffix in (".md", ".ipynb")):
            continue
        name = path.resolve().relative_to(root).as_posix()
        found.add(name)
        link = nodes.reference("", "", *node.children, refuri="", source_file=name)
        node.replace_self(link)


def _address_sources(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Writes the relative addresses of pages of sources."""
    for node in doctree.findall(nodes.reference):
        if name := node.get("source_file"):
            node["refuri"] = app.builder.get_relative_uri(docname, _page(name))


def _page(name: str) -> str:
    return f"{FOLDER}/{name}" if name != "." else f"{FOLDER}/index"


def _source_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Name, context and template of the pages of all linked files, and of folders with what is in them."""
    root = Path(app.srcdir)
    left = sorted(set().union(*_linked(app.env).values()))
    done: set[str] = set()
    while left:
        name = left.pop()
        if name in done:
            continue
        done.add(name)
        path = root / name
        if path.is_dir():
            inside = _shown(path)
            left += [(PurePosixPath(name) / entry.name).as_posix() for entry in inside]
            body = _listing(app, name, inside)
        else:
            body = _highlighted(path)
        yield _page(name), {"parents": [], "title": name, "body": f"<h1>{name}</h1>{body}"}, "page.html"


def _without_navigation(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Leaves the list of pages out of the pages of sources."""
    if page.startswith(f"{FOLDER}/"):
        context["furo_navigation_tree"] = ""


def _shown(folder: Path) -> list[Path]:
    """What a folder's page lists."""
    entries = [path for path in folder.iterdir() if not path.name.startswith((".", "__pycache__"))]
    kept = [path for path in entries if path.is_dir() or (path.suffix in LANGUAGES and path.stat().st_size <= LARGEST)]
    return sorted(kept, key=lambda path: (path.is_file(), path.name))


def _listing(app: Sphinx, name: str, inside: list[Path]) -> str:
    rows = []
    for entry in inside:
        address = app.builder.get_relative_uri(_page(name), _page(f"{name}/{entry.name}"))
        rows.append(f'<li><a href="{address}"><code>{entry.name}{"/" if entry.is_dir() else ""}</code></a></li>')
    return f"<ul>{''.join(rows)}</ul>"


def _highlighted(path: Path) -> str:
    language = LANGUAGES.get(path.suffix, "text")
    # Colours of large files would take seconds.
    text = path.read_text()
    return PygmentsBridge("html").highlight_block(text, language if len(text) < LARGEST else "text")
