"""Runs a plan of trainings: progress on a terminal, records as JSON lines where asked, then the results."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import typer

from lisabench.cli.console import Bar, lines, messages

if TYPE_CHECKING:
    from lisabench.journal import Journal, Record
    from lisabench.train.loop import Within
    from lisabench.train.point import Epoch, Point
    from lisabench.train.team import Team

Plan: TypeAlias = dict[str, Any]
WIDE = 90  # columns of a terminal from which on a progress bar has all its parts


def plan_together(planned: Callable[[Plan | None], Plan], *, out: Path | None, resume: bool) -> tuple[Plan, bool]:
    """What is to be trained, and whether a run in `out` is gone on with; the same in each of several processes.

    `planned` makes a plan of what the user asked for; it is given the plan on the leader's disk where that is gone on with.
    """
    from lisabench.journal import is_run, read_plan
    from lisabench.train import team

    with _said_once():
        together = team.meet()
        with together.losses_told():
            # What torchrun starts again, by the same command, goes on with what was begun; it tells some of the processes alone.
            known = together.gathered((resume, team.restarted(), out is not None and is_run(out)))
            asked, again, there = (any(told) for told in zip(*known, strict=True))
            resume = asked or (again and there)
            together = _led(together, out, resume=resume)
            stored = together.told(together.each(lambda: read_plan(out) if out is not None and resume and together.leads else None))
            return together.each(lambda: planned(stored)), resume


def run_and_show(plan: Plan, *, out: Path, resume: bool, budget: float | None, as_json: bool, quiet: bool) -> None:
    """Trains what is missing of the plan, then prints the whole run. Of several processes the leader alone writes and prints."""
    import math
    import time

    import torch

    from lisabench.train import team

    deadline = math.inf if budget is None else time.monotonic() + budget
    if plan["threads"]:
        torch.set_num_threads(plan["threads"])
    with _said_once():
        together = team.meet()
        with together.losses_told():
            together = _led(together, out, resume=resume)
            statuses = _trained(plan, together, out=out, resume=resume, deadline=deadline, as_json=as_json, quiet=quiet)
    if not together.leads:
        return
    from lisabench.cli import accuracy

    try:
        accuracy.show(out, as_json=as_json, quiet=quiet)
    except BaseException as stop:
        stop.add_note(f"stopped: all trainings are kept; show and draw them with: lisabench report {out}")
        raise
    if statuses["skipped"] and not quiet:
        _say(f"{statuses['skipped']} trainings are missing; go on with: lisabench train-small --resume --out {out}")


def _led(together: Team, out: Path | None, *, resume: bool) -> Team:
    """The team, led by a process that sees the run that is gone on with: torchrun may number its nodes otherwise each time."""
    from lisabench.journal import is_run

    return together.led_by(out is not None and is_run(out)) if resume else together


def _trained(plan: Plan, together: Team, *, out: Path, resume: bool, deadline: float, as_json: bool, quiet: bool) -> Counter[str]:
    """Brings the plan's trainings into the journal, which the leader has; how many have which status."""
    import math

    from lisabench.train import catalogue, team
    from lisabench.train.engine import Trainer, facts, run_plan

    leads = together.leads
    device = together.each(lambda: team.own_device(plan["device"]))
    if together.size > 1:
        together.check_alike(facts(plan, device) | {"having a --budget": deadline < math.inf})
    split = together.each(lambda: catalogue.find(plan["data"], patch=plan["patch"], image_size=plan["image_size"]).read())
    with together.each(lambda: _opened(out, plan, resume=resume) if leads else nullcontext()) as journal:
        if journal and journal.dropped_torn_line and not quiet:
            _say(f"{out / 'journal.jsonl'}: its last line was torn by a crash and is dropped")
        together = together.on(device)
        try:
            # A user's operator may print: on stdout only results may stand.
            with Watch(as_json=as_json and leads, quiet=quiet or not leads) as watch, redirect_stdout(sys.stderr):
                trainer = Trainer(split=split, device=device, observer=watch, journal=journal, team=together, deadline=deadline)
                statuses = run_plan(plan, trainer)
        except BaseException as stop:
            if journal:
                done = sum(record["kind"] == "accuracy" for record in journal.settled.values())
                kept = f"{done} of {len(plan['cells'])} trainings are kept, and the last whole epoch of the one that ran"
                stop.add_note(f"stopped: {kept}; go on with: lisabench train-small --resume --out {out}")
            raise
        together.leave()
    return statuses


@contextmanager
def _said_once() -> Iterator[None]:
    """Within it what ends several processes is said by those alone that are to say it."""
    from lisabench.train.team import TeamError

    try:
        yield
    except TeamError as error:
        if error.told:
            raise
        raise typer.Exit(error.exit_code) from error


def _opened(out: Path, plan: dict[str, Any], *, resume: bool) -> Journal:
    from lisabench.journal import Journal

    return Journal.resume(out) if resume else Journal.create(out, plan)


def _say(text: str) -> None:
    lines(messages(), text)


class Watch(Bar):
    """Follows a run: a progress bar on a terminal, records as JSON lines where asked, nothing otherwise."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self.results = sys.stdout if as_json else None
        self.name, self.epochs, self.share, self.accuracy = "", 0, 0.0, ""
        self.wide = messages().width >= WIDE
        if sys.stderr.isatty() and not quiet:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), TimeRemainingColumn(), TextColumn("left"))
            bar = [BarColumn(bar_width=12)] if self.wide else []
            self.bar = Progress(*bar, *columns, console=messages(), transient=True, refresh_per_second=2)
            self.task = self.bar.add_task("measuring the models", total=None)

    def planned(self, epochs: int) -> None:
        self.update(total=epochs)

    def started(self, key: str, point: Point) -> None:
        self.name = f"{key}{' trial' if point.validating else f' seed {point.seed}'}"
        self.epochs, self.share, self.accuracy = point.epochs, 0.0, ""
        self.update(description=f"{self.name} · {self._epoch(1)}")

    def trained(self, point: Point, progress: Epoch | Within) -> None:
        from lisabench.train.point import Epoch

        share = float(progress.epoch) if isinstance(progress, Epoch) else progress.epoch - 1 + progress.share
        if isinstance(progress, Epoch):
            self.accuracy = f" · {'top-1 ' if self.wide else ''}{100 * progress.top1:.1f}%"
        words = f"{self.name} · {self._epoch(progress.epoch)} · loss {progress.loss:.3f}{self.accuracy}"
        self.update(description=f"{words} · {progress.images_per_s:,.0f} images/s" if self.wide else words, advance=share - self.share)
        self.share = share

    def _epoch(self, number: int) -> str:
        return f"epoch {number} of {self.epochs}" if self.wide else f"{number}/{self.epochs}"

    def finished(self, point: Point, record: Record) -> None:
        if self.results:
            print(json.dumps(record), file=self.results, flush=True)
        self.update(advance=self.epochs - self.share)  # of a training that did not come to its end
        self.epochs, self.share = 0, 0.0
