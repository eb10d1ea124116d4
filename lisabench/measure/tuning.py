"""Times LiSA's engines side by side, and fits the model by which its "auto" chooses among them (`operators/_lisa_choice.py`).

All engines of one shape and mode are timed in the same rounds, in random order. Coefficients are found by least squares of relative errors,
none below 0, each point weighted by the share of its time that the fastest engine takes: what is never chosen need not be known well.
How good the choice is on shapes that it was not fitted to is found by leaving each fifth of the shapes out in turn.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import nnls

from lisabench import registry
from lisabench.measure.latency import no_collection
from lisabench.measure.samplers import sampler_for
from lisabench.workload import Grid, Workload

ROUNDS, SLICE_SECONDS = 5, 0.003
LONGEST_SECONDS = 0.6  # the rounds of all engines at one shape and mode
# An engine that is predicted to take so many times as long as the fastest, and so long, is not timed; nor is one that takes too long alone.
HOPELESS, HOPELESS_SECONDS, SLOW_SECONDS = 4, 0.05, 1.5
PILOT_POINTS = 12
RIVAL = 3  # one that takes over so many times as long as the fastest when it is warmed up takes no part in the rounds
FOLDS = 5
LEAST_POINTS = 6  # of each mode; a table from fewer says nothing
LEAST_SHARE = 0.25  # of a mode's points; of an engine that was timed at fewer the times elsewhere are not told
HEADS, WIDTH, PATTERNS = 3, 64, 4

SQUARES = (3, 4, 6, 8, 10, 12, 14, 16, 18, 20, 24, 28, 32, 40, 48, 64, 96, 128)
OBLONG = ((1, 16), (1, 64), (1, 128), (1, 256), (1, 512), (1, 1024), (2, 64), (4, 32), (4, 128), (8, 64), (16, 64), (32, 128), (16, 256))
BATCHED = ((4, 4), (8, 8), (12, 12), (16, 16), (20, 20), (24, 24), (32, 32), (1, 256), (8, 32))
VARIED = ((8, 8), (14, 14), (16, 16), (24, 24), (32, 32), (48, 48))
QUICK_TOKENS, QUICK_BATCH_TOKENS = 1100, 3000


class Point(NamedTuple):
    """One shape and mode: seconds a call by engine, the median of the rounds' medians."""

    shape: Any
    mode: str
    seconds: dict[str, float]

    @property
    def best(self) -> float:
        return min(self.seconds.values())


class Regret(NamedTuple):
    """How many times as long as the fastest engine the chosen one takes, over so many shapes."""

    median: float
    worst: float
    shapes: int


def choice() -> Any:
    """The module that chooses; operators are not imported statically."""
    return import_module(f"{registry.PACKAGE}._lisa_choice")


def shapes(*, quick: bool = False) -> list[Any]:
    """The shapes that are timed, in random order, so that those of any first part lie everywhere."""
    shape = choice().Shape
    found = [
        *(shape(Grid(side, side), "zero", 1, HEADS, PATTERNS, WIDTH, WIDTH, 4) for side in SQUARES),
        *(shape(Grid(*grid), "zero", 1, HEADS, PATTERNS, WIDTH, WIDTH, 4) for grid in OBLONG),
        *(shape(Grid(*grid), "zero", 8, HEADS, PATTERNS, WIDTH, WIDTH, 4) for grid in BATCHED),
        *(shape(Grid(*grid), "zero", 1, HEADS, PATTERNS, 16, WIDTH, 4) for grid in VARIED),
        *(shape(Grid(*grid), "zero", 1, HEADS, 1, WIDTH, WIDTH, 4) for grid in VARIED),
        *(shape(Grid(*grid), "periodic", 1, 8, PATTERNS, 32, 32, 4) for grid in VARIED[1:5]),
    ]
    if quick:
        found = [s for s in found if s.grid.tokens <= QUICK_TOKENS and s.grid.tokens * s.batch <= QUICK_BATCH_TOKENS]
    random.Random(0).shuffle(found)
    return found


def measure(
    wanted: Sequence[Any], *, device: str, seconds: float, left_out: dict[str, str], so_far: Mapping[str, Any] | None
) -> Iterator[Point]:
    """Points of these shapes, all modes of each, with as many threads as torch has now, until so many seconds are over.

    An engine that raises goes to `left_out` with its reason. What is predicted to be far too slow is not timed: after `so_far`, coefficients,
    and as soon as there are points, after those.
    """
    end = time.perf_counter() + seconds
    found: list[Point] = []
    for shape in wanted:
        for mode in choice().MODES:
            if time.perf_counter() > end:
                return
            point = _timed(shape, mode, device, end, left_out, so_far)
            if point.seconds:
                found.append(point)
                yield point
        if len(found) >= PILOT_POINTS:
            so_far = fit(found, device)


def absent(device: str) -> Mapping[str, str]:
    """Engines that do not run on this device, and why."""
    return registry.load("lisa").left_out(torch.device(device), torch.float32)


def _timed(shape: Any, mode: str, device: str, end: float, left_out: dict[str, str], so_far: Mapping[str, Any] | None) -> Point:
    samplers, first = {}, {}
    for engine in _engines(shape, mode, device, so_far):
        try:
            sampler = sampler_for(_call(shape, mode, engine, device), device)
            first[engine] = sampler.warm_up(seconds=0.0, calls=1)
            samplers[engine] = sampler
        except Exception as error:  # what an engine raises on a device that it does not run on, or out of memory
            left_out.setdefault(engine, f"{mode}, grid {shape.grid}: {(str(error).strip() or type(error).__name__).splitlines()[0]}")
    least = min(first.values(), default=0.0)
    rounds: dict[str, list[float]] = {engine: [] for engine in samplers if first[engine] <= RIVAL * least}
    started = time.perf_counter()
    with no_collection():
        for done in range(ROUNDS):
            now = time.perf_counter()
            if done and (now > end or now - started > LONGEST_SECONDS * done / (done + 1)):  # another round would be too long
                break
            for engine in random.sample(list(rounds), len(rounds)):
                rounds[engine].append(_round(samplers[engine]))
    return Point(shape, mode, first | {engine: float(np.median(of)) for engine, of in rounds.items()})


def _round(sampler: Any) -> float:
    sampler.warm_again()
    taken: list[float] = []
    started = sampler.now()
    while not taken or sampler.now() - started < SLICE_SECONDS:
        taken += sampler.sample()
    return float(np.median(taken))


def _engines(shape: Any, mode: str, device: str, so_far: Mapping[str, Any] | None) -> list[str]:
    """All but those that would take too much memory or far too long."""
    engines = [name for name in import_module(f"{registry.PACKAGE}.lisa").ENGINES if name != "auto" and name not in absent(device)]
    fits = [name for name in engines if choice().matrix_bytes(name, shape, device) <= choice().MOST_MATRIX_BYTES]
    known = choice().seconds_by(so_far or {}, shape, mode, device)
    longest = min(SLOW_SECONDS, max(HOPELESS_SECONDS, HOPELESS * min(known.values(), default=0.0)))
    return [name for name in fits if known.get(name, 0.0) <= longest]


def _call(shape: Any, mode: str, engine: str, device: str) -> Callable[[], Any]:
    """One forward, or gradients to tokens and tables; `kept` is the module in evaluation."""
    lisa = registry.load("lisa")
    attention = import_module(f"{registry.PACKAGE}.lisa").lisa_attention
    grid, heads = shape.grid, shape.heads
    workload = Workload(grid=grid, batch=shape.batch, dim=heads * shape.value_dim, heads=heads)
    options = {"engine": engine, "patterns": shape.patterns, "key_dim": shape.key_dim, "boundary": shape.boundary}
    module: Any = lisa.build(workload, options).to(device).eval()
    channels = shape.key_dim, shape.key_dim, shape.value_dim
    tokens = [torch.randn(shape.batch, heads, grid.tokens, width, device=device) for width in channels]
    if mode == "kept":
        return torch.no_grad()(lambda: module.mix(*tokens))
    tables = [module.kernel_patterns.detach(), module.context_patterns.detach()]
    given = [part.requires_grad_(mode == "train") for part in (*tokens, *tables)]

    def forward() -> torch.Tensor:
        y: torch.Tensor = attention(*given, grid=grid, boundary=shape.boundary, engine=engine)
        return y

    return torch.no_grad()(forward) if mode == "forward" else lambda: torch.autograd.grad(forward().sum(), given)


# --- the model -------------------------------------------------------------------------------------------------------


def fit(points: Sequence[Point], device: str) -> dict[str, dict[str, dict[str, float]]]:
    """Coefficients by mode, engine and feature, with four digits; without engines that were timed at under LEAST_SHARE of the shapes."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for mode in dict.fromkeys(point.mode for point in points):
        of_mode = [point for point in points if point.mode == mode]
        timed = Counter(engine for point in of_mode for engine in point.seconds)
        told = [engine for engine, count in timed.items() if count >= LEAST_SHARE * len(of_mode)]
        found[mode] = {engine: _coefficients(of_mode, engine, device) for engine in told}
    return found


def _coefficients(points: Sequence[Point], engine: str, device: str) -> dict[str, float]:
    timed = [point for point in points if engine in point.seconds]
    counted = [choice().features(engine, point.shape, point.mode, device) for point in timed]
    names = list(counted[0])
    taken = np.array([point.seconds[engine] for point in timed])
    weights = np.array([point.best for point in timed]) / taken
    amounts = np.array([[row[name] for name in names] for row in counted]) * (weights / taken)[:, None]
    scale = np.abs(amounts).max(axis=0)
    scale[scale == 0] = 1.0
    solved, _ = nnls(amounts / scale, weights)
    return {name: float(f"{value:.4g}") for name, value in zip(names, solved / scale, strict=True)}


def regret(points: Sequence[Point], coefficients: Mapping[str, Any], device: str) -> Regret | None:
    """Of the choices after these coefficients, among the engines that were timed; None where there was nothing to choose."""
    return _regret(ratio for point in points for ratio in _ratios(point, coefficients, device))


def held_out_regret(points: Sequence[Point], device: str) -> Regret | None:
    """Of choices after coefficients that were fitted to the other shapes: each fifth of the shapes is left out in turn."""
    wholes = list(dict.fromkeys(point.shape for point in points))
    random.Random(1).shuffle(wholes)
    folds = [set(wholes[fold::FOLDS]) for fold in range(FOLDS)]
    fitted = [(fold, fit([point for point in points if point.shape not in fold], device)) for fold in folds]
    return _regret(ratio for fold, by in fitted for point in points if point.shape in fold for ratio in _ratios(point, by, device))


def _ratios(point: Point, coefficients: Mapping[str, Any], device: str) -> Iterator[float]:
    seconds = choice().seconds_by(coefficients, point.shape, point.mode, device)
    there = [engine for engine in seconds if engine in point.seconds]
    if len(there) > 1:
        yield point.seconds[min(there, key=seconds.__getitem__)] / point.best


def _regret(ratios: Iterator[float]) -> Regret | None:
    found = list(ratios)
    return Regret(float(np.median(found)), max(found), len(found)) if found else None


def on_squares(coefficients: Mapping[str, Any], mode: str, device: str, largest: int = 128) -> list[tuple[str, int]]:
    """The fastest engine on squares of 2 to `largest` a side, batch 1, and up to how many tokens: [("dense", 196), ("mixed", 16384)].

    Where two engines take turns (FFTs have good and bad lengths) the shorter turns are counted to the other engine.
    """
    shape = choice().Shape(Grid(1, 1), "zero", 1, HEADS, PATTERNS, WIDTH, WIDTH, 4)
    runs: list[tuple[str, int, int]] = []  # engine, first and last side
    for side in range(2, largest + 1):
        seconds = choice().seconds_by(coefficients, shape._replace(grid=Grid(side, side)), mode, device)
        if seconds:
            runs.append((min(seconds, key=seconds.__getitem__), side, side))
    return [(engine, last**2) for engine, _, last in _without_islands(_joined(runs))]


def _without_islands(runs: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    while islands := [place for place in range(1, len(runs) - 1) if runs[place - 1][0] == runs[place + 1][0]]:
        least = min(islands, key=lambda place: runs[place][2] - runs[place][1])
        runs = _joined([*runs[:least], (runs[least - 1][0], *runs[least][1:]), *runs[least + 1 :]])
    return runs


def _joined(runs: Sequence[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Neighbours of one engine as one run."""
    found: list[tuple[str, int, int]] = []
    for engine, first, last in runs:
        first = found.pop()[1] if found and found[-1][0] == engine else first
        found.append((engine, first, last))
    return found


def enough(points: Sequence[Point]) -> bool:
    """Whether every mode has the points that a table needs."""
    return all(sum(point.mode == mode for point in points) >= LEAST_POINTS for mode in choice().MODES)


def table(points: Sequence[Point], device: str, threads: int) -> Any:
    """What is kept: the coefficients, with the machine and the day."""
    kind = device.partition(":")[0]
    names = choice()
    return names.Table(kind, threads, names.machine(kind), torch.__version__, date.today().isoformat(), fit(points, kind))
