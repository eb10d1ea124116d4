"""`lisabench scale --dry-run`: the plan's cells, and about how long they take on which device."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lisabench import units

if TYPE_CHECKING:
    from rich.console import Console

    from lisabench.measure.latency import Limits
    from lisabench.plans import Visits
    from lisabench.run.estimate import Device, Estimate
    from lisabench.sweep import Cell

FIRST_ROWS, LAST_ROWS = 100, 20


def print_plan(
    visits: Visits,
    *,
    history: Sequence[Path],
    limits: Limits,
    threads: int | None,
    cell_timeout: float,
    as_json: bool,
) -> None:
    """Prints the cells with what is predicted of each, and what they take on this machine and on the devices of earlier runs.

    `threads`: those that a run has on this machine's CPU.
    """
    from lisabench.run.estimate import estimates, known_devices, this_machine

    plan_device = visits[0][0].workload.device
    here = this_machine(plan_device, threads)
    known = known_devices(history, here=here, plan_device=plan_device, limits=limits, cell_timeout=cell_timeout)
    if as_json:
        for line in _json_lines(visits, known):
            print(line)
        return
    from lisabench.cli.console import lines, results

    console = results()
    _print_table(visits, console)
    console.print()
    lines(console, *_estimate_lines(estimates(visits, known)))


def _json_lines(visits: Visits, devices: Sequence[Device]) -> Iterator[str]:
    """A line a cell, with its seconds on each device that it is for, null where they are not known."""
    known = [device for device in devices if device.is_known]
    for cell in visits.cells():
        seconds = {device.name: device.guess(cell).seconds for device in known if cell.kind in (None, device.name)}
        yield json.dumps(_row(cell) | ({"predicted_seconds": seconds} if seconds else {}))


def _row(cell: Cell) -> dict[str, Any]:
    kind = {} if cell.kind is None else {"device_kind": cell.kind}
    return cell.record_fields() | kind | {"predicted_flops": cell.flops, "predicted_bytes": cell.bytes_needed}


def _print_table(visits: Visits, console: Console) -> None:
    """The cells as a table; of a long plan the first ones and the last ones."""
    from lisabench.cli.console import fitting, lines
    from lisabench.render.terminal import MOST_ROWS, plan_table

    left_out = visits.count - FIRST_ROWS - LAST_ROWS if visits.count > MOST_ROWS else 0
    shown = list(visits.cells()) if not left_out else [*islice(visits.cells(), FIRST_ROWS), *_last(visits, LAST_ROWS)]
    rows = [_row(cell) for cell in shown]
    gap = (FIRST_ROWS, left_out)
    console.print(fitting(console, lambda omitted: plan_table(rows, omitted=omitted, gap=gap), ("grid", "FLOP", "memory"), whole="--json"))
    if left_out:
        lines(console, f"{left_out:,} cells between the first {FIRST_ROWS} and the last {LAST_ROWS} are left out; --json prints all")


def _last(visits: Visits, many: int) -> list[Cell]:
    """So many of the last cells, in their order."""
    backwards = (reversed(visits[place]) for place in range(len(visits) - 1, -1, -1))
    return list(islice(chain.from_iterable(backwards), many))[::-1]


def _estimate_lines(found: Sequence[Estimate]) -> Iterator[str]:
    """What each kind of device takes, and what that rests on, in sentences."""
    from lisabench.run.estimate import START_SECONDS

    if any(estimate.on for estimate in found):
        yield (
            "An estimate of the measuring, from earlier records and the cost model, where no --budget ends it;"
            f" {START_SECONDS:.0f} s for the start of each device are in it:"
        )
    for estimate in found:
        name = f"{estimate.device.name} (this machine)" if estimate.device.here else estimate.device.name
        if estimate.on:
            one, *more = (f"{rough(seconds)} on {devices:,}" for devices, seconds in estimate.on.items())
            without = ", without the cells in no figure" if estimate.unknown else ""
            yield f"{name}: about {', '.join([f'{one} device', *more])}{without}"
        else:
            here = "`lisabench env`, with this --device and --threads, measures its peaks; " if estimate.device.here else ""
            yield f"{name}: no estimate; {here}--history RUN takes in earlier records of it"
        yield from (f"  {words}" for words in _grounds(estimate))


def _grounds(estimate: Estimate) -> Iterator[str]:
    """What the figures of one kind of device rest on."""
    from lisabench.run.estimate import ASSUMED_SHARE, ENDED, MODEL, RECORDS, REFUSED

    if estimate.longest and estimate.on:
        where = f"{estimate.longest.describe()}, {estimate.longest.mode}, {estimate.longest.dtype}"
        yield f"on however many, about {rough(estimate.longest_s)} at the least: the longest visit is {where}"
    share = estimate.device.share
    reached = f"an assumed {100 * ASSUMED_SHARE:.0f}% of the device's roofline"
    if share is not None:
        reached = f"{units.significant(100 * share, 2)}% of the device's roofline, as its records in the median"
    rests_on = {
        RECORDS: "by earlier records of their operators",
        MODEL: f"by the cost model alone, at {reached}",
        REFUSED: "take no time: their operators refuse them",
        ENDED: "take no time: earlier ones of their series ran out of memory or time",
    }
    whole = estimate.cells.total() + estimate.unknown.total()
    sampled = estimate.looked_at < estimate.visits
    grounds = [(many, rests_on[by]) for by, many in estimate.cells.items()]
    for many, words in [*sorted(grounds, reverse=True), *((many, f"in no figure: {why}") for why, many in estimate.unknown.items())]:
        counted = f"about {float(f'{many:.2g}'):,.0f}" if sampled else f"{many:,}"
        yield f"{counted} of {whole:,} cells {words}"
    if whole and sampled:
        yield f"from {estimate.looked_at:,} of {estimate.visits:,} workloads"


def rough(seconds: float) -> str:
    """A wait to two digits: 4000 -> '1.1 h', 75 -> '1.2 min'."""
    size, unit = next(((size, unit) for size, unit in ((3600.0, "h"), (60.0, "min")) if seconds >= 0.995 * size), (1.0, "s"))
    value = float(f"{seconds / size:.2g}")
    return f"{value:,.0f} {unit}" if value >= 10 else f"{units.significant(value, 2)} {unit}"
