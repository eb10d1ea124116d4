"""Shows runs of trainings that are on disk: tables on stdout, files beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lisabench.cli.console import fitting, lines, results

if TYPE_CHECKING:
    from rich.table import Table

    from lisabench.analysis.accuracy import Series
    from lisabench.results import Run


def show(out: Path, *, as_json: bool, quiet: bool) -> None:
    """Renders a run that is on disk: the table on stdout, all files beside it."""
    from lisabench.cli.written import tell
    from lisabench.render.outputs import write_all
    from lisabench.results import read_run

    run = read_run(out, kind="accuracy")
    if not as_json:
        print_runs([run])
    written = write_all([], [run], out)
    if not quiet:
        tell([run], written, out)


def print_runs(runs: Sequence[Run]) -> None:
    """A table a data set over all runs with its notes, on stdout; what is to be said of all of them stands at the end."""
    from lisabench.analysis.accuracy import by_data, summarise
    from lisabench.render.accuracy_table import accuracy_table, least_needed, notes

    console, told = results(), []
    for members in by_data(summarise(runs)).values():
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
