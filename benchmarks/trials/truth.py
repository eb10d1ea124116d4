"""Trial: operators with a known answer, as a user's files, through the real program: the error of each figure."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.trials.figures import NOT_MEASURED, Target, median, off, percent, table
from benchmarks.trials.program import Setup, Swept, sweep
from lisabench import units
from lisabench.journal import Record

WITHIN = 0.02
KNOWN = Path(__file__).with_name("known")
TOKENS, DIM, HEADS = 1024, 192, 3
ITEM_BYTES = 4
OUTPUT_BYTES = ITEM_BYTES * TOKENS * DIM


def measure(setup: Setup) -> dict[str, Any]:
    folder = setup.folder / "known"
    shutil.copytree(KNOWN, folder, ignore=shutil.ignore_patterns("__pycache__"))
    on_gpu = setup.device.startswith("cuda")
    rows = _waits(setup, folder) if on_gpu else _times(setup, folder)
    rows += _allocations(setup, folder, cross_check=not on_gpu) + _counts(setup, folder)
    return {"rows": rows}


def row(what: str, known: float | None, measured: float | None, *, unit: str, exact: bool = False, absent: str = "") -> dict[str, Any]:
    """One figure beside the known one. `exact`: any difference is an error. `unit`: s, bytes, FLOP or "" for a plain number."""
    return {"what": what, "known": known, "measured": measured, "unit": unit, "exact": exact, "absent": absent}


def error(one: Mapping[str, Any]) -> float | None:
    """The relative error of a row's figure; where 0 is known, 0 or 1."""
    known, measured = one["known"], one["measured"]
    if known is None or measured is None:
        return None
    return off(measured, known) if known else float(measured != 0)


def _of(swept: Swept, name: str, mode: str = "forward") -> Record:
    return next(r for r in swept.records.values() if str(r["op"]).rpartition(":")[2] == name and r["mode"] == mode)


def _latency(record: Record) -> float | None:
    return record["latency_s"]["median"] if record["latency_s"] else None


def _shape(tokens: int = TOKENS) -> list[str]:
    return ["--tokens", str(tokens), "--dim", str(DIM), "--heads", str(HEADS)]


def _times(setup: Setup, folder: Path) -> list[dict[str, Any]]:
    """Latency and ratio of operators that spin and sleep, beside what they were made for and what they clocked themselves."""
    from benchmarks.trials.known.timed import clocked

    file = folder / "timed.py"
    swept = sweep(setup, "truth times", "--op", f"{file}:SpinLong,{file}:Sleep", "--baseline", f"{file}:SpinShort", *_shape(64))
    found = []
    for name, known, words in (
        ("SpinShort", 1e-3, "spins for 1 ms"),
        ("SpinLong", 20e-3, "spins for 20 ms"),
        ("Sleep", None, "sleeps for 5 ms"),
    ):
        measured, own = _latency(_of(swept, name)), median(clocked(folder / f"{name}.clock"))
        if known is not None:
            found.append(row(f"latency: {words}, against that time", known, measured, unit="s"))
        found.append(row(f"latency: {words}, against its own clock", own, measured, unit="s"))
    ratio = _of(swept, "SpinLong")["ratio"]
    return [*found, row("paired ratio: 20 ms to 1 ms of spinning", 20.0, ratio and ratio["median"], unit="")]


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
        _energy(product),
    ]


def _timed_wrongly(swept: Swept) -> int:
    """How many cells of the wrong operator came out as anything but wrong."""
    return sum(_of(swept, "Wrong", mode)["status"] != "wrong" for mode in ("forward", "train"))


def _energy(record: Record) -> dict[str, Any]:
    """Joules a call beside the power that the device told at the end of the rounds, times the warm latency."""
    what = "energy: joules a call against power times latency"
    power, kinds = (record["conditions"] or {}).get("power_w"), record["latency_kinds_s"]
    if record["energy_j"] is None:
        return row(what, None, None, unit="J", absent=record["absent"].get("energy_j", ""))
    if not (power and power[1] and kinds and kinds.get("warm")):
        return row(what, None, record["energy_j"], unit="J", absent="there is no second figure of the power here")
    return row(what, power[1] * kinds["warm"]["median"], record["energy_j"], unit="J")


def targets(part: Mapping[str, Any]) -> list[Target]:
    return [_target(one) for one in part["rows"]]


def _target(one: Mapping[str, Any]) -> Target:
    wrong = error(one)
    bound = "exact" if one["exact"] else f"at most {percent(WITHIN)} off"
    met = None if wrong is None else (wrong == 0 if one["exact"] else wrong <= WITHIN)
    return Target(what=one["what"], target=bound, result=NOT_MEASURED if wrong is None else f"{percent(wrong)} off", met=met)


def markdown(part: Mapping[str, Any]) -> str:
    rows = [[one["what"], _figure(one, "known"), _figure(one, "measured"), percent(error(one))] for one in part["rows"]]
    reasons = [f"- {one['what']}: {one['absent']}" for one in part["rows"] if one["absent"] and one["measured"] is None]
    sections = [
        "Operators whose answer is known beforehand, in a user's file, measured by `lisabench scale`.",
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
        "J": [units.energy(value, 4)],
    }.get(one["unit"], [f"{value:.5g}"])
    return f"{shown[0]} {one['unit']}" if one["unit"] in ("bytes", "FLOP") else shown[0]
