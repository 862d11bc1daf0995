"""Figures as files: every chart as SVG and PNG, every table as CSV and LaTeX, nothing overwritten."""

import csv
import io
import subprocess
import sys
import xml.etree.ElementTree

import fabricated
import numpy as np
import pytest
from pages import HOSTILE
from PIL import Image

from ltrobust.report import charts, frame, page, run_page
from ltrobust.report.frame import Figure, Table


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    fabricated.write_run(workdir, names=HOSTILE)
    return page.figures(run_page.gather(workdir, cache_dir=""))


@pytest.mark.slow
def test_every_figure_of_the_page_is_written(figures, tmp_path):
    chosen = [figure for figure in figures if figure.name in ("classes-worst", "confusion", "student-accuracy")]
    assert len(chosen) == 3
    written = frame.write_figures(tmp_path / "new" / "figures", chosen)
    assert {path.name for path in (tmp_path / "new" / "figures").iterdir()} == {path.name for path in written}
    assert len(written) == 4 * 3
    for figure in chosen:
        base = tmp_path / "new" / "figures" / figure.name
        assert "<script" not in base.with_suffix(".svg").read_text()
        assert np.asarray(Image.open(base.with_suffix(".png"))).std() > 0
        rows = list(csv.reader(io.StringIO(base.with_suffix(".csv").read_text())))
        cells = [list(figure.table.header), *map(list, figure.table.rows)]
        # A spreadsheet would run the name `-->`.
        assert rows == [["'" * cell.startswith("--") + cell for cell in row] for row in cells]
        assert figure.name != "classes-worst" or any(cell.startswith("'-->") for row in rows for cell in row)
        assert base.with_suffix(".tex").read_text().startswith("\\begin{tabular}{l")


@pytest.mark.slow
def test_the_command_writes_the_figures_and_the_page(figures, tmp_path):
    (tmp_path / "run").mkdir()
    fabricated.write_run(tmp_path / "run", names=HOSTILE)
    words = ["-m", "ltrobust", "report", f"--workdir={tmp_path / 'run'}", f"--figures={tmp_path / 'figures'}"]
    result = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=300)
    assert f"figures: {4 * len(figures)} files in {tmp_path / 'figures'}" in result.stdout, result.stderr
    assert (tmp_path / "run" / "report.html").is_file()
    assert len(list((tmp_path / "figures").iterdir())) == 4 * len(figures)


def test_commands_import_altair_and_vega_only_to_draw():
    modules = "ltrobust.report.run_page, ltrobust.report.frame, ltrobust.commands.compare, ltrobust.commands.diagnose"
    code = f"import sys, {modules}; sys.exit(bool({{'altair', 'vl_convert', 'pandas', 'jax'}} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_names_of_figures_are_unique_and_safe(figures):
    assert len({figure.name for figure in figures}) == len(figures) > 10
    assert all(figure.name.replace("-", "").replace("_", "").isalnum() for figure in figures)


def test_a_column_of_any_name_has_a_safe_file(tmp_path):
    def change(card):
        card["protocol"]["headline"] = card["protocol"]["combined"][-1][0] = "../../a<b>"
        for network in card["networks"].values():
            for part in (network["columns"], network["confusion"]):
                part["../../a<b>"] = part.pop("worst")

    fabricated.change_card(fabricated.write_run(tmp_path, skills={"student/last": 0.8}), change)
    assert "classes-------a-b-" in {figure.name for figure in page.figures(run_page.gather(tmp_path, cache_dir=""))}


def test_a_file_that_is_there_stays(tmp_path):
    (tmp_path / "b.csv").write_text("mine")
    spec = charts.rows([{"name": "a", "series": "", "value": 1, "low": None, "high": None, "text": ""}], "x")
    figures = [Figure(name, "title", spec, Table(["a"], [["b"]])) for name in ("a", "b")]
    with pytest.raises(ValueError, match=r"b\.csv exists and is not overwritten"):
        frame.write_figures(tmp_path, figures)
    assert [path.name for path in tmp_path.iterdir()] == ["b.csv"]


def test_names_of_any_characters_are_drawn(tmp_path):
    """Without `frame`'s care vl-convert refuses line separators, and ends the process at control characters."""
    names = ["a\u2028b", "\x1b[31m", "\x00", "\udcff", "\ufffe"]
    shown = [{"name": name, "series": name, "value": 1, "low": 0, "high": 2, "text": name} for name in names]
    frame.write_figures(tmp_path, [Figure("a", "title", charts.rows(shown, "x"), Table(["a"], [names[:1]]))])
    drawn = xml.etree.ElementTree.parse(tmp_path / "a.svg")
    assert "a\ufffdb" in {element.text for element in drawn.iter()}


def test_latex_has_no_commands_from_outside():
    text = frame.latex(Table(["a & b", "%"], [["\\input{x}", "50 %"], ["$x_1^2$"]]))
    assert "\\textbackslash{}input\\{x\\} & 50 \\% \\\\" in text
    assert "\\multicolumn{2}{l}{\\$x\\_1\\textasciicircum{}2\\$}" in text


@pytest.mark.slow
def test_what_was_kept_of_the_script_is_used_only_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(frame, "CACHE", tmp_path)
    whole = frame.vega_script()
    (kept,) = tmp_path.iterdir()
    kept.write_text(kept.read_text()[:-10])
    assert frame.vega_script() == whole
    assert kept.read_text().endswith(whole[-10:])
