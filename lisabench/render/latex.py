"""A table as LaTeX, for booktabs and siunitx (version 3): \\input it where it shall stand."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

import numpy as np

from lisabench.render.tabular import Block, Cell, Column, Heading, Row, Table

COLUMN_POINTS, PAGE_POINTS = 236.0, 496.0
"""The width of a column and of a page that tables are made for, in TeX's points: CVPR's, as in venues.py."""
_SIZE, _SCRIPT_SIZE, _GAP = 8.0, 7.0, 6.0  # points of \footnotesize and \scriptsize in a paper of 10, and between columns
_LABEL_LETTERS = (24, 16, 12, 8)  # of a longer name the rest stands in a line of its own; the fewer, the narrower the table
_NUMBER = re.compile(r"\d+(\.\d+)?")
_SPECIAL = {
    **{character: "\\" + character for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "|": r"\textbar{}",
    '"': r"{\ttfamily\char34}",
    "−": r"\ensuremath{-}",
    "±": r"\ensuremath{\pm}",
    "×": r"\ensuremath{\times}",
    "²": r"\textsuperscript{2}",
    "₂": r"\textsubscript{2}",
    "₀": r"\textsubscript{0}",
    "ᵖ": r"\textsuperscript{p}",
    "≈": r"\ensuremath{\approx}",
    "µ": r"\textmu{}",
    "–": r"\textendash{}",
    "·": r"\textperiodcentered{}",
}
_LATIN = frozenset(map(chr, range(0xC0, 0x100))) - frozenset("ÐðÞþ÷")
_UNITS = {"s": r"\second", "ms": r"\milli\second", "µs": r"\micro\second", "J": r"\joule", "mJ": r"\milli\joule", "µJ": r"\micro\joule"}
_UNITS |= {"GiB": r"\gibi\byte", "MiB": r"\mebi\byte", "KiB": r"\kibi\byte", "B": r"\byte", "%": r"\percent"}


def escape(text: str) -> str:
    """The text as LaTeX shows it, whatever is in it; a character that pdflatex has no glyph for as its number: 'U+4E2D'."""
    shown = "".join(_SPECIAL.get(character, character) for character in _printable(text))
    return re.sub(r"(?<=([-'`]))(?=\1)", "{}", shown)  # else two of them become one sign


def _printable(text: str) -> str:
    """The text on one line, in characters for which pdflatex has a glyph."""
    return "".join(
        character if " " <= character <= "~" or character in _SPECIAL or character in _LATIN else f"U+{ord(character):04X}"
        for character in " ".join(text.split())
    )


def fitted(table: Table) -> Table:
    """The table with as many of its columns as its width takes, the first and the last among them; as it is where none can be left out."""
    count = len(table.columns)
    for kept in range(count, 1, -1) if table.thin else ():
        part = table.only(sorted(set(np.linspace(0, count - 1, kept).round().astype(int).tolist())))
        if _width(part, _LABEL_LETTERS[1]) <= _room(part):
            return part
    return table


def _room(table: Table) -> float:
    return PAGE_POINTS if table.wide else COLUMN_POINTS


def render(table: Table) -> str:
    """The table as a `tabular` of its own size of type; what it needs stands in its first line."""
    columns = [
        _Layout(column, [row.cells[place] for block in table.blocks for row in block.rows]) for place, column in enumerate(table.columns)
    ]
    spans = [2 if column.intervals else 1 for column in columns]
    letters = next((letters for letters in _LABEL_LETTERS if _width(table, letters) <= _room(table)), _LABEL_LETTERS[-1])
    lines = [
        r"% \usepackage{booktabs,siunitx}, siunitx of version 3; \input this file in a table or table* environment",
        r"\begingroup\footnotesize\setlength{\tabcolsep}{3pt}\sisetup{mode=text,reset-text-series=false,group-digits=none}%",
        r"\begin{tabular}{@{}l" + "".join(column.specification for column in columns) + "@{}}",
        r"\toprule",
        *_heads(table.columns, spans),
        r"\midrule",
    ]
    for place, block in enumerate(table.blocks):
        lines += [r"\midrule"] * (place > 0)
        lines += _titled(block, sum(spans) + 1)
        lines += [line for row in block.rows for line in _row(row, columns, letters)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}\endgroup", ""])


class _Layout:
    """How a column is set: its digits before and behind the point, and whether its intervals have a column of their own behind it."""

    def __init__(self, column: Column, cells: Sequence[Cell]) -> None:
        numbers = [cell.text.partition(".") for cell in cells if _NUMBER.fullmatch(cell.text)]
        self.before, self.behind = (max((len(parts[at]) for parts in numbers), default=0) for at in (0, 2))
        self.intervals = any(cell.interval for cell in cells)
        digits = "0" * self.before + "." * (self.behind > 0) + "0" * self.behind
        figures = max(_points(text) for text in (digits, *(cell.text for cell in cells if not _NUMBER.fullmatch(cell.text))))
        intervals = max((_points(cell.interval, _SCRIPT_SIZE) + 2 for cell in cells if cell.interval), default=0.0)
        self.points = _GAP + max(figures + intervals, _points(column.head.text), _points(f"({column.head.unit})"))

    @property
    def specification(self) -> str:
        number = f"S[table-format={self.before}.{self.behind}]" if self.before else "c"
        return number + (r"@{\hspace{2pt}}l" if self.intervals else "")

    def cell(self, cell: Cell) -> str:
        interval = rf"{{\scriptsize {escape(cell.interval)}}}" if cell.interval else ""
        if not _NUMBER.fullmatch(cell.text):
            mark = {"best": r"\bfseries ", "second": r"\underline"}.get(cell.mark, "")
            return rf"\multicolumn{{{1 + self.intervals}}}{{c}}{{{mark}{{{escape(cell.text)}}}}}"
        number = {"best": rf"\bfseries {cell.text}", "second": self._underlined(cell.text)}.get(cell.mark, cell.text)
        return f"{number} & {interval}".rstrip() if self.intervals else number

    def _underlined(self, text: str) -> str:
        """siunitx does not underline: the number as text, with what it lacks of the column's digits as empty space."""
        before, point, behind = text.partition(".")
        left = self.before - len(before)
        right = "." * (not point and self.behind > 0) + "0" * (self.behind - len(behind))
        spaces = [rf"\phantom{{{digits}}}" if digits else "" for digits in ("0" * left, right)]
        return rf"{{{spaces[0]}\underline{{{text}}}{spaces[1]}}}"


def _heads(columns: Sequence[Column], spans: Sequence[int]) -> list[str]:
    """The line of headings, and above it, ruled, those that neighbours share."""
    overs: list[tuple[Heading | None, int]] = []
    for column, span in zip(columns, spans, strict=True):
        same = overs and overs[-1][0] is not None and overs[-1][0] == column.over
        overs[-1:] = [(column.over, overs[-1][1] + span)] if same else [*overs[-1:], (column.over, span)]
    lines, rules, at = [""], "", 2
    for over, span in overs:
        lines[0] += rf" & \multicolumn{{{span}}}{{c}}{{{_shared(over)}}}"
        rules += rf"\cmidrule(lr){{{at}-{at + span - 1}}}" if over else ""
        at += span
    lines = [lines[0] + r" \\", rules] if rules else []  # units stand in a line of their own: they would make columns wide
    heads = [(escape(column.head.text), f"({_unit(column.head.unit)})" if column.head.unit else "") for column in columns]
    for first, parts in zip(("operator", ""), zip(*heads, strict=True), strict=True):
        if any(parts):
            cells = (rf"\multicolumn{{{span}}}{{c}}{{{part}}}" for part, span in zip(parts, spans, strict=True))
            lines.append(" & ".join([first, *cells]) + r" \\")
    return lines


def _shared(over: Heading | None) -> str:
    return "" if over is None else escape(over.text) + (f" ({_unit(over.unit)})" if over.unit else "")


def _unit(unit: str) -> str:
    return rf"\unit{{{_UNITS[unit]}}}" if unit in _UNITS else escape(unit)


def _titled(block: Block, span: int) -> list[str]:
    return [rf"\multicolumn{{{span}}}{{@{{}}l}}{{\itshape {escape(block.heading)}}} \\"] if block.heading else []


def _row(row: Row, columns: Sequence[_Layout], letters: int) -> list[str]:
    first, *rest = _label_lines(row.label, letters)
    start = "{}" if first[:1] in ("[", "*") else ""  # or the end of the row above would take it for its option
    figures = [column.cell(cell) for column, cell in zip(columns, row.cells, strict=True)]
    return [" & ".join([start + escape(first), *figures]) + r" \\", *(rf"\enspace {escape(line)} \\" for line in rest)]


def _label_lines(label: str, letters: int) -> list[str]:
    return textwrap.wrap(_printable(label), letters) or [""]


def _width(table: Table, letters: int) -> float:
    """About how wide the table is, in points, with names of so many letters in a line."""
    rows = [row for block in table.blocks for row in block.rows]
    labels = [_points(f"  {line}") for label in ("operator", *(row.label for row in rows)) for line in _label_lines(label, letters)]
    columns = (_Layout(column, [row.cells[place] for row in rows]) for place, column in enumerate(table.columns))
    return max(labels) + sum(column.points for column in columns)


def _points(text: str, size: float = _SIZE) -> float:
    """About how wide a text is in Times: digits are half as wide as high."""
    return size * sum(0.3 if letter in " .,:;'|()[]ijlt" else 0.75 if letter.isupper() else 0.5 for letter in text)
