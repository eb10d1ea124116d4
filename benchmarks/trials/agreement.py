"""Trial: the same calls timed by lisabench and by a timer of other people's making, in turns in one process.

CPU: torch.utils.benchmark.Timer.blocked_autorange. GPU: triton.testing.do_bench; where triton is absent, CUDA events around
each call behind a flush of the L2 cache, which is what do_bench does, and the report says so. Both may have a call's launch
within their events, where lisabench has not: on a GPU only calls are judged beside which their own launch is short.

Source: pytorch, torch/utils/benchmark/utils/timer.py; triton, python/triton/testing.py.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from benchmarks.trials.figures import Target, at_most, counted, median, off, percent, share, table
from benchmarks.trials.program import Setup, child, say
from lisabench import units

WITHIN = 0.03
LAUNCHES = 5  # as many launches a call must last at least, by the other timer, to be judged on a GPU
LAUNCHED = 10
UNREST = ("single_turn_off", "ours_step", "theirs_step")
FULL = {"tokens": [64, 256, 1024, 4096], "turns": 5, "seconds": 0.2}
QUICK = {"tokens": [64, 512], "turns": 3, "seconds": 0.1}
Timed = Callable[[Callable[[], Any]], float]


def measure(setup: Setup) -> dict[str, Any]:
    """The figures of the trial, from a process with the environment of lisabench's worker."""
    settings = QUICK if setup.quick else FULL
    found: dict[str, Any] = child(setup, "agreement", settings)
    return {"settings": settings} | found


def row(ours: Sequence[float], theirs: Sequence[float], *, launch: float | None = None) -> dict[str, Any]:
    """One call's figures from the medians of its turns, in seconds: the median of the paired ratios, and each timer's own unrest.

    `launch`: seconds that the host takes to launch the call on a GPU, None on a CPU.
    """
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return {
        "ours_s": statistics.median(ours),
        "theirs_s": statistics.median(theirs),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "single_turn_off": median(off(ratio, 1) for ratio in ratios),
        "ours_step": _step(ours),
        "theirs_step": _step(theirs),
        "launch_s": launch,
        "judged": launch is None or statistics.median(theirs) > LAUNCHES * launch,
    }


def _step(turns: Sequence[float]) -> float | None:
    """How far a timer is from itself, from one turn to the next: the median over the steps."""
    return median(off(after, before) for before, after in pairwise(turns))


def summary(part: Mapping[str, Any]) -> dict[str, Any]:
    """Over the calls that are judged: how far the ratios are from 1, and how far each timer is from itself, from turn to turn."""
    judged = [cell for cell in part["cells"] if cell.get("judged")]
    offs = [off(cell["ratio"], 1) for cell in judged]
    unrest = {name: [cell[name] for cell in judged if cell[name] is not None] for name in UNREST}
    return {
        "cells": len(judged),
        "median_off": median(offs),
        "worst_off": max(offs, default=None),
        "share_within": share(one <= WITHIN for one in offs),
        **{name: {"median": median(found), "worst": max(found, default=None)} for name, found in unrest.items()},
    }


def targets(part: Mapping[str, Any]) -> list[Target]:
    found = summary(part)
    timer = part["timer"]
    return [
        at_most(f"agreement with {timer}, median over the calls", found["median_off"], WITHIN),
        at_most(f"agreement with {timer}, the worst call's median", found["worst_off"], WITHIN),
    ]


def markdown(part: Mapping[str, Any]) -> str:
    found, settings = summary(part), part["settings"]
    sizes = settings["tokens"]
    cells = {(cell["op"], cell["tokens"]): cell for cell in part["cells"]}
    rows = [[op, *(_shown(cells.get((op, size))) for size in sizes)] for op in dict.fromkeys(op for op, _ in cells)]
    turns = f"median of {settings['turns']} turns"
    unrest = [
        [f"ratio from 1, {turns} (judged)", percent(found["median_off"]), percent(found["worst_off"])],
        *(
            [words, percent(found[name]["median"]), percent(found[name]["worst"])]
            for name, words in zip(
                UNREST,
                ("ratio from 1 in a single turn", "lisabench from its turn before", "the other timer from its turn before"),
                strict=True,
            )
        ),
    ]
    sections = [
        f"lisabench's median over that of {part['timer']}: the median ratio of {settings['turns']} turns, each timer first in every other"
        " turn (the mixing scope, forward, fp32; in brackets lisabench's median).",
        table(["operator", *(f"{size:,} tokens" for size in sizes)], rows),
        f"Within {percent(WITHIN)}: {counted(found['share_within'], found['cells'])}. How far apart, beside how far each timer is from"
        " itself; the last three lines are of single turns, and each call counts with its median over them:",
        table(["distance", "median over the calls", "worst call's median"], unrest),
        *_unjudged(part),
    ]
    return "\n\n".join(sections)


def _unjudged(part: Mapping[str, Any]) -> list[str]:
    """A line of the calls that are too short to be judged, if any."""
    short = [f"{cell['op']} at {cell['tokens']:,} tokens" for cell in part["cells"] if not cell.get("judged", True)]
    why = f"Not judged, since the other timer's figure is not over {LAUNCHES} times the launch, which may be in it (in the table with †)"
    return [f"{why}: {', '.join(short)}."] if short else []


def _shown(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return ""
    if "ratio" not in cell:
        return str(cell["absent"])
    return f"{cell['ratio']:.3f}{'' if cell['judged'] else ' †'} ({units.seconds(cell['ours_s'])})"


def main() -> None:
    """The child process: prints the figures as JSON."""
    import torch

    from lisabench import registry
    from lisabench.axes import grids
    from lisabench.measure.latency import Limits, measure_latency
    from lisabench.run.cell import build
    from lisabench.sweep import Cell
    from lisabench.workload import Workload

    settings = json.loads(sys.argv[1])
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    device, seconds = settings["device"], settings["seconds"]
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(torch.device(device).index or 0)  # the other timers know the current device only
    name, theirs = _gpu_timer(seconds) if on_gpu else _cpu_timer(seconds)

    def ours(call: Callable[[], Any]) -> float:
        return measure_latency(call, device=device, limits=Limits(seconds=seconds)).median

    def timed(op: str, tokens: int) -> dict[str, Any]:
        operator, workload = registry.load(op), Workload(grid=grids(str(tokens), None, 16)[0], device=device)
        options = operator.resolve({})
        refusal = operator.refuses(workload, **options)
        if refusal:
            return {"absent": f"refused: {refusal}"}
        subject = build(Cell(op=op, options=options, workload=workload), seed=0)
        with subject.gradients():
            call = subject.call()
            return row(*_in_turns(call, ours, theirs, settings["turns"]), launch=_launch_seconds(call) if on_gpu else None)

    cells = []
    for op in registry.names():
        for tokens in settings["tokens"]:
            say(f"agreement: {op}, {tokens:,} tokens")
            try:
                found = timed(op, tokens)
            except Exception as error:  # one operator that fails does not end the trial
                found = {"absent": f"{type(error).__name__}: {error}".splitlines()[0]}
            cells.append({"op": op, "tokens": tokens} | found)
    print(json.dumps({"timer": name, "cells": cells}))


def _in_turns(call: Callable[[], Any], ours: Timed, theirs: Timed, turns: int) -> tuple[list[float], list[float]]:
    """Both timers' medians of each turn; which one goes first changes from turn to turn, so that drift does not side with one."""
    found: dict[Timed, list[float]] = {ours: [], theirs: []}
    for turn in range(turns):
        for timer in (ours, theirs) if turn % 2 == 0 else (theirs, ours):
            found[timer].append(timer(call))
    return found[ours], found[theirs]


def _launch_seconds(call: Callable[[], Any]) -> float:
    """Seconds until a call that is warm returns to Python, on an idle GPU."""
    import torch

    taken = []
    for _ in range(LAUNCHED):
        torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    torch.cuda.synchronize()
    return statistics.median(taken)


def _cpu_timer(seconds: float) -> tuple[str, Timed]:
    import torch
    from torch.utils.benchmark import Timer

    def timed(call: Callable[[], Any]) -> float:
        timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
        return float(timer.blocked_autorange(min_run_time=seconds).median)

    return "torch.utils.benchmark", timed


def _gpu_timer(seconds: float) -> tuple[str, Timed]:
    import torch

    try:
        from triton.testing import do_bench  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        pass
    else:
        return "triton.testing.do_bench", lambda call: do_bench(call, rep=1e3 * seconds, return_mode="median") / 1e3
    flush = torch.empty(2**28, dtype=torch.int8, device="cuda")

    def timed(call: Callable[[], Any]) -> float:
        samples: list[float] = []
        while len(samples) < 10 or sum(samples) < seconds:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flush.zero_()
            start.record()
            call()
            end.record()
            torch.cuda.synchronize()
            samples.append(start.elapsed_time(end) / 1e3)
        return statistics.median(samples)

    return "CUDA events (triton is not installed)", timed


if __name__ == "__main__":
    main()
