"""Figures as files: the same bytes for the same run, whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from scaling_figures import CASES, drawn

from lisabench.errors import RunError
from lisabench.render import figures
from lisabench.render.palette import CVPR_COLUMN


def test_files_are_the_same_bytes_whatever_the_order_of_rows_and_the_users_settings(tmp_path: Path) -> None:
    frame = CASES["odd-sizes"]
    first = figures.save(figures.draw(frame, "latency"), tmp_path / "a", "latency", ("pdf", "png", "svg"))
    with mpl.rc_context({"lines.linewidth": 9, "font.family": "monospace", "pdf.fonttype": 3, "savefig.dpi": 30}):
        shuffled = frame.sample(frac=1, random_state=1)
        again = figures.save(figures.draw(shuffled, "latency"), tmp_path / "b", "latency", ("pdf", "png", "svg"))
    assert [path.name for path in first] == ["latency.pdf", "latency.png", "latency.svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_write_figures_writes_every_quantity_with_fonts_a_publisher_takes(tmp_path: Path) -> None:
    paths = figures.write_figures(CASES["odd-sizes"], tmp_path / "figures", baseline="softmax")
    assert sorted(path.name for path in paths) == sorted(f"{name}.{form}" for name in figures.QUANTITIES for form in ("pdf", "png"))
    assert sorted(os.listdir(tmp_path / "figures")) == sorted(path.name for path in paths)
    for path in paths:
        if path.suffix == ".pdf":
            assert b"/Type3" not in path.read_bytes()
            assert b"/CIDFontType2" in path.read_bytes()
            assert b"CreationDate" not in path.read_bytes()


def test_the_default_is_as_wide_as_a_cvpr_page() -> None:
    figsizes = pytest.importorskip("tueplots.figsizes")
    for style, source in ((figures.CVPR_FULL, figsizes.cvpr2024_full), (CVPR_COLUMN, figsizes.cvpr2024_half)):
        assert figures.draw(CASES["two"], "latency", style=style).get_size_inches()[0] == source()["figure.figsize"][0]


def test_a_write_that_breaks_off_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "latency.png").write_bytes(b"old")

    def full(*paths: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match=r"latency.png.* cannot be written \(No space left"):
        figures.save(drawn("two"), tmp_path, "latency", ["png"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"latency.png": b"old"}


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "figures").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        figures.save(drawn("two"), tmp_path / "figures", "latency", ["png"])
