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
    from lisabench.journal import read_plan
    from lisabench.results import read_run

    kinds = [read_plan(run)["kind"] for run in runs]
    for run, kind in zip(runs, kinds, strict=True):
        read_run(run, kind=kind)  # all of them are whole before the first is shown
    for run, kind in zip(runs, kinds, strict=True):
        show = training.show if kind == "accuracy" else session.show
        show(run, as_json=False, quiet=quiet)
