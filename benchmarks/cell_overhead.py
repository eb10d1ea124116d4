"""What a small cell costs beyond its warm-up and its timed samples, in seconds: building, checks, memory, FLOP counts, journal.

    python benchmarks/cell_overhead.py

Runs a real sweep of all operators over small cells and takes the time of each workload from the parent's clock.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from itertools import groupby
from pathlib import Path

from lisabench.journal import Journal, Record
from lisabench.measure.latency import Limits
from lisabench.presets import Shape
from lisabench.run.engine import Settings, run_cells
from lisabench.run.local import Worker
from lisabench.sweep import Cell, Sweep, grids, resolve_operators

LIMITS = Limits(seconds=0.5)


class Clock:
    """Notes when each cell was done, and how long it was warmed up and sampled."""

    def __init__(self) -> None:
        self.done: list[tuple[Cell, float, float]] = []

    def started(self, cell: Cell, seconds_left: float | None) -> None:
        pass

    def progress(self, cell: Cell, phase: str, seconds_a_call: float | None) -> None:
        pass

    def finished(self, cell: Cell, record: Record) -> None:
        assert record["status"] == "ok", record["reason"]
        self.done.append((cell, time.perf_counter(), record["latency_s"]["seconds"] + LIMITS.warmup_seconds))


def main() -> None:
    shapes = tuple(Shape(grid=grid, dim=192, heads=3) for grid in grids("64..512", None, 16))
    cells = Sweep(ops=tuple(resolve_operators(["all"], None, [])), shapes=shapes, modes=("forward", "train")).cells()
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, Worker(device="cpu", threads=None) as worker:
        worker.ready()
        started = time.perf_counter()
        with Journal.create(Path(folder) / "run", {}) as journal:
            run_cells(cells, journal=journal, worker=worker, settings=Settings(budget=None, cell_timeout=60, limits=LIMITS), observer=clock)
    beyond = []
    for _, group in groupby(clock.done, key=lambda done: done[0].workload):
        visit = list(group)
        ended = visit[-1][1]
        beyond.append((ended - started - sum(timed for *_, timed in visit)) / len(visit))
        started = ended
    print(f"cells {len(cells)} in {len(beyond)} workloads; beyond warm-up and samples, a cell: median {statistics.median(beyond):.3f} s")
    print(
        f"first workload, with imports and peaks: {beyond[0]:.3f} s; slowest of the others: {max(beyond[1:]):.3f} s (target: median under 0.3)"
    )


if __name__ == "__main__":
    main()
