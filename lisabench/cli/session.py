"""Runs a plan and shows it: progress on a terminal, then table, fits, figures and where all of it lies."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lisabench import units
from lisabench.cli.console import Bar, fitting, lines, messages, results

if TYPE_CHECKING:
    from rich.console import Console, Group

    from lisabench.journal import Record
    from lisabench.results import Run
    from lisabench.sweep import Cell


WIDE = 80
# What a narrow table leaves out first.
LEAST_NEEDED = ("error", "± ratio", "of limit", "energy", "FLOP", "±", "memory")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds for the sweep (None: no limit), for a cell before it is killed, and for sampling one."""

    budget: float | None
    cell_timeout: float
    cell_seconds: float


def run_and_render(
    plan: dict[str, Any],
    cells: Sequence[Cell],
    *,
    out: Path,
    resume: bool,
    limits: Limits,
    cross_check: bool,
    mix: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measures what is missing of the plan, then prints and draws the whole run."""
    from lisabench.journal import Journal
    from lisabench.measure.latency import Limits as SamplingLimits
    from lisabench.run.engine import Settings, run_cells
    from lisabench.run.local import Worker

    settings = Settings(
        budget=limits.budget,
        cell_timeout=limits.cell_timeout,
        limits=SamplingLimits(seconds=limits.cell_seconds),
        seed=plan["seed"],
        baseline=plan["baseline"],
        cross_check=cross_check,
        mix=mix,
    )
    with (
        Journal.resume(out) if resume else Journal.create(out, plan) as journal,
        Worker(device=plan["device"], threads=plan["threads"], command=["lisabench", *sys.argv[1:]]) as worker,
    ):
        if journal.dropped_torn_line and not quiet:
            _say(f"{out / 'journal.jsonl'}: its last line was torn by a crash and is dropped")
        try:
            with Watch(cells, as_json=as_json, quiet=quiet) as watch:
                statuses = run_cells(cells, journal=journal, worker=worker, settings=settings, observer=watch)
        except BaseException as stop:
            done = len(journal.settled)
            stop.add_note(f"stopped: {done} of {len(cells)} cells are kept; go on with: lisabench scale --resume --out {out}")
            raise
    try:
        show(out, as_json=as_json, quiet=quiet, statuses=statuses)
    except BaseException as stop:
        stop.add_note(f"stopped: all {len(cells)} cells are kept; show and draw them with: lisabench report {out}")
        raise


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
    """A sweep's table, its laws of growth and what must be known beside them, on stdout."""
    from rich.table import Table

    from lisabench.render.growth import growth
    from lisabench.render.terminal import notes

    console = results()
    console.print(fitting_table(run, console))
    for part in growth(run):
        if isinstance(part, Table):
            console.print(part)
        else:
            lines(console, part)
    lines(console, *notes(run), style="dim")


def fitting_table(run: Run, console: Console) -> Group:
    """The results as a table that the console is wide enough for, and what it had to leave out."""
    from lisabench.render.terminal import results_table

    return fitting(console, lambda omitted: results_table(run, omitted=omitted), LEAST_NEEDED, whole="results.csv")


def _say(text: str) -> None:
    lines(messages(), text)


class Watch(Bar):
    """Follows a run: a progress bar on a terminal, records as JSON lines where asked, nothing otherwise."""

    def __init__(self, cells: Sequence[Cell], *, as_json: bool, quiet: bool) -> None:
        self.as_json = as_json
        if sys.stderr.isatty() and not quiet:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            # Drawn twice a second: more would take time from the cores that are being measured.
            wide = messages().width >= WIDE
            self.bar = Progress(
                *([BarColumn(bar_width=12)] if wide else []),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TextColumn("[dim]{task.fields[left]}"),
                console=messages(),
                transient=True,
                refresh_per_second=2,
                redirect_stdout=sys.stdout.isatty(),  # rich would send records that go to a file or a pipe to the terminal
            )
            self.task = self.bar.add_task("starting", total=len(cells), left="")

    def started(self, cell: Cell, seconds_left: float | None) -> None:
        self.update(description=_name(cell), left="" if seconds_left is None else f"about {units.duration(seconds_left)} left")

    def progress(self, cell: Cell, phase: str, seconds_a_call: float | None) -> None:
        now = f" {units.seconds(seconds_a_call)}" if seconds_a_call else ""
        self.update(description=f"{_name(cell)} · {phase}{now}")

    def finished(self, cell: Cell, record: Record) -> None:
        if self.as_json:
            print(json.dumps(record), flush=True)
        self.update(advance=1)


def _name(cell: Cell) -> str:
    return f"{cell.op.rpartition(':')[2]} {cell.workload.tokens:,} x {cell.workload.batch}"
