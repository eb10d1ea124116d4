"""What a cell takes by Ray beyond what it takes by the local engine: an operator that does nothing, on one core each, in turns."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.trials.figures import Target, table
from lisabench.axes import grids, resolve_operators
from lisabench.journal import Journal, Record
from lisabench.measure.latency import Limits
from lisabench.plans import Visits
from lisabench.presets import Shape
from lisabench.run import ray_cluster
from lisabench.run.alone import Alone
from lisabench.run.cores import Cores
from lisabench.run.engine import Observer, run_cells
from lisabench.run.fleet import Fleet, Settings
from lisabench.run.ledger import Ledger
from lisabench.run.local import Worker
from lisabench.run.ray_fleet import RayFleet
from lisabench.sweep import Cell, Sweep

LIMITS = Limits(seconds=0.01, at_least_seconds=0.0, warmup_seconds=0.001)
BOUND = 0.050
Found = dict[str, list[float]]


class _Clock(Observer):
    """Notes when cells were done."""

    def __init__(self) -> None:
        self.done: list[float] = []

    def finished(self, stand: str, cell: Cell, record: Record) -> None:
        assert record["status"] == "ok", record["reason"]
        self.done.append(time.perf_counter())


def measure(turns: int) -> Found:
    """Seconds a cell by each engine, a figure a turn. The first visit, in which peaks are measured and code is loaded, is no part of it."""
    shapes = tuple(Shape(grid=grid, dim=32, heads=2) for grid in grids("16,25,36,49,64,81", None, 16))
    visits = Visits([Sweep(ops=tuple(resolve_operators(["identity"], None, [])), shapes=shapes, batches=tuple(range(1, 9)))])
    found: Found = {"local": [], "ray": []}
    for turn in range(turns):
        for engine in ("local", "ray") if turn % 2 else ("ray", "local"):
            with _fleet(engine) as fleet, tempfile.TemporaryDirectory() as folder:
                clock = _Clock()
                settings = Settings(budget=None, cell_timeout=60, limits=LIMITS)
                with Journal.create(Path(folder) / "run", {}) as journal:
                    run_cells(visits, journal=journal, ledger=Ledger(LIMITS), fleet=fleet, settings=settings, observer=clock)
            found[engine].append((clock.done[-1] - clock.done[0]) / (len(clock.done) - 1))
    return found


@contextmanager
def _fleet(engine: str) -> Iterator[Fleet]:
    command = ["benchmarks/scale_out.py"]
    if engine == "ray":
        cluster = ray_cluster.connect(None)
        with RayFleet(cluster, device="cpu", threads=1, command=command) as fleet:
            yield fleet
        return
    with Cores.claim(1) as cores, Alone(Worker(device="cpu", threads=1, command=command, cores=cores.numbers)) as alone:
        yield alone


def beyond(found: Found) -> float:
    """Seconds a cell that Ray takes beyond the local engine: the median of the turns' differences."""
    return statistics.median(ray - local for ray, local in zip(found["ray"], found["local"], strict=True))


def targets(found: Found) -> Sequence[Target]:
    more = beyond(found)
    return [Target(what="a cell by Ray beyond the local engine", target="under 50 ms", result=f"{1e3 * more:.1f} ms", met=more < BOUND)]


def markdown(found: Found) -> str:
    rows = [
        [turn, *(f"{1e3 * found[engine][turn - 1]:.1f} ms" for engine in ("local", "ray"))] for turn in range(1, len(found["local"]) + 1)
    ]
    return "A cell of an operator that does nothing, one core each:\n\n" + table(["turn", "local", "ray"], rows)
