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

from lisabench.axes import grids, resolve_operators
from lisabench.journal import Journal, Record
from lisabench.measure.latency import Limits
from lisabench.plans import Visits
from lisabench.presets import Shape
from lisabench.run.alone import Alone
from lisabench.run.engine import Observer, run_cells
from lisabench.run.fleet import Settings
from lisabench.run.ledger import Ledger
from lisabench.run.local import Worker
from lisabench.sweep import Cell, Sweep

LIMITS = Limits(seconds=0.5)


class Clock(Observer):
    """Notes when each cell was done, and how long it was warmed up and sampled."""

    def __init__(self) -> None:
        self.done: list[tuple[Cell, float, float]] = []

    def finished(self, stand: str, cell: Cell, record: Record) -> None:
        assert record["status"] == "ok", record["reason"]
        self.done.append((cell, time.perf_counter(), record["latency_s"]["seconds"] + LIMITS.warmup_seconds))


def main() -> None:
    shapes = tuple(Shape(grid=grid, dim=192, heads=3) for grid in grids("64..512", None, 16))
    visits = Visits([Sweep(ops=tuple(resolve_operators(["all"], None, [])), shapes=shapes, modes=("forward", "train"))])
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, Worker(device="cpu", threads=None) as worker:
        worker.ready()
        started = time.perf_counter()
        with Journal.create(Path(folder) / "run", {}) as journal:
            settings = Settings(budget=None, cell_timeout=60, limits=LIMITS)
            run_cells(visits, journal=journal, ledger=Ledger(LIMITS), fleet=Alone(worker), settings=settings, observer=clock)
    beyond = []
    for _, group in groupby(clock.done, key=lambda done: done[0].workload):
        visit = list(group)
        ended = visit[-1][1]
        beyond.append((ended - started - sum(timed for *_, timed in visit)) / len(visit))
        started = ended
    print(f"cells {visits.count} in {len(beyond)} workloads; beyond warm-up and samples, a cell: median {statistics.median(beyond):.3f} s")
    print(
        f"first workload, with imports and peaks: {beyond[0]:.3f} s; slowest of the others: {max(beyond[1:]):.3f} s (target: median under 0.3)"
    )


if __name__ == "__main__":
    main()
