"""What a reader must know beside a table, in plain sentences: what was measured, where and how, and what the marks say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from lisabench.analysis.accuracy import Series, data_name
from lisabench.render import training_notes
from lisabench.render.curves import common, own_up
from lisabench.render.quantities import QUANTITIES
from lisabench.render.training_notes import counted
from lisabench.results import FLOOR

Environments = Mapping[str, Any]

INTERVALS = "in brackets 95% intervals of the medians by order statistics"
_SECOND = "; underlined: the second, likewise"
_ENDS = {"oom": "out of memory", "timeout": "over the time limit", "wrong": "its output is not right"}


def sentences(parts: Iterable[str]) -> str:
    """The parts as sentences of one paragraph, on one line."""
    return " ".join(f"{part[:1].upper()}{part[1:]}." for part in parts if part)


def of_costs(frame: pd.DataFrame, quantity: str, environments: Environments, *, intervals: bool = False) -> Iterator[str]:
    """What stands beside a quantity by number of tokens."""
    yield f"{QUANTITIES[quantity].axis} by number of tokens"
    yield conditions(frame, environments)
    yield _latency(frame) if quantity == "latency" else QUANTITIES[quantity].note
    yield INTERVALS if intervals else ""
    yield _marks(frame, uncertain=quantity == "latency")
    yield from _ends(frame)


def of_summary(frame: pd.DataFrame, environments: Environments, *, baseline: str | None, at: int | None) -> Iterator[str]:
    """What stands beside growth, crossovers with the baseline and the costs at one number of tokens."""
    parts = ["growth with the number of tokens N", f"crossovers with {baseline}" if baseline else "", f"costs at N = {at}" if at else ""]
    yield ", ".join(part for part in parts if part)
    yield conditions(frame, environments)
    yield "exponent: p of t₀ + c Nᵖ fitted to all sizes, in brackets its 95% interval by bootstrap (?: the sizes do not tell)"
    if baseline:
        yield _crossover(baseline)
        yield f"speed-up: time of {baseline} over that of the operator, with its 95% interval where both were timed in shared rounds"
    yield f"latency: {_latency(frame)}"
    yield f"memory: {QUANTITIES['memory'].note}"
    yield f"FLOPs: {QUANTITIES['flops'].note}"
    yield _marks(frame, uncertain=True)
    yield from _ends(frame)


def of_crossovers(frame: pd.DataFrame, environments: Environments, *, baseline: str) -> Iterator[str]:
    """What stands beside crossovers and efficiency lengths."""
    yield f"number of tokens N from which on each operator costs less than {baseline}"
    yield conditions(frame, environments)
    yield _crossover(baseline)
    yield (
        f"efficiency length: where a straight line fitted to the operator's cost meets a parabola fitted to that of {baseline} for the last"
        " time, as CAB (Zhang et al., ICML 2023) defines it; it has no interval and may lie beyond the sizes measured (–: they do not meet, or the operator is quadratic itself)"
    )
    yield f"latency: {_latency(frame)}"
    yield f"memory: {QUANTITIES['memory'].note}"
    yield from _ends(frame)


def _crossover(baseline: str) -> str:
    return (
        f"cheaper from: the N from which on the operator costs less than {baseline} (up to: below which it does), within the sizes"
        " measured, with its 95% interval (–: beyond them; ≈: extrapolated by both laws)"
    )


def of_trainings(series: Sequence[Series], environments: Environments) -> Iterator[str]:
    """What stands beside accuracies."""
    yield f"accuracy on {' and '.join(dict.fromkeys(data_name(one.data) for one in series))}"
    yield "; ".join(sorted({machine(environment) for environment in environments.values()}))
    yield ", ".join(training_notes.common(series))
    finished = [one for one in series if one.top1]
    yield from training_notes.seeds_note(finished) if finished else []
    images = {one.test_images for one in series if one.test_images}
    yield f"{counted(images)} test images" if images else ""
    searched = {one.searched for one in series}
    yield "one recipe for all, not searched for" if searched == {0} else f"recipes found by a search of {counted(searched)} trials each"
    batches = {one.latency_batch for one in series if one.latency_batch}
    on = f", latency (median) and transient memory of a forward on {counted(batches)} images" if batches else ""
    yield f"costs are of the whole model: FLOPs of a forward of one image{on}"
    yield f"FLOPs: {QUANTITIES['flops'].note}"
    best = "the best, and what Welch's 95% interval (top-1) or the overlap of intervals does not tell apart from it"
    yield f"bold: {best}{_SECOND if len(finished) > 2 else ''}{_floor(one.op for one in series)}"
    yield from training_notes.own_up({one.op for one in series})


def conditions(frame: pd.DataFrame, environments: Environments) -> str:
    """The machines with their software, and what all rows share."""
    known = {machine(environments[key]) for key in frame["environment"].dropna().unique() if key in environments}
    machines = known or set(frame["device_name"])
    shared = [part for part in common(frame) if part not in set(frame["device_name"])]
    return "; ".join([*sorted(machines), ", ".join(shared)])


def machine(environment: Mapping[str, Any]) -> str:
    """'NVIDIA H200 (driver 570.86, CUDA 12.8, torch 2.13.0)', 'AMD EPYC, 2 threads (torch 2.13.0+cpu)'."""
    threads = environment.get("cpu", {}).get("threads") if environment.get("device") == "cpu" else None
    torch = environment.get("libraries", {}).get("torch")
    software = {"driver": environment.get("driver"), "CUDA": environment.get("cuda"), "torch": torch}
    known = ", ".join(f"{name} {version}" for name, version in software.items() if version)
    name = str(environment["device_name"]) + (f", {threads} thread{'s' if threads != 1 else ''}" if threads else "")
    return f"{name} ({known})" if known else name


def _latency(frame: pd.DataFrame) -> str:
    """How the medians came about, and how many of them carry warnings."""
    done = frame[frame["status"] == "ok"]
    counts = done["latency_s.count"].dropna().astype(int)
    samples = f" of {counted(counts)} samples" if len(counts) else ""
    rounds = " in interleaved rounds" if done["ratio.median"].notna().any() else ""
    flushed = ", L2 cache flushed before each" if "cold" in set(done["latency_s.kind"]) else ""
    told = done["latency_s.warnings"].fillna("") if "latency_s.warnings" in done else pd.Series(dtype=str)
    kinds = sorted({warning.partition(":")[0] for row in told for warning in row.split("; ") if ":" in warning})
    warned = f"; {int((told != '').sum())} of {len(done)} medians carry warnings ({', '.join(kinds)})" if kinds else ""
    return f"median{samples}{rounds}{flushed}{warned}"


def _marks(frame: pd.DataFrame, *, uncertain: bool) -> str:
    best = "the best" + (", and what its interval overlaps" if uncertain else "")
    return f"bold: {best}{_SECOND if frame['label'].nunique() > 2 else ''}{_floor(frame['op'])}"


def _floor(operators: Iterable[str]) -> str:
    return f"; {FLOOR}, which mixes nothing, is not ranked" if FLOOR in set(operators) else ""


def _ends(frame: pd.DataFrame) -> Iterator[str]:
    """What the words in place of figures mean, and where LiSA's code comes from."""
    told = ", ".join(f"{status} ({words})" for status, words in _ENDS.items() if status in set(frame["status"]))
    yield f"in place of figures: {told}" if told else ""
    yield from own_up(frame)
