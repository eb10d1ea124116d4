"""Figures drawn by other processes: the same bytes as drawn here, whatever becomes of those processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from matplotlib.figure import Figure

from lisabench.errors import InputError, RunError
from lisabench.render import drawing
from lisabench.render.drawing import Drawing, begun

FORMATS = ("pdf", "png", "svg")


def line(frame: pd.DataFrame, *, upto: float) -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.add_axes((0.1, 0.1, 0.8, 0.8)).plot(frame["x"], frame["x"] * upto)
    return figure


def nothing(frame: pd.DataFrame) -> Figure | None:
    return None


def killed_unless_here(frame: pd.DataFrame, *, here: int) -> Figure:
    if os.getpid() != here:
        os.kill(os.getpid(), signal.SIGKILL)
    return line(frame, upto=1)


def refused(frame: pd.DataFrame) -> Figure:
    raise InputError("given: this; valid: that")


def slow(frame: pd.DataFrame) -> Figure:
    time.sleep(60)
    return line(frame, upto=1)


FRAME = pd.DataFrame({"x": range(200)})


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three cores, whatever this machine has."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(3), raising=False)


@pytest.mark.usefixtures("cores")
def test_other_processes_draw_the_same_bytes_in_the_same_order(tmp_path: Path) -> None:
    drawings = [*(Drawing(f"to-{upto}", line, FRAME, {"upto": upto}) for upto in range(1, 6)), Drawing("none", nothing, FRAME)]
    one_by_one = [path for each in drawings for path in each.write(tmp_path / "here", FORMATS)]
    with begun(drawings, tmp_path / "there", FORMATS) as drawn:
        assert psutil.Process().children(recursive=True)
        paths = list(drawn)
    assert (
        [path.name for path in paths]
        == [path.name for path in one_by_one]
        == [f"to-{upto}.{form}" for upto in range(1, 6) for form in FORMATS]
    )
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in one_by_one]


@pytest.mark.usefixtures("cores")
def test_what_a_killed_process_was_to_draw_is_drawn_here(tmp_path: Path) -> None:
    drawings = [Drawing(f"figure-{place}", killed_unless_here, FRAME, {"here": os.getpid()}) for place in range(4)]
    with begun(drawings, tmp_path, ("png",)) as drawn:
        assert sorted(path.name for path in drawn) == [f"figure-{place}.png" for place in range(4)]


@pytest.mark.usefixtures("cores")
def test_what_is_wrong_is_told_as_it_is_here(tmp_path: Path) -> None:
    drawings = [Drawing("wrong", refused, FRAME), *(Drawing(f"right-{place}", line, FRAME, {"upto": 1}) for place in range(3))]
    with pytest.raises(InputError, match="given: this; valid: that"), begun(drawings, tmp_path, ("png",)) as drawn:
        list(drawn)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(RunError, match="cannot be written"), begun(drawings[1:], file / "figures", ("png",)) as drawn:
        list(drawn)


@pytest.mark.usefixtures("cores")
def test_a_few_rows_are_drawn_without_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise AssertionError("a process was begun")

    monkeypatch.setattr(drawing, "ProcessPoolExecutor", none)
    with begun([Drawing("few", line, FRAME.head(3), {"upto": 1})], tmp_path, ("png",)) as drawn:
        assert [path.name for path in drawn] == ["few.png"]


PARENT = """
import os, sys
from pathlib import Path
sys.path.insert(0, {here!r})
os.sched_getaffinity = lambda _: range(3)
from test_drawing import FRAME, Drawing, begun, slow
if __name__ == "__main__":
    with begun([Drawing(str(place), slow, FRAME) for place in range(4)], Path({out!r}), ("png",)) as drawn:
        print("begun", flush=True)
        list(drawn)
"""


def test_drawing_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(here=str(Path(__file__).parent), out=str(tmp_path)))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "begun\n"
        children = psutil.Process(parent.pid).children(recursive=True)
        assert children
        parent.kill()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
