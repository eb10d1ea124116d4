"""Runs a plan of trainings and shows it: progress on a terminal, then the table and where all of it lies."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lisabench import units
from lisabench.cli.console import Bar, lines, messages, results

if TYPE_CHECKING:
    from rich.table import Table

    from lisabench.journal import Record
    from lisabench.results import Run
    from lisabench.train.loop import Epoch, Point


def run_and_show(
    plan: dict[str, Any], points: Sequence[Point], *, out: Path, resume: bool, budget: float | None, as_json: bool, quiet: bool
) -> None:
    """Trains what is missing of the plan, then prints the whole run."""
    import torch

    from lisabench.journal import Journal
    from lisabench.train import data as image_sets
    from lisabench.train.engine import run_points

    if plan["threads"]:
        torch.set_num_threads(plan["threads"])
    split = image_sets.find(plan["data"]).read()
    with Journal.resume(out) if resume else Journal.create(out, plan) as journal:
        if journal.dropped_torn_line and not quiet:
            _say(f"{out / 'journal.jsonl'}: its last line was torn by a crash and is dropped")
        missing = [point for point in points if point.key not in journal.settled]
        try:
            # A user's operator may print: on stdout only results may stand.
            with Watch(missing, as_json=as_json, quiet=quiet) as watch, redirect_stdout(sys.stderr):
                run_points(points, split, device=plan["device"], journal=journal, budget=budget, observer=watch)
        except BaseException as stop:
            done = len(journal.settled)
            stop.add_note(f"stopped: {done} of {len(points)} trainings are kept; go on with: lisabench train-small --resume --out {out}")
            raise
    show(out, as_json=as_json, quiet=quiet)


def show(out: Path, *, as_json: bool, quiet: bool) -> None:
    """Prints the table of a run that is on disk, and on stderr what a reader must know beside it."""
    from lisabench.results import read_run

    run = read_run(out, kind="accuracy")
    if not as_json:
        results().print(_table(run))
    if quiet:
        return
    for record in run.records:
        if record["status"] != "ok":
            _say(f"{run.label(record['op'])} seed {record['seed']} {record['status']}: {record['reason']}")
    skipped = sum(record["status"] == "skipped" for record in run.records)
    if skipped:
        _say(f"{skipped} trainings are missing; go on with: lisabench train-small --resume --out {run.path}")
    _say(f"{len(run.records)} records are in {run.path}")


def _table(run: Run) -> Table:
    """Parameters, accuracy over the seeds and seconds a training of each operator, the most accurate first."""
    from rich import box
    from rich.table import Table

    plan = run.plan
    title = f"{plan['data']} · {plan['epochs']} epoch{'s' if plan['epochs'] != 1 else ''} · {plan['device']} · fp32"
    table = Table(
        title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", padding=(0, 1, 0, 0), pad_edge=False, show_edge=False
    )
    for name in ("operator", "parameters", "seeds", "top-1, mean (min to max)", "time a seed"):
        table.add_column(name, justify="left" if name == "operator" else "right", no_wrap=True)
    rows = []
    for op in plan["operators"]:
        records = [record for record in run.records if record["op"] == op]
        done = [record for record in records if record["status"] == "ok"]
        top1 = [record["top1"] for record in done]
        mean, seconds = (sum(values) / len(done) if done else None for values in (top1, [record["seconds"] for record in done]))
        words = (
            f"{mean:.3f} ({min(top1):.3f} to {max(top1):.3f})" if mean is not None else ", ".join(sorted({r["status"] for r in records}))
        )
        parameters = next((f"{record['parameters']:,}" for record in records if record["parameters"]), units.MISSING)
        rows.append((mean or 0.0, (run.label(op), parameters, f"{len(done)} of {len(plan['seeds'])}", words, units.seconds(seconds))))
    for _, row in sorted(rows, key=lambda row: -row[0]):
        table.add_row(*row)
    return table


def _say(text: str) -> None:
    lines(messages(), text)


class Watch(Bar):
    """Follows a run: a progress bar on a terminal, records as JSON lines where asked, nothing otherwise."""

    def __init__(self, missing: Sequence[Point], *, as_json: bool, quiet: bool) -> None:
        self.results = sys.stdout if as_json else None
        if sys.stderr.isatty() and not quiet:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (BarColumn(bar_width=12), TextColumn("{task.description}"), TimeRemainingColumn(), TextColumn("left"))
            self.bar = Progress(*columns, console=messages(), transient=True)
            self.task = self.bar.add_task("starting", total=sum(point.epochs for point in missing))
        self.epochs = 0

    def started(self, point: Point) -> None:
        self.epochs = point.epochs
        self.update(description=f"{_name(point)} · epoch 1 of {point.epochs}")

    def trained(self, point: Point, epoch: Epoch) -> None:
        self.epochs -= 1
        words = f"epoch {epoch.epoch} of {point.epochs} · loss {epoch.loss:.3f} · top-1 {epoch.top1:.3f}"
        self.update(description=f"{_name(point)} · {words}", advance=1)

    def finished(self, point: Point, record: Record) -> None:
        if self.results:
            print(json.dumps(record), file=self.results, flush=True)
        self.update(advance=self.epochs)  # of a training that did not come to its end
        self.epochs = 0


def _name(point: Point) -> str:
    return f"{point.op.rpartition(':')[2]} seed {point.seed}"
