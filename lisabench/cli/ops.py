"""`lisabench ops`: the operators, and one in full."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lisabench.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from lisabench.contract import Operator

    Info = dict[str, Any]

# What a narrow table leaves out, the first first.
LEAST_NEEDED = ("source", "origin", "formula", "parameters by grid", "memory")
WIDEST = {"formula": 34, "source": 32, "origin": 32, "parameters by grid": 20}
# The shape that parameters are counted at: a ViT-Ti at 224 x 224 pixels.
DIM, HEADS, GRID = 192, 3, (14, 14)
OWN = "own"


def ops(
    name: Annotated[str | None, typer.Argument(help="An operator, or your own FILE.py:CLASS, to be shown in full.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines, with all that is known.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the page of all built-in operators, docs/operators.md.")] = False,
) -> None:
    """List the operators by family, or show one in full."""
    from lisabench import registry

    if as_markdown and (as_json or name is not None):
        raise InputError("--markdown makes the page of all built-in operators; leave out --json and NAME")
    if as_markdown:
        print(page(), end="")
        return
    operators, broken = registry.load_all() if name is None else ([registry.load(name)], {})
    infos = sorted(map(describe, operators), key=lambda info: place(info["family"]))
    if as_json:
        for info in infos:
            print(json.dumps(info))
        for missing, why in broken.items():
            print(json.dumps({"name": missing, "error": why}))
    elif name is not None:
        _print_one(infos[0])
    else:
        _print_all(infos, broken)


def page() -> str:
    """docs/operators.md: the built-in operators as they describe themselves."""
    from lisabench import registry
    from lisabench.render.operators import markdown

    infos = [describe(registry.load(name)) for name in registry.built_in()]
    return markdown(sorted(infos, key=lambda info: place(info["family"])), shape=_shape())


def place(family: str) -> tuple[bool, int, str]:
    """Where a family stands in a list: ours in their order, then a user's own words, then what has none."""
    from lisabench.contract import FAMILIES

    return family == "", FAMILIES.index(family) if family in FAMILIES else len(FAMILIES), family


def describe(operator: Operator) -> Info:
    """All that an operator says of itself, as plain values; `absent` says why a value is None."""
    absent: dict[str, str] = {}

    def asked(what: str, ask: Any) -> Any:
        try:
            with redirect_stdout(sys.stderr):  # a user's operator may print: on stdout only results may stand
                return ask()
        except (Exception, SystemExit) as error:  # and raise anything
            absent[what] = f"{type(error).__name__}: {error}".splitlines()[0]
            return None

    return {
        "name": operator.name,
        "title": operator.title,
        "family": operator.family,
        "formula": operator.formula,
        "source": operator.source,
        "time_order": operator.time_order,
        "memory_order": operator.memory_order,
        "grid_parameters": operator.grid_parameters,
        "parameters": asked("parameters", lambda: _parameters(operator)),
        "parameters_at": {"dim": DIM, "heads": HEADS, "height": GRID[0], "width": GRID[1]},
        "options": {o.name: {"type": o.annotation, "default": o.default} for o in operator.options.values()},
        "symmetries": asked("symmetries", lambda: sorted(operator.symmetries(**operator.resolve({})))),
        "needs": operator.needs,
        "reference": "float64, dense" if operator.reference else None,
        "cost": operator.cost is not None,
        "caveat": operator.caveat,
        "origin": operator.origin,
        "docstring": "\n\n".join(filter(None, _docstrings(operator))),
        "absent": absent,
    }


def _parameters(operator: Operator) -> int:
    """How many numbers the module trains with its default options."""
    from lisabench.contract import Grid, Workload

    workload, options = Workload(scope="layer", grid=Grid(*GRID), dim=DIM, heads=HEADS), operator.resolve({})
    refusal = operator.refuses(workload, **options)
    if refusal:
        raise ValueError(f"refused: {refusal}")
    return sum(p.numel() for p in operator.build(workload, options).parameters() if p.requires_grad)


def _docstrings(operator: Operator) -> tuple[str | None, str | None]:
    """That of the module's file, and of its class where that is not inherited."""
    stated = operator.module.__dict__.get("__doc__")
    return inspect.getdoc(sys.modules.get(operator.module.__module__)), inspect.cleandoc(stated) if stated else None


def _shape() -> str:
    return f"dim {DIM}, {HEADS} heads, {GRID[0]} x {GRID[1]} tokens"


# --- on a terminal -----------------------------------------------------------------------------------------------------


def _print_all(infos: Sequence[Info], broken: Mapping[str, str]) -> None:
    from lisabench.cli.console import fitting, lines, results

    console = results()
    console.print(fitting(console, lambda omitted: _table(infos, omitted), LEAST_NEEDED, whole="lisabench ops NAME"))
    lines(console, *broken.values())


def _table(infos: Sequence[Info], omitted: Sequence[str]) -> Table:
    """A line an operator, under the name of its family; where all are built in, that is not said of each."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    columns = {"name": "name", "time": "time_order", "memory": "memory_order", "parameters by grid": "grid_parameters"}
    columns |= {"formula": "formula", "source": "source"}
    if any(info["origin"] != "built in" for info in infos):
        columns["origin"] = "origin"
    kept = {header: field for header, field in columns.items() if header not in omitted}
    for header in kept:
        table.add_column(header, no_wrap=header in ("name", "time", "memory"), max_width=WIDEST.get(header), overflow="fold")
    family = None
    for info in infos:
        if info["family"] != family:
            if family is not None:
                table.add_row()
            family = info["family"]
            table.add_row(Text(family or OWN, style="bold"))
        table.add_row(*(Text(("  " if header == "name" else "") + info[field]) for header, field in kept.items()))
    return table


def _print_one(info: Info) -> None:
    from rich.table import Table
    from rich.text import Text

    from lisabench.cli.console import results

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, shown in _in_words(info):
        table.add_row(Text(key), shown if not isinstance(shown, str) else Text(shown))
    results().print(table)
    if info["docstring"]:
        print(f"\n{info['docstring']}")


def _in_words(info: Info) -> list[tuple[str, str | Text]]:
    """What `lisabench ops NAME` says, line by line."""
    from lisabench.render.operators import default_text

    def stated(name: str) -> str:
        return info[name] or "not stated"

    options = "\n".join(f"{name}={default_text(o['default'])}  ({o['type']})" for name, o in info["options"].items())
    count, symmetries = info["parameters"], info["symmetries"]
    return [
        ("name", info["name"]),
        ("title", stated("title")),
        ("family", stated("family")),
        ("formula", stated("formula")),
        ("source", stated("source")),
        ("time", stated("time_order")),
        ("memory", stated("memory_order")),
        ("parameters", f"{count:,} at {_shape()}" if count is not None else f"not known: {info['absent']['parameters']}"),
        ("by the grid", info["grid_parameters"] or "none"),
        ("options", options or "none"),
        ("symmetries", f"not known: {info['absent']['symmetries']}" if symmetries is None else ", ".join(symmetries) or "none"),
        ("needs", info["needs"] or "nothing: any grid"),
        ("reference", stated("reference")),
        ("FLOPs, bytes", "stated" if info["cost"] else "not stated"),
        *([("caveat", info["caveat"])] if info["caveat"] else []),
        ("origin", info["origin"]),
    ]
