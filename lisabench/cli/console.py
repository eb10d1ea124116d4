"""The two streams: results on stdout, progress and messages on stderr. NO_COLOR and pipes are respected (rich does)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

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


def _console(stream: object) -> Console:
    from rich.console import Console

    on_terminal = getattr(stream, "isatty", lambda: False)()
    return Console(file=stream, width=None if on_terminal else PIPE_WIDTH, highlight=False, soft_wrap=False)  # type: ignore[arg-type]
