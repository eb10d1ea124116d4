"""Tables as LaTeX: names show themselves, columns fit. What LaTeX makes of them is seen in tests/test_paper.py."""

from __future__ import annotations

import re

import pytest

from lisabench.render.latex import escape, fitted, render
from lisabench.render.tabular import Block, Cell, Column, Heading, Row, Table, figure


def table(label: str = "lisa", *, columns: int = 3, thin: bool = True, wide: bool = False, mark: str = "") -> Table:
    over = Heading(text="latency", unit="ms")
    cells = tuple(figure(1.5 + place, 1.0, 3.0 + place) for place in range(columns))
    heads = tuple(Column(head=Heading(text=str(256 << place)), over=over) for place in range(columns))
    return Table(
        name="t", caption="", columns=heads, blocks=(Block(title="", rows=(Row(label=label, cells=cells),)),), thin=thin, wide=wide
    )


def rows(text: str) -> list[str]:
    return text.partition(r"\midrule")[2].partition(r"\bottomrule")[0].strip().splitlines()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("my_op & 100%", r"my\_op \& 100\%"),
        (r"\foo{x}", r"\textbackslash{}foo\{x\}"),
        ("$x^2$ ~", r"\$x\textasciicircum{}2\$ \textasciitilde{}"),
        ("<b>", r"\ensuremath{<}b\ensuremath{>}"),
        ("--key", "-{}-key"),
        ("Müller 中", "Müller U+4E2D"),
        ("a\n b", "a b"),
    ],
)
def test_a_text_is_escaped(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_the_first_and_the_last_size_stay_where_columns_do_not_fit() -> None:
    many = table(columns=20)
    kept = [column.head.text for column in fitted(many).columns]
    assert 2 < len(kept) < 20
    assert (kept[0], kept[-1]) == ("256", str(256 << 19))
    assert len(fitted(table(columns=20, wide=True)).columns) > len(kept)
    assert fitted(table(columns=20, thin=False)).columns == many.columns
    assert fitted(table()) == table()


def test_a_long_name_goes_on_in_lines_of_its_own() -> None:
    first, *rest = rows(render(table("my_operators.py:CrossCovarianceAttention (engine=fft, patterns=8)")))
    assert first.startswith(r"my\_operators & 1.50 &")
    assert len(rest) >= 2
    assert all(line.startswith(r"\enspace ") and "&" not in line for line in rest)


@pytest.mark.parametrize("label", ["[1]", "*x"])
def test_a_name_is_no_option_of_the_row_above(label: str) -> None:
    assert rows(render(table(label)))[0].startswith("{}" + label)


def test_marks_keep_the_place_of_the_point() -> None:
    cells = (Cell(text="123.4", value=123.4), Cell(text="5", value=5.0, mark="second"), Cell(text="0.25", value=0.25, mark="best"))
    made = tuple(Row(label=str(place), cells=(cell,)) for place, cell in enumerate(cells))
    text = render(Table(name="t", caption="", columns=(Column(head=Heading(text="a")),), blocks=(Block(title="", rows=made),)))
    assert "S[table-format=3.2]" in text
    assert [line.removesuffix(r" \\") for line in rows(text)] == [
        "0 & 123.4",
        r"1 & {\phantom{00}\underline{5}\phantom{.00}}",
        r"2 & \bfseries 0.25",
    ]


def test_a_word_stands_across_a_figure_and_its_interval() -> None:
    made = (Row(label="a", cells=(figure(1.0, 0.9, 1.1),)), Row(label="b", cells=(Cell(text="oom"),)))
    text = render(Table(name="t", caption="", columns=(Column(head=Heading(text="x")),), blocks=(Block(title="", rows=made),)))
    assert r"b & \multicolumn{2}{c}{{oom}} \\" in text
    assert re.search(r"a & 1\.00 & \{\\scriptsize \[0\.90, 1\.10\]\}", text)
