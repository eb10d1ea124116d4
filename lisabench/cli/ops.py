"""`lisabench ops`: the operators, and one in full."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lisabench.contract import Operator


def ops(
    name: Annotated[str | None, typer.Argument(help="An operator, or your own FILE.py:CLASS, to be shown in full.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """List the operators, or show one in full."""
    from lisabench import registry
    from lisabench.cli.console import results

    operators = [registry.load(n) for n in (registry.names() if name is None else [name])]
    if as_json:
        for operator in operators:
            print(json.dumps(_fields(operator)))
        return
    from rich.table import Table

    if name is not None:
        table = Table(box=None, show_header=False, pad_edge=False)
        for key, value in _fields(operators[0]).items():
            shown = ", ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else value
            table.add_row(key.replace("_", " "), str(shown) if shown not in ("", None) else "not stated")
        results().print(table)
        text = _docstring(operators[0])
        if text:
            print(f"\n{text}")
        return
    from rich import box

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("name", "time", "memory", "formula", "title"):
        table.add_column(column, no_wrap=column in ("name", "time", "memory"))
    for operator in operators:
        table.add_row(operator.name, operator.time_order, operator.memory_order, operator.formula, operator.title)
    results().print(table)


def _fields(operator: Operator) -> dict[str, Any]:
    return {
        "name": operator.name,
        "title": operator.title,
        "formula": operator.formula,
        "time_order": operator.time_order,
        "memory_order": operator.memory_order,
        "source": operator.source,
        "origin": operator.origin,
        "options": {option.name: option.default for option in operator.options.values()},
        "reference": "float64, dense" if operator.reference else None,
    }


def _docstring(operator: Operator) -> str:
    import inspect
    import sys

    module = sys.modules[operator.module.__module__]
    return "\n\n".join(text for text in (inspect.getdoc(module), operator.module.__dict__.get("__doc__")) if text)
