"""`lisabench compare`: what became faster or slower between two runs, and what cannot be told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lisabench.errors import InputError, LisaBenchError, unknown

if TYPE_CHECKING:
    from rich.console import Console

    from lisabench.analysis.compare import Pairs, Verdict
    from lisabench.journal import Record
    from lisabench.results import Run

    Row = tuple[Record, Record, Verdict]

# What a narrow table leaves out, the first first.
LEAST_NEEDED = ("base", "new", "95% interval")
LEAST_OF_ALL = ("cells", "same", "95% interval")
CHANGED = ("faster", "slower")
# Of more cells than this only those that changed are shown, at most so many; of more failures only the first.
MOST_CELLS, MOST_FAILURES = 40, 10
# As many operators that all moved one way are no chance.
FEW_OPERATORS = 4
STATED = ("cell", "op", "scope", "mode", "batch", "height", "width", "tokens", "dim", "heads", "dtype", "device", "compiled")


class SlowerError(LisaBenchError):
    """A cell became slower, or does not finish any more, where that was declared a failure: exit code 1."""


def compare(
    base: Annotated[Path, typer.Argument(help="The run to compare with.", show_default=False)],
    new: Annotated[Path, typer.Argument(help="The newer run.", show_default=False)],
    threshold: Annotated[str, typer.Option(help="Changes up to this share count as the same: 5% or 0.05.")] = "5%",
    fail_on: Annotated[
        str | None, typer.Option(help="slower: exit with 1 when a cell became slower, or finished before and fails now.")
    ] = None,
    mix: Annotated[
        bool, typer.Option("--mix", help="Compare runs that differ in machine, GPU, driver, threads or torch all the same.")
    ] = False,
    figure: Annotated[
        Path | None, typer.Option(help="Draw all ratios into this file (.pdf, .png, .svg or .pgf).", show_default=False)
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE,VALUE: only cells with these, such as dtype=bf16 or device_kind=...; repeatable.")
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help=f"Show every cell; else, of over {MOST_CELLS}, those that changed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON line a cell.")] = False,
) -> None:
    """Say of each cell that two runs share whether it is faster, slower, the same, or can't be told.

    Runs over several kinds of devices are compared kind by kind.
    """
    if fail_on not in (None, "slower"):
        raise unknown("--fail-on", str(fail_on), ["slower"])
    if figure:
        _check_figure(figure)
    share = _share(threshold)
    from lisabench.analysis.compare import compare as verdicts_of
    from lisabench.analysis.compare import paired

    runs = _read(base, where or []), _read(new, where or [])
    pairs = paired(*runs)
    _same_machine(pairs, *runs, mix=mix)
    verdicts = verdicts_of(*([pair[side]["latency_s"] for pair in pairs.finished] for side in (0, 1)), threshold=share)
    rows = [(*pair, verdict) for pair, verdict in zip(pairs.finished, verdicts, strict=True)]
    if as_json:
        for line in _json_lines(rows, pairs, *runs):
            print(json.dumps(line))
    else:
        _print(rows, pairs, *runs, show_all=show_all)
    if figure:
        from lisabench.render.comparison import draw
        from lisabench.render.page import save

        save(draw(rows, runs[1], threshold=share), figure.parent, figure.stem, [figure.suffix[1:]])
    if fail_on == "slower":
        _fail_if_slower(rows, pairs, base)


def _read(path: Path, where: Sequence[str]) -> Run:
    import gc

    from lisabench.analysis.compare import trimmed
    from lisabench.results import chosen, read_run

    run = chosen(read_run(path, trimmed=trimmed), where)
    gc.freeze()  # the records stay to the end: looking for garbage among them takes as long as comparing them
    return run


def _check_figure(file: Path) -> None:
    from lisabench.render.page import FORMATS

    if file.suffix.removeprefix(".") not in FORMATS:
        raise InputError(f"--figure got {str(file)!r}; valid: a file that ends in .{', .'.join(FORMATS)}")


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise InputError(f"--threshold got {text!r}; valid: 5% or 0.05, below 100%")
    return share


def _same_machine(pairs: Pairs, base: Run, new: Run, *, mix: bool) -> None:
    """InputError where a cell's two environments differ in what matters to times; with `mix` a message on stderr."""
    from lisabench.cli.console import lines, messages
    from lisabench.provenance import differences, in_words, once, refusal

    hashes = dict.fromkeys((before["environment"], after["environment"]) for before, after in pairs.finished)
    found = once(
        difference
        for before, after in hashes
        for difference in differences(base.environments.get(before, {}), new.environments.get(after, {}))
    )
    if found and not mix:
        raise InputError(refusal("the runs", found, because="their times say nothing about the code", then="compares them"))
    if found:
        lines(messages(), f"the runs differ in {in_words(found)}")


def _json_lines(rows: Sequence[Row], pairs: Pairs, base: Run, new: Run) -> Iterator[dict[str, Any]]:
    """Every cell that finished in either run; without a verdict where it did not in both."""
    for before, after, verdict in rows:
        medians = {"base_s": before["latency_s"]["median"], "new_s": after["latency_s"]["median"]}
        ends = {"ratio": verdict.ratio, "ratio_ci_low": verdict.ci_low, "ratio_ci_high": verdict.ci_high}
        tests = {"p_value": verdict.p_value, "p_adjusted": verdict.p_adjusted}
        yield _stated(before, after, base, new) | medians | ends | tests | {"verdict": verdict.verdict}
    alone: list[tuple[Record | None, Record | None]] = [*pairs.stopped, *pairs.started]
    alone += [(record, None) for record in pairs.only_base] + [(None, record) for record in pairs.only_new]
    yield from (_stated(before, after, base, new) | {"verdict": None} for before, after in alone)


def _stated(before: Record | None, after: Record | None, base: Run, new: Run) -> dict[str, Any]:
    record = before or after
    assert record
    devices = {"base_device": before and base.device_of(before), "new_device": after and new.device_of(after)}
    statuses = {"base_status": before and before["status"], "new_status": after and after["status"]}
    return {name: record[name] for name in STATED} | devices | statuses


def _fail_if_slower(rows: Sequence[Row], pairs: Pairs, base: Path) -> None:
    """A cell for which the budget had no room, or that was skipped since a smaller one failed, says nothing by itself."""
    slower = sum(verdict.verdict == "slower" for _, _, verdict in rows)
    failed = sum(after["status"] != "skipped" for _, after in pairs.stopped)
    words = [f"{slower} of {len(rows)} cells are slower than in {str(base)!r}"] if slower else []
    words += [f"{failed} that finished there fail"] if failed else []
    if words:
        raise SlowerError(f"{' and '.join(words)}; see the lines above")


def _print(rows: Sequence[Row], pairs: Pairs, base: Run, new: Run, *, show_all: bool) -> None:
    from lisabench.cli.console import lines, results

    console = results()
    devices: dict[str, list[Row]] = {}
    for row in rows:
        devices.setdefault(new.device_of(row[1]), []).append(row)
    for place, device in enumerate(sorted(devices)):
        if len(base.devices) > 1 or len(new.devices) > 1:
            lines(console, *[""] * (place > 0), f"{device}:", style="bold")
        _print_rows(devices[device], new, console, show_all=show_all)
    changed = [f"the file of {' and of '.join(pairs.changed)} has changed between the runs"] if pairs.changed else []
    lines(console, *changed, *_failures(pairs, base, new, show_all=show_all))


def _print_rows(rows: Sequence[Row], new: Run, console: Console, *, show_all: bool) -> None:
    """The cells of one kind of device: what became of each, then of each operator, and what speaks against trusting that."""
    from lisabench.cli.console import fitting, lines
    from lisabench.render.comparison_table import axes_of, cells_table, operators_table

    shown = rows if show_all or len(rows) <= MOST_CELLS else _most_changed(rows)
    if shown:
        axes = axes_of([record for _, record, _ in rows])
        console.print(fitting(console, lambda omitted: cells_table(shown, new, axes, omitted), LEAST_NEEDED, whole="--json"))
    if len(shown) < len(rows):
        lines(console, f"{len(rows) - len(shown):,} of {len(rows):,} cells are not shown: {_counts(rows, shown)}; --all shows them")
    groups: dict[str, list[Verdict]] = {}
    for _, after, verdict in rows:
        groups.setdefault(new.label_of(after), []).append(verdict)
    if len(groups) > 1:
        console.print(fitting(console, lambda omitted: operators_table(groups, omitted), LEAST_OF_ALL, whole="a wider terminal"))
    lines(console, *_notes(rows, groups))


def _most_changed(rows: Sequence[Row]) -> list[Row]:
    """The cells that are faster or slower, those that changed most first."""
    changed = [row for row in rows if row[2].verdict in CHANGED]
    return sorted(changed, key=lambda row: -max(row[2].ratio, 1 / row[2].ratio))[:MOST_CELLS]


def _counts(rows: Sequence[Row], without: Sequence[Row] = ()) -> str:
    from collections import Counter

    counts = Counter(row[2].verdict for row in rows)
    counts.subtract(row[2].verdict for row in without)
    return ", ".join(f"{count:,} {verdict}" for verdict, count in counts.most_common() if count)


def _failures(pairs: Pairs, base: Run, new: Run, *, show_all: bool) -> Iterator[str]:
    """Cells that finished in one run only; on which kind of device, where the runs are of several."""
    from collections import Counter

    several = len(base.devices) > 1 or len(new.devices) > 1

    def on(run: Run, record: Record) -> str:
        return f" on {run.device_of(record)}" if several else ""

    for pair in (told := pairs.stopped + pairs.started)[: None if show_all else MOST_FAILURES]:
        before, after = pair
        reason = next((f" ({record['reason']})" for record in pair if record["reason"]), "")
        where = f"{new.label_of(after)} at {after['tokens']:,} tokens{on(new, after)}"
        yield f"{where}: was {before['status']}, now {after['status']}{reason}"
    if not show_all and len(told) > MOST_FAILURES:
        yield f"{len(told) - MOST_FAILURES:,} more finished in one run only; --all shows them"
    for which, run, records in (("base", base, pairs.only_base), ("new", new, pairs.only_new)):
        for device, count in Counter(on(run, record) for record in records).items():
            yield f"{count:,} cell{'s' if count > 1 else ''} only in the {which} run{',' * bool(device)}{device}"


def _notes(rows: Sequence[Row], groups: dict[str, list[Verdict]]) -> Iterator[str]:
    """The verdicts in a sentence, and what speaks against trusting them: noisy cells, and operators that all moved one way."""
    from lisabench.analysis.compare import mean_ratio
    from lisabench.render.comparison_table import is_warned

    mean, low, high = mean_ratio(verdict for *_, verdict in rows)
    cells = f"{len(rows):,} cells" if len(rows) > 1 else "1 cell"
    yield f"{_counts(rows)} of {cells}; new / base is {mean:.3f} ({low:.3f} to {high:.3f}) in the geometric mean"
    if len(groups) >= FEW_OPERATORS and len({mean_ratio(verdicts)[0] > 1 for verdicts in groups.values()}) == 1 and not low <= 1 <= high:
        yield f"all {len(groups)} operators moved the same way: where their code did not change, the machine did"
    changed = [row for row in rows if row[2].verdict in CHANGED]
    warned = sum(is_warned(before, after) for before, after, _ in changed)
    if warned:
        words = "carry warnings of noise in one of the runs" if warned > 1 else "carries a warning of noise in one of the runs"
        yield f"* {warned:,} of the {len(changed):,} that changed {words}: measure again before you trust them"
