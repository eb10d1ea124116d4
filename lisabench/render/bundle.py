"""Everything that stands beside a journal: results.csv and the figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lisabench.files import write_whole
from lisabench.results import Run


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """How many figures were drawn, each in every format, and the files written."""

    figures: int
    files: list[Path]


def render_run(run: Run, *, formats: tuple[str, ...] = ("pdf", "png")) -> Rendered:
    """Writes results.csv and figures/ into the run's folder; RunError where that cannot be written."""
    from lisabench.render.figures import write_figures

    frame = run.frame()
    baseline = run.baseline if run.baseline in set(frame["op"]) else None
    figures = write_figures(frame, run.path / "figures", formats=formats, baseline=baseline)
    table = run.path / "results.csv"
    write_whole(table, frame.to_csv(index=False, lineterminator="\n").encode())
    return Rendered(figures=len(figures) // len(formats), files=[table, *figures])
