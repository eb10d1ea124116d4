"""The driver alone: plans of many cells, brought into a journal by stands that answer at once, and gone on with."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.trials.figures import Target, table
from lisabench.axes import resolve_operators
from lisabench.cli.planning import plan_of
from lisabench.journal import JOURNAL, Journal, blank_record, read_plan
from lisabench.measure.latency import Limits
from lisabench.plans import Visits, visits_of
from lisabench.presets import Shape
from lisabench.run.engine import Observer, run_cells
from lisabench.run.fleet import Ended, Measured, Settings, Stand, Started, Task, Tell
from lisabench.run.ledger import Ledger
from lisabench.sweep import Cell, Sweep, check
from lisabench.workload import most_square

TOP = Path(__file__).resolve().parent.parent.parent
SOURCE = TOP / "reports" / "reference-cpu"
STANDS = 64
BATCHES, MODES, DTYPES = tuple(range(1, 26)), ("forward", "train"), ("fp32", "fp64")
MOST_BY_ENGINE = 20_000
LARGE = 1_000_000  # the size that the targets are about
LIMITS = Limits()


class _Silent(Observer):
    """Is told, and says nothing."""


class _Simulated:
    """Stands that answer every visit at once with figures that were really measured, once."""

    alone, kinds = False, tuple[str, ...]()

    def __init__(self) -> None:
        lines = (SOURCE / JOURNAL).read_text().splitlines()
        self.outcome = {name: value for name, value in json.loads(lines[-1]).items() if name not in _STATED}
        self.stands = [Stand(f"stand {number}", kind="simulated") for number in range(STANDS)]
        self.tasks: dict[Stand, Task] = {}
        self.first: float | None = None

    @property
    def busy(self) -> int:
        return len(self.tasks)

    def idle(self) -> Sequence[Stand]:
        return [stand for stand in self.stands if stand not in self.tasks]

    def start(self, stand: Stand, task: Task) -> None:
        self.first = self.first or time.time()
        self.tasks[stand] = task

    def turn(self, tell: Tell) -> None:
        stand, task = next(iter(self.tasks.items()))
        for cell in task.cells:
            tell(stand, Started(cell.key))
            tell(stand, Measured(cell.key, dict(self.outcome)))
        del self.tasks[stand]
        tell(stand, Ended())


_STATED = set(
    Cell(op="", options={}, workload=Sweep(ops=(), shapes=(Shape(grid=most_square(4), dim=2, heads=1),)).workload(0)).record_fields()
)


@dataclass(frozen=True, kw_only=True)
class Driven:
    """Seconds and bytes of one size of plan; `by_engine` None where the journal was written without the engine."""

    cells: int
    plan_s: float
    plan_bytes: int
    by_engine_s: float | None
    journal_bytes: int
    resume_s: float
    resume_bytes: int


def measure(cells: int, folder: Path) -> Driven:
    run = folder / f"run-{cells}"
    started = time.perf_counter()
    sweep = _sweep(cells)
    check(sweep)
    plan = plan_of(sweep, None, None, patch=None)
    visits = Visits([sweep])
    for _ in visits.cells():
        pass
    plan_s = time.perf_counter() - started
    fleet, ledger, by_engine = _Simulated(), Ledger(LIMITS), None
    with Journal.create(run, plan) as journal:
        journal.records = None
        if cells <= MOST_BY_ENGINE:
            started = time.perf_counter()
            run_cells(visits, journal=journal, ledger=ledger, fleet=fleet, settings=_settings(), observer=_Silent())
            by_engine = time.perf_counter() - started
        else:
            _written(visits, run / JOURNAL, fleet.outcome, all_but=STANDS)
    told = _resumed(run)
    return Driven(
        cells=cells,
        plan_s=plan_s,
        plan_bytes=(run / "plan.json").stat().st_size,
        by_engine_s=by_engine,
        journal_bytes=(run / JOURNAL).stat().st_size,
        resume_s=told["seconds"],
        resume_bytes=told["bytes"],
    )


def _settings() -> Settings:
    return Settings(budget=None, cell_timeout=60, limits=LIMITS)


def _sweep(cells: int) -> Sweep:
    """So many cells of one operator, as many workloads: the plan that has the most of them."""
    shapes = cells // (len(BATCHES) * len(MODES) * len(DTYPES))
    grids = tuple(Shape(grid=most_square(16 * number), dim=32, heads=2) for number in range(1, shapes + 1))
    return Sweep(ops=tuple(resolve_operators(["identity"], None, [])), shapes=grids, batches=BATCHES, modes=MODES, dtypes=DTYPES)


def _written(visits: Visits, journal: Path, outcome: dict[str, Any], *, all_but: int) -> None:
    """The journal as the engine would have left it, but for the last cells."""
    with open(journal, "wb") as file:
        for cell, _ in zip(visits.cells(), range(visits.count - all_but), strict=False):
            record = blank_record(cell.record_fields()) | outcome
            file.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")


def _resumed(run: Path) -> dict[str, Any]:
    """Seconds from a new process's start to the first visit's, or to its end where none is left, and its memory's peak."""
    command = [sys.executable, "-m", "benchmarks.fleets.driver", str(run)]
    done = subprocess.run(command, cwd=TOP, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def resume(run: Path) -> None:
    """Goes on with a run, and prints how that was."""
    fleet, ledger = _Simulated(), Ledger(LIMITS)
    with Journal.resume(run, taken=ledger.take) as journal:
        visits = visits_of(read_plan(run), run=run)
        statuses = run_cells(visits, journal=journal, ledger=ledger, fleet=fleet, settings=_settings(), observer=_Silent())
    assert statuses == {"ok": visits.count}
    seconds = (fleet.first or time.time()) - psutil.Process().create_time()
    print(json.dumps({"seconds": seconds, "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def targets(found: Driven) -> Iterator[Target]:
    if found.cells < LARGE:
        return
    words = f"of {found.cells:,} cells"
    yield Target(what=f"a plan {words}", target="under 20 s", result=f"{found.plan_s:.1f} s", met=found.plan_s < 20)
    yield Target(what=f"resuming a run {words}", target="under 15 s", result=f"{found.resume_s:.1f} s", met=found.resume_s < 15)
    resident = found.resume_bytes / 1e9
    yield Target(what=f"memory of resuming a run {words}", target="under 1 GB", result=f"{resident:.2f} GB", met=resident < 1)


def markdown(plans: Sequence[Driven]) -> str:
    rows = [
        ["plan made, every cell of it once", *(f"{plan.plan_s:.1f} s" for plan in plans)],
        ["plan.json", *(f"{plan.plan_bytes / 1e6:.2f} MB" for plan in plans)],
        [
            "the driver's time a cell, a record synced",
            *("not measured" if plan.by_engine_s is None else f"{1e3 * plan.by_engine_s / plan.cells:.2f} ms" for plan in plans),
        ],
        ["journal.jsonl", *(f"{plan.journal_bytes / 1e6:,.0f} MB" for plan in plans)],
        ["resumed: to the first visit", *(f"{plan.resume_s:.1f} s" for plan in plans)],
        ["resumed: memory at the peak", *(f"{plan.resume_bytes / 1e6:,.0f} MB" for plan in plans)],
    ]
    return f"The driver, {STANDS} simulated devices:\n\n" + table(["", *(f"{plan.cells:,} cells" for plan in plans)], rows)


if __name__ == "__main__":
    resume(Path(sys.argv[1]))
