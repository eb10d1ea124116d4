"""What the driver of a run and the places that measure say to each other, whoever starts them.

A stand is a worker with a device to itself. It makes visits: all cells of one workload, interleaved. The driver says which, and
alone keeps the journal. A fleet starts stands and carries the words: see `lisabench.run.alone` and `lisabench.run.ray_fleet`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lisabench.errors import InputError
from lisabench.measure.latency import Limits
from lisabench.sweep import Cell


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How long a run may take, in seconds, and what it compares with. `budget` None: as long as it needs.

    `cross_check`: every CPU cell's memory is measured again in a fresh process. `mix`: go on with a run from another machine.
    """

    budget: float | None
    cell_timeout: float
    limits: Limits
    seed: int = 0
    baseline: str | None = None
    cross_check: bool = False
    mix: bool = False


@dataclass(frozen=True, kw_only=True)
class Task:
    """A visit to make: the cells to measure and record, and the seconds foretold of each where any are.

    `beside` takes part unrecorded: the baseline that was measured before, since ratios need common rounds.
    `seconds_left`: of the run's budget.
    """

    cells: Sequence[Cell]
    beside: Cell | None
    foretold: Mapping[str, float]
    seconds_left: float
    settings: Settings


@dataclass(frozen=True)
class Surroundings:
    """The worker's environment and its hash; told before a cell is measured there, and again when it has changed."""

    key: str
    environment: dict[str, Any]


@dataclass(frozen=True)
class Started:
    cell: str


@dataclass(frozen=True)
class Phase:
    """What is being done with a cell, and the seconds of a call where they are known."""

    cell: str
    name: str
    seconds_a_call: float | None


@dataclass(frozen=True)
class Measured:
    """What came of a cell: fields of its record."""

    cell: str
    outcome: dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """The visit is over; what was not measured of it is not going to be."""


@dataclass(frozen=True)
class Lost:
    """The stand is gone, and with it what it had not told. `blameless`: none of its cells can have done that."""

    why: str
    blameless: bool = False


@dataclass(frozen=True)
class Said:
    """A message for the user."""

    text: str


Event = Surroundings | Started | Phase | Measured | Ended | Lost | Said


class UnfitError(InputError):
    """A stand's times do not belong in the run; why, in a line."""


@dataclass(eq=False)
class Stand:
    """A worker with its device. `kind`: the device in words, known when its surroundings are."""

    name: str
    kind: str | None = None


Tell = Callable[[Stand, Event], None]


class Fleet(Protocol):
    """Stands, and what is heard from them."""

    @property
    def alone(self) -> bool:
        """Whether there is one stand and never another: what it does not finish is not finished elsewhere."""
        ...

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of devices that there are, as far as that is known before anything is measured."""
        ...

    @property
    def busy(self) -> int:
        """How many visits are being made."""
        ...

    def idle(self) -> Sequence[Stand]:
        """The stands that can make a visit now."""
        ...

    def start(self, stand: Stand, task: Task) -> None:
        """Has the stand make a visit."""
        ...

    def turn(self, tell: Tell) -> None:
        """Waits until something is heard and tells it.

        Raises:
            UnavailableError: no stand is left, and none came in the time that one is waited for.
        """
        ...
