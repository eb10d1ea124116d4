"""Figures as files: the same bytes for the same run, whole or not there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from scaling_figures import CASES, drawn, records

from lisabench.errors import InputError, RunError
from lisabench.render import figures, page
from lisabench.render.page import FORMATS
from lisabench.render.palette import Style
from lisabench.render.quantities import QUANTITIES
from lisabench.render.venues import VENUES, WIDTHS, style_of

WIDE = Style(width=10)


def test_files_are_the_same_bytes_whatever_the_order_of_rows_and_the_users_settings(tmp_path: Path) -> None:
    frame = CASES["odd-sizes"]
    first = page.save(figures.draw(frame, "latency"), tmp_path / "a", "latency", FORMATS)
    with mpl.rc_context({"lines.linewidth": 9, "font.family": "monospace", "pdf.fonttype": 3, "savefig.dpi": 30}):
        shuffled = frame.sample(frac=1, random_state=1)
        again = page.save(figures.draw(shuffled, "latency"), tmp_path / "b", "latency", FORMATS)
    assert [path.name for path in first] == ["latency.pdf", "latency.png", "latency.svg", "latency.pgf"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_write_figures_writes_every_quantity_with_fonts_a_publisher_takes(tmp_path: Path) -> None:
    paths = figures.write_figures(CASES["two"], tmp_path / "figures", baseline="softmax")
    assert sorted(path.name for path in paths) == sorted(f"{name}.{form}" for name in QUANTITIES for form in ("pdf", "png"))
    assert sorted(os.listdir(tmp_path / "figures")) == sorted(path.name for path in paths)
    for path in paths:
        if path.suffix == ".pdf":
            assert b"/Type3" not in path.read_bytes()
            assert b"/CIDFontType2" in path.read_bytes()
            assert b"CreationDate" not in path.read_bytes()


@pytest.mark.parametrize("venue", VENUES)
def test_files_are_exactly_as_wide_as_the_venue_says(venue: str, tmp_path: Path) -> None:
    for width in WIDTHS:
        style = style_of(venue, width)
        sheet = page.arrange([()], ["a note"], style, columns=1, left=30, gutter=10, height=20)
        figure = sheet.start()
        sheet.write_footnote(figure)
        pdf, png, pgf = page.save(figure, tmp_path, width, ("pdf", "png", "pgf"))
        box = re.search(rb"/MediaBox \[ 0 0 ([0-9.]+) ([0-9.]+) \]", pdf.read_bytes())
        assert box
        assert float(box[1]) / 72 == pytest.approx(style.width, abs=0.001)
        assert int.from_bytes(png.read_bytes()[16:20], "big") / 200 == pytest.approx(style.width, abs=0.01)
        corner = re.search(r"pgfpointorigin}{\\pgfqpoint{([0-9.]+)in}", pgf.read_text())
        assert corner
        assert float(corner[1]) == pytest.approx(style.width, abs=0.001)
        assert b"/Type3" not in pdf.read_bytes()


HOSTILE = ("lisa", r"a_b & 50% #1 $x^2$ {c} \d~e", "<f|g>^\u044f`'--\"")


def test_names_are_escaped_in_pgf(tmp_path: Path) -> None:
    (path,) = page.save(figures.draw(records(HOSTILE), "latency", style=WIDE), tmp_path, "latency", ["pgf"])
    held = path.read_text()
    assert r"a\_b \& 50\% \#1 \$x\textasciicircum{}2\$ \{c\} \textbackslash{}d\textasciitilde{}e" in held.replace("}}\n", "")
    assert r"U+044F" in held


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
def test_latex_takes_the_pgf(tmp_path: Path) -> None:
    for name, frame in (("few", records(HOSTILE)), ("crowd", CASES["families"])):
        page.save(figures.draw(frame, "latency", style=WIDE), tmp_path, name, ["pgf"])
    inputs = "".join(rf"\setbox0\hbox{{\input{{{name}.pgf}}}}\typeout{{WIDTH \the\wd0}}\box0\par " for name in ("few", "crowd"))
    (tmp_path / "paper.tex").write_text(rf"\documentclass{{article}}\usepackage{{pgf}}\begin{{document}}{inputs}\end{{document}}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
    assert said.returncode == 0, said.stdout[-2000:]
    widths = [float(found) for found in re.findall(r"WIDTH ([0-9.]+)pt", said.stdout)]
    assert widths == pytest.approx([72.27 * WIDE.width] * 2, abs=0.1)


def test_a_figure_with_pictures_is_written_as_pdf_in_place_of_pgf(tmp_path: Path) -> None:
    figure = Figure()
    figure.add_subplot().imshow([[0.0, 1.0]])
    assert [path.name for path in page.save(figure, tmp_path, "one", ["pgf", "pdf", "png"])] == ["one.pdf", "one.png"]


def test_an_unknown_format_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown figure format 'pfd'; did you mean .*'pdf'"):
        page.save(Figure(), tmp_path / "figures", "one", ["png", "pfd"])
    with pytest.raises(InputError, match="unknown figure format"):
        page.check_formats(["eps"])
    assert not (tmp_path / "figures").exists()


def test_a_write_that_breaks_off_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "latency.png").write_bytes(b"old")

    def full(*paths: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match=r"latency.png.* cannot be written \(No space left"):
        page.save(drawn("two"), tmp_path, "latency", ["png"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"latency.png": b"old"}


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "figures").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        page.save(drawn("two"), tmp_path / "figures", "latency", ["png"])
