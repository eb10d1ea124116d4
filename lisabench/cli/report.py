"""`lisabench report`: renders runs again, tables, fits and figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lisabench.errors import InputError

if TYPE_CHECKING:
    from lisabench.results import Run


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs; those of train-small are shown together.", show_default=False)],
    mix: Annotated[
        bool, typer.Option("--mix", help="Render runs measured on machines that differ in GPU, driver, threads or torch all the same.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Results only, no messages.")] = False,
) -> None:
    """Render runs: print tables and for sweeps fits, write results.csv and figures.

    Runs of train-small are joined, a panel a data set; given beside sweeps, accuracy is drawn against the sweeps' latency too.
    """
    from lisabench.cli import accuracy, session
    from lisabench.journal import read_plan
    from lisabench.results import read_run

    once: dict[Path, Path] = {}
    for run in runs:
        once.setdefault(run.resolve(), run)
    folders = list(once.values())
    kinds = ["accuracy" if read_plan(run)["kind"] == "accuracy" else "scale" for run in folders]
    found = [read_run(run, kind=kind) for run, kind in zip(folders, kinds, strict=True)]
    sweeps, trainings = ([run for run, kind in zip(found, kinds, strict=True) if kind == wanted] for wanted in ("scale", "accuracy"))
    # All runs are whole, and fit together, before the first is shown.
    for alone in sweeps if not trainings else []:
        _one_machine([alone], mix=mix, quiet=quiet)
    for together in (sweeps if trainings else [], trainings):
        _one_machine(together, mix=mix, quiet=quiet)
    for sweep in sweeps:
        session.show(sweep.path, as_json=False, quiet=quiet)
    if trainings:
        accuracy.show_runs(trainings, as_json=False, quiet=quiet)
    if sweeps and trainings:
        _join(trainings, sweeps, quiet=quiet)


def _join(trainings: Sequence[Run], sweeps: Sequence[Run], *, quiet: bool) -> None:
    """Accuracy against the sweeps' latency, into the first run of trainings."""
    from lisabench.analysis.accuracy import summarise
    from lisabench.cli.console import lines, messages
    from lisabench.render.accuracy import write_sweep_figure

    written = write_sweep_figure(summarise(trainings), sweeps, trainings[0].path / "figures")
    if quiet:
        return
    if written:
        lines(messages(), f"accuracy against the sweep's latency is in {written[0]}")
    else:
        lines(
            messages(), "accuracy is not drawn against the sweep's latency: no operator with the same options was trained and swept forward"
        )


def _one_machine(runs: Sequence[Run], *, mix: bool, quiet: bool) -> None:
    """InputError where the finished records come from environments that differ in what matters; with `mix` a message on stderr."""
    from lisabench.cli.console import lines, messages
    from lisabench.provenance import in_words, mixed, refusal

    environments = {key: environment for run in runs for key, environment in run.environments.items()}
    used = [record["environment"] for run in runs for record in run.records if record["status"] == "ok"]
    found = mixed(environments, used)
    subject = f"the machines that {' and '.join(repr(str(run.path)) for run in runs)} {'was' if len(runs) == 1 else 'were'} measured on"
    if found and not mix:
        raise InputError(refusal(subject, found, because="their times do not belong in one figure", then="renders it"))
    if found and not quiet:
        lines(messages(), f"{subject} differ in {in_words(found)}")
