"""`lisabench verify`: holds operators to their laws, or their FLOP formulas to the counters."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lisabench import units
from lisabench.cli.console import Bar, messages
from lisabench.errors import LisaBenchError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from lisabench.law import Finding
    from lisabench.run.audit import Audit
    from lisabench.workload import Workload

# What a terminal must be wide for: each column is dropped on one that is narrower.
COLUMNS = {"operator": 0, "pass": 0, "formula": 0, "torch": 0, "fvcore": 0, "coverage": 0} | {
    "stock torch": 76,
    "stock fvcore": 76,
    "stock misses": 92,
    "not counted": 104,
}


class LawsBrokenError(LisaBenchError):
    """An operator broke a law, or its FLOP formula is not what the counters count: exit code 1."""


def verify(
    op: Annotated[list[str] | None, typer.Option(help="Operator, comma list, or FILE.py:CLASS; repeatable. [default: all]")] = None,
    op_option: Annotated[list[str] | None, typer.Option(help="[OP.]NAME=VALUE; repeatable.")] = None,
    flops: Annotated[bool, typer.Option("--flops", help="Audit the FLOP formulas against two counters instead.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1. Not auto as elsewhere: the laws need no GPU.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Check operators against their dense reference and the laws that hold for all, or with --flops their FLOPs against counters."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported: spinning threads slow these many small calls
    from lisabench import registry
    from lisabench.axes import resolve_operators
    from lisabench.cli.options import resolve_device, tell_left_out
    from lisabench.laws import DIM, GRIDS, HEADS
    from lisabench.sweep import check_options
    from lisabench.workload import Workload

    device = resolve_device(device)
    asked = resolve_operators(op or ["all"], None, op_option or [])
    ours = registry.built_in()
    for name, options in asked:
        if name in ours and options != registry.load(name).resolve({}):  # what else is wrong with it, the laws tell
            check_options(name, options, Workload(grid=GRIDS[-1], dim=DIM, heads=HEADS))
    tell_left_out(op or ["all"])
    (_verify_flops if flops else _verify_laws)(asked, device, as_json=as_json)


def _verify_laws(asked: Sequence[tuple[str, dict[str, Any]]], device: str, *, as_json: bool) -> None:
    import torch

    from lisabench import registry
    from lisabench.cli.console import lines, results
    from lisabench.cli.findings import label, line, print_count, print_table
    from lisabench.laws import LAWS
    from lisabench.laws import verify as verify_operator

    console = results()
    found: dict[str, list[Finding]] = {}
    with _Watch(asked, steps=len(LAWS)) as watch:
        for name, options in asked:
            watch.started(name)
            found[name] = []
            for finding in _quiet(verify_operator(registry.load(name), options, device=device)):
                found[name].append(finding)
                watch.update(advance=1)
                if as_json:
                    print(json.dumps({"op": name, "law": finding.law, "holds": finding.holds, "detail": finding.detail}), flush=True)
                elif len(asked) == 1:
                    console.print(line(name, finding), soft_wrap=True)
    if not as_json:
        if len(asked) > 1:
            print_table(console, found)
        print_count(console, found)
        for name, _ in asked:
            for engine, reason in registry.load(name).left_out(torch.device(device), torch.float32).items():
                lines(console, f"{label(name)}: engine {engine} does not run on {device}: {reason}")
    broken = sum(finding.holds is False for findings in found.values() for finding in findings)
    if broken:
        raise LawsBrokenError(f"{broken} {'law is' if broken == 1 else 'laws are'} broken; the lines above say where")


def _quiet(findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings as they come; what a user's operator prints meanwhile goes to stderr, as only results may stand on stdout."""
    while True:
        with redirect_stdout(sys.stderr):
            finding = next(findings, None)
        if finding is None:
            return
        yield finding


def _verify_flops(asked: Sequence[tuple[str, dict[str, Any]]], device: str, *, as_json: bool) -> None:
    from lisabench.cli.console import results
    from lisabench.run.audit import audit, audited_workload

    rows: list[Audit] = []
    with _Watch(asked, steps=1) as watch:
        for name, options in asked:
            watch.started(name)
            with redirect_stdout(sys.stderr):
                found = audit(name, options, device=device)
            watch.update(advance=1)
            rows += found
            if as_json:
                for row in found:
                    print(json.dumps(row.record()), flush=True)
    if not as_json:
        print_audit(results(), rows, audited_workload(device))
    off = sum(not row.holds for row in rows)
    if off:
        raise LawsBrokenError(
            f"{off} of {len(rows)} FLOP figures {'is' if off == 1 else 'are'} off or absent; the lines above say where and why"
        )


class _Watch(Bar):
    """A progress bar on a terminal; none for one operator, whose results are printed as they come."""

    def __init__(self, asked: Sequence[tuple[str, Any]], *, steps: int) -> None:
        if len(asked) > 1 and sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (BarColumn(bar_width=12), MofNCompleteColumn(), TextColumn("{task.description}"))
            # rich would send JSON lines that go to a file or a pipe to the terminal.
            redirect = sys.stdout.isatty()
            self.bar = Progress(*columns, console=messages(), transient=True, refresh_per_second=4, redirect_stdout=redirect)
            self.task = self.bar.add_task("starting", total=steps * len(asked))

    def started(self, name: str) -> None:
        self.update(description=name.rpartition(":")[2])


def print_audit(console: Console, rows: Sequence[Audit], workload: Workload) -> None:
    """The table in the columns that the console is wide enough for, what is off, and the convention."""
    from lisabench.cli.console import lines
    from lisabench.run.audit import CONVENTION

    console.print(_table(rows, [name for name, width in COLUMNS.items() if console.width >= width], workload))
    for row in rows:
        lines(console, *(f"{_label(row)} {row.direction}: {note}" for note in _notes(row)))
    lines(console, f"Convention: {CONVENTION}.")
    lines(
        console,
        "Backward is a training step minus its forward. Stock: the share that each counter gives without our handles"
        " (fvcore doubled: its unit is the multiply-add).",
    )
    dropped = [name for name, width in COLUMNS.items() if console.width < width]
    if dropped:
        lines(console, f"Left out on {console.width} columns: {', '.join(dropped)}; --json has all.")


def _table(rows: Sequence[Audit], columns: Sequence[str], workload: Workload) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = f"FLOPs of one call: {workload.describe()}, dim {workload.dim}, heads {workload.heads}, {workload.scope}, {workload.device}"
    table = Table(
        title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", padding=(0, 1, 0, 0), pad_edge=False, show_edge=False
    )
    for name in columns:
        words = name in ("operator", "pass", "stock misses", "not counted")
        header = name.replace("stock ", "stock\n") if not words else name
        table.add_column(header, justify="left" if words else "right", no_wrap=not name.endswith(("misses", "counted")))
    for row in rows:
        cells = _cells(row)
        style = "" if row.holds else "bold red"
        table.add_row(*(Text(cells[name]) for name in columns), style=style, end_section=row.direction == "backward")
    return table


def _cells(row: Audit) -> dict[str, str]:
    misses = {counter: ", ".join(parts) or "nothing" for counter, parts in row.stock_misses.items()}
    apart = "; ".join(f"{counter}: {parts}" for counter, parts in misses.items())
    return {
        "operator": _label(row, "\n") if row.direction == "forward" else "",
        "pass": row.direction,
        "formula": units.flops(row.analytic),
        "torch": units.flops(row.torch),
        "fvcore": units.flops(row.fvcore),
        "coverage": _percent(row.coverage, 1),
        "stock torch": _percent(row.stock_torch),
        "stock fvcore": _percent(row.stock_fvcore),
        "stock misses": apart if len(set(misses.values())) > 1 else next(iter(misses.values()), ""),
        "not counted": ", ".join(dict.fromkeys(re.sub(r"_backward(_data)?$", "", name).strip("_") for name in row.left_out)),
    }


def _notes(row: Audit) -> list[str]:
    """What must be said of a row beside its figures."""
    if row.error is not None:
        return [row.error]
    told = [f"{row.missing}; {row.excuse}" if row.excuse else row.missing] if row.missing else []
    if row.direction == "forward":  # that fvcore sees no backward stands once, beneath
        told += dict.fromkeys(row.absent.values())
    return told + ([row.absent["torch"]] if row.direction == "backward" and "torch" in row.absent else [])


def _label(row: Audit, between: str = " ") -> str:
    """The operator, its class where it is a user's, and the options that are not the defaults."""
    from lisabench import registry

    defaults = registry.load(row.op).resolve({})
    given = [f"{name}={value}" for name, value in row.options.items() if defaults.get(name) != value]
    return between.join([row.op.rpartition(":")[2], *given])


def _percent(share: float | None, decimals: int = 0) -> str:
    if share is None:
        return units.MISSING
    return "<1%" if 0 < share < 0.005 and not decimals else f"{100 * share:.{decimals}f}%"
