"""`lisabench new` as its users meet it, and the file that it writes."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, only_error

from lisabench.cli import new
from lisabench.errors import RunError

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_the_file_keeps_all_laws_and_the_next_commands_work(lisabench: Run, tmp_path: Path) -> None:
    done = lisabench("new", "my_op.py")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    text = (tmp_path / "my_op.py").read_text()
    assert len(text.splitlines()) < 80
    assert "class MyOp(MultiHeadMixer)" in text
    assert not {"MyMixer", "my_mixer"} & set(text.replace("(", " ").replace('"', " ").split())
    commands = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("  lisabench ")]
    assert [command[0] for command in commands] == ["verify", "verify", "scale", "ops"]

    found = [json.loads(line) for line in lisabench("verify", "--op", "my_op.py:MyOp", "--json").stdout.splitlines()]
    assert found
    assert {finding["law"] for finding in found if finding["holds"] is not True} == set()
    rows = [json.loads(line) for line in lisabench("verify", "--flops", "--op", "my_op.py:MyOp", "--json").stdout.splitlines()]
    assert [(row["holds"], row["coverage"]) for row in rows] == [(True, pytest.approx(1))] * 2
    measured = lisabench("scale", "--op", "my_op.py:MyOp", "--no-baseline", "--tokens", "16", *SMALL, "--json")
    assert json.loads(measured.stdout)["status"] == "ok"
    assert "temperature=1.0  (float)" in lisabench("ops", "my_op.py:MyOp").stdout


def test_its_predicted_bytes_are_near_what_is_taken(tmp_path: Path) -> None:
    """To the same bounds as those of the built-in operators."""
    from lisabench.measure.memory import trace_call
    from lisabench.run.cell import build
    from lisabench.sweep import Cell
    from lisabench.workload import Grid, Workload

    (tmp_path / "my_mixer.py").write_text(new.template_text())
    for mode in ("forward", "train"):
        workload = Workload(grid=Grid(27, 31), mode=mode)
        cell = Cell(op=f"{tmp_path}/my_mixer.py:MyMixer", options={"temperature": 1.0}, workload=workload)
        subject = build(cell, seed=0)
        with subject.gradients():
            call = subject.call()
            call()
            taken = trace_call(call).transient_bytes + 3 * workload.tokens * workload.dim * 4
        assert cell.bytes_needed is not None
        assert 0.6 * taken < cell.bytes_needed < 2 * taken


def test_a_folder_with_spaces_is_quoted(lisabench: Run, tmp_path: Path) -> None:
    (tmp_path / "my folder").mkdir()
    done = lisabench("new", "my folder/x2.py")
    assert done.returncode == 0
    assert "lisabench verify --op 'my folder/x2.py:X2'" in done.stdout
    assert lisabench("ops", "my folder/x2.py:X2").returncode == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("there.py", "is there already and is left as it is"),
        ("folder.py", "is there already"),
        ("my_op.txt", "write a name that ends in .py"),
        ("my_op", "write a name that ends in .py"),
        ("my-op.py", "write letters, digits and _"),
        ("2d.py", "write letters, digits and _"),
        ("class.py", "write letters, digits and _"),
        ("none.py", "write letters, digits and _"),
        ("_.py", "write letters, digits and _"),
        ("nowhere/my_op.py", "folder 'nowhere' is not there"),
        ("there.py/my_op.py", "folder 'there.py' is not there"),
        ("x" * 300 + "/my_op.py", "is not there"),
        ("cost.py", "would hold a class Cost"),
        ("math.py", "would hide the module math"),
        ("torch.py", "would hide the module torch"),
    ],
)
def test_new_refuses(name: str, words: str, lisabench: Run, tmp_path: Path) -> None:
    (tmp_path / "there.py").write_text("mine\n")
    (tmp_path / "folder.py").mkdir()
    before = sorted(tmp_path.rglob("*"))
    done = lisabench("new", name)
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in only_error(done)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "there.py").read_text() == "mine\n"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that nobody can write")
def test_a_folder_that_cannot_be_written(lisabench: Run) -> None:
    done = lisabench("new", "/proc/my_op.py")
    assert done.returncode == 4
    assert "'/proc/my_op.py' cannot be written" in only_error(done)


def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, file: Path, *_: Any, **__: Any) -> None:
            file.touch()

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None: ...

        def write(self, text: str) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(new, "open", Full, raising=False)
    with pytest.raises(RunError, match="No space left"):
        new.new(tmp_path / "my_op.py")
    assert list(tmp_path.iterdir()) == []
