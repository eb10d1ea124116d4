"""Rounds over the operators of a workload, with a real worker that is really killed between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lisabench import registry
from lisabench.contract import Grid, Workload
from lisabench.measure.latency import ROUNDS, Limits
from lisabench.run.local import Worker
from lisabench.run.visit import PlaceFailedError, Visit
from lisabench.sweep import Cell

LIMITS = Limits(seconds=0.05, at_least_seconds=0.0, warmup_seconds=0.01)
SHAPE = Workload(grid=Grid(8, 8), dim=32, heads=2)


class Spy(Worker):
    """A worker that notes what it is asked, and may be killed in between."""

    def __init__(self) -> None:
        super().__init__(device="cpu", threads=1)
        self.asked: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] = lambda do, op: None

    def request(self, do: str, cell: Cell, **more: Any) -> dict[str, Any]:
        self.before(do, cell.op)
        self.asked.append((do, cell.op))
        return super().request(do, cell, **more)

    def sentinel(self) -> float | None:
        self.asked.append(("sentinel", ""))
        return super().sentinel()


@pytest.fixture
def spy() -> Iterator[Spy]:
    with Spy() as worker:
        yield worker


def visit_of(worker: Worker, *, seed: int = 0, baseline: str | None = "softmax", limits: Limits = LIMITS) -> Visit:
    return Visit(
        worker=worker,
        limits=limits,
        seed=seed,
        baseline=baseline,
        progress=lambda _: lambda *_: None,
        time_left=lambda spent: 60 - spent,
    )


def cell(op: str) -> Cell:
    return Cell(op=op, options=registry.load(op).resolve({}), workload=SHAPE)


def go(visit: Visit, *ops: str) -> dict[str, dict[str, Any]]:
    """The records of these operators; those that fail have their outcome."""
    found: dict[str, dict[str, Any]] = {}
    for op in ops:
        visit.open(cell(op), {})
    visit.rounds(lambda failure: found.update({failure.place.cell.op: failure.outcome}), enough=lambda: False)
    return found | {place.cell.op: visit.account(place, best_sentinel=None) for place in visit.places}


def orders(asked: list[tuple[str, str]]) -> list[list[str]]:
    """The operators of each round, as they were sampled between two sentinels."""
    rounds: list[list[str]] = []
    for do, op in asked:
        if do == "sentinel":
            rounds.append([])
        elif do == "sample":
            rounds[-1].append(op)
    return rounds[:-1]


def test_every_round_has_every_operator_in_an_order_that_the_seed_draws(spy: Spy) -> None:
    ops = ("linear", "performer", "softmax", "softmax_dense")
    found = go(visit_of(spy), *ops)
    rounds = orders(spy.asked)
    assert all(sorted(one) == sorted(ops) for one in rounds[:ROUNDS])
    assert len({tuple(one) for one in rounds[:ROUNDS]}) > 1
    assert {op: len(found[op]["latency_s"]["rounds"]) >= ROUNDS for op in ops} == dict.fromkeys(ops, True)
    first = [tuple(one) for one in rounds[:ROUNDS]]
    for seed, same in ((0, True), (1, False)):
        spy.asked.clear()
        go(visit_of(spy, seed=seed), *ops)
        assert ([tuple(one) for one in orders(spy.asked)[:ROUNDS]] == first) is same


def test_ratios_are_paired_and_the_sentinel_stands_in_every_record(spy: Spy) -> None:
    found = go(visit_of(spy), "linear", "softmax")
    ratio = found["linear"]["ratio"]
    assert ratio["baseline"] == "softmax"
    assert ratio["rounds"] >= ROUNDS
    assert 0 < ratio["ci_low"] <= ratio["median"] <= ratio["ci_high"]
    assert found["softmax"]["ratio"] is None
    assert found["softmax"]["absent"]["ratio"] == "the operator is the baseline"
    for record in found.values():
        assert record["conditions"]["sentinel_drift"] >= 0
        assert "others_busy_cores" in record["conditions"]
    alone = go(visit_of(spy), "linear")
    assert "softmax was not measured" in alone["linear"]["absent"]["ratio"]
    assert "no baseline" in go(visit_of(spy, baseline=None), "linear")["linear"]["absent"]["ratio"]


def test_the_baseline_takes_part_as_long_as_any_cell(spy: Spy) -> None:
    found = go(visit_of(spy), "linear", "performer", "softmax")
    for op in ("linear", "performer"):
        assert found[op]["ratio"]["rounds"] == len(found[op]["latency_s"]["rounds"])


def killing(spy: Spy, op: str, times: int) -> list[str]:
    """Kills the worker, idle, before it is asked for a sample of `op`, so many times from the third round on."""
    killed: list[str] = []

    def kill(do: str, asked: str) -> None:
        if do == "sample" and asked == op and len(killed) < times and len(orders([*spy.asked, ("sentinel", "")])) > 2:
            killed.append(op)
            assert spy._process is not None
            spy._process.kill()
            spy._process.wait()

    spy.before = kill
    return killed


def test_a_worker_that_dies_idle_costs_no_samples_and_nobody_is_blamed(spy: Spy) -> None:
    killed = killing(spy, "linear", 2)
    found = go(visit_of(spy), "linear", "softmax", "performer")
    assert len(killed) == 2
    for op in ("linear", "softmax", "performer"):
        assert found[op]["status"] == "ok"
        assert len(found[op]["latency_s"]["rounds"]) >= ROUNDS
        assert found[op]["flops"]["coverage"] == pytest.approx(1, abs=0.01)


COMPANY = """
import os
import weakref

import torch
from torch import nn

if not hasattr(torch, "_test_company"):
    torch._test_company = weakref.WeakSet()


class Companion(nn.Module):
    def __init__(self, dim, num_heads, grid):
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        torch._test_company.add(self)

    def forward(self, x):
        return self.linear(x)


class Greedy(Companion):
    def forward(self, x):
        if len(torch._test_company) > 1:
            raise torch.OutOfMemoryError("no room for two")
        return self.linear(x)


class Fragile(Companion):
    def forward(self, x):
        if len(torch._test_company) > 1:
            os.kill(os.getpid(), 11)
        return self.linear(x)


class Crashes(Companion):
    calls = 0

    def forward(self, x):
        Crashes.calls += 1
        if Crashes.calls > 40:
            os.kill(os.getpid(), 11)
        return self.linear(x)
"""


def company(tmp_path: Path, *names: str) -> list[Cell]:
    path = tmp_path / "company.py"
    path.write_text(COMPANY)
    return [Cell(op=f"{path}:{name}", options={}, workload=SHAPE) for name in names]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Greedy", "Fragile"])
def test_a_cell_that_fails_in_company_only_is_measured_alone(spy: Spy, tmp_path: Path, name: str) -> None:
    """Out of memory, or a crash, beside what others hold or broke: the cell itself is not to blame."""
    visit = visit_of(spy, baseline=None)
    alone, beside = company(tmp_path, name, "Companion")
    visit.open(alone, {})
    visit.open(beside, {})
    visit.rounds(lambda failure: pytest.fail(str(failure)), enough=lambda: False)
    assert [len(place.rounds.rounds) >= ROUNDS for place in visit.places] == [True, True]


def test_a_cell_that_crashes_alone_too_is_a_crash_and_the_others_go_on(spy: Spy, tmp_path: Path) -> None:
    visit = visit_of(spy, baseline=None, limits=Limits(seconds=2.0, at_least_seconds=1.0, warmup_seconds=0.0))
    crashing, beside = company(tmp_path, "Crashes", "Companion")
    visit.open(crashing, {})
    visit.open(beside, {})
    failures: list[PlaceFailedError] = []
    visit.rounds(failures.append, enough=lambda: False)
    assert [(failure.place.cell, failure.outcome["status"]) for failure in failures] == [(crashing, "crash")]
    assert [place.cell for place in visit.places] == [beside]


def test_what_is_enough_when_the_time_is_up_stands(spy: Spy) -> None:
    visit = visit_of(spy, baseline=None, limits=Limits(seconds=60, at_least_seconds=60, warmup_seconds=0.01))
    place = visit.open(cell("linear"), {})
    visit.limits = LIMITS
    place.rounds.slice_seconds = lambda: 0.001  # type: ignore[method-assign]
    visit.rounds(lambda failure: pytest.fail(str(failure)), enough=lambda: len(place.rounds.rounds) >= ROUNDS + 1)
    assert place.enough
    assert len(place.rounds.rounds) == ROUNDS + 1
    assert visit.account(place, best_sentinel=None)["latency_s"]["stopped_by"] == "time"


def test_cells_that_hold_much_memory_are_built_anew_each_round(spy: Spy, own_operators: Path) -> None:
    """A module that holds over a tenth of the memory that is free is given back between its rounds, and measured all the same."""
    from lisabench.measure.environment import available_memory

    with open(own_operators, "a") as file:
        file.write(
            "\nBUILT = []\n\n\nclass Holds(Plain):\n    def __init__(self, dim, num_heads, grid):\n"
            "        super().__init__(dim, num_heads, grid)\n"
            f"        self.register_buffer('much', torch.empty({int(0.12 * available_memory())}, dtype=torch.uint8))\n"
            "        print('built', flush=True)\n"
        )
    op = f"{own_operators}:Holds"
    visit = visit_of(spy, baseline=None)
    place = visit.open(Cell(op=op, options={}, workload=SHAPE, digest=registry.digest(op)), {})
    visit.rounds(lambda failure: pytest.fail(str(failure)), enough=lambda: False)
    assert len(place.rounds.rounds) >= ROUNDS
    assert visit.account(place, best_sentinel=None)["status"] == "ok"


def test_an_accounting_that_fails_costs_no_latency(spy: Spy, tmp_path: Path) -> None:
    path = tmp_path / "late.py"
    path.write_text(
        "import torch\nfrom torch import nn\n\n\nclass Late(nn.Module):\n    def __init__(self, dim, num_heads, grid):\n"
        "        super().__init__()\n        self.linear = nn.Linear(dim, dim)\n\n    def forward(self, x):\n"
        "        if torch.autograd.profiler._is_profiler_enabled:\n            raise RuntimeError('not while watched')\n"
        "        return self.linear(x)\n"
    )
    visit = visit_of(spy, baseline=None)
    place = visit.open(Cell(op=f"{path}:Late", options={}, workload=SHAPE), {})
    visit.rounds(lambda failure: pytest.fail(str(failure)), enough=lambda: False)
    found = visit.account(place, best_sentinel=None)
    assert found["status"] == "ok"
    assert found["latency_s"]["median"] > 0
    assert set(found["memory_bytes"].values()) == {None}
    assert "not while watched" in found["absent"]["memory_bytes"]
