"""What is said of files that were rendered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lisabench.cli.console import lines, messages

if TYPE_CHECKING:
    from lisabench.render.outputs import Written
    from lisabench.results import Run


def tell(runs: Sequence[Run], written: Written, out: Path) -> None:
    """'14 records, 5 figures, 3 tables, report.html and results.csv are in RUN', on stderr."""
    count = sum(len(run.records) for run in runs)
    lines(messages(), *written.notes, f"{count:,} record{'s' if count != 1 else ''}, {written.words()} are in {out}")
