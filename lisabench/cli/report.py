"""`lisabench report`: renders a run again, table, fits and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.", show_default=False)],
    quiet: Annotated[bool, typer.Option("--quiet", help="Results only, no messages.")] = False,
) -> None:
    """Render runs: print each table, and for a sweep its fits, results.csv and figures."""
    from lisabench.cli import session, training
    from lisabench.journal import read_plan, read_records

    shows = {"accuracy": training.show, "scale": session.show}
    found = [
        (run, shows[read_plan(run)["kind"]]) for run in runs if read_records(run) is not None
    ]  # all are there before the first is shown
    for run, show in found:
        show(run, as_json=False, quiet=quiet)
