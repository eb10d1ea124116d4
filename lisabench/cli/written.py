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
    told = [*written.notes, f"{count:,} record{'s' if count != 1 else ''}, {written.words()} are in {out}"]
    if older := _older(written):
        told.append(
            f"{len(older)} file{'s' if len(older) != 1 else ''} of earlier reports stand beside them, such as {older[0].relative_to(out)}"
        )
    lines(messages(), *told)


def _older(written: Written) -> list[Path]:
    """What an earlier report, of other operators or for another venue, wrote where this one wrote figures and tables."""
    made = {*written.figures, *written.tables}
    beside = {path for folder in {path.parent for path in made} for path in folder.iterdir() if path.is_file()}
    return sorted(path for path in beside - made if not path.name.startswith("."))
