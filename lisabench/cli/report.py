"""`lisabench report`: renders a run again, table, fits and figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lisabench.errors import InputError

if TYPE_CHECKING:
    from lisabench.results import Run


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.", show_default=False)],
    mix: Annotated[
        bool, typer.Option("--mix", help="Render runs measured on machines that differ in GPU, driver, threads or torch all the same.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Results only, no messages.")] = False,
) -> None:
    """Render runs: print each table, and for a sweep its fits, results.csv and figures."""
    from lisabench.cli import session, training
    from lisabench.journal import read_plan
    from lisabench.results import read_run

    kinds = [read_plan(run)["kind"] for run in runs]
    for run, kind in zip(runs, kinds, strict=True):
        _one_machine(read_run(run, kind=kind), mix=mix, quiet=quiet)  # all of them are whole before the first is shown
    for run, kind in zip(runs, kinds, strict=True):
        show = training.show if kind == "accuracy" else session.show
        show(run, as_json=False, quiet=quiet)


def _one_machine(run: Run, *, mix: bool, quiet: bool) -> None:
    """InputError where the finished records come from environments that differ in what matters; with `mix` a message on stderr."""
    from lisabench.cli.console import lines, messages
    from lisabench.provenance import in_words, mixed, refusal

    found = mixed(run.environments, (record["environment"] for record in run.records if record["status"] == "ok"))
    subject = f"the machines that {str(run.path)!r} was measured on"
    if found and not mix:
        raise InputError(refusal(subject, found, because="their times do not belong in one figure", then="renders it"))
    if found and not quiet:
        lines(messages(), f"{subject} differ in {in_words(found)}")
