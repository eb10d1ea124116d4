"""How what became of the laws is shown: a line a law of one operator, a table of marks of several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lisabench.law import Finding

    Findings = Mapping[str, Sequence[Finding]]

WORDS = {True: ("holds", "green"), False: ("BROKEN", "bold red"), None: ("absent", "yellow")}
MARKS = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("–", "yellow")}
PLAIN = {"✓": "+", "✗": "X", "–": "-"}
"""The marks where the output's encoding has no others."""
SHORT = {
    "reference, float64": "ref64",
    "reference, float32": "ref32",
    "independent of the batch": "batch",
    "symmetries": "symm",
    "gradients": "grad",
    "shape and dtype kept": "dtype",
    "finite at scale 30": "scale",
    "deterministic": "seed",
    "FLOPs counted": "FLOPs",
    "time order": "time",
    "memory order": "memory",
}
"""What stands over a column; of a law that is not here its first word."""


def label(name: str) -> str:
    """An operator's name, of a user's own the class."""
    return name.rpartition(":")[2]


def line(name: str, finding: Finding) -> Text:
    """All of one finding."""
    from rich.text import Text

    return Text.assemble(f"{label(name):<16} {finding.law:<26} ", WORDS[finding.holds], f"  {finding.detail}")


def print_table(console: Console, found: Findings) -> None:
    """Marks of all operators, then a line on each broken law, and a line on each reason for which a law cannot be asked."""
    from lisabench.cli.console import lines

    console.print(_fitting(console, found))
    for name, findings in found.items():
        for finding in findings:
            if finding.holds is False:
                console.print(line(name, finding), soft_wrap=True)
    absent: dict[str, list[str]] = {}
    for name, findings in found.items():
        for why in dict.fromkeys(finding.detail for finding in findings if finding.holds is None):
            absent.setdefault(why, []).append(label(name))
    lines(console, *(f"{_mark(console, None)} {why}: {', '.join(names)}" for why, names in absent.items()), style="dim")


def print_count(console: Console, found: Findings) -> None:
    """How many laws hold, are broken and cannot be asked: what the marks mean, too."""
    from lisabench.cli.console import lines

    counts = Counter(finding.holds for findings in found.values() for finding in findings)
    what = {True: "hold", False: "broken", None: "cannot be asked"}
    told = ", ".join(f"{_mark(console, holds)} {counts[holds]} {word}" for holds, word in what.items())
    lines(console, f"{len(found)} operator{'s' if len(found) != 1 else ''}: {told}")


def _fitting(console: Console, found: Findings) -> Table:
    """A row an operator; where that is too wide a row a law; where that is too wide as well only how many."""
    from rich.measure import Measurement

    for draw in (_by_operator, _by_law):
        table = draw(console, found)
        if Measurement.get(console, console.options.update(max_width=10_000), table).maximum <= console.width:
            return table
    return _counted(found)


def _by_operator(console: Console, found: Findings) -> Table:
    from rich.text import Text

    table = _table("operator", *(SHORT.get(law, law.partition(" ")[0].rstrip(",")) for law in _laws(found)))
    for name, findings in found.items():
        marks = {finding.law: _mark(console, finding.holds) for finding in findings}
        table.add_row(Text(label(name)), *(marks.get(law, Text()) for law in _laws(found)))
    return table


def _by_law(console: Console, found: Findings) -> Table:
    from rich.text import Text

    table = _table("law", *map(label, found))
    for law in _laws(found):
        table.add_row(law, *(next((_mark(console, f.holds) for f in findings if f.law == law), Text()) for findings in found.values()))
    return table


def _counted(found: Findings) -> Table:
    from rich.text import Text

    table = _table("operator", "hold", "broken", "cannot be asked")
    for name, findings in found.items():
        counts = Counter(finding.holds for finding in findings)
        table.add_row(
            Text(label(name), overflow="fold"),
            *(Text(str(counts[holds] or ""), style=MARKS[holds][1]) for holds in (True, False, None)),
        )
    return table


def _table(first: str, *others: str) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column(first, overflow="fold")
    for header in others:
        table.add_column(Text(header), justify="center", no_wrap=True)
    return table


def _laws(found: Findings) -> list[str]:
    return list(dict.fromkeys(finding.law for findings in found.values() for finding in findings))


def _mark(console: Console, holds: bool | None) -> Text:
    from rich.text import Text

    mark, style = MARKS[holds]
    try:
        mark.encode(console.encoding)
    except UnicodeEncodeError:
        mark = PLAIN[mark]
    return Text(mark, style=style)
