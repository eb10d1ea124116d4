"""Everything that is written of runs: results.csv, figures, tables and the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lisabench.analysis.accuracy import frame as of_trainings
from lisabench.analysis.accuracy import summarise
from lisabench.files import write_whole
from lisabench.render import accuracy, families, figures, patterns
from lisabench.render.csv import write_csv
from lisabench.render.curves import APART, IDENTITY
from lisabench.render.drawing import Drawing, begun
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
    with rendering(sweeps, trainings, out, look=look, command=command) as finish:
        return finish()


@contextmanager
def rendering(
    sweeps: Sequence[Run], trainings: Sequence[Run], out: Path, *, look: Look | None = None, command: Sequence[str] | None = None
) -> Iterator[Callable[[], Written]]:
    """The same for who has something else to do meanwhile: the figures of a large run are begun with in processes of their own, and what
    is entered is called for all the rest."""
    look = look or Look()
    check_formats(look.formats)
    sweep = joined(sweeps) if sweeps else None
    # Of all records it takes but few columns to tell which of them are drawn: the others are made when drawing has begun.
    rows = sweep.frame(fields=IDENTITY) if sweep else None
    drawings = _drawings(sweep, rows, look.style) if sweep and rows is not None else []
    with begun(drawings, out / FIGURES, look.formats) as drawn:
        frame = sweep.frame(known=rows) if sweep else None
        note = families.left_out(frame) if frame is not None else ""

        def finish() -> Written:
            written = Written(notes=[f"{note}; --where chooses others"] if note else [])
            written.tables.extend(write_tables(sweep, trainings, out / TABLES, frame=frame))
            written.others.extend(_others(sweep, frame, trainings, out, command or ["lisabench", "report", str(out)]))
            written.figures.extend(drawn)
            if trainings:
                written.figures.extend(_figures_of_trainings(trainings, sweeps, out / FIGURES, look))
            return written

        yield finish


def _drawings(run: Run, rows: pd.DataFrame, style: Style) -> list[Drawing]:
    """The figures of a sweep, yet to be drawn."""

    def whole(part: pd.DataFrame) -> pd.DataFrame:
        found = replace(run, records=[run.records[place] for place in part.index]).frame()
        return found.assign(**{name: part[name].to_numpy() for name in ("device_name", APART)})

    baseline = run.baseline if run.baseline in set(rows["op"]) else None
    return figures.drawings(rows, baseline=baseline, style=style, whole=whole)


def _figures_of_trainings(trainings: Sequence[Run], sweeps: Sequence[Run], folder: Path, look: Look) -> Iterator[Path]:
    series = summarise(trainings)
    yield from accuracy.write_figures(series, folder, formats=look.formats, style=look.style)
    if sweeps:
        yield from accuracy.write_sweep_figure(series, sweeps, folder, formats=look.formats, style=look.style)
    for run in trainings:
        own = folder / run.path.resolve().name if len(trainings) > 1 else folder
        yield from patterns.write_figures(run, own, formats=look.formats, style=look.style)


def _others(sweep: Run | None, frame: pd.DataFrame | None, trainings: Sequence[Run], out: Path, command: Sequence[str]) -> Iterator[Path]:
    """Writes what stands beside figures and tables."""
    sheets = {RESULTS: frame} if frame is not None else {}
    if trainings:
        sheets[ACCURACY_RESULTS if sweep else RESULTS] = of_trainings(trainings)
    for name, sheet in sheets.items():
        write_csv(sheet, out / name)
        yield out / name
    write_whole(out / PAGE, page(sweep, trainings, command=command, frame=frame).encode())
    yield out / PAGE
