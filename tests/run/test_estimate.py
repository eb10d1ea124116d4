"""What a plan takes on a device: figures by hand, from records that were written down."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from made_runs import A100, EPYC, H200, environment_of, fleet_run

from lisabench.axes import grids, resolve_operators
from lisabench.errors import InputError
from lisabench.journal import Journal, blank_record
from lisabench.measure import kept_peaks
from lisabench.measure.latency import MINIMUM_SAMPLES, Limits
from lisabench.plans import Visits
from lisabench.presets import Shape
from lisabench.provenance import fingerprint
from lisabench.run.estimate import (
    ASSUMED_SHARE,
    ENDED,
    MODEL,
    RECORDS,
    REFUSED,
    START_SECONDS,
    Device,
    done_after,
    estimates,
    known_devices,
    spread_out,
    this_machine,
)
from lisabench.run.forecast import AUDIT_CALLS, OVERHEAD_SECONDS
from lisabench.run.ledger import Ledger
from lisabench.run.local import Worker
from lisabench.sweep import Cell, Sweep

LIMITS = Limits(seconds=1.0, warmup_seconds=0.1)
PEAKS = {"flops_per_s_fp32": 1e9, "bytes_per_s": 1e9}


def sweep(ops: str = "linear", tokens: str = "64,256", *, dim: int = 32, heads: int = 2, **axes: Any) -> Sweep:
    shapes = tuple(Shape(grid=grid, dim=dim, heads=heads) for grid in grids(tokens, None, 16))
    return Sweep(ops=tuple(resolve_operators([ops], None, [])), shapes=shapes, **axes)


def of_call(seconds: float, device: str = "cpu") -> float:
    """Seconds of a cell whose call takes so many."""
    return OVERHEAD_SECONDS[device] + max(1.0, MINIMUM_SAMPLES * seconds) + AUDIT_CALLS * seconds + 0.1 + seconds


def write(
    run: Path, of: Sweep, call: Callable[[Cell], float | str], *, environment: Mapping[str, Any], share: float | None = None, **fields: Any
) -> Path:
    """A run of these cells, each with the seconds of a call, or the status it ended in."""
    with Journal.create(run, {"kind": "scale", "operators": {}, "cells": []}) as journal:
        journal.add_environment("e", dict(environment))
        for cell in of.cells():
            record = blank_record(cell.record_fields()) | {"environment": "e"} | fields
            found = call(cell)
            if isinstance(found, str):
                journal.append(record | {"status": found, "reason": "it was so"})
                continue
            figures = {"latency_s": {"median": found}, "flops": {"analytic": cell.flops}, "roofline": share and {"share": share}}
            journal.append(record | {"status": "ok"} | figures)
    return run


def device(peaks: Mapping[str, float] = PEAKS, *, name: str = EPYC, on: str = "cpu", **more: Any) -> Device:
    made = Device(name=name, device=on, ledger=Ledger(LIMITS), **more)
    made.meet(environment_of(name), peaks)
    return made


def known(*runs: Path, plan_device: str = "cpu", cell_timeout: float | None = None) -> list[Device]:
    return known_devices(runs, here=None, plan_device=plan_device, limits=LIMITS, cell_timeout=cell_timeout)


def test_a_known_operator_takes_what_its_records_say(tmp_path: Path) -> None:
    run = write(tmp_path / "run", sweep(tokens="64"), lambda cell: 0.5, environment=environment_of(EPYC), share=0.25)
    (found,) = known(run)
    small, large = sweep(tokens="64,256").cells()
    assert found.name == EPYC
    assert found.guess(small) == (pytest.approx(of_call(0.5)), RECORDS)
    assert large.flops == 4 * (small.flops or 0)
    assert found.guess(large) == (pytest.approx(of_call(2.0)), RECORDS)
    (estimate,) = estimates(Visits([sweep(tokens="64,256")]), [found])
    assert estimate.on[1] == pytest.approx(of_call(0.5) + of_call(2.0) + START_SECONDS)
    assert estimate.longest_s == pytest.approx(of_call(2.0) + START_SECONDS)
    assert estimate.longest is not None
    assert estimate.longest.tokens == 256
    assert estimate.cells == {RECORDS: 2}


def test_an_unknown_operator_takes_the_time_of_the_roofline_over_the_median_share(tmp_path: Path) -> None:
    runs = [
        write(tmp_path / str(share), sweep(tokens="64"), lambda cell: 0.5, environment=environment_of(EPYC) | {"peaks": PEAKS}, share=share)
        for share in (0.2, 0.4, 0.9)
    ]
    (cell,) = sweep("softmax", "256").cells()
    assert (cell.flops, cell.cost and cell.cost.traffic_bytes) == (4 * 256 * 256 * 32, 4 * 256 * 32 * 4)
    (found,) = known(*runs)
    by_compute = 4 * 256 * 256 * 32 / 1e9
    assert found.guess(cell) == (pytest.approx(of_call(by_compute / 0.4)), MODEL)
    assert device().guess(cell) == (pytest.approx(of_call(by_compute / ASSUMED_SHARE)), MODEL)
    slow_memory = device(PEAKS | {"bytes_per_s": 1e6})
    assert slow_memory.guess(cell) == (pytest.approx(of_call(4 * 256 * 32 * 4 / 1e6 / ASSUMED_SHARE)), MODEL)
    (trained,) = sweep("softmax", "256", modes=("train",)).cells()
    assert slow_memory.guess(trained) == (pytest.approx(of_call(2 * 4 * 256 * 32 * 4 / 1e6 / ASSUMED_SHARE)), MODEL)


def test_a_gpu_whose_products_are_tf32_stands_under_that_peak() -> None:
    (cell,) = sweep("softmax", "1024", device="cuda:0").cells()
    gpu = device({"flops_per_s_fp32": 1.0, "flops_per_s_tf32": 1e9, "bytes_per_s": 1e12}, name=H200, on="cuda:0")
    gpu.environment = {"gpu": {"tf32": True}}
    assert gpu.guess(cell) == (pytest.approx(of_call(4 * 1024 * 1024 * 32 / 1e9 / ASSUMED_SHARE, "cuda")), MODEL)


def test_what_nothing_is_known_of_is_in_no_figure(own_operators: Path) -> None:
    half, own = sweep(tokens="64", dtypes=("bf16",)).cells(), sweep(f"{own_operators}:Plain", "64").cells()
    assert device().guess(half[0]) == (None, "no peak of bf16 is known of the device")
    assert device(here=True).guess(half[0]) == (None, "no peak of bf16 is known of the device; `lisabench env` measures it")
    assert device({"flops_per_s_fp32": 1e9}).guess(sweep().cells()[0]) == (None, "no copy bandwidth is known of the device")
    assert device().guess(own[0]) == (None, "their operators state no cost")
    (estimate,) = estimates(Visits([sweep(tokens="64", dtypes=("bf16",))]), [device()])
    assert not estimate.on
    assert estimate.unknown.total() == 1


def test_an_operator_that_states_no_cost_is_known_by_its_records(own_operators: Path, tmp_path: Path) -> None:
    own = sweep(f"{own_operators}:Plain", "64,128")
    run = write(tmp_path / "run", sweep(f"{own_operators}:Plain", "64"), lambda cell: 0.5, environment=environment_of(EPYC))
    (found,) = known(run)
    assert [found.guess(cell) for cell in own.cells()] == [
        (pytest.approx(of_call(0.5)), RECORDS),
        (pytest.approx(of_call(2.0)), RECORDS),  # by N^2
    ]


def test_what_its_operator_refuses_takes_no_time() -> None:
    refused = sweep("afno,linear", "64", dim=12)  # 12 channels make no 8 blocks
    (estimate,) = estimates(Visits([refused]), [device()])
    assert estimate.cells == {REFUSED: 1, MODEL: 1}
    (alone,) = estimates(Visits([sweep("linear", "64", dim=12)]), [device()])
    assert estimate.on[1] == alone.on[1]


def test_a_series_that_ended_takes_no_more_time_on_that_device(tmp_path: Path) -> None:
    ended = write(
        tmp_path / "run",
        sweep("softmax", "64,256"),
        lambda cell: 0.5 if cell.workload.tokens == 64 else "oom",
        environment=environment_of(EPYC) | {"peaks": PEAKS},
    )
    (found,) = known(ended)
    plan = sweep("softmax", "64,256,1024", modes=("forward", "train"))
    by = {(cell.workload.tokens, cell.workload.mode): found.guess(cell).by for cell in plan.cells()}
    assert {where for where, what in by.items() if what == ENDED} == {(256, "forward"), (1024, "forward")}
    assert device().guess(sweep("softmax", "1024").cells()[0]).by == MODEL


def test_no_cell_takes_longer_than_its_time_limit(tmp_path: Path) -> None:
    run = write(tmp_path / "run", sweep(tokens="64"), lambda cell: 5.0, environment=environment_of(EPYC))
    (found,) = known(run, cell_timeout=20.0)
    assert [found.guess(cell).seconds for cell in sweep(tokens="64,256").cells()] == [20.0, 20.0]
    assert device(dict.fromkeys(PEAKS, 1.0), cell_timeout=20.0).guess(sweep().cells()[0]) == (20.0, MODEL)


def test_each_kind_of_device_in_the_records_has_its_own_seconds(tmp_path: Path) -> None:
    fleet_run(tmp_path / "run", {H200: 1.0, EPYC: 10_000.0}, ops=("xcit", "softmax"), sizes=(256,))
    plan = sweep("xcit", "256", device="cuda:0")
    found = {one.device.name: one for one in estimates(Visits([plan]), known(tmp_path / "run", plan_device="cuda:0"))}
    assert found.keys() == {H200, EPYC}
    assert {name: one.device.device for name, one in found.items()} == {H200: "cuda:0", EPYC: "cpu"}
    assert all(one.cells == {RECORDS: 1} for one in found.values())
    assert found[EPYC].on[1] > found[H200].on[1]


def test_older_records_are_named_by_their_environment_and_their_peaks_are_taken_in(tmp_path: Path) -> None:
    fields = {"host": None, "device_kind": None, "device_id": None}
    environment = environment_of(EPYC) | {"peaks": PEAKS | {"flops_per_s_fp64": None}}
    run = write(tmp_path / "run", sweep(), lambda cell: 0.5, environment=environment, **fields)
    faster = environment | {"peaks": {"flops_per_s_fp32": 2e9, "bytes_per_s": 1.0}}
    more = write(tmp_path / "more", sweep(), lambda cell: 0.5, environment=faster, device_kind=EPYC)
    (found,) = known(run, more)
    assert found.name == EPYC
    assert found.peaks == {"flops_per_s_fp32": 2e9, "bytes_per_s": 1e9}
    assert found.records == 4


def test_a_plan_of_several_kinds_is_told_kind_by_kind() -> None:
    plan = Visits([sweep(kinds=(EPYC, A100))])
    found = {one.device.name: one for one in estimates(plan, [device(), device(name=H200, on="cuda:0")])}
    assert found.keys() == {EPYC, A100}
    assert found[EPYC].visits == found[EPYC].looked_at == 2
    (alone,) = estimates(Visits([sweep()]), [device()])
    assert found[EPYC].on == alone.on
    assert not found[A100].device.is_known
    assert not found[A100].on


def test_visits_go_to_the_device_that_is_free_first() -> None:
    one_by_one = [(1.0, 1), (2.0, 1), (3.0, 1), (4.0, 1)]
    assert [done_after(one_by_one, devices) for devices in (1, 2, 3, 4, 9)] == [10.0, 6.0, 5.0, 4.0, 4.0]
    assert done_after([(1.0, 4)], 2) == 2.0
    assert done_after([(2.0, 5)], 2) == 6.0


@pytest.mark.parametrize("devices", [1, 2, 3, 8, 64])
def test_visits_that_stand_for_many_end_when_those_would(devices: int) -> None:
    draw = random.Random(devices)
    taken = [(seconds, draw.randrange(1, 50)) for seconds in sorted(draw.uniform(0.1, 3.0) for _ in range(100))]
    whole = done_after([(seconds, 1) for seconds, many in taken for _ in range(many)], devices)
    assert done_after(taken, devices) == pytest.approx(whole, abs=max(taken)[0])


def test_hours_are_told_for_as_many_devices_as_gain() -> None:
    one = Visits([sweep("softmax", "64")])
    assert list(estimates(one, [device()])[0].on) == [1]
    alike = Visits([sweep("linear", "64,65,66,67,68,69,70,71")])
    (found,) = estimates(alike, [device()])
    assert list(found.on) == [1, 2, 4, 8]
    assert found.on[8] == pytest.approx(found.longest_s)


@pytest.mark.parametrize(("whole", "most"), [(1, 10), (10, 10), (11, 10), (1000, 60), (33_334, 266), (1_000_000, 8_000)])
def test_places_stand_for_all_of_them_and_the_last_for_itself(whole: int, most: int) -> None:
    found = spread_out(whole, most)
    places = [place for place, _ in found]
    assert places == sorted({*places})
    assert 0 <= places[0] <= places[-1] == whole - 1
    assert sum(many for _, many in found) == whole
    assert found[-1][1] == 1
    assert len(found) <= most


def test_steps_meet_what_alternates_as_often_as_it_stands_there() -> None:
    for whole in range(20_000, 60_000, 500):
        found = spread_out(whole, 1000)
        for period in (2, 3, 4, 6, 7, 8, 12, 15, 30, 31):
            met = [sum(many for place, many in found if place % period == phase) for phase in range(period)]
            assert max(met) / min(met) < 2


@pytest.mark.parametrize(
    ("sizes", "axes"), [(200, {"modes": ("forward", "train"), "batches": (1, 2, 4, 8)}), (1600, {})], ids=["several axes", "tokens alone"]
)
def test_some_visits_tell_what_all_of_them_do(sizes: int, axes: dict[str, Any]) -> None:
    plan = Visits([sweep("linear,softmax,window", ",".join(str(256 + 8 * step) for step in range(sizes)), **axes)])
    (whole,), (part,) = (estimates(plan, [device()], most=most) for most in (5000, 1500))
    assert whole.looked_at == whole.visits == part.visits == len(plan) == 1600
    assert 450 < part.looked_at <= 500
    assert part.on == pytest.approx(whole.on, rel=0.03)
    assert part.longest_s == whole.longest_s
    assert part.cells == pytest.approx(whole.cells)


def test_a_history_must_be_a_run_of_scale(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no run"):
        known(tmp_path / "nowhere")
    Journal.create(tmp_path / "training", {"kind": "accuracy", "operators": {}, "cells": []}).close()
    with pytest.raises(InputError, match="is no run of `lisabench scale`"):
        known(tmp_path / "training")


def test_cells_that_never_ran_tell_of_no_device(tmp_path: Path) -> None:
    fleet_run(tmp_path / "run", {H200: 1.0, A100: 2.0}, never=(A100,))
    assert [one.name for one in known(tmp_path / "run")] == [H200]


def test_the_peaks_that_are_kept_for_this_machine_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here = this_machine("cpu", 1)
    assert here is not None
    (before,) = known_devices([], here=here, plan_device="cpu", limits=LIMITS, cell_timeout=None)
    assert before.here
    assert before.name.endswith(", 1 thread")
    assert not before.is_known
    kept_peaks.keep(here, PEAKS)
    (after,) = known_devices([], here=here, plan_device="cpu", limits=LIMITS, cell_timeout=None)
    assert after.peaks == PEAKS
    run = write(tmp_path / "run", sweep(), lambda cell: 0.5, environment=here)
    (joined,) = known_devices([run], here=here, plan_device="cpu", limits=LIMITS, cell_timeout=None)
    assert joined.here
    assert joined.records == 2
    assert joined.peaks == PEAKS


@pytest.mark.slow
@pytest.mark.parametrize("threads", [None, 1])
def test_this_machine_is_known_by_the_fingerprint_that_its_worker_has(threads: int | None) -> None:
    with Worker(device="cpu", threads=threads) as worker:
        worker.ready()
        found = worker.environment
    # In a process of its own, as the program asks it: tests before this one may have set torch's threads.
    ask = f"from lisabench.run.estimate import this_machine as of\nfrom lisabench.provenance import fingerprint\nprint(fingerprint(of('cpu', {threads})))"
    here = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert here.stdout.strip() == fingerprint(found)


def test_a_device_that_is_not_here_has_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert this_machine("cuda:0", None) is None
