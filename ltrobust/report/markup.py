"""HTML and SVG as element trees. No JAX.

Strings become text or attribute values and are escaped when the tree is written, so nothing that comes from outside can
become markup.
"""

import re
import xml.etree.ElementTree as tree
from collections.abc import Mapping, Sequence
from typing import Any

Element = tree.Element
NOTHING = "-"


def element(name: str, /, *children: Element | str | None, **attributes: Any) -> Element:
    """An element with children in order; `class_="a"` is the attribute `class`, `stroke_width=2` is `stroke-width`.

    None is left out, as a child and as an attribute's value.
    """
    plain = {key.rstrip("_").replace("_", "-"): str(value) for key, value in attributes.items() if value is not None}
    made = tree.Element(name, plain)
    for child in children:
        if isinstance(child, str):
            if len(made):
                made[-1].tail = (made[-1].tail or "") + child
            else:
                made.text = (made.text or "") + child
        elif child is not None:
            made.append(child)
    return made


def document(root: Element) -> str:
    """The page's text."""
    return "<!DOCTYPE html>\n" + tree.tostring(root, encoding="unicode", method="html") + "\n"


def percent(value: float | None, digits: int = 1, *, sign: bool = False) -> str:
    """A fraction in percent, `34.1`; a dash where there is none (JSON has null for NaN)."""
    return NOTHING if value is None else f"{100 * value:{'+' if sign else ''}.{digits}f}"


def interval(estimate: Mapping[str, Any], *, sign: bool = False) -> str:
    """A value with its interval in percent: `34.1 [33.0, 35.2]`."""
    if estimate["value"] is None:
        return NOTHING
    low, high = percent(estimate["low"], sign=sign), percent(estimate["high"], sign=sign)
    return f"{percent(estimate['value'], sign=sign)} [{low}, {high}]"


def table(header: Sequence[str], rows: Sequence[Sequence[str | Element]], class_: str | None = None) -> Element:
    """A table that scrolls inside itself where the page is narrow; the first cell of a row names it.

    A row of one cell is a title over the rows below it.
    """
    head = element("tr", *(element("th", cell, scope="col") for cell in header))
    body = [
        element(
            "tr",
            element("th", row[0], scope="row")
            if len(row) > 1
            else element("th", row[0], scope="rowgroup", colspan=len(header), class_="title"),
            *(element("td", cell) for cell in row[1:]),
        )
        for row in rows
    ]
    whole = element("table", element("thead", head), element("tbody", *body), class_=class_)
    # Reachable by keyboard, because it may have to be scrolled.
    return element("div", whole, class_="scroll", tabindex="0", role="region", aria_label=" / ".join(header)[:80])


def folded(title: str, *content: Element | None) -> Element:
    """Content that is shown when it is asked for."""
    return element("details", element("summary", title), *content)


def figure(title: str, chart: Element, *below: Element | str | None) -> Element:
    """A chart under its title."""
    return element("figure", element("figcaption", title), chart, *below)


def words(text: str) -> Element:
    """Text whose options, `--name=value`, are not broken at their hyphens as long as they fit on a line."""
    pieces = re.split(r"(--\S*[^\s.,;:)])", text)
    return element("span", *(element("code", p, class_="word") if p.startswith("--") else p for p in pieces))


def paragraph(*content: Element | str, class_: str | None = None) -> Element:
    """A paragraph."""
    return element("p", *content, class_=class_)
