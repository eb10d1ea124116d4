"""Tables as Markdown: cells stay in their columns, and names show themselves."""

from __future__ import annotations

import re
from html import unescape

import pytest

from lisabench.render.markdown import escape, render
from lisabench.render.tabular import Block, Cell, Column, Heading, Row, Table, figure

HOSTILE = r"my_op & <b>$x^2$ 100%\foo | `a` *b* [c](d)"


def table(*labels: str, title: str = "") -> Table:
    over = Heading(text="latency", unit="ms")
    rows = tuple(Row(label=label, cells=(figure(1.5, 1.0, 2.0), Cell(text="oom"))) for label in labels)
    columns = tuple(Column(head=Heading(text=text), over=over) for text in ("256", "512"))
    return Table(name="latency", caption="What it is.", columns=columns, blocks=(Block(title=title, rows=rows),))


def test_a_table_has_a_row_an_operator_and_its_caption() -> None:
    lines = render(table("lisa", "softmax")).splitlines()
    assert lines[0] == "| operator | 256 (ms) | 512 (ms) |"
    assert lines[2] == "| lisa | 1.50 [1.00, 2.00] | oom |"
    assert lines[-1] == "What it is."


def test_the_workload_of_a_row_is_told_where_there_are_several() -> None:
    assert render(table("lisa", title="batch 8")).splitlines()[2].startswith("| batch 8 | lisa |")


def test_a_hostile_name_neither_opens_a_tag_nor_ends_its_cell() -> None:
    line = render(table(HOSTILE, title=HOSTILE)).splitlines()[2]
    assert len(re.findall(r"(?<!\\)\|", line)) == 5
    assert not re.search(r"(?<!\\)[<`*$]", line)
    assert unescape(re.sub(r"\\([^a-z0-9\s])", r"\1", escape(HOSTILE))) == HOSTILE


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", " a \t b "])
def test_a_name_stays_on_its_line(text: str) -> None:
    assert escape(text) == "a b"
