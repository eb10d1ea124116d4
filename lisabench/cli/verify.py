"""`lisabench verify`: holds operators to their laws."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from typing import Annotated

import typer

from lisabench.errors import LisaBenchError


class LawsBrokenError(LisaBenchError):
    """An operator broke a law: exit code 1."""


def verify(
    op: Annotated[list[str] | None, typer.Option(help="Operator, comma list, or FILE.py:CLASS; repeatable. [default: all]")] = None,
    op_option: Annotated[list[str] | None, typer.Option(help="[OP.]NAME=VALUE; repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Check operators against their dense reference and the laws that hold for all."""
    from lisabench import registry
    from lisabench.cli.console import results
    from lisabench.laws import DIM, GRIDS, HEADS
    from lisabench.laws import verify as verify_operator
    from lisabench.sweep import check_options, resolve_operators
    from lisabench.workload import Workload

    broken = 0
    console = results()
    for name, options in resolve_operators(op or ["all"], None, op_option or []):
        if not registry.is_file_spec(name):
            check_options(name, options, Workload(grid=GRIDS[-1], dim=DIM, heads=HEADS))
        with redirect_stdout(sys.stderr):  # a user's operator may print: on stdout only results may stand
            findings = list(verify_operator(registry.load(name), options))
        for finding in findings:
            broken += finding.holds is False
            if as_json:
                print(json.dumps({"op": name, "law": finding.law, "holds": finding.holds, "detail": finding.detail}))
            else:
                word = {True: "[green]holds[/]", False: "[bold red]BROKEN[/]", None: "[yellow]absent[/]"}[finding.holds]
                console.print(f"{name:<16} {finding.law:<26} {word}  ", end="")
                console.print(finding.detail, markup=False, soft_wrap=True)
    if broken:
        raise LawsBrokenError(f"{broken} laws are broken; the lines above say where")
