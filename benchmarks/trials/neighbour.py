"""A busy neighbour: a process that spins on one core, or one that copies memory without end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
STREAMED_BYTES = 2**27  # more than the last-level cache of most CPUs has for one core


@dataclass
class Busy:
    """How many cores the neighbour kept at work while it was there; None where the system does not tell."""

    cores: float | None = None


@contextmanager
def neighbour(kind: str) -> Iterator[Busy]:
    """A neighbour that is there within the block, and killed at its end however that comes."""
    import psutil

    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.trials.neighbour", kind],
        stdin=subprocess.PIPE,  # it ends when this is closed, which our own death does
        stdout=subprocess.PIPE,
        cwd=TOP,
    )
    busy = Busy()
    try:
        assert process.stdout is not None
        process.stdout.readline()
        started, watched = time.perf_counter(), psutil.Process(process.pid)
        before = sum(watched.cpu_times()[:2])
        yield busy
        busy.cores = (sum(watched.cpu_times()[:2]) - before) / (time.perf_counter() - started)
    finally:
        process.kill()
        process.communicate()


def spin() -> None:
    """Keeps the last of the allowed cores busy."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    _ready()
    while True:
        pass


def stream() -> None:
    """Copies memory, on whichever core the system gives."""
    import numpy as np

    source = np.ones(STREAMED_BYTES, dtype=np.uint8)
    target = source.copy()
    _ready()
    while True:
        np.copyto(target, source)


KINDS: dict[str, Callable[[], None]] = {"spin": spin, "stream": stream}
WORDS = {"spin": "a process that spins on one core", "stream": "a process that copies memory"}


def _ready() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    print("ready", flush=True)


def _end_with_parent() -> None:
    sys.stdin.buffer.read(1)
    os._exit(0)


if __name__ == "__main__":
    KINDS[sys.argv[1]]()
