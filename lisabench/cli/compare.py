"""`lisabench compare`: what became faster or slower between two runs, and what cannot be told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lisabench.errors import InputError, LisaBenchError, unknown

if TYPE_CHECKING:
    from rich.table import Table

    from lisabench.analysis.compare import Verdict
    from lisabench.journal import Record
    from lisabench.results import Run

    Row = tuple[Record, Record, Verdict]

# What a narrow table leaves out, the first first.
LEAST_NEEDED = ("base", "new", "95% interval")
COLOURS = {"faster": "green", "slower": "red"}


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
        base_s, new_s = before["latency_s"], after["latency_s"]
        intervals = (base_s["ci_low"], base_s["ci_high"]), (new_s["ci_low"], new_s["ci_high"])
        verdict = compare_samples(base_s["samples"], new_s["samples"], intervals=intervals, threshold=share)
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


def _print(rows: Sequence[Row], new: Run) -> None:
    from collections import Counter

    from lisabench.cli.console import fitting, results

    console = results()
    console.print(fitting(console, lambda omitted: _table(rows, new, omitted), LEAST_NEEDED, whole="--json"))
    counts = Counter(verdict.verdict for _, _, verdict in rows)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))


def _table(rows: Sequence[Row], new: Run, omitted: Sequence[str]) -> Table:
    """A line a cell: the axes that vary, the operator, both times, and what became of them. Only the operator's name may be broken."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from lisabench import units

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    axes = _axes([record for _, record, _ in rows])
    names = [name for name in ("tokens", *axes, "operator", "base", "new", "new / base", "95% interval", "verdict") if name not in omitted]
    for name in names:
        words = name in ("operator", "mode", "dtype", "verdict")
        table.add_column(name, justify="left" if words else "right", no_wrap=name != "operator", overflow="fold")
    for before, after, verdict in rows:
        shown: dict[str, str | Text] = {
            "tokens": f"{after['tokens']:,}",
            "operator": Text(new.label(after["op"])),
            "verdict": verdict.verdict,
        }
        shown |= {name: units.seconds(record["latency_s"]["median"]) for name, record in (("base", before), ("new", after))}
        shown |= {"new / base": f"{verdict.ratio:.2f}", "95% interval": f"{verdict.ci_low:.2f} to {verdict.ci_high:.2f}"}
        shown |= {"grid": f"{after['height']}x{after['width']}"}
        table.add_row(*(shown.get(name, str(after.get(name))) for name in names), style=COLOURS.get(verdict.verdict, ""))
    return table


def _axes(records: Sequence[Record]) -> list[str]:
    """The fields beside tokens in which the cells differ; the grid where two of as many tokens do."""
    from lisabench.results import CURVE

    grids = {(record["tokens"], record["height"], record["width"]) for record in records}
    varying = [name for name in CURVE if len({record[name] for record in records}) > 1]
    return [*(["grid"] if len(grids) > len({tokens for tokens, *_ in grids}) else []), *varying]
