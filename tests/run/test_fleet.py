"""What the driver does with several devices, some of which are lost, unlike or gone; the stands answer by script."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import records

from lisabench.axes import grids, resolve_operators
from lisabench.errors import UnavailableError
from lisabench.journal import Journal
from lisabench.measure.latency import Limits
from lisabench.plans import Visits
from lisabench.presets import Shape
from lisabench.run.engine import MOST_LOSSES, Observer, run_cells
from lisabench.run.fleet import Ended, Event, Lost, Measured, Said, Settings, Stand, Started, Surroundings, Task, Tell, UnfitError
from lisabench.run.ledger import Ledger
from lisabench.sweep import Cell, Sweep

LIMITS = Limits()
OK = {"status": "ok", "latency_s": {"median": 1e-3}, "flops": {"analytic": 1e6}}
Answer = Callable[[Stand, Cell], dict[str, Any] | Lost]


def environment(name: str, threads: int = 1) -> dict[str, Any]:
    return {"device": "cpu", "device_name": name, "machine": "x", "cpu": {"threads": threads}}


class Scripted:
    """Stands that answer as told. One that is lost comes back under its name, as often as there are lives."""

    alone = False

    def __init__(self, kinds: Sequence[str], answer: Answer, *, lives: int = 99) -> None:
        self.answer, self.lives = answer, lives
        self.stands = [Stand(f"stand {number}", kind=f"{kind}, 1 thread") for number, kind in enumerate(kinds)]
        self.names = dict(zip(self.stands, kinds, strict=True))
        self.tasks: deque[tuple[Stand, Task]] = deque()
        self.made: list[tuple[str, tuple[str, ...], str | None]] = []

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(stand.kind for stand in self.stands if stand.kind))

    @property
    def busy(self) -> int:
        return len(self.tasks)

    def idle(self) -> Sequence[Stand]:
        working = {stand for stand, _ in self.tasks}
        return [stand for stand in self.stands if stand not in working]

    def start(self, stand: Stand, task: Task) -> None:
        self.made.append((stand.name, tuple(cell.key for cell in task.cells), task.beside and task.beside.op))
        self.tasks.append((stand, task))

    def turn(self, tell: Tell) -> None:
        if not self.tasks:
            raise UnavailableError("no device is left")
        stand, task = self.tasks.popleft()
        try:
            for event in self._events(stand, task):
                tell(stand, event)
                if isinstance(event, Lost):
                    self._again(stand)
        except UnfitError as error:
            self.stands.remove(stand)
            tell(stand, Lost(str(error), blameless=True))

    def _events(self, stand: Stand, task: Task) -> list[Event]:
        found: list[Event] = [Surroundings(self.names[stand], environment(self.names[stand]))]
        for cell in task.cells:
            answer = self.answer(stand, cell)
            found += [Started(cell.key), answer if isinstance(answer, Lost) else Measured(cell.key, dict(answer))]
            if isinstance(answer, Lost):
                return found
        return [*found, Ended()]

    def _again(self, stand: Stand) -> None:
        self.stands.remove(stand)
        self.lives -= 1
        if self.lives > 0:
            again = Stand(stand.name, kind=stand.kind)
            self.stands.append(again)
            self.names[again] = self.names[stand]


class Heard(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.left: list[str] = []

    def gone(self, stand: str) -> None:
        self.left.append(stand)

    def said(self, text: str) -> None:
        self.texts.append(text)


def sweep(ops: str = "linear,softmax", tokens: str = "16,64,256", **axes: Any) -> Sweep:
    shapes = tuple(Shape(grid=grid, dim=32, heads=2) for grid in grids(tokens, None, 16))
    return Sweep(ops=tuple(resolve_operators([ops], None, [])), shapes=shapes, **axes)


def go(run: Path, fleet: Scripted, of: Sweep, *, resume: bool = False, **settings: Any) -> Heard:
    heard, ledger = Heard(), Ledger(LIMITS)
    asked = Settings(**{"budget": None, "cell_timeout": 60, "limits": LIMITS} | settings)
    with Journal.resume(run, taken=ledger.take) if resume else Journal.create(run, {}) as journal:
        run_cells(Visits([of]), journal=journal, ledger=ledger, fleet=fleet, settings=asked, observer=heard)
    return heard


def test_every_cell_once_and_a_visit_on_one_device(tmp_path: Path) -> None:
    fleet = Scripted(["a", "a", "a"], lambda stand, cell: OK)
    go(tmp_path / "run", fleet, sweep())
    found = records(tmp_path / "run")
    assert sorted(r["cell"] for r in found) == sorted(cell.key for cell in sweep().cells())
    assert [len(cells) for _, cells, _ in fleet.made] == [2, 2, 2]
    assert {stand for stand, *_ in fleet.made} == {"stand 0", "stand 1", "stand 2"}


def test_what_a_lost_device_had_not_told_is_measured_again(tmp_path: Path) -> None:
    lost: list[str] = []

    def answer(stand: Stand, cell: Cell) -> dict[str, Any] | Lost:
        if not lost and stand.name == "stand 1" and cell.op == "softmax":
            lost.append(cell.key)
            return Lost("its node is gone")
        return OK

    heard = go(tmp_path / "run", fleet := Scripted(["a", "a"], answer), sweep(), baseline="linear")
    found = records(tmp_path / "run")
    assert len(found) == len({r["cell"] for r in found}) == 6
    assert {r["status"] for r in found} == {"ok"}
    assert heard.left == ["stand 1"]
    again = [made for made in fleet.made if lost[0] in made[1]]
    assert len(again) == 2
    # The baseline takes part again where it was told before the loss: ratios need common rounds.
    assert again[1][2] == ("linear" if len(again[1][1]) == 1 else None)


def test_a_cell_at_which_devices_are_lost_again_and_again_is_a_crash(tmp_path: Path) -> None:
    def answer(stand: Stand, cell: Cell) -> dict[str, Any] | Lost:
        return Lost("its process died") if cell.op == "softmax" and cell.workload.tokens == 64 else OK

    go(tmp_path / "run", Scripted(["a", "a"], answer), sweep())
    found = {(r["op"], r["tokens"]): r for r in records(tmp_path / "run")}
    crashed = found["softmax", 64]
    assert crashed["status"] == "crash"
    assert crashed["reason"] == f"its worker was lost {MOST_LOSSES} times while measuring it; the last time: its process died"
    assert {r["status"] for key, r in found.items() if key != ("softmax", 64)} == {"ok"}
    assert len(found) == 6


def test_losses_that_no_cell_can_have_caused_are_not_held_against_it(tmp_path: Path) -> None:
    left = iter([True] * (MOST_LOSSES + 2))
    go(tmp_path / "run", Scripted(["a"], lambda *_: Lost("no", blameless=True) if next(left, False) else OK), sweep(tokens="16"))
    assert [r["status"] for r in records(tmp_path / "run")] == ["ok", "ok"]


def test_a_killed_measuring_process_is_tried_elsewhere_before_it_counts(tmp_path: Path) -> None:
    killed = {"status": "crash", "reason": "the process was killed by SIGKILL", "killed": True}
    asked: list[str] = []

    def answer(stand: Stand, cell: Cell) -> dict[str, Any]:
        asked.append(cell.key)
        return killed if cell.op == "softmax" and (asked.count(cell.key) == 1 or cell.workload.tokens == 256) else OK

    go(tmp_path / "run", Scripted(["a", "a"], answer), sweep())
    found = {(r["op"], r["tokens"]): r for r in records(tmp_path / "run")}
    assert len(records(tmp_path / "run")) == 6
    assert found["softmax", 16]["status"] == found["softmax", 64]["status"] == "ok"
    assert (found["softmax", 256]["status"], asked.count(found["softmax", 256]["cell"])) == ("crash", MOST_LOSSES)
    assert "killed" not in found["softmax", 256]


def test_a_device_of_other_surroundings_is_not_measured_on(tmp_path: Path) -> None:
    fleet = Scripted(["a", "b"], lambda stand, cell: OK)
    heard = go(tmp_path / "run", fleet, sweep())
    assert heard.left == ["stand 1"]
    assert len(records(tmp_path / "run")) == 6
    assert set(json.loads((tmp_path / "run" / "environment.json").read_text())) == {"a"}


def test_each_kind_of_device_measures_the_whole_plan(tmp_path: Path) -> None:
    of = sweep(kinds=("a, 1 thread", "b, 1 thread"))
    fleet = Scripted(["a", "b", "b"], lambda stand, cell: OK)
    go(tmp_path / "run", fleet, of)
    found = records(tmp_path / "run")
    assert len(found) == len({r["cell"] for r in found}) == 12
    for kind in fleet.kinds:
        assert sorted((r["op"], r["tokens"]) for r in found if r["device_kind"] == kind) == sorted(
            (op, tokens) for op in ("linear", "softmax") for tokens in (16, 64, 256)
        )


def test_what_fails_on_one_kind_of_device_is_tried_on_the_other(tmp_path: Path) -> None:
    def answer(stand: Stand, cell: Cell) -> dict[str, Any]:
        return {"status": "oom", "reason": "no"} if stand.kind == "a, 1 thread" and cell.workload.tokens == 64 else OK

    go(tmp_path / "run", Scripted(["a", "b"], answer), sweep("linear", kinds=("a, 1 thread", "b, 1 thread")))
    states = {(r["device_kind"][0], r["tokens"]): r["status"] for r in records(tmp_path / "run")}
    assert [states["a", tokens] for tokens in (16, 64, 256)] == ["ok", "oom", "skipped"]
    assert [states["b", tokens] for tokens in (16, 64, 256)] == ["ok", "ok", "ok"]


def test_a_kind_of_which_no_device_is_left_is_waited_for_and_resumed(tmp_path: Path) -> None:
    of = sweep(kinds=("a, 1 thread", "b, 1 thread"))
    with pytest.raises(UnavailableError, match=r"^no device is left; what is left waits for b, 1 thread$"):
        go(tmp_path / "run", Scripted(["a"], lambda stand, cell: OK), of)
    assert len(records(tmp_path / "run")) == 6
    go(tmp_path / "run", Scripted(["a", "b"], lambda stand, cell: OK), of, resume=True)
    found = records(tmp_path / "run")
    assert len(found) == len({r["cell"] for r in found}) == 12


def test_messages_reach_the_user(tmp_path: Path) -> None:
    fleet = Scripted(["a"], lambda stand, cell: OK)
    told = fleet._events
    fleet._events = lambda stand, task: [Said("node 3 is set aside"), *told(stand, task)]  # type: ignore[method-assign]
    assert go(tmp_path / "run", fleet, sweep(tokens="16")).texts == ["node 3 is set aside"]
