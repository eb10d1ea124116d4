"""Everything that is written of runs: results.csv, figures, tables and the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lisabench.analysis.accuracy import frame as of_trainings
from lisabench.analysis.accuracy import summarise
from lisabench.files import write_whole
from lisabench.render import accuracy, families, figures, patterns
from lisabench.render.html import page
from lisabench.render.page import check_formats
from lisabench.render.palette import CVPR_FULL, Style
from lisabench.render.tables import write_tables
from lisabench.results import Run, joined

if TYPE_CHECKING:
    import pandas as pd

RESULTS, ACCURACY_RESULTS, FIGURES, TABLES, PAGE = "results.csv", "accuracy.csv", "figures", "tables", "report.html"


@dataclass(frozen=True, kw_only=True)
class Look:
    """How figures are drawn, and in which formats they are written."""

    style: Style = CVPR_FULL
    formats: Sequence[str] = ("pdf", "png")


@dataclass(frozen=True, kw_only=True)
class Written:
    """The files written: figures in every format, tables in every format, and the others. `notes`: what figures leave out."""

    figures: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def files(self) -> list[Path]:
        return [*self.others, *self.tables, *self.figures]

    def words(self) -> str:
        """'5 figures, 3 tables, report.html and results.csv'."""
        counts = (
            (len({path.stem for path in self.figures}), "figure"),
            (sum(path.suffix == ".csv" for path in self.tables), "table"),
        )
        parts = [f"{count} {what}{'s' if count != 1 else ''}" for count, what in counts if count]
        parts += [path.name for path in sorted(self.others)]
        return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def write_all(
    sweeps: Sequence[Run], trainings: Sequence[Run], out: Path, *, look: Look | None = None, command: Sequence[str] | None = None
) -> Written:
    """Renders sweeps and trainings, those of a kind joined, into the folder `out`; `command` is what the page says it was written by,
    `lisabench report OUT` where it is not given.

    Raises:
        InputError: a format of figures that there is not. RunError: the folder cannot be written.
    """
    look = look or Look()
    check_formats(look.formats)
    sweep = joined(sweeps) if sweeps else None
    frame = sweep.frame() if sweep else None
    written = Written()
    if sweep and frame is not None:
        note = families.left_out(frame)
        written.notes.extend([f"{note}; --where chooses others"] if note else [])
        baseline = sweep.baseline if sweep.baseline in set(frame["op"]) else None
        written.figures.extend(figures.write_figures(frame, out / FIGURES, formats=look.formats, baseline=baseline, style=look.style))
    if trainings:
        written.figures.extend(_figures_of_trainings(trainings, sweeps, out / FIGURES, look))
    written.tables.extend(write_tables(sweep, trainings, out / TABLES, frame=frame))
    for name, content in _others(sweep, frame, trainings, command or ["lisabench", "report", str(out)]):
        write_whole(out / name, content.encode())
        written.others.append(out / name)
    return written


def _figures_of_trainings(trainings: Sequence[Run], sweeps: Sequence[Run], folder: Path, look: Look) -> Iterator[Path]:
    series = summarise(trainings)
    yield from accuracy.write_figures(series, folder, formats=look.formats, style=look.style)
    if sweeps:
        yield from accuracy.write_sweep_figure(series, sweeps, folder, formats=look.formats, style=look.style)
    for run in trainings:
        own = folder / run.path.resolve().name if len(trainings) > 1 else folder
        yield from patterns.write_figures(run, own, formats=look.formats, style=look.style)


def _others(sweep: Run | None, frame: pd.DataFrame | None, trainings: Sequence[Run], command: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What stands beside figures and tables, as text by its name."""
    if frame is not None:
        yield RESULTS, frame.to_csv(index=False, lineterminator="\n")
    if trainings:
        yield ACCURACY_RESULTS if sweep else RESULTS, of_trainings(trainings).to_csv(index=False, lineterminator="\n")
    yield PAGE, page(sweep, trainings, command=command, frame=frame)
