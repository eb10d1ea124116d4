"""The two streams: results on stdout, progress and messages on stderr. NO_COLOR and pipes are respected (rich does)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

PIPE_WIDTH = 110


def results() -> Console:
    """stdout; wide enough for a table when it is a pipe or a file."""
    return _console(sys.stdout)


def messages() -> Console:
    """stderr."""
    return _console(sys.stderr)


def lines(console: Console, *texts: object, style: str = "") -> None:
    """Prints each text on its own: broken between words on a terminal, in one line in a pipe."""
    for text in texts:
        console.print(text, style=style, markup=False, soft_wrap=not console.is_terminal)


def fitting(console: Console, draw: Callable[[Sequence[str]], Table], least_needed: Sequence[str], *, whole: str) -> Group:
    """The table without as many of the least needed columns as the console is too narrow for, and a line that names those.

    `draw` makes the table without the columns that it is given; `whole` says what has them all.
    """
    from rich.console import Group
    from rich.measure import Measurement
    from rich.text import Text

    unbounded = console.options.update(max_width=10_000)
    table = full = draw(())
    omitted = 0
    while omitted < len(least_needed) and Measurement.get(console, unbounded, table).maximum > console.width:
        omitted += 1
        table = draw(least_needed[:omitted])
    there, kept = ({column.header for column in drawn.columns} for drawn in (full, table))
    dropped = [name for name in least_needed if name in there - kept]
    told = Text(f"left out on {console.width} columns: {', '.join(dropped)}; {whole} has all", style="dim")
    return Group(table, *([told] if dropped else []))


class Bar:
    """What follows a run with a progress bar, drawn for as long as it is entered; nothing where it has none."""

    bar: Any = None
    task: Any = None

    def __enter__(self) -> Self:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def update(self, **shown: Any) -> None:
        """Passes on to the bar what is to be shown: `description`, `advance`, fields."""
        if self.bar:
            self.bar.update(self.task, **shown)


def _console(stream: object) -> Console:
    from rich.console import Console

    class Piped(Console):
        """Leaves it to the program what to do when the reader has gone; rich ends with 1."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    on_terminal = getattr(stream, "isatty", lambda: False)()
    return Piped(file=stream, width=None if on_terminal else PIPE_WIDTH, highlight=False, soft_wrap=False)  # type: ignore[arg-type]
