"""Runs a plan and shows it: progress on a terminal, then table, fits, figures and where all of it lies."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lisabench.cli.console import fitting, lines, messages, results
from lisabench.errors import UnavailableError

if TYPE_CHECKING:
    from rich.console import Console, Group

    from lisabench.plans import Visits
    from lisabench.results import Run
    from lisabench.run.fleet import Fleet, Settings
    from lisabench.run.ledger import Ledger


# What a narrow table leaves out first.
LEAST_NEEDED = ("error", "± ratio", "of limit", "energy", "FLOP", "±", "memory")


def run_and_render(
    plan: dict[str, Any],
    fleet: Fleet,
    *,
    out: Path,
    resume: bool,
    settings: Settings,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measures what is missing of the plan, then prints and draws the whole run."""
    from lisabench.cli.watch import Watch
    from lisabench.journal import Journal
    from lisabench.plans import visits_of
    from lisabench.run.engine import run_cells
    from lisabench.run.ledger import Ledger

    visits, ledger = visits_of(plan, run=out), Ledger(settings.limits)
    with Journal.resume(out, taken=ledger.take) if resume else Journal.create(out, plan) as journal:
        if journal.dropped_torn_line and not quiet:
            _say(f"{out / 'journal.jsonl'}: its last line was torn by a crash and is dropped")
        if as_json:
            _print_settled(out)
        try:
            with Watch(visits.count, as_json=as_json, quiet=quiet) as watch:
                statuses = run_cells(visits, journal=journal, ledger=ledger, fleet=fleet, settings=settings, observer=watch)
        except UnavailableError as error:
            raise UnavailableError(f"{error}; {_kept(ledger, visits, out)}") from error
        except BaseException as stop:
            stop.add_note(f"stopped: {_kept(ledger, visits, out)}")
            raise
    try:
        show(out, as_json=as_json, quiet=quiet, statuses=statuses)
    except BaseException as stop:
        stop.add_note(f"stopped: all {visits.count} cells are kept; show and draw them with: lisabench report {out}")
        raise


def _kept(ledger: Ledger, visits: Visits, out: Path) -> str:
    return f"{len(ledger)} of {visits.count} cells are kept; go on with: lisabench scale --resume --out {out}"


def _print_settled(out: Path) -> None:
    """The records that a resumed run has already, as JSON lines."""
    from lisabench.journal import JOURNAL, is_settled
    from lisabench.records import scan

    scan(out / JOURNAL, lambda record: print(json.dumps(record)) if is_settled(record) else None)


def show(out: Path, *, as_json: bool, quiet: bool, statuses: Counter[str] | None = None) -> None:
    """Renders a run that is on disk: the table and the fits on stdout, all files beside it."""
    from lisabench.cli.written import tell
    from lisabench.render.outputs import write_all
    from lisabench.results import read_run

    run = read_run(out)
    if not as_json:
        print_run(run)
    written = write_all([run], [], out)
    if quiet:
        return
    unfinished = {status: count for status, count in (statuses or {}).items() if status != "ok"}
    if unfinished:
        _say(
            "not measured: "
            + ", ".join(f"{count} {status}" for status, count in sorted(unfinished.items()))
            + "; reasons stand in the table and the journal"
        )
    tell([run], written, out)


def print_run(run: Run) -> None:
    """A sweep's table, its laws of growth and what must be known beside them, on stdout; of several kinds of devices one after the other."""
    console = results()
    devices = run.by_device()
    for place, (name, part) in enumerate(devices.items(), 1):
        if len(devices) > 1:
            lines(console, *[""] * (place > 1), f"{name}:", style="bold")
        _print_device(part, console, last=place == len(devices))


def _print_device(run: Run, console: Console, *, last: bool) -> None:
    from rich.table import Table

    from lisabench.render.growth import growth
    from lisabench.render.terminal import notes

    console.print(fitting_table(run, console))
    for part in growth(run):
        if isinstance(part, Table):
            console.print(part)
        else:
            lines(console, part)
    lines(console, *notes(run, caveats=last), style="dim")


def fitting_table(run: Run, console: Console) -> Group:
    """The results as a table that the console is wide enough for, and what it had to leave out."""
    from lisabench.render.terminal import results_table

    return fitting(console, lambda omitted: results_table(run, omitted=omitted), LEAST_NEEDED, whole="results.csv")


def _say(text: str) -> None:
    lines(messages(), text)
