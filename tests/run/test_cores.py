"""Cores are claimed once, whoever claims them, and are free again when their holder is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from lisabench.errors import UnavailableError
from lisabench.run.cores import Cores

HOLD = "import sys, time\nfrom lisabench.run.cores import Cores\nheld = Cores.claim(1)\nprint(held.numbers[0], flush=True)\ntime.sleep(600)"


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """Claims of these tests alone; programs that they start find them too."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def test_no_core_is_claimed_twice_and_the_refusal_names_them() -> None:
    count = len(os.sched_getaffinity(0))
    with Cores.claim(count) as held:
        assert held.numbers == sorted(os.sched_getaffinity(0))
        with pytest.raises(UnavailableError, match="1 cores are wanted and 0 are free: others measure on core"):
            Cores.claim(1)
    with Cores.claim(count) as held:
        assert len(held.numbers) == count


def test_more_cores_than_there_are() -> None:
    count = len(os.sched_getaffinity(0))
    with pytest.raises(UnavailableError, match=f"this process may run on {count}"):
        Cores.claim(count + 1)
    with Cores.claim(count):
        pass


def test_another_program_s_core_is_free_when_it_was_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        taken = int(other.stdout.readline())
        with pytest.raises(UnavailableError, match="others measure on"):
            Cores.claim(len(os.sched_getaffinity(0)))
        other.kill()
        other.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with Cores.claim(len(os.sched_getaffinity(0))) as held:
                assert taken in held.numbers
                return
        except UnavailableError:
            time.sleep(0.05)
    raise AssertionError("the core stayed claimed")
