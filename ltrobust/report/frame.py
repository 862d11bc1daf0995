"""Parts that all pages share: templates, tables, the script that draws charts, and figures as files. No JAX."""

import base64
import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.resources
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import numpy as np
from PIL import Image

from ltrobust.report.numbers import Interval, interval, percent
from ltrobust.runtime.files import write_text
from ltrobust.runtime.spreadsheets import csv_text

CACHE = Path("~/.cache/ltrobust")
_FIGURE_WIDTH = 480  # of a chart in a file, in pixels before scaling
# Vega and SVG refuse text with these, and vl-convert ends the process: some controls, line separators, lone surrogates.
_UNDRAWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


def _theme(ink: str, soft: str, rule: str) -> dict[str, Any]:
    """Differences between a light and a dark page."""
    text = {"labelColor": ink, "titleColor": soft, "titleFontWeight": "normal", "labelFontSize": 11}
    return {
        "background": "transparent",
        "font": "system-ui, sans-serif",
        "view": {"stroke": None},
        "axis": text
        | {"gridColor": rule, "domainColor": soft, "tickColor": soft, "labelLimit": 150}
        | {"labelSeparation": 6},
        "legend": text | {"labelLimit": 260},
        "text": {"color": ink},
        "rule": {"color": soft},
    }


THEMES = {"light": _theme("#1b1f24", "#59636e", "#d1d9e0"), "dark": _theme("#e6eaef", "#9aa5b1", "#36404b")}


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text under a header; a row of one cell is a title over the rows below it."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A chart with the table behind it.

    Attributes:
      name: of letters, digits and hyphens, unique on the page; it names files.
      title: above the chart; it also describes the chart to those who cannot see it.
      spec: Vega-Lite.
      table: the numbers of the chart.
      note: below the chart.
      wide: whether it takes the width of the page.
    """

    name: str
    title: str
    spec: Mapping[str, Any]
    table: Table
    note: str = ""
    wide: bool = False


def record(estimate: Interval, name: str, series: str = "", **more: Any) -> dict[str, Any]:
    """An estimate, a fraction, as a chart draws it: in percent, with its text."""
    value, low, high = (None if math.isnan(end) else 100 * end for end in (estimate.value, estimate.low, estimate.high))
    shown = {"name": name, "series": series, "value": value, "low": low, "high": high}
    return shown | {"text": f"{interval(estimate)} %"} | more


def png(pixels: np.ndarray) -> str:
    """A picture, uint8 [H,W,C] of 1, 3 or 4 channels, as a data URI."""
    content = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(content, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def triple(image: np.ndarray, adv_image: np.ndarray | None) -> list[tuple[str, str]]:
    """Data URI and description of an image, of the same after an attack, and of the change magnified.

    Args:
      image, adv_image: float [H,W,C] in [0,1]; without the second there is one picture.
    """
    shown = [("image", image)]
    if adv_image is not None:
        change = adv_image - image
        # An unchanged image has no change to magnify.
        times = 0.5 / max(float(np.abs(change).max()), 1 / 255)
        factor = f"{times:.1f}" if times < 3 else f"{times:.0f}"
        shown += [("adversarial image", adv_image), (f"change, {factor} times", 0.5 + times * change)]
    return [(png(np.round(255 * np.clip(drawn, 0, 1)).astype(np.uint8)), what) for what, drawn in shown]


def render(template: str, **context: Any) -> str:
    """The text of a page: one HTML file that needs no network.

    Its policy names the digests of its two scripts, so that no other script runs, whatever text the page holds.
    """
    scripts = [markupsafe.Markup(text) for text in _scripts()]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src " + " ".join(
        f"'sha256-{digest}'" for digest in digests
    )
    style = markupsafe.Markup(_file("style.css"))
    page = _environment().get_template(template)
    return page.render(scripts=scripts, policy=policy, style=style, themes=THEMES, **context)


def write_figures(folder: Path, figures: Sequence[Figure]) -> list[Path]:
    """Writes every figure as `NAME.svg` and `NAME.png`, and the table behind it as `NAME.csv` and `NAME.tex`.

    Args:
      folder: made if it is not there.
      figures: of a page.

    Returns:
      The files.

    Raises:
      ValueError: one of the files exists; nothing is overwritten.
    """
    import vl_convert

    wanted = [folder / f"{figure.name}.{kind}" for figure in figures for kind in ("svg", "png", "csv", "tex")]
    taken = next((path for path in wanted if path.exists() or path.is_symlink()), None)
    if taken is not None:
        raise ValueError(f"{taken} exists and is not overwritten; name another folder for the figures.")
    folder.mkdir(parents=True, exist_ok=True)
    version = vega_lite_version()
    config = THEMES["light"] | {"background": "white", "font": "sans-serif"}
    for figure in figures:
        spec = _drawable({**figure.spec, "width": _FIGURE_WIDTH})
        svg = vl_convert.vegalite_to_svg(spec, vl_version=version, config=config)
        png_bytes = vl_convert.vegalite_to_png(spec, vl_version=version, config=config, scale=3)
        (folder / f"{figure.name}.svg").write_text(svg, encoding="utf-8")
        (folder / f"{figure.name}.png").write_bytes(png_bytes)
        cells = csv_text([figure.table.header, *figure.table.rows])
        (folder / f"{figure.name}.csv").write_text(cells, encoding="utf-8", errors="backslashreplace")
        (folder / f"{figure.name}.tex").write_text(latex(figure.table), encoding="utf-8", errors="backslashreplace")
    return wanted


def _drawable(part: Any) -> Any:
    """A part of a specification, with a replacement character for each one that cannot be drawn."""
    if isinstance(part, str):
        return _UNDRAWABLE.sub("\ufffd", part)
    if isinstance(part, Mapping):
        return {key: _drawable(value) for key, value in part.items()}
    return [_drawable(value) for value in part] if isinstance(part, list | tuple) else part


_LATEX = {character: f"\\{character}" for character in "&%$#_{}"}
_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$", "\n": " "}


def latex(table: Table) -> str:
    """A `tabular` environment; a row of one cell spans all columns."""
    lines = [f"\\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}", "\\hline"]
    for place, row in enumerate([table.header, *table.rows]):
        cells = ["".join(_LATEX.get(character, character) for character in cell) for cell in row]
        if len(row) < len(table.header):
            cells = [f"\\multicolumn{{{len(table.header)}}}{{l}}{{{cells[0]}}}"]
        lines.append(" & ".join(cells) + r" \\" + (r" \hline" if place == 0 else ""))
    return "\n".join([*lines, "\\hline", "\\end{tabular}", ""])


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ltrobust.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "interval": interval, "options": _options, "json": _json}
    return environment


def _json(value: Any) -> markupsafe.Markup:
    """JSON for a script element. What could end the element, or begin a comment in it, is written as an escape."""
    text = json.dumps(_drawable(value), allow_nan=False, separators=(",", ":"))
    for character in "<>&'":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return markupsafe.Markup(text)


def _options(text: str) -> markupsafe.Markup:
    """Text whose options, `--name=value`, are set as code and not broken at their hyphens."""
    pieces = re.split(r"(--[\w.-]+=\(\S*\)|--\S*[^\s.,;:)])", text)  # a value may be a tuple
    code = markupsafe.Markup('<code class="word">{}</code>')
    return markupsafe.Markup("").join(code.format(part) if part.startswith("--") else part for part in pieces)


def _file(name: str) -> str:
    return (importlib.resources.files("ltrobust.report") / "templates" / name).read_text(encoding="utf-8")


@functools.cache
def _scripts() -> list[str]:
    """Vega with all that it needs, and the page's own script."""
    return [re.sub(r"</(?=script)", r"<\\/", text, flags=re.IGNORECASE) for text in (vega_script(), _file("charts.js"))]


def vega_script() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script, kept in the cache because bundling takes seconds."""
    import vl_convert

    path = CACHE.expanduser() / f"vega-{importlib.metadata.version('vl-convert-python')}-{vega_lite_version()}.js"
    with contextlib.suppress(OSError, ValueError):
        digest, _, text = path.read_text(encoding="utf-8").partition("\n")
        if digest == hashlib.sha256(text.encode()).hexdigest():
            return text
    text = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=vega_lite_version())
    text = text.replace("\r", "")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
    return text


def vega_lite_version() -> str:
    """Of Altair's schema, as vl-convert writes it: `6.4`."""
    import altair

    return ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
