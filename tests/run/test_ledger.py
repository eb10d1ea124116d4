"""What a ledger knows of cells, from records whole or in part."""

from __future__ import annotations

from typing import Any

import pytest

from lisabench.measure.latency import Limits
from lisabench.run.ledger import Ledger
from lisabench.sweep import Cell
from lisabench.workload import Grid, Workload


def cell(tokens: int, batch: int = 1, **stated: Any) -> Cell:
    return Cell(op="linear", options={"key_dim": None}, workload=Workload(grid=Grid(1, tokens), batch=batch, **stated))


def record(of: Cell, status: str, reason: str | None = None, kind: str | None = "a") -> dict[str, Any]:
    figures = {"latency_s": {"median": 1e-3} if status == "ok" else None, "flops": {"analytic": of.flops}}
    return of.record_fields() | {"device_kind": kind, "status": status, "reason": reason} | figures


def test_a_cell_that_the_budget_had_no_room_for_is_not_settled() -> None:
    ledger = Ledger(Limits())
    ledger.take(record(cell(16), "skipped", "budget: the 3 s are used up"))
    ledger.take(record(cell(64), "skipped", "16 tokens of the same series ran out of memory already"))
    assert cell(16).key not in ledger
    assert cell(64).key in ledger
    assert (len(ledger), ledger.counts()) == (1, {"skipped": 2})
    ledger.take(record(cell(16), "ok"))
    assert (len(ledger), ledger.counts()) == (2, {"skipped": 1, "ok": 1})


@pytest.mark.parametrize(("status", "words"), [("oom", "ran out of memory"), ("timeout", "went over the time limit")])
def test_a_failure_ends_its_series_on_its_kind_of_device(status: str, words: str) -> None:
    ledger = Ledger(Limits())
    ledger.take(record(cell(64, batch=2), status))
    assert ledger.ended(cell(64, batch=2), "a") == f"64 tokens (1 x 64), batch 2 of the same series {words} already"
    assert ledger.ended(cell(128, batch=4), "a")
    assert ledger.ended(cell(128, batch=1), "a") is None
    assert ledger.ended(cell(32, batch=4), "a") is None
    assert ledger.ended(cell(128, batch=4), "b") is None
    assert ledger.ended(cell(128, batch=4, dtype="bf16"), "a") is None


def test_forecasts_are_a_kind_s_own() -> None:
    ledger = Ledger(Limits())
    ledger.take(record(cell(64), "ok"))
    assert ledger.forecast("a").call_seconds(cell(64)) == pytest.approx(1e-3)
    assert ledger.forecast("b").call_seconds(cell(64)) is None
