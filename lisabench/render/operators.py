"""The page of the operators in Markdown, from what they say of themselves; see `lisabench ops --json`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

Info = Mapping[str, Any]

HEAD = """# Operators

This page is made by `lisabench ops --markdown > docs/operators.md` from what the operators say of themselves: change them, not it.

Letters: B batch, N = H W tokens on a grid of height H and width W, C channels, h heads, d = C / h channels a head; others are
options, or stand with the formula. Time and memory are how the FLOPs of mixing and the memory that it takes grow, without the
projections. Parameters are those of the whole layer at {shape}; the column *by the grid* has those
of them whose number its size decides on. Parameters and symmetries are those with the default options. `lisabench verify` holds
every operator to a dense float64 reference, to its symmetries, and to the growth that is stated here.
"""


def markdown(infos: Sequence[Info], *, shape: str) -> str:
    """The whole page: a table a family, then a section an operator, in the order of `infos`."""
    parts = [HEAD.format(shape=shape)]
    for family, members in groupby(infos, key=lambda info: info["family"]):
        parts.append(f"## {family[:1].upper()}{family[1:]}\n")
        parts.append("\n".join(_table(list(members))) + "\n")
    parts += ["\n".join(_section(info)) for info in infos]
    return "\n".join(parts)


def default_text(value: Any) -> str:
    """A default as the command line takes it."""
    return {None: "none", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)


def _table(infos: Sequence[Info]) -> Iterator[str]:
    yield "| operator | time | memory | parameters | by the grid | source |"
    yield "|---|---|---|--:|---|---|"
    for info in infos:
        cells = [
            f"[`{info['name']}`](#{anchor(info['name'])})",
            _code(info["time_order"]),
            _code(info["memory_order"]),
            _count(info),
            _code(info["grid_parameters"]),
            _escaped(info["source"]),
        ]
        yield f"| {' | '.join(cells)} |"


def anchor(name: str) -> str:
    """What a heading of that name is linked by."""
    return re.sub(r"[^a-z0-9_-]", "", name.lower().replace(" ", "-"))


def _section(info: Info) -> Iterator[str]:
    yield f"### {info['name']}\n"
    yield f"{_escaped(info['title'])}. Family: {info['family']}.\n"
    yield f"    {info['formula']}\n"
    yield f"- Source: {_escaped(info['source'])}."
    if info["caveat"]:
        yield f"- Caveat: {_escaped(info['caveat'])}."
    yield f"- Growth: time {_code(info['time_order'])}, memory {_code(info['memory_order'])}."
    by_grid = f", of which the grid decides on {_code(info['grid_parameters'])}" if info["grid_parameters"] else ""
    yield f"- Parameters: {_count(info)}{by_grid}."
    yield f"- Symmetries: {', '.join(info['symmetries'] or ['none'])}."
    yield f"- Needs: {_escaped(info['needs']) or 'nothing; it takes any grid'}."
    if not info["options"]:
        yield "- Options: none.\n"
    else:
        yield "\n| option | type | default |"
        yield "|---|---|---|"
        for name, option in info["options"].items():
            yield f"| {_code(name)} | {_code(option['type'])} | {_code(default_text(option['default']))} |"
        yield ""
    yield f"```text\n{info['docstring']}\n```\n"


def _count(info: Info) -> str:
    return f"{info['parameters']:,}" if info["parameters"] is not None else _escaped(info["absent"]["parameters"])


def _code(text: str) -> str:
    """Text as it is; in a table's cell a bar would end the cell."""
    return f"`{text.replace('|', chr(92) + '|')}`" if text else ""


def _escaped(text: str) -> str:
    return re.sub(r"([\\*_|<>\[\]`])", r"\\\1", text)
