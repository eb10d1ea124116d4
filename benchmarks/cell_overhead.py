"""What a small cell costs beyond its warm-up and its timed samples, in seconds: checks, memory, FLOP counts, journal.

    python benchmarks/cell_overhead.py

Runs a real sweep of all operators over small cells and takes each cell's time from the parent's clock.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from lisabench.journal import Journal, Record
from lisabench.measure.latency import Limits
from lisabench.presets import Shape
from lisabench.run.engine import Settings, run_cells
from lisabench.run.local import Worker
from lisabench.sweep import Cell, Sweep, grids, resolve_operators

LIMITS = Limits(seconds=0.5)


class Clock:
    """Notes how long each cell takes, and how much of that was warm-up and samples."""

    def __init__(self) -> None:
        self.beyond: list[float] = []
        self.marks: dict[str, float] = {}

    def started(self, cell: Cell, seconds_left: float | None) -> None:
        self.marks = {"started": time.perf_counter()}

    def progress(self, phase: str, seconds_a_call: float | None) -> None:
        self.marks.setdefault(phase, time.perf_counter())

    def finished(self, cell: Cell, record: Record) -> None:
        timed = self.marks["counting"] - self.marks["warming up"]
        self.beyond.append(time.perf_counter() - self.marks["started"] - timed)


def main() -> None:
    shapes = tuple(Shape(grid=grid, dim=192, heads=3) for grid in grids("64..512", None, 16))
    cells = Sweep(ops=tuple(resolve_operators(["all"], None, [])), shapes=shapes, modes=("forward", "train")).cells()
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, Worker(device="cpu", threads=None) as worker:
        worker.ready()
        with Journal.create(Path(folder) / "run", {}) as journal:
            run_cells(cells, journal=journal, worker=worker, settings=Settings(budget=None, cell_timeout=60, limits=LIMITS), observer=clock)
    first, rest = clock.beyond[0], clock.beyond[1:]
    print(f"cells {len(cells)}; beyond warm-up and samples: median {statistics.median(clock.beyond):.3f} s (target: under 0.3)")
    print(f"first cell, with its imports: {first:.3f} s; slowest of the others: {max(rest):.3f} s")


if __name__ == "__main__":
    main()
