"""What is shown of a sweep while it runs: a bar, and a line for each device that measures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from lisabench import units
from lisabench.cli.console import Bar, lines, messages

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress

    from lisabench.journal import Record
    from lisabench.sweep import Cell

WIDE = 80
# Of more devices than this only so many have a line of their own.
MOST_LINES = 16


class Watch(Bar):
    """Follows a run: a progress bar on a terminal, records as JSON lines where asked, messages on stderr."""

    def __init__(self, cells: int, *, as_json: bool, quiet: bool) -> None:
        self.as_json, self.quiet = as_json, quiet
        self.doing: dict[str, str] = {}  # stand -> what it is at
        if sys.stderr.isatty() and not quiet:
            self.bar = _bar(self.doing)
            self.task = self.bar.add_task("starting", total=cells, left="")

    def settled(self, cells: int) -> None:
        self.update(advance=cells)

    def started(self, stand: str, cell: Cell, seconds_left: float | None) -> None:
        self._show(stand, _name(cell))
        self.update(left="" if seconds_left is None else f"about {units.duration(seconds_left)} left")

    def progress(self, stand: str, cell: Cell, phase: str, seconds_a_call: float | None) -> None:
        now = f" {units.seconds(seconds_a_call)}" if seconds_a_call else ""
        self._show(stand, f"{_name(cell)} · {phase}{now}")

    def finished(self, stand: str, cell: Cell, record: Record) -> None:
        if self.as_json:
            print(json.dumps(record), flush=True)
        self.update(advance=1)

    def gone(self, stand: str) -> None:
        self.doing.pop(stand, None)

    def said(self, text: str) -> None:
        if not self.quiet:
            lines(messages() if self.bar is None else self.bar.console, text)

    def _show(self, stand: str, what: str) -> None:
        self.doing[stand] = what
        self.update(description=what if len(self.doing) == 1 else f"{len(self.doing)} devices")


def _bar(doing: Mapping[str, str]) -> Progress:
    """The bar; below it, where several devices measure, what each is at."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.text import Text

    class Bars(Progress):
        def get_renderables(self) -> Iterable[RenderableType]:
            yield from super().get_renderables()
            shown = sorted(doing.items())[:MOST_LINES] if len(doing) > 1 else []
            yield from (Text(f"  {stand}  {what}", style="dim", overflow="ellipsis", no_wrap=True) for stand, what in shown)
            if shown and len(doing) > len(shown):
                yield Text(f"  and {len(doing) - len(shown)} more", style="dim")

    # Drawn twice a second: more would take time from the cores that are being measured.
    return Bars(
        *([BarColumn(bar_width=12)] if messages().width >= WIDE else []),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TextColumn("[dim]{task.fields[left]}"),
        console=messages(),
        transient=True,
        refresh_per_second=2,
        redirect_stdout=sys.stdout.isatty(),  # rich would send records that go to a file or a pipe to the terminal
    )


def _name(cell: Cell) -> str:
    return f"{cell.op.rpartition(':')[2]} {cell.workload.tokens:,} x {cell.workload.batch}"
