"""Figures that are drawn by several processes at once: a large run has a dozen of them, each a second or two of one core."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver, get_all_start_methods, get_context, parent_process
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from lisabench.render.page import save

_WORTH_IT = 500  # rows drawn: fewer take less time than processes need to start
_MOST = 4  # processes, of 150 MB each
SELDOM = 100_000, 20, 20
"""When to look for garbage (gc.set_threshold): as usual it takes a fifth of the time in which figures are drawn."""
_METHOD = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"


@dataclass(frozen=True)
class Drawing:
    """A figure that is yet to be drawn, by draw(frame, **given), which gives None where there is nothing to show."""

    name: str
    draw: Callable[..., Figure | None]
    frame: pd.DataFrame
    given: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, formats: Sequence[str]) -> list[Path]:
        """Draws it and writes it as FOLDER/NAME.FORMAT; returns the paths. Raises: see `page.save`."""
        figure = self.draw(self.frame, **self.given)
        return save(figure, folder, self.name, formats) if figure else []


def prepare() -> None:
    """Lets the process that all drawing ones are forked from begin to import what they need; for who still has a journal to read."""
    if _METHOD == "forkserver":
        forkserver.set_forkserver_preload(["lisabench.render.figures"])
        forkserver.ensure_running()


@contextmanager
def begun(drawings: Sequence[Drawing], folder: Path, formats: Sequence[str]) -> Iterator[Iterator[Path]]:
    """Begins with the figures in processes of their own, where there are cores and figures enough; what is entered draws what is left
    and yields the paths, in order. On leaving, what has not been begun is given up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(cores - 1, len(drawings) - 1, _MOST)
    if processes < 1 or sum(len(drawing.frame) for drawing in drawings) < _WORTH_IT:
        yield (path for drawing in drawings for path in drawing.write(folder, formats))
        return
    prepare()
    left, futures = deque(drawings), dict[str, Future[list[Path]]]()

    def feed() -> None:
        """Gives a process one figure after another, each only when it is free: what nobody has begun the caller can draw, and in a pool
        whose process was killed no future is left that was cancelled (Python 3.11 cannot close such a pool)."""
        while left:
            try:
                drawing = left.popleft()
                futures[drawing.name] = pool.submit(drawing.write, folder, formats)
            except (IndexError, BrokenProcessPool):  # another was quicker, or the pool is no more
                return
            wait([futures[drawing.name]])

    with (
        ProcessPoolExecutor(processes, mp_context=get_context(_METHOD), initializer=_begin) as pool,
        ThreadPoolExecutor(processes) as feeders,
    ):
        try:
            fed = [feeders.submit(feed) for _ in range(processes)]
            yield _drawn(drawings, left, futures, fed, folder, formats)
        finally:
            left.clear()


def _drawn(
    drawings: Sequence[Drawing],
    left: deque[Drawing],
    futures: Mapping[str, Future[list[Path]]],
    fed: Sequence[Future[None]],
    folder: Path,
    formats: Sequence[str],
) -> Iterator[Path]:
    own: dict[str, list[Path]] = {}
    while left:
        with suppress(IndexError):  # a process was quicker
            drawing = left.pop()
            own[drawing.name] = drawing.write(folder, formats)
    wait(fed)
    for drawing in drawings:
        try:
            yield from own[drawing.name] if drawing.name in own else futures[drawing.name].result()
        except (KeyError, BrokenProcessPool):  # the process was killed, for want of memory say
            yield from drawing.write(folder, formats)


def _begin() -> None:
    """A drawing process leaves Ctrl-C to its parent, and ends with it even where that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    gc.set_threshold(*SELDOM)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
