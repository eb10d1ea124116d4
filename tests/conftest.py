"""What many tests share: the installed program, run for real, and operators written to a file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lisabench.run.local import Worker
    from lisabench.sweep import Cell

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before torch is imported: spinning threads slow the many small calls of the tests
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="lisabench-tests-")  # measured peaks are kept for the tests alone
PROGRAM = str(Path(sys.executable).with_name("lisabench"))
SMALL = ("--device", "cpu", "--dim", "32", "--heads", "2", "--cell-seconds", "0.1")


@pytest.fixture
def lisabench(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the program as a user would, in an empty folder."""

    def run(*args: Any, timeout: float = 120, **env: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "COLUMNS": "110", **env}
        return subprocess.run(
            [PROGRAM, *map(str, args)], capture_output=True, text=True, timeout=timeout, cwd=tmp_path, env=environment, check=False
        )

    return run


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Callable[..., tuple[int, str, str]]:
    """Exit code, stdout and stderr of a report, in this process: starting one takes longer than most of these."""
    from lisabench.cli import main

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        monkeypatch.setattr("sys.argv", ["lisabench", "report", *args])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture
def own_operators(tmp_path: Path) -> Path:
    """A user's file of operators, some of them hostile."""
    path = tmp_path / "own.py"
    path.write_text(
        """
import os
import time

import torch
from torch import nn


class Plain(nn.Module):
    \"\"\"One linear layer.\"\"\"

    def __init__(self, dim, num_heads, grid, *, scale: float = 1.0):
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        self.scale = scale

    def forward(self, x):
        return self.scale * self.linear(x)


class Sleeps(Plain):
    def forward(self, x):
        time.sleep(3600)


class Dies(Plain):
    def forward(self, x):
        print("last words", flush=True)
        os.kill(os.getpid(), 11)


class Raises(Plain):
    def forward(self, x):
        raise RuntimeError("no such luck\\nsecond line")


class NotANumber(Plain):
    def forward(self, x):
        return self.linear(x) * float("nan")


class Narrow(Plain):
    def forward(self, x):
        return self.linear(x)[..., :3]


class OutOfMemory(Plain):
    def forward(self, x):
        if x.shape[1] > 16:
            return torch.empty(2**46)
        return self.linear(x)


class OnlyMix(nn.Module):
    def mix(self, x):
        return 2 * x


class ChangesItsInput(Plain):
    def forward(self, x):
        return x.mul_(1.5)


class Widens(Plain):
    def forward(self, x):
        return x.double()


class Odd(nn.Module):
    def __init__(self, *, dim, num_heads, grid, act=nn.GELU, bound=float("inf"), depth: int = 2):
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, x):
        return self.linear(x)


class Needy(nn.Module):
    def __init__(self, dim, colour):
        super().__init__()
"""
    )
    return path


def measure(worker: Worker, of: Cell, timeout: float = 120) -> dict[str, Any]:
    """What a visit to this cell alone finds, or the status and reason of its failure."""
    from lisabench.measure.latency import Limits
    from lisabench.run.visit import PlaceFailedError, Visit

    visit = Visit(
        worker=worker,
        limits=Limits(seconds=0.05, at_least_seconds=0.0, warmup_seconds=0.01),
        seed=0,
        baseline=None,
        progress=lambda _: lambda *_: None,
        time_left=lambda spent: timeout - spent,
    )
    failures: list[PlaceFailedError] = []
    try:
        place = visit.open(of, {})
        visit.rounds(failures.append, enough=lambda: False)
        return failures[0].outcome if failures else place.record | visit.account(place, best_sentinel=None)
    except PlaceFailedError as failure:
        return failure.outcome
    finally:
        worker.close_cells()


def records(run: Path) -> list[dict[str, Any]]:
    """The records of a run, as they stand in the file."""
    return [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]


def only_error(done: subprocess.CompletedProcess[str]) -> str:
    """The one line `Error: ...` on stderr, which must stand there alone."""
    lines = done.stderr.splitlines()
    assert "Traceback" not in done.stderr
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("Error: ")
    return lines[0]
