"""Trial: operators with a known answer, as a user's files, through the real program: the error of each figure."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.trials.figures import NOT_MEASURED, Target, median, off, percent, table
from benchmarks.trials.program import Setup, Swept, TrialError, sweep
from lisabench import units
from lisabench.journal import Record

WITHIN = 0.02
KNOWN = Path(__file__).with_name("known")
TOKENS, DIM, HEADS = 1024, 192, 3
ITEM_BYTES = 4
OUTPUT_BYTES = ITEM_BYTES * TOKENS * DIM
TIMES = (
    "The operators that spin and sleep wait on the clock that lisabench reads too, so the rows of latency and ratio check the bookkeeping"
    " (blocks, counts, units, rounds) and not the clock."
)
WAITS = (
    "The kernels wait for so many of the device's cycles, which were counted against the host's clock beforehand, so the rows of latency"
    " and ratio hold the events against that clock."
)


def measure(setup: Setup) -> dict[str, Any]:
    folder = setup.folder / "known"
    shutil.copytree(KNOWN, folder, ignore=shutil.ignore_patterns("__pycache__"))
    on_gpu = setup.device.startswith("cuda")
    rows = _waits(setup, folder) if on_gpu else _times(setup, folder)
    rows += _allocations(setup, folder, cross_check=not on_gpu) + _counts(setup, folder)
    return {"rows": rows, "times": WAITS if on_gpu else TIMES}


def row(what: str, known: float | None, measured: float | None, *, unit: str, exact: bool = False, absent: str = "") -> dict[str, Any]:
    """One figure beside the known one. `exact`: any difference is an error. `unit`: s, bytes, FLOP or "" (a plain number)."""
    return {"what": what, "known": known, "measured": measured, "unit": unit, "exact": exact, "absent": absent}


def error(one: Mapping[str, Any]) -> float | None:
    """The relative error of a row's figure; where 0 is known, 0 or 1."""
    known, measured = one["known"], one["measured"]
    if known is None or measured is None:
        return None
    return off(measured, known) if known else float(measured != 0)


def _any(swept: Swept, name: str, mode: str = "forward") -> Record:
    """The record of an operator, whatever its status. Raises TrialError where there is none."""
    for record in swept.records.values():
        if str(record["op"]).rpartition(":")[2] == name and record["mode"] == mode:
            return record
    raise TrialError(f"the sweep left no record of {name} ({mode}); measure again")


def _of(swept: Swept, name: str, mode: str = "forward") -> Record:
    """The record of an operator that must be ok. Raises TrialError with its status and reason where it is not."""
    record = _any(swept, name, mode)
    if record["status"] != "ok":
        raise TrialError(
            f"{name} ({mode}) came out as {record['status']}: {record['reason']}; its figures are known only of a cell that is ok"
        )
    return record


def _latency(record: Record) -> float:
    return float(record["latency_s"]["median"])


def _shape(tokens: int = TOKENS) -> list[str]:
    return ["--tokens", str(tokens), "--dim", str(DIM), "--heads", str(HEADS)]


def _times(setup: Setup, folder: Path) -> list[dict[str, Any]]:
    """Latency and ratio of operators that spin, beside the time they were made for, and of one that sleeps, beside its own clock."""
    from benchmarks.trials.known.timed import clocked

    file = folder / "timed.py"
    swept = sweep(setup, "truth times", "--op", f"{file}:SpinLong,{file}:Sleep", "--baseline", f"{file}:SpinShort", *_shape(64))
    short, long, sleep = (_latency(_of(swept, name)) for name in ("SpinShort", "SpinLong", "Sleep"))
    ratio, own = _of(swept, "SpinLong")["ratio"], median(clocked(folder / "Sleep.clock"))
    return [
        row("latency: spins for 1 ms", 1e-3, short, unit="s"),
        row("latency: spins for 20 ms", 20e-3, long, unit="s"),
        row("latency: sleeps for 5 ms, against the median that it noted of its own calls", own, sleep, unit="s"),
        row("paired ratio: 20 ms to 1 ms of spinning", 20.0, ratio and ratio["median"], unit=""),
    ]


def _waits(setup: Setup, folder: Path) -> list[dict[str, Any]]:
    """Latency and ratio of kernels that wait for so many cycles."""
    file = folder / "timed_cuda.py"
    swept = sweep(setup, "truth times", "--op", f"{file}:WaitLong", "--baseline", f"{file}:WaitShort", *_shape(64))
    short, long = _latency(_of(swept, "WaitShort")), _latency(_of(swept, "WaitLong"))
    ratio = _of(swept, "WaitLong")["ratio"]
    return [
        row("latency: a kernel that waits 1 ms", 1e-3, short, unit="s"),
        row("latency: a kernel that waits 20 ms", 20e-3, long, unit="s"),
        row("paired ratio: 20 ms to 1 ms of waiting", 20.0, ratio and ratio["median"], unit=""),
    ]


def _allocations(setup: Setup, folder: Path, *, cross_check: bool) -> list[dict[str, Any]]:
    file = folder / "allocating.py"
    more = ["--cross-check"] if cross_check else []
    swept = sweep(setup, "truth memory", "--op", f"{file}:Allocates", "--no-baseline", *more, *_shape())
    record, known = _of(swept, "Allocates"), 64 * 2**20 + OUTPUT_BYTES
    memory = record["memory_bytes"]
    why = record["absent"].get("memory_bytes.resident", "")
    return [
        row("memory: transient bytes of 48 MiB, then 64 MiB and the output", known, memory["transient"], unit="bytes", exact=True),
        row("memory: the same, resident (fresh process)", known, memory["resident"], unit="bytes", absent=why),
    ]


def _counts(setup: Setup, folder: Path) -> list[dict[str, Any]]:
    """FLOPs, coverage, bytes and errors that are known exactly."""
    names = ("allocating.py:Exponential", "product.py:Product", "offset.py:Offset", "wrong.py:Wrong")
    ops = ",".join(str(folder / name) for name in names)
    swept = sweep(setup, "truth counts", "--op", ops, "--no-baseline", "--mode", "forward,train", *_shape())
    product, training = _of(swept, "Product"), _of(swept, "Product", "train")
    flops, memory, kept = product["flops"], product["memory_bytes"], _of(swept, "Exponential", "train")["memory_bytes"]
    once, weight = 2.0 * TOKENS * DIM**2, ITEM_BYTES * DIM**2
    return [
        row("FLOPs of a product, torch's counter", once, flops["torch"], unit="FLOP", exact=True),
        row("FLOPs of a product, fvcore", once, flops["fvcore"], unit="FLOP", exact=True),
        row("FLOPs of a product with its backward, torch's counter", 3 * once, training["flops"]["torch"], unit="FLOP", exact=True),
        row("coverage of a product", 1.0, flops["coverage"], unit="", exact=True),
        row("coverage of a product with its backward", 1.0, training["flops"]["coverage"], unit="", exact=True),
        row("memory: inputs of a product", OUTPUT_BYTES, memory["inputs"], unit="bytes", exact=True),
        row("memory: parameters of a product", weight, memory["parameters"], unit="bytes", exact=True),
        row("memory: transient bytes of a product", OUTPUT_BYTES, memory["transient"], unit="bytes", exact=True),
        row("memory: peak of a product", 2 * OUTPUT_BYTES + weight, memory["peak"], unit="bytes", exact=True),
        row("memory: saved for backward by exp", OUTPUT_BYTES, kept["saved"], unit="bytes", exact=True),
        row("numerics: an output off by 2^-14", 2.0**-14, _of(swept, "Offset")["relative_error"], unit=""),
        row("numerics: outputs off by 1% that got a latency, of 2", 0, _timed_wrongly(swept), unit="", exact=True),
    ]


def _timed_wrongly(swept: Swept) -> int:
    """How many cells of the wrong operator came out as anything but wrong."""
    return sum(_any(swept, "Wrong", mode)["status"] != "wrong" for mode in ("forward", "train"))


def targets(part: Mapping[str, Any]) -> list[Target]:
    return [_target(one) for one in part["rows"]]


def _target(one: Mapping[str, Any]) -> Target:
    wrong = error(one)
    bound = "exact" if one["exact"] else f"at most {percent(WITHIN)} off"
    met = None if wrong is None else (wrong == 0 if one["exact"] else wrong <= WITHIN)
    return Target(
        what=one["what"],
        target=bound,
        result=NOT_MEASURED if wrong is None else f"{percent(wrong, beside=0 if one['exact'] else WITHIN)} off",
        met=met,
    )


def markdown(part: Mapping[str, Any]) -> str:
    rows = [[one["what"], _figure(one, "known"), _figure(one, "measured"), percent(error(one))] for one in part["rows"]]
    reasons = [f"- {one['what']}: {one['absent']}" for one in part["rows"] if one["absent"] and one["measured"] is None]
    sections = [
        f"Operators whose answer is known beforehand, in a user's file, measured by `lisabench scale`. {part['times']}",
        table(["figure", "known", "measured", "error"], rows),
    ]
    return "\n\n".join([*sections, *(["Not measured, and why:\n\n" + "\n".join(reasons)] if reasons else [])])


def _figure(one: Mapping[str, Any], name: str) -> str:
    value = one[name]
    if value is None:
        return units.MISSING
    shown: Sequence[str] = {
        "s": [units.seconds(value, 5)],
        "bytes": [f"{value:,.0f}"],
        "FLOP": [f"{value:,.0f}"],
    }.get(one["unit"], [f"{value:.5g}"])
    return f"{shown[0]} {one['unit']}" if one["unit"] in ("bytes", "FLOP") else shown[0]
