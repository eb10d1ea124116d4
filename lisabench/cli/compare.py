"""`lisabench compare`: what became faster or slower between two runs, and what cannot be told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lisabench.errors import InputError, LisaBenchError, unknown

if TYPE_CHECKING:
    from lisabench.journal import Record
    from lisabench.results import Run


class SlowerError(LisaBenchError):
    """A cell became slower where that was declared a failure: exit code 1."""


def compare(
    base: Annotated[Path, typer.Argument(help="The run to compare with.", show_default=False)],
    new: Annotated[Path, typer.Argument(help="The newer run.", show_default=False)],
    threshold: Annotated[str, typer.Option(help="Changes up to this share count as the same: 5% or 0.05.")] = "5%",
    fail_on: Annotated[str | None, typer.Option(help="slower: exit with 1 when a cell became slower.")] = None,
    mix: Annotated[
        bool, typer.Option("--mix", help="Compare runs that differ in machine, GPU, driver, threads or torch all the same.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON line a cell.")] = False,
) -> None:
    """Say of each cell that two runs share whether it is faster, slower, the same, or can't be told."""
    if fail_on not in (None, "slower"):
        raise unknown("--fail-on", str(fail_on), ["slower"])
    share = _share(threshold)
    from lisabench.analysis.compare import compare as compare_samples
    from lisabench.results import read_run

    runs = read_run(base), read_run(new)
    pairs = _pairs(*runs)
    _same_machine(pairs, *runs, mix=mix)
    rows = []
    for before, after in pairs:
        verdict = compare_samples(before["latency_s"]["samples"], after["latency_s"]["samples"], threshold=share)
        rows.append((before, after, verdict))
    if as_json:
        for before, after, verdict in rows:
            ends = {"ratio": verdict.ratio, "ratio_ci_low": verdict.ci_low, "ratio_ci_high": verdict.ci_high}
            named = {name: before[name] for name in ("cell", "op", "mode", "batch", "tokens", "dtype")}
            medians = {"base_s": before["latency_s"]["median"], "new_s": after["latency_s"]["median"]}
            print(json.dumps(named | medians | ends | {"verdict": verdict.verdict}))
    else:
        _print(rows, runs[1])
    slower = sum(verdict.verdict == "slower" for _, _, verdict in rows)
    if fail_on == "slower" and slower:
        raise SlowerError(f"{slower} of {len(rows)} cells are slower than in {str(base)!r}; see the lines above")


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise InputError(f"--threshold got {text!r}; valid: 5% or 0.05, below 100%")
    return share


def _pairs(base: Run, new: Run) -> list[tuple[Record, Record]]:
    """Finished cells of equal content in both runs."""
    before = {record["cell"]: record for record in base.records if record["status"] == "ok" and record["latency_s"]}
    shared = [(before[record["cell"]], record) for record in new.records if record["cell"] in before and record["status"] == "ok"]
    if not shared:
        raise InputError(
            f"{str(base.path)!r} and {str(new.path)!r} share no finished cell; measure the same operators at the same workloads in both"
        )
    return shared


def _same_machine(pairs: list[tuple[Record, Record]], base: Run, new: Run, *, mix: bool) -> None:
    """InputError where a cell's two environments differ in what matters to times; with `mix` a message on stderr."""
    from lisabench.cli.console import lines, messages
    from lisabench.provenance import differences, in_words, once, refusal

    hashes = dict.fromkeys((before["environment"], after["environment"]) for before, after in pairs)
    found = once(
        difference
        for before, after in hashes
        for difference in differences(base.environments.get(before, {}), new.environments.get(after, {}))
    )
    if found and not mix:
        raise InputError(refusal("the runs", found, because="their times say nothing about the code", then="compares them"))
    if found:
        lines(messages(), f"the runs differ in {in_words(found)}")


def _print(rows: list[Any], new: Run) -> None:
    from collections import Counter

    from rich import box
    from rich.table import Table

    from lisabench import units
    from lisabench.cli.console import results

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("operator", "tokens", "batch", "mode", "base", "new", "new / base", "verdict"):
        table.add_column(name, justify="left" if name in ("operator", "mode", "verdict") else "right", no_wrap=True)
    colours = {"faster": "green", "slower": "red"}
    for before, after, verdict in rows:
        medians = (units.seconds(record["latency_s"]["median"]) for record in (before, after))
        ratio = f"{verdict.ratio:.2f} ({verdict.ci_low:.2f} to {verdict.ci_high:.2f})"
        where = (new.label(before["op"]), f"{before['tokens']:,}", str(before["batch"]), before["mode"])
        table.add_row(*where, *medians, ratio, verdict.verdict, style=colours.get(verdict.verdict, ""))
    results().print(table)
    counts = Counter(verdict.verdict for _, _, verdict in rows)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
