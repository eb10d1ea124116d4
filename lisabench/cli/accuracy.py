"""Shows runs of trainings that are on disk: tables on stdout, results.csv and figures beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lisabench.cli.console import fitting, lines, messages, results

if TYPE_CHECKING:
    from rich.table import Table

    from lisabench.analysis.accuracy import Series
    from lisabench.results import Run

JOINED = "joined-"
"""How the names of figures begin that show several runs."""


def show(paths: Sequence[Path], *, as_json: bool, quiet: bool) -> None:
    """Prints a table a data set, over all runs, and what a reader must know beside it; writes results.csv and figures into each run, the
    figures of several runs into the first."""
    from lisabench.results import read_run

    show_runs([read_run(path, kind="accuracy") for path in paths], as_json=as_json, quiet=quiet)


def show_runs(runs: Sequence[Run], *, as_json: bool, quiet: bool) -> None:
    """The same for runs that were read."""
    from lisabench.analysis.accuracy import by_data, summarise
    from lisabench.render.accuracy import write_figures

    series = summarise(runs)
    if not as_json:
        _print(by_data(series).values(), runs)
    figures = {run.path: len(_write_own(run)) for run in runs}
    drawn = write_figures(series, runs[0].path / "figures", prefix=JOINED if len(runs) > 1 else "")
    figures[runs[0].path] += len({path.stem for path in drawn})
    if quiet:
        return
    for run in runs:
        count = figures[run.path]
        told = f"{len(run.records)} record{'s' if len(run.records) != 1 else ''}"
        shown = f", {count} figure{'s' if count != 1 else ''}" if count else ""
        lines(messages(), f"{told}{shown} and results.csv are in {run.path}")


def _print(tables: Iterable[Sequence[Series]], runs: Sequence[Run]) -> None:
    """A table a data set with its notes; what is to be said of all of them stands at the end."""
    from lisabench.render.accuracy_table import accuracy_table, least_needed, notes

    console, told = results(), []
    for members in tables:
        dropped: Sequence[str] = ()

        def draw(omitted: Sequence[str], of: Sequence[Series] = members) -> Table:
            nonlocal dropped
            dropped = omitted
            return accuracy_table(of, omitted=omitted)

        table = fitting(console, draw, least_needed(members), whole="results.csv")
        told.append((table, notes(members, runs, omitted=dropped)))  # the last that was drawn is the one that fits
    shared = [line for line in told[0][1] if len(told) > 1 and all(line in lines_of for _, lines_of in told)]
    for table, lines_of in told:
        console.print(table)
        lines(console, *(line for line in lines_of if line not in shared), style="dim")
    lines(console, *shared, style="dim")


def _write_own(run: Run) -> set[str]:
    """Writes results.csv, and the figures of what its models have learned where that was kept; their names."""
    from lisabench.analysis.accuracy import frame
    from lisabench.files import write_whole

    write_whole(run.path / "results.csv", frame([run]).to_csv(index=False, lineterminator="\n").encode())
    if not any((run.path / "patterns").glob("*.npz")):
        return set()
    from lisabench.render.patterns import write_figures

    return {path.stem for path in write_figures(run, run.path / "figures")}
