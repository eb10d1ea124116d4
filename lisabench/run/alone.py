"""The fleet of one stand: a worker on this machine, whose visits are made in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from lisabench.errors import UnavailableError
from lisabench.run.fleet import Ended, Stand, Task, Tell
from lisabench.run.local import Worker
from lisabench.run.measuring import Measurer


class Alone:
    """This machine's one device."""

    alone, kinds = True, tuple[str, ...]()

    def __init__(self, worker: Worker) -> None:
        self.stand = Stand(worker.device)
        self._measurer = Measurer(worker)
        self._task: Task | None = None

    @property
    def busy(self) -> int:
        return 0 if self._task is None else 1

    def idle(self) -> Sequence[Stand]:
        return () if self._task else (self.stand,)

    def start(self, stand: Stand, task: Task) -> None:
        self._task = task

    def turn(self, tell: Tell) -> None:
        """Makes the visit. Where there is none, the plan is for other kinds of devices, as far as is known of this one."""
        if self._task is not None:
            self._measurer.visit(self._task, lambda event: tell(self.stand, event))
            self._task = None
            tell(self.stand, Ended())
        elif self.stand.kind is None:
            self._measurer.surroundings(lambda event: tell(self.stand, event))
        else:
            raise UnavailableError(f"this machine has {self.stand.kind} alone")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._measurer.worker.kill()
