"""What the engine does with budgets and failures, with real workers on small cells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import records

from lisabench.axes import grids, resolve_operators
from lisabench.errors import InputError, UnavailableError
from lisabench.journal import Journal, Record
from lisabench.measure.latency import Limits
from lisabench.plans import Listed, Visits
from lisabench.presets import Shape
from lisabench.provenance import device_kind
from lisabench.run.alone import Alone
from lisabench.run.engine import run_cells
from lisabench.run.fleet import Settings
from lisabench.run.forecast import Forecast
from lisabench.run.ledger import Ledger
from lisabench.run.local import Worker
from lisabench.sweep import Cell, Sweep
from lisabench.workload import Grid, Workload

FAST = Limits(seconds=0.05, at_least_seconds=0.0, warmup_seconds=0.01)


class Watch:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.cells: list[str] = []
        self.left: list[float | None] = []
        self.phases: set[str] = set()
        self.known = 0

    def settled(self, cells: int) -> None:
        self.known = cells

    def started(self, stand: str, cell: Cell, seconds_left: float | None) -> None:
        self.cells.append(cell.key)
        self.left.append(seconds_left)

    def progress(self, stand: str, cell: Cell, phase: str, seconds_a_call: float | None) -> None:
        self.phases.add(phase)

    def finished(self, stand: str, cell: Cell, record: Record) -> None:
        assert record["cell"] == cell.key

    def gone(self, stand: str) -> None:
        raise AssertionError(stand)

    def said(self, text: str) -> None:
        raise AssertionError(text)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker(device="cpu", threads=1) as found:
        yield found


def plan(ops: str, tokens: str, batches: tuple[int, ...] = (1,)) -> list[Cell]:
    shapes = tuple(Shape(grid=grid, dim=32, heads=2) for grid in grids(tokens, None, 16))
    return Sweep(ops=tuple(resolve_operators([ops], None, [])), shapes=shapes, batches=batches).cells()


def go(run: Path, cells: list[Cell], worker: Worker, *, resume: bool = False, **settings: Any) -> tuple[list[Record], Watch]:
    watch = Watch()
    asked = Settings(**{"budget": None, "cell_timeout": 60, "limits": FAST} | settings)
    ledger = Ledger(asked.limits)
    with Journal.resume(run, taken=ledger.take) if resume else Journal.create(run, {}) as journal:
        run_cells(Visits([Listed(cells)]), journal=journal, ledger=ledger, fleet=Alone(worker), settings=asked, observer=watch)
    return records(run), watch


def test_all_cells_once_and_in_order(tmp_path: Path, worker: Worker) -> None:
    cells = plan("linear,softmax", "16,64", (1, 2))
    found, watch = go(tmp_path / "run", cells, worker)
    assert [r["cell"] for r in found] == [c.key for c in cells] == watch.cells
    assert {r["status"] for r in found} == {"ok"}
    assert {r["environment"] for r in found} == {worker.environment_hash}
    assert {"building", "warming up", "counting"} <= watch.phases
    assert watch.left[0] is None
    assert watch.left[-1] is not None
    again, watch = go(tmp_path / "run", cells, worker, resume=True)
    assert again == found
    assert (watch.cells, watch.known) == ([], len(cells))


def test_a_baseline_that_is_settled_takes_part_again_for_the_ratios_of_a_resumed_run(tmp_path: Path, worker: Worker) -> None:
    cells = plan("linear,softmax", "16")
    before, _ = go(tmp_path / "run", [c for c in cells if c.op == "softmax"], worker, baseline="softmax")
    after, watch = go(tmp_path / "run", cells, worker, resume=True, baseline="softmax")
    assert watch.cells == [c.key for c in cells if c.op == "linear"]
    assert after[:1] == before
    assert [r["op"] for r in after] == ["softmax", "linear"]
    assert after[1]["ratio"]["baseline"] == "softmax"


def test_a_run_of_another_machine_is_not_gone_on_with_unless_told_to(tmp_path: Path, worker: Worker) -> None:
    first, second = plan("linear", "16,25")
    go(tmp_path / "run", [first], worker)
    stated = json.loads((tmp_path / "run" / "environment.json").read_text())
    (known,) = stated.values()
    elsewhere = known | {"device_name": "another CPU", "git": None, "host": "elsewhere"}
    (tmp_path / "run" / "environment.json").write_text(json.dumps({"elsewhere": elsewhere}))
    with pytest.raises(InputError, match=r"device_name \('another CPU' and .*--mix"):
        go(tmp_path / "run", [first, second], worker, resume=True)
    found, _ = go(tmp_path / "run", [first, second], worker, resume=True, mix=True)
    assert [r["status"] for r in found] == ["ok", "ok"]


def test_a_budget_that_ends_before_six_rounds_leaves_no_figure(tmp_path: Path, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many samples of one round are no figure."""
    left = iter([9.0] * 4 + [0.0] * 99)
    monkeypatch.setattr("lisabench.run.measuring._Visiting._left", lambda self: next(left))
    found, _ = go(tmp_path / "run", plan("linear", "16"), worker, budget=9.0)
    assert [(r["status"], r["latency_s"]) for r in found] == [("skipped", None)]
    assert found[0]["reason"].startswith("budget: ")


def test_larger_cells_of_a_series_that_ran_out_of_memory_are_skipped(tmp_path: Path, worker: Worker, own_operators: Path) -> None:
    cells = plan(f"{own_operators}:OutOfMemory,linear", "16,25,36", (1, 2))
    found, _ = go(tmp_path / "run", cells, worker)
    states = {(r["op"].rpartition(":")[2], r["tokens"], r["batch"]): (r["status"], r["reason"]) for r in found}
    assert states["OutOfMemory", 16, 1][0] == states["OutOfMemory", 16, 2][0] == "ok"
    assert states["OutOfMemory", 25, 1][0] == "oom"
    for tokens, batch in ((25, 2), (36, 1), (36, 2)):
        status, reason = states["OutOfMemory", tokens, batch]
        assert status == "skipped"
        assert "25 tokens (5 x 5), batch 1 of the same series ran out of memory" in reason
    assert {status for (op, *_), (status, _) in states.items() if op == "linear"} == {"ok"}


def test_a_timeout_ends_a_series_too(tmp_path: Path, own_operators: Path) -> None:
    with Worker(device="cpu", threads=1) as worker:
        worker.ready()
        found, _ = go(tmp_path / "run", plan(f"{own_operators}:Sleeps", "16,25"), worker, cell_timeout=3)
    assert [r["status"] for r in found] == ["timeout", "skipped"]
    assert "--cell-timeout" in found[0]["reason"]
    assert "time limit" in found[1]["reason"]


def test_the_budget_skips_by_name_and_a_resumed_run_takes_them_up(tmp_path: Path, worker: Worker) -> None:
    cells = plan("linear", "16,25,36")
    found, _ = go(tmp_path / "run", cells, worker, budget=1e-9)
    assert [r["status"] for r in found] == ["skipped"] * 3
    assert all(r["reason"].startswith("budget: ") for r in found)
    found, _ = go(tmp_path / "run", cells, worker, resume=True)
    assert [r["status"] for r in found] == ["skipped"] * 3 + ["ok"] * 3


def test_a_cell_that_the_budget_cuts_off_is_skipped_not_timed_out(
    tmp_path: Path, own_operators: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lisabench.run.measuring.LEAST_SECONDS", 1.0)
    with Worker(device="cpu", threads=1) as worker:
        worker.ready()
        found, _ = go(tmp_path / "run", plan(f"{own_operators}:Sleeps,linear", "16"), worker, budget=2.0, cell_timeout=60)
    states = {r["op"].rpartition(":")[2]: r for r in found}
    assert states["Sleeps"]["status"] == "skipped"
    assert states["Sleeps"]["reason"].startswith("budget: ")


def test_refusals_are_told_before_anything_runs(tmp_path: Path, worker: Worker, own_operators: Path) -> None:
    with open(own_operators, "a") as file:
        file.write(
            "\nfrom lisabench.contract import Operator\n"
            "OPERATOR = Operator(name='x', title='', module=Sleeps, source='', formula='', time_order='', memory_order='',\n"
            "    refuses=lambda workload, **options: None if workload.grid.height == workload.grid.width else 'needs a square grid')\n"
        )
    found, _ = go(tmp_path / "run", plan(f"{own_operators}:Sleeps", "12"), worker)
    assert [(r["status"], r["reason"]) for r in found] == [("unsupported", "needs a square grid")]


def test_of_a_plan_for_several_kinds_of_devices_this_machine_measures_its_own(tmp_path: Path, worker: Worker) -> None:
    worker.ready()
    here = device_kind(worker.environment)
    cells = [replace(cell, kind=kind) for kind in ("NVIDIA H200", here) for cell in plan("linear", "16,25")]
    with pytest.raises(UnavailableError, match=rf"^this machine has {here} alone; what is left waits for NVIDIA H200$"):
        go(tmp_path / "run", cells, worker)
    assert [(r["cell"], r["device_kind"], r["status"]) for r in records(tmp_path / "run")] == [(c.key, here, "ok") for c in cells[2:]]


def test_forecast_follows_flops_and_the_nearest_smaller_cell() -> None:
    def cell(tokens: int, op: str = "softmax_dense") -> Cell:
        return Cell(op=op, options={"key_dim": None}, workload=Workload(grid=Grid(1, tokens)))

    forecast = Forecast(Limits(seconds=1.0))

    def learn(tokens: int, median: float) -> None:
        of = cell(tokens)
        forecast.learn(of.record_fields() | {"status": "ok", "latency_s": {"median": median}, "flops": {"analytic": of.flops}})

    assert forecast.cell_seconds(cell(64)) is None
    learn(64, 0.001)
    learn(256, 0.1)
    forecast.learn(cell(512).record_fields() | {"status": "oom", "latency_s": None, "flops": None})
    assert forecast.call_seconds(cell(128)) == pytest.approx(0.004)
    assert forecast.call_seconds(cell(1024)) == pytest.approx(1.6)
    assert forecast.call_seconds(cell(32)) == pytest.approx(0.001)
    assert forecast.call_seconds(cell(64, "softmax")) is None
    slow, fast = forecast.cell_seconds(cell(1024)), forecast.cell_seconds(cell(64))
    assert slow is not None
    assert fast is not None
    assert slow > 13 * 1.6
    assert 1.0 < fast < 2.0
