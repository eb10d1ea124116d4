"""A table as Markdown with pipes, as GitHub shows it."""

from __future__ import annotations

import re

from lisabench.render.tabular import Cell, Table

# What Markdown or the HTML that it lets through would take for its own, pipes among it.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#!|~$&^])")


def escape(text: str) -> str:
    """The text as Markdown shows it, whatever is in it."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def render(table: Table) -> str:
    """The table with every column, a row's device and workload where it has several, and its caption."""
    told = {"device": [block.device for block in table.blocks], "workload": [block.title for block in table.blocks]}
    told = {name: words for name, words in told.items() if any(words)}
    heads = [*told, "operator", *map(escape, table.heads)]
    lines = [heads, [*(["---"] * (1 + len(told))), *["---:"] * len(table.columns)]]
    for place, block in enumerate(table.blocks):
        before = [escape(words[place]) for words in told.values()]
        lines += [[*before, escape(row.label), *map(_cell, row.cells)] for row in block.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{escape(table.caption)}\n"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    text = {"best": f"**{text}**", "second": f"<ins>{text}</ins>"}.get(cell.mark, text)
    return f"{text} {cell.interval}".rstrip()
