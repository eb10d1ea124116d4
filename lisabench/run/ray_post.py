"""A stand's process on a node of a Ray cluster: has a device to itself, makes visits, and is asked what it has to tell."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue

import lisabench
from lisabench import registry
from lisabench.errors import InputError, LisaBenchError
from lisabench.run.cores import Cores
from lisabench.run.fleet import Ended, Event, Lost, Phase, Started, Task
from lisabench.run.local import Worker
from lisabench.run.measuring import Measurer
from lisabench.sweep import Cell


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What the driver has a post measure with. `files`: the content of the user's own operators, by name."""

    lisabench: str
    device: str
    threads: int | None
    command: list[str]
    files: Mapping[str, bytes]


class Post:
    """Runs as a Ray actor. One thread measures, for as long as the process lives: a worker ends with the thread that started it."""

    def __init__(self, setup: Setup) -> None:
        if setup.lisabench != lisabench.__version__:
            raise LisaBenchError(f"lisabench {lisabench.__version__} is installed there and {setup.lisabench} drives the run")
        os.environ.pop("OMP_NUM_THREADS", None)  # Ray's own doing: the threads are given to torch
        self._names = {name: _placed(name, content) for name, content in setup.files.items()}
        self._cores = Cores.claim(setup.threads or 1) if setup.device == "cpu" and sys.platform == "linux" else None
        worker = Worker(
            device=setup.device, threads=setup.threads, command=setup.command, cores=self._cores.numbers if self._cores else None
        )
        self._measurer = Measurer(worker)
        self._tasks: SimpleQueue[Task] = SimpleQueue()
        self._events: SimpleQueue[Event] = SimpleQueue()
        threading.Thread(target=self._measure, daemon=True).start()

    def start(self, task: Task) -> None:
        """Has a visit made."""
        self._tasks.put(task)

    def hear(self, seconds: float) -> list[Event]:
        """What there is to tell: at once where something came of a cell, else after so many seconds, the last word on each cell."""
        found: list[Event] = []
        deadline = time.monotonic() + seconds
        while not found or isinstance(found[-1], (Started, Phase)):
            try:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                break
            if found and isinstance(event, Phase) and isinstance(found[-1], Phase):
                found.pop()  # the later word is enough
            found.append(event)
        return found

    def _measure(self) -> None:
        try:
            self._measurer.surroundings(self._events.put)
            while True:
                self._measurer.visit(self._here(self._tasks.get()), self._events.put)
                self._events.put(Ended())
        except LisaBenchError as error:  # the worker does not start
            self._events.put(Lost(str(error), blameless=True))
        except Exception as error:
            self._events.put(Lost(f"{type(error).__name__}: {error}"))

    def _here(self, task: Task) -> Task:
        """The task with the names that the user's own operators have on this node; keys of cells go by content."""
        cells = [self._own(cell) for cell in task.cells]
        baseline = self._names.get(task.settings.baseline or "", task.settings.baseline)
        return replace(task, cells=cells, beside=task.beside and self._own(task.beside), settings=replace(task.settings, baseline=baseline))

    def _own(self, cell: Cell) -> Cell:
        return replace(cell, op=self._names.get(cell.op, cell.op))


def _placed(name: str, content: bytes) -> str:
    """The operator's name on this node: as it is where the same file is there, else that of a copy."""
    path, _, class_name = name.rpartition(":")
    try:
        if Path(path).is_file() and Path(path).read_bytes() == content:
            registry.check_name(name)
            return name
    except (OSError, InputError):
        pass
    copy = Path(tempfile.mkdtemp(prefix="lisabench-operator-")) / Path(path).name
    copy.write_bytes(content)
    return f"{copy}:{class_name}"
