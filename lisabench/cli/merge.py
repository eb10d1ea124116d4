"""`lisabench merge`: one run of several that were measured apart."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lisabench.merging.join import Conflict, Tally
    from lisabench.merging.runs import Merged


def merge(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs, all of `lisabench scale` or all of `train-small`.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The new run's folder.", show_default=False)],
    conflicts: Annotated[
        str,
        typer.Option(
            help="Where two runs measured one cell on equal devices: refuse names them and ends; first or last takes the record of the run "
            "that is named first or last. Nothing is averaged."
        ),
    ] = "refuse",
    mix: Annotated[
        bool, typer.Option("--mix", help="Merge runs of equal devices whose driver, torch or settings differ all the same.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was merged as one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Results only, no messages.")] = False,
) -> None:
    """Join runs that were measured apart, such as the shards of a sweep, into one that goes on like any other.

    Records that are there twice count once. Cells that differ in the kind of device stay series of their own. The runs themselves are
    only read.
    """
    from lisabench.cli.console import lines, messages, results
    from lisabench.merging.runs import merge as merge_runs

    merged = merge_runs(runs, out, command=["lisabench", *sys.argv[1:]], conflicts=conflicts, mix=mix)
    if as_json:
        print(json.dumps(_as_json(merged)))
    else:
        lines(results(), *(_tally(tally) for tally in merged.joined.runs), _total(merged))
    if not quiet:
        lines(messages(), *_notes(merged, conflicts))


def _tally(tally: Tally) -> str:
    """'a: 12 records, 9 taken, 2 there already, 1 skipped that another run knows'."""
    told = {
        "there already": tally.equal,
        "skipped and known from another run": tally.replaced,
        "set aside in conflicts": tally.overruled,
    }
    return ", ".join(
        [f"{tally.run}: {_count(tally.records, 'record')}", f"{tally.taken:,} taken", *(f"{n:,} {what}" for what, n in told.items() if n)]
    )


def _total(merged: Merged) -> str:
    missing = merged.missing.total()
    by_kind = "; ".join(f"{count:,} on {kind}" for kind, count in merged.missing.items() if kind is not None)
    return (
        f"{merged.out}: {_count(len(merged.joined.index), 'record')}, {merged.cells - missing:,} of {_count(merged.cells, _noun(merged))} settled"
        + (f", {missing:,} missing" if missing else "")
        + (f" ({by_kind})" if by_kind else "")
    )


def _notes(merged: Merged, conflicts: str) -> Iterator[str]:
    """What must be known beside the figures, and how to go on."""
    from lisabench.provenance import in_words

    for tally in merged.joined.runs:
        if tally.being_written:
            yield f"{tally.run} is still being written: what it holds by now was taken; merge again when it is done"
        if tally.torn:
            yield f"{tally.run / 'journal.jsonl'}: its last line was torn by a crash and is left out"
    if merged.differing:
        yield f"the machines differ in {in_words(merged.differing)}"
    if merged.joined.conflicting:
        yield f"{merged.joined}; the {conflicts} of each was taken (`lisabench compare` shows all that two runs share)"
    if merged.kinds:
        yield f"{len(merged.kinds)} kinds of devices are series of their own: {'; '.join(merged.kinds)}"
    if merged.missing.total():
        yield (
            f"{_count(merged.missing.total(), _noun(merged))} missing; go on with: {shlex.join(_resume(merged))}"
            if merged.can_go_on
            else f"{_count(merged.missing.total(), 'cell')} missing, of plans of an older lisabench, which are not gone on with; measure them in a new run"
        )


def _resume(merged: Merged) -> list[str]:
    from lisabench.results import COMMANDS

    return ["lisabench", COMMANDS[merged.plan["kind"]], "--resume", "--out", str(merged.out)]


def _noun(merged: Merged) -> str:
    return "cell" if merged.plan["kind"] == "scale" else "training"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def _as_json(merged: Merged) -> dict[str, Any]:
    joined, missing = merged.joined, merged.missing.total()
    return {
        "out": str(merged.out),
        "kind": merged.plan["kind"],
        "runs": [asdict(tally) | {"run": str(tally.run)} for tally in joined.runs],
        "records": len(joined.index),
        "cells": merged.cells,
        "missing": missing,
        "missing_by_kind": {kind: count for kind, count in merged.missing.items() if kind is not None and count},
        "kinds": list(merged.kinds),
        "conflicts": {"cells": joined.conflicting, "named": [_conflict(conflict) for conflict in joined.conflicts]},
        "differing": [asdict(difference) for difference in merged.differing],
        "go_on": _resume(merged) if missing and merged.can_go_on else None,
    }


def _conflict(conflict: Conflict) -> dict[str, Any]:
    told = []
    for run, host, record in zip(conflict.runs, conflict.hosts, conflict.records, strict=True):
        figures = {"latency_s": (record["latency_s"] or {}).get("median"), "top1": record.get("top1")}
        told.append({"run": str(run), "host": host, "status": record["status"]} | figures)
    return {"in_words": str(conflict), "op": conflict.records[0]["op"], "records": told}
