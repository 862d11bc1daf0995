"""One HTML file that needs nothing else: head, links to the sections, the sections. No JAX, no script."""

from collections.abc import Sequence

from ltrobust.report.markup import Element, document, element
from ltrobust.report.style import STYLE

# A page may fetch nothing; its pictures are part of it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def whole(name: str, kind: str, sections: Sequence[tuple[str, str, Sequence[Element]]]) -> str:
    """The text of a page.

    Args:
      name: what it is about.
      kind: what it is, for the title of the window: `report`.
      sections: identity, title and content of each, in order.
    """
    links = [element("a", title, href=f"#{identity}") for identity, title, _ in sections]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", f"{name}: ltrobust {kind}"),
        element("style", STYLE),
    )
    header = element("header", element("h1", name), element("nav", *links, aria_label="sections"))
    made = [element("section", element("h2", title), *content, id=identity) for identity, title, content in sections]
    return document(element("html", head, element("body", header, element("main", *made)), lang="en"))
