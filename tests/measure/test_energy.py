"""Energy: a counter of known power gives that power back, through steps, falls and files; and nothing is never 0."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lisabench.measure import energy
from lisabench.measure.energy import Energy, NoEnergyError, RaplMeter, measure_energy, open_meter, update_period

BUSY, IDLE = 400.0, 60.0


class World:
    """A clock that runs only while something is done, and a counter that shows in steps what was used until then."""

    name = "simulated"

    def __init__(self, period: float, *, call: float = 0.0, reading: float = 2e-5, uneven: float = 0.0) -> None:
        self.period, self.call_seconds, self.reading = period, call, reading
        self.random, self.uneven = random.Random(0), uneven
        self.now, self.used, self.shown, self.step = 0.0, 0.0, 0.0, 0.37 * period
        self.calls = 0
        self.dead = False

    def clock(self) -> float:
        return self.now

    def joules(self) -> float:
        self._pass(self.reading, IDLE)
        return self.shown

    def call(self) -> None:
        self.calls += 1
        self._pass(self.call_seconds, BUSY)

    def _pass(self, seconds: float, watts: float) -> None:
        end = self.now + seconds
        while self.step <= end:
            if not self.dead:
                self.shown = self.used + watts * (self.step - self.now)
            self.step += self.period * (1 + self.uneven * self.random.uniform(-1, 1))
        self.used += watts * seconds
        self.now = end


def measured(world: World, **settings: float) -> Energy:
    return measure_energy(world.call, world, seconds_a_call=world.call_seconds, device="cpu", clock=world.clock, **settings)


@pytest.mark.parametrize(
    ("period", "call"),
    [(0.001, 2e-5), (0.001, 0.9), (0.02, 0.007), (0.1, 3e-3), (0.1, 0.13), (0.1, 1.7), (0.2, 1.0)],
    ids=lambda seconds: f"{seconds:g}s",
)
def test_a_known_power_comes_back(period: float, call: float) -> None:
    world = World(period, call=call)
    found = measured(world)
    assert found.joules_a_call == pytest.approx(BUSY * call, rel=0.02)
    assert found.calls == world.calls
    assert found.seconds == pytest.approx(world.calls * call)
    assert found.warnings == []


def test_uneven_steps_do_little_harm() -> None:
    world = World(0.1, call=0.03, uneven=0.1)
    assert measured(world).joules_a_call == pytest.approx(BUSY * 0.03, rel=0.04)


@pytest.mark.parametrize("period", [0.001, 0.02, 0.1])
def test_the_period_is_found(period: float) -> None:
    world = World(period)
    assert update_period(world, clock=world.clock) == pytest.approx(period, rel=0.1)
    assert world.now < energy.STILL_SECONDS + 2 * period


def test_the_window_is_long_against_the_period_and_ends() -> None:
    for period, call, least in ((0.001, 1e-3, 0.5), (0.1, 1e-3, 1.0), (1.0, 1e-3, 2.0)):
        found = measured(World(period, call=call), period_s=period)
        assert least <= found.seconds <= least + energy.CHUNK_SECONDS + call


def test_a_long_call_runs_once() -> None:
    world = World(0.02, call=30.0)
    assert measured(world).calls == 1


def test_a_call_that_takes_longer_than_was_said_ends_too() -> None:
    world = World(0.001, call=1e-3)
    found = measure_energy(world.call, world, seconds_a_call=0.0, device="cpu", clock=world.clock)
    assert found.joules_a_call == pytest.approx(BUSY * 1e-3, rel=0.02)


def test_a_coarse_counter_is_told() -> None:
    found = measured(World(0.4, call=0.01), period_s=0.4)
    assert found.warnings[0].startswith("coarse energy: 2 s hold 5 steps of the counter")


def test_late_readings_are_told() -> None:
    found = measured(World(0.1, call=0.01, reading=0.03), period_s=0.1)
    assert found.warnings[0].startswith("coarse energy: the host read the counter late")


def test_a_counter_that_stands_still_gives_a_reason_and_not_zero() -> None:
    world = World(float("inf"), call=0.01)
    with pytest.raises(NoEnergyError, match=r"did not move in 0\.5 s"):
        measured(world)
    with pytest.raises(NoEnergyError, match="did not move"):
        measured(world, period_s=0.1)
    assert world.now < 2


def test_a_counter_that_stops_on_the_way_gives_a_reason() -> None:
    world = World(0.02, call=0.01)

    def call() -> None:
        world.dead = True
        world.call()

    with pytest.raises(NoEnergyError, match=r"\(simulated\) did not move in the 0\.5"):
        measure_energy(call, world, seconds_a_call=0.01, device="cpu", clock=world.clock)


def zone(root: Path, folder: str, name: str, joules: float, *, most: float = 1000.0) -> Path:
    """A zone as the kernel shows it; writing joules moves its counter."""
    made = root / folder
    made.mkdir(parents=True)
    (made / "name").write_text(f"{name}\n")
    (made / "energy_uj").write_text(f"{joules * 1e6:.0f}\n")
    (made / "max_energy_range_uj").write_text(f"{most * 1e6:.0f}\n")
    return made


def test_packages_are_added_and_their_parts_are_not(tmp_path: Path) -> None:
    zones = {
        name: zone(tmp_path, folder, name, 10)
        for folder, name in (
            ("intel-rapl:0", "package-0"),
            ("intel-rapl:0:0", "core"),
            ("intel-rapl:0:1", "dram"),
            ("intel-rapl:1", "package-1"),
            ("intel-rapl:2", "psys"),
        )
    }
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 10)
    meter = open_meter("cpu", powercap=tmp_path)
    assert meter.name == "RAPL package-0 + package-1"
    before = meter.joules()
    for name, joules in (("package-0", 12), ("core", 99), ("dram", 99), ("package-1", 15), ("psys", 99)):
        (zones[name] / "energy_uj").write_text(f"{joules * 1e6:.0f}")
    assert meter.joules() - before == pytest.approx(7)


def test_a_counter_that_starts_again_goes_on(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 990, most=1000)
    meter = RaplMeter(tmp_path)
    before = meter.joules()
    (package / "energy_uj").write_text("5000000")
    assert meter.joules() - before == pytest.approx(15)


def test_a_fall_without_a_stated_range_gives_a_reason(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 990)
    (package / "max_energy_range_uj").unlink()
    meter = RaplMeter(tmp_path)
    (package / "energy_uj").write_text("5000000")
    with pytest.raises(NoEnergyError, match="states no range"):
        meter.joules()


def unreadable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text

    def refuse(path: Path) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read(path)

    zone(folder, "intel-rapl:0", "package-0", 1)
    monkeypatch.setattr(Path, "read_text", refuse)


def damaged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (zone(folder, "intel-rapl:0", "package-0", 1) / "energy_uj").write_text("")


def parts_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(folder, "intel-rapl:0", "psys", 1)


def nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.rmdir()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (unreadable, "root only; allow it by: sudo chmod"),
        (damaged, "cannot be read"),
        (parts_only, "no energy counters"),
        (nothing, "no energy"),
    ],
    ids=["root-only", "damaged", "parts-only", "nothing"],
)
def test_no_counter_gives_a_reason_of_one_line(
    make: Callable[[Path, pytest.MonkeyPatch], None], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, monkeypatch)
    with pytest.raises(NoEnergyError, match=words) as raised:
        open_meter("cpu", powercap=tmp_path)
    assert len(str(raised.value).splitlines()) == 1


def test_a_gpu_that_is_not_there_gives_a_reason() -> None:
    with pytest.raises(NoEnergyError, match="torch finds no cuda:99"):
        open_meter("cuda:99")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_uses_a_plausible_power() -> None:
    x = torch.randn(4096, 4096, device="cuda:0")
    try:
        meter = open_meter("cuda:0")
    except NoEnergyError as error:
        pytest.skip(str(error))
    found = measure_energy(lambda: x @ x, meter, seconds_a_call=5e-3, device="cuda:0")
    assert 5 < found.joules_a_call * found.calls / found.seconds < 3000
