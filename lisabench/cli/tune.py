"""`lisabench tune`: measures which of LiSA's engines is the fastest where on this machine, so that its "auto" takes it."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from lisabench import units
from lisabench.cli.console import Bar, fitting, lines, messages, results
from lisabench.cli.options import check_threads, positive, resolve_device
from lisabench.errors import InputError, RunError

if TYPE_CHECKING:
    from rich.table import Table

    from lisabench.measure.tuning import Point, Regret

BUDGET_SECONDS, QUICK_SECONDS = 160.0, 32.0
WORDS = {"kept": "evaluation", "forward": "evaluation, new tables", "train": "training"}


class Found(NamedTuple):
    """One mode with so many threads, in the words of the table's columns."""

    device: str
    threads: int
    mode: str
    squares: list[tuple[str, int]]
    so_far: Regret | None
    now: Regret | None


def tune(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads, measured beside one thread. [default: torch's choice]")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and smaller shapes.")] = False,
    budget: Annotated[float | None, typer.Option(help="Seconds of measuring. [default: 160; with --quick 32]")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the tables to this file alone. [default: lisabench/lisa_engines.json in the user's cache]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines: every timing, then what follows from them.")] = False,
) -> None:
    """Measure LiSA's engines on this machine and keep the table that --op-option engine=auto, the default, chooses by.

    LISABENCH_TUNED=0 ignores the kept table, so that runs can be repeated as published.
    """
    check_threads(threads)
    positive(seconds := (QUICK_SECONDS if quick else BUDGET_SECONDS) if budget is None else budget, "--budget")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported: spinning threads slow these many small calls
    device = resolve_device(device)
    if device != "cpu" and threads is not None:
        raise InputError(f"--threads got {threads} with --device {device}; one thread launches a GPU's kernels: leave --threads out")
    import torch

    from lisabench.measure import tuning
    from lisabench.measure.allocator import keep_freed_memory

    keep_freed_memory()
    path = out or tuning.choice().kept_at()
    if path is None:
        raise InputError("no home folder to keep the table in; give a file with --out")
    _check_place(path)
    usual = torch.get_num_threads()
    classes = [1] if device != "cpu" else list(dict.fromkeys((1, threads or usual)))
    so_far = dict.fromkeys(tuning.choice().chosen_by(device, count) for count in classes)
    try:
        found, tables = _measured(device, classes, seconds, quick=quick, as_json=as_json)
    except BaseException as stop:
        stop.add_note(f"stopped: {path} is as it was")
        raise
    finally:
        torch.set_num_threads(usual)
    _keep(path, tables, alone=out is not None)
    if as_json:
        print(json.dumps({"kind": "kept", "path": str(path)}))
        return
    console = results()
    console.print(fitting(console, lambda omitted: _table(found, omitted), ("shapes", "so far (worst)"), whole="--json"))
    lines(
        console,
        "Regret: the chosen engine's time over the fastest one's; now: of shapes that the model was not fitted to."
        f" So far: {'; '.join(so_far)}.",
        f"Kept in {path}.",
        style="dim",
    )


def _measured(device: str, classes: Sequence[int], seconds: float, *, quick: bool, as_json: bool) -> tuple[list[Found], list[Any]]:
    """What is shown, and a table for each number of threads."""
    import torch

    from lisabench.measure import tuning

    found, tables = [], []
    lines(messages(), *(f"engine {engine} does not run on {device}: {why}" for engine, why in tuning.absent(device).items()))
    wanted = tuning.shapes(quick=quick)
    for count in classes:
        torch.set_num_threads(count)
        so_far, left_out = _coefficients(device, count), dict[str, str]()
        points: list[Point] = []
        with _Watch(f"{device}, {count} thread{'s' if count > 1 else ''}" if device == "cpu" else device, seconds / len(classes)) as watch:
            measured = tuning.measure(wanted, device=device, seconds=seconds / len(classes), left_out=left_out, so_far=so_far)
            for point in measured:
                points.append(point)
                watch.timed(point)
                if as_json:
                    print(json.dumps({"kind": "timing", "device": device, "threads": count} | _fields(point)), flush=True)
        lines(messages(), *(f"{engine} was left out where it did not run, such as {why}" for engine, why in left_out.items()))
        if not tuning.enough(points):
            raise InputError(f"{len(points)} timings in {seconds / len(classes):g} s are too few for a table; give a larger --budget")
        table = tuning.table(points, device, count)
        tables.append(table)
        for mode in tuning.choice().MODES:
            of_mode = [point for point in points if point.mode == mode]
            squares = tuning.on_squares(table.coefficients, mode, table.device)
            before = tuning.regret(of_mode, so_far, table.device)
            now = tuning.held_out_regret(of_mode, table.device)
            found.append(Found(device, count, mode, squares, before, now))
            if as_json:
                print(json.dumps({"kind": "choice"} | _record(found[-1])), flush=True)
    return found, tables


def _coefficients(device: str, threads: int) -> Any:
    """Those in force so far; none where the device has no table."""
    from lisabench.measure.tuning import choice

    found = choice().in_force(device, threads)
    return found[0].coefficients if found else {}


def _keep(path: Path, tables: Sequence[Any], *, alone: bool) -> None:
    """Writes the tables, before those that the file holds for other machines."""
    from lisabench.files import write_whole
    from lisabench.measure.tuning import choice

    def place(table: Any) -> tuple[str, ...]:
        return table.kind, table.machine, table.torch

    new = {place(table) for table in tables}
    older = [] if alone else [table for table in choice().read(path) if place(table) not in new]
    write_whole(path, choice().written([*tables, *older]))
    choice().forget()


def _check_place(path: Path) -> None:
    """RunError where the file could not be written: it is found before the measuring."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(None, "a folder")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise RunError(f"{str(path)!r} cannot be written ({error.strerror or error}); give a file that can be with --out") from error


# --- what is shown ---------------------------------------------------------------------------------------------------


class _Watch(Bar):
    """A bar of the time on a terminal, a line in a pipe."""

    def __init__(self, what: str, seconds: float) -> None:
        if sys.stderr.isatty():
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (BarColumn(bar_width=12), TimeElapsedColumn(), TextColumn("{task.description}"))
            self.bar = Progress(*columns, console=messages(), transient=True, refresh_per_second=4, redirect_stdout=sys.stdout.isatty())
            self.task = self.bar.add_task(what, total=None)
            self.what = what
        else:
            lines(messages(), f"{what}: measuring for up to {units.duration(seconds)}")

    def timed(self, point: Point) -> None:
        if self.bar:
            self.update(description=f"{self.what}: {WORDS[point.mode]}, grid {point.shape.grid}, batch {point.shape.batch}")


def _table(found: Sequence[Found], omitted: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    rows = [_cells(each) for each in found]
    names = [name for name in rows[0] if name not in omitted]
    for name in names:
        table.add_column(name, justify="left" if name in ("device", "mode", "fastest on squares, tokens") else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[name] for name in names))
    return table


def _cells(found: Found) -> dict[str, str]:
    before, now = (f"{r.median:.2f} ({r.worst:.2f})" if r else units.MISSING for r in (found.so_far, found.now))
    threads = f", {found.threads} thread{'s' if found.threads > 1 else ''}" if found.device == "cpu" else ""
    return {
        "device": f"{found.device}{threads}",
        "mode": WORDS[found.mode],
        "fastest on squares, tokens": _squares(found.squares),
        "so far (worst)": before,
        "now (worst)": now,
        "shapes": str(found.now.shapes if found.now else 0),
    }


def _squares(runs: Sequence[tuple[str, int]]) -> str:
    """'dense to 196, mixed to 4,096, fft'."""
    return ", ".join([*(f"{engine} to {tokens:,}" for engine, tokens in runs[:-1]), *(engine for engine, _ in runs[-1:])])


def _fields(point: Point) -> dict[str, Any]:
    shape: dict[str, Any] = point.shape._asdict()
    grid = shape.pop("grid")
    return {"mode": point.mode, "height": grid.height, "width": grid.width} | shape | {"latency_s": point.seconds}


def _record(found: Found) -> dict[str, Any]:
    regrets = {name: value._asdict() if value else None for name, value in (("so_far", found.so_far), ("now", found.now))}
    return {"device": found.device, "threads": found.threads, "mode": found.mode, "squares": found.squares, "regret": regrets}
