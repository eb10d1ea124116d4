"""What the machine did meanwhile: made /proc folders, a real busy neighbour, and warnings at and under their thresholds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lisabench.measure.conditions import (
    BUSY_CORES,
    DRIFT,
    STOLEN_SHARE,
    WAITED_SHARE,
    Load,
    LoadWatch,
    conditions,
    gpu_conditions,
    gpu_state,
    sentinel_call,
    sentinel_conditions,
    sentinel_seconds,
)
from lisabench.measure.nvml import GpuState, NvmlError

TICK = os.sysconf("SC_CLK_TCK")


def make(proc: Path, *, busy: float = 0.0, stolen: float = 0.0, waited: tuple[float, ...] = (0.0,)) -> Path:
    """/proc of a machine: core seconds since boot, and the seconds that each thread of ours has waited."""
    proc.mkdir(exist_ok=True)
    ticks = [round(seconds * TICK) for seconds in (busy, 0, 0, 1000, 50, 0, 0, stolen, 0, 0)]
    (proc / "stat").write_text(f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 2 3\n")
    for place, seconds in enumerate(waited):
        task = proc / "self" / "task" / str(place)
        task.mkdir(parents=True, exist_ok=True)
        (task / "schedstat").write_text(f"123 {round(seconds * 1e9)} 7\n")
    return proc


def test_the_counters_are_differences_over_all_threads(tmp_path: Path) -> None:
    watch = LoadWatch(make(tmp_path, busy=100, stolen=5, waited=(1.0, 2.0)))
    make(tmp_path, busy=103, stolen=5.5, waited=(1.25, 2.5))
    found = watch.load()
    assert found.waited == pytest.approx(0.75)
    assert found.stolen == pytest.approx(0.5)
    assert found.others is not None
    assert 2 < found.others <= 3, "this process's own time is taken off"
    assert 0 < found.wall < 60


def test_a_thread_that_ended_makes_no_negative_wait(tmp_path: Path) -> None:
    watch = LoadWatch(make(tmp_path, waited=(5.0, 5.0)))
    (tmp_path / "self" / "task" / "1" / "schedstat").unlink()
    (tmp_path / "self" / "task" / "1").rmdir()
    assert watch.load().waited == 0


@pytest.mark.parametrize(
    ("lost", "absent"),
    [("stat", {"others", "stolen"}), ("self/task/0/schedstat", {"waited"}), (None, {"others", "stolen", "waited"})],
    ids=["no stat", "no schedstat", "no proc"],
)
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_what_the_system_does_not_tell_is_absent_and_not_0(tmp_path: Path, lost: str | None, absent: set[str], when: str) -> None:
    make(tmp_path)

    def lose() -> None:
        for path in [tmp_path / lost] if lost else [tmp_path / "stat", tmp_path / "self/task/0/schedstat"]:
            path.unlink()

    if when == "before":
        lose()
    watch = LoadWatch(tmp_path)
    if when == "meanwhile":
        lose()
    record = watch.load().record()
    assert {name for name, value in record.items() if value is None} == absent


@pytest.mark.parametrize("line", ["", "cpu 1 2", "cpu a b c d e f g h", "\x00"], ids=["empty", "old kernel", "words", "no text"])
def test_a_strange_stat_tells_nothing(tmp_path: Path, line: str) -> None:
    (make(tmp_path) / "stat").write_text(line)
    found = LoadWatch(tmp_path).load()
    assert (found.others, found.stolen) == (None, None)


def test_loads_add_up_and_what_is_absent_once_is_absent() -> None:
    whole = Load(wall=1, waited=0.5, others=None, stolen=0.0) + Load(wall=2, waited=0.25, others=1.0, stolen=0.5)
    assert whole == Load(wall=3, waited=0.75, others=None, stolen=0.5)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux's /proc")
def test_a_real_neighbour_is_seen() -> None:
    """The neighbour counts its own processor time: at least half of it must be seen, whatever else the machine does."""
    code = "import time\nprint(flush=True)\nwhile True:\n    print(time.process_time(), flush=True)\n    end = time.process_time() + 0.05\n    while time.process_time() < end:\n        pass\n"
    neighbour = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert neighbour.stdout is not None
    try:
        neighbour.stdout.readline()
        first = float(neighbour.stdout.readline())
        watch = LoadWatch()
        used, deadline = 0.0, time.monotonic() + 60
        while used < 0.5 and time.monotonic() < deadline:
            used = float(neighbour.stdout.readline()) - first
        found = watch.load()
    finally:
        neighbour.kill()
        neighbour.communicate()
    assert found.others is not None
    assert used >= 0.5
    assert found.others > 0.5 * used
    assert neighbour.poll() is not None


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_a_process_s_own_work_is_no_neighbour_s() -> None:
    """One thread of ours computes for a while; what is counted to others leaves it out."""
    watch, started = LoadWatch(), time.process_time()
    while time.process_time() - started < 0.3:
        pass
    own = time.process_time() - started
    after = LoadWatch()
    found = watch.load()
    assert found.others is not None
    assert watch.counted is not None
    assert after.counted is not None
    assert found.others <= after.counted[0] - watch.counted[0] - own + 0.2


@pytest.mark.parametrize(
    ("name", "bound", "word"),
    [("waited", WAITED_SHARE, "contended"), ("others", BUSY_CORES, "busy"), ("stolen", STOLEN_SHARE, "stolen")],
)
def test_warnings_begin_over_their_bounds(name: str, bound: float, word: str) -> None:
    threads, wall = 4, 100.0
    whole = wall if name == "others" else wall * threads
    for share, warned in ((0.0, False), (bound, False), (1.1 * bound, True)):
        load = Load(wall=wall) + Load(**{name: share * whole})
        told, warnings = conditions(load, load, threads=threads)
        assert [warning.partition(":")[0] for warning in warnings] == ([word] if warned else [])
        assert round(share, 4) in told.values()


def test_a_cell_waits_for_itself_and_neighbours_count_for_the_whole_visit() -> None:
    cell, visit = Load(wall=1, waited=0.5, others=9.0, stolen=9.0), Load(wall=10, waited=9.0, others=1.0, stolen=0.1)
    told, _ = conditions(cell, visit, threads=1)
    assert told == {"waited_share": 0.5, "others_busy_cores": 0.1, "stolen_share": 0.01}


def test_no_counters_and_no_time_give_no_shares_and_no_warnings() -> None:
    unknown = Load(wall=1, waited=None, others=None, stolen=None)
    for load in (unknown, Load()):
        told, warnings = conditions(load, load, threads=2)
        assert set(told.values()) == {None}
        assert warnings == []


def test_less_than_nothing_is_nothing() -> None:
    """Ticks are coarse: the others may seem to have given time back."""
    load = Load(wall=1, others=-0.02)
    assert conditions(load, load, threads=1)[0]["others_busy_cores"] == 0


@pytest.mark.parametrize(
    ("sentinel", "best", "drift", "slowdown", "words"),
    [
        ([1.0, 1.0, 1.0], 1.0, 0.0, 0.0, []),
        ([1.0, 1.0, 1.0 + DRIFT], 1.0, DRIFT, 0.0, []),
        ([1.0, 1.0, 1.06], 1.0, 0.06, 0.0, ["drift"]),
        ([1.0, 1.0, 0.9], 1.0, 0.1, 0.0, ["drift"]),
        ([1.5, 1.5, 1.5], 1.0, 0.0, 0.5, ["slowed"]),
        ([1.5, 1.5, 3.0], 1.0, 1.0, 0.5, ["drift", "slowed"]),
        ([1.0], 1.0, 0.0, 0.0, []),
    ],
)
def test_the_sentinel_tells_of_drift_and_of_a_slower_machine(
    sentinel: list[float], best: float, drift: float, slowdown: float, words: list[str]
) -> None:
    told, warnings = sentinel_conditions(sentinel, best=best)
    assert told == {"sentinel_drift": pytest.approx(drift), "sentinel_slowdown": pytest.approx(slowdown)}
    assert [warning.partition(":")[0] for warning in warnings] == words


def test_a_faster_machine_than_the_best_so_far_is_no_slowdown() -> None:
    told, warnings = sentinel_conditions([0.8, 0.8], best=1.0)
    assert told["sentinel_slowdown"] == pytest.approx(-0.2)
    assert warnings == []


def test_the_sentinel_is_the_same_work_each_time() -> None:
    call = sentinel_call("cpu")
    first = call().clone()
    assert (call() == first).all()
    assert sentinel_seconds(call, "cpu") > 0


def state(**figures: Any) -> GpuState:
    return replace(GpuState(sm_clock_mhz=1900, temperature_c=40, power_w=300.0, throttle=(), idle=False), **figures)


def test_a_gpu_s_first_and_last_state_are_told() -> None:
    told, warnings = gpu_conditions([state(), state(sm_clock_mhz=300), state(temperature_c=60)], clock=1980)
    assert told == {"sm_clock_mhz": [1900, 1900], "temperature_c": [40, 60], "power_w": [300.0, 300.0], "throttle": [(), ()]}
    assert [warning.partition(":")[0] for warning in warnings] == ["throttled"]  # of the state between
    assert "300 MHz" in warnings[0]


@pytest.mark.parametrize(
    ("last", "clock", "warned"),
    [
        ({"sm_clock_mhz": 1485}, 1980, False),
        ({"sm_clock_mhz": 1484}, 1980, True),
        ({"sm_clock_mhz": 345, "idle": True}, 1980, False),
        ({"sm_clock_mhz": 345}, None, False),
        ({"throttle": ("power cap",)}, 1980, True),
        ({"sm_clock_mhz": None, "throttle": None}, 1980, False),
    ],
    ids=["three quarters", "under three quarters", "idle", "no clock to keep", "power cap", "not told"],
)
def test_a_gpu_that_is_held_back_is_warned_of(last: dict[str, Any], clock: float | None, warned: bool) -> None:
    _, warnings = gpu_conditions([state(), state(**last)], clock=clock)
    assert [warning.partition(":")[0] for warning in warnings] == (["throttled"] if warned else [])


def test_one_state_is_first_and_last_and_none_tells_nothing() -> None:
    assert gpu_conditions([state()], clock=1980)[0]["power_w"] == [300.0, 300.0]
    assert gpu_conditions([], clock=1980) == ({}, [])


def test_a_gpu_that_does_not_tell_its_state_has_none() -> None:
    class Silent:
        def state(self) -> GpuState:
            raise NvmlError("the GPU is lost")

    assert gpu_state(None) is None
    assert gpu_state(Silent()) is None  # type: ignore[arg-type]
