"""`lisabench report`: renders a run again, table, fits and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.", show_default=False)],
    quiet: Annotated[bool, typer.Option("--quiet", help="Results only, no messages.")] = False,
) -> None:
    """Render runs: print each table and its fits, write results.csv and figures into the run."""
    from lisabench.cli.session import show
    from lisabench.results import read_run

    for run in runs:
        read_run(run)  # all of them are there before the first is rendered
    for run in runs:
        show(run, as_json=False, quiet=quiet)
