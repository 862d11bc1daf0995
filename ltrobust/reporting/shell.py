"""What every page here has around its sections: head, policy, style, links. No JAX."""

from collections.abc import Sequence

from ltrobust.reporting.markup import Element, document, element, paragraph, words
from ltrobust.reporting.style import STYLE

# Nothing may be fetched by a page, and nothing in it may run.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(name: str, kind: str, sections: Sequence[tuple[str, str, Sequence[Element], Sequence[str]]]) -> str:
    """One HTML file that needs nothing else.

    Args:
      name: the heading.
      kind: of page, for the window's title.
      sections: identity, title, content, and lines on what the section lacks.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", f"{name}: {kind}"),
        element("style", STYLE),
    )
    links = [element("a", title, href=f"#{identity}") for identity, title, _, _ in sections]
    made = [_section(*section) for section in sections]
    header = element("header", element("h1", name), element("nav", *links, aria_label="sections"))
    return document(element("html", head, element("body", header, element("main", *made)), lang="en"))


def _section(identity: str, title: str, content: Sequence[Element], lacks: Sequence[str]) -> Element:
    """A section, with a line for everything that it lacks."""
    said = [paragraph(words(line), class_="missing") for line in lacks]
    return element("section", element("h2", title), *content, *said, id=identity)
