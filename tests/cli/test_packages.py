"""Operators that installed packages bring, whole and broken, as users of every command meet them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import SMALL

from lisabench import registry

EXAMPLE = Path(__file__).parents[2] / "examples" / "lisabench-example"
MODULE = """
from torch import nn


class Brought(nn.Module):
    "One linear layer."

    def __init__(self, dim, num_heads, grid, *, scale: float = 1.0):
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, x):
        return self.linear(x)


class Picky(Brought):
    def __init__(self, dim, num_heads, grid):
        raise RuntimeError("only on Sundays")
"""
POINTS = """[lisabench.operators]
brought = some_operators:Brought
broken = some_operators:Missing
exits = some_exit:Operator
number = some_operators:nn
"""


class Done(NamedTuple):
    code: Any
    out: str
    err: str


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Callable[..., Done]:
    """The program in this process, where of our operators there are two, and a package brings one that works and three that do not."""
    from lisabench.cli import main

    site = tmp_path / "site"
    info = site / "some_operators-1.2.dist-info"
    info.mkdir(parents=True)
    (site / "some_operators.py").write_text(MODULE)
    (site / "some_exit.py").write_text("print('chatter')\nraise SystemExit(3)\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-operators\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(site)
    ours = {point.name: point for point in metadata.entry_points(group=registry.PACKAGE) if point.value.startswith("some_")}
    assert len(ours) == 4
    monkeypatch.setattr(registry, "_installed", lambda: ours)
    monkeypatch.setattr(registry, "built_in", lambda: ["linear", "softmax"])
    registry._load.cache_clear()
    registry._load_installed.cache_clear()
    for name in ("some_operators", "some_exit"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def run(*args: str) -> Done:
        monkeypatch.setattr("sys.argv", ["lisabench", *args])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return Done(end.value.code, printed.out, printed.err)

    return run


def left_out(err: str) -> list[str]:
    """The names in the lines about operators that `all` leaves out."""
    return [line.split("'")[1] for line in err.splitlines() if line.startswith("left out: operator '")]


def test_ops_tells_where_each_comes_from_and_what_is_broken(program: Callable[..., Done]) -> None:
    done = program("ops")
    assert done.code == 0
    assert done.err == "chatter\n"
    *table, broken, exits, number = done.out.splitlines()
    (brought,) = [line for line in table if line.split()[:1] == ["brought"]]
    assert brought.endswith("package some-operators 1.2")
    assert table.index(brought) > [line.strip() for line in table].index("own")
    assert [line.split()[-2:] for line in table if line.split()[:1] == ["linear"]] == [["built", "in"]]
    assert broken.startswith("operator 'broken' of package some-operators 1.2 cannot be imported (AttributeError: ")
    assert broken.endswith("reinstall or remove that package")
    assert "SystemExit: 3" in exits
    assert "is no torch.nn.Module class" in number


def test_ops_in_json(program: Callable[..., Done]) -> None:
    lines = [json.loads(line) for line in program("ops", "--json").out.splitlines()]
    assert [line["name"] for line in lines] == ["softmax", "linear", "brought", "broken", "exits", "number"]
    assert all(set(line) == {"name", "error"} for line in lines[3:])


def test_the_page_has_the_built_in_ones_alone(program: Callable[..., Done]) -> None:
    page = program("ops", "--markdown").out
    assert "### linear" in page
    assert "brought" not in page
    assert "broken" not in page


def test_verify_goes_on_without_the_broken_ones(program: Callable[..., Done]) -> None:
    done = program("verify")
    assert done.code == 0
    assert left_out(done.err) == ["broken", "exits", "number"]
    assert [line.split()[0] for line in done.out.splitlines()[2:5]] == ["linear", "softmax", "brought"]
    assert "3 operators" in done.out
    flops = program("verify", "--flops", "--op", "all", "--json")
    assert flops.code == 0
    assert left_out(flops.err) == ["broken", "exits", "number"]
    assert {json.loads(line)["op"] for line in flops.out.splitlines()} == {"linear", "softmax", "brought"}


def test_scale_goes_on_without_the_broken_ones(program: Callable[..., Done]) -> None:
    args = ("scale", "--op", "all", "--tokens", "16", *SMALL, "--dry-run")
    done = program(*args, "--json")
    assert done.code == 0
    assert left_out(done.err) == ["broken", "exits", "number"]
    assert {json.loads(line)["op"] for line in done.out.splitlines()} == {"linear", "softmax", "brought"}
    assert left_out(program(*args, "--quiet").err) == []


def test_train_small_goes_on_without_the_broken_ones(program: Callable[..., Done], tmp_path: Path) -> None:
    done = program("train-small", "--op", "all", "--epochs", "1", "--seeds", "1", "--device", "cpu", "--out", "run")
    assert done.code == 0
    assert left_out(done.err) == ["broken", "exits", "number"]
    kept = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    assert {(record["op"], record["status"]) for record in kept} == {("linear", "ok"), ("softmax", "ok"), ("brought", "ok")}


@pytest.mark.parametrize("ops", ["broken", "linear,broken", "all,broken", "broken,all"])
@pytest.mark.parametrize("command", [("scale", "--tokens", "16"), ("verify",), ("train-small",)], ids=lambda command: command[0])
def test_one_that_is_named_must_be_there(command: tuple[str, ...], ops: str, program: Callable[..., Done], tmp_path: Path) -> None:
    done = program(*command, "--op", ops)
    assert done.code == 2
    assert done.out == ""
    last = done.err.splitlines()[-1]
    assert last.startswith("Error: operator 'broken' of package some-operators 1.2 cannot be imported")
    assert left_out(done.err) == []
    assert not (tmp_path / "reports").exists()


def test_a_broken_baseline_is_an_error(program: Callable[..., Done]) -> None:
    done = program("scale", "--op", "linear", "--baseline", "broken", "--tokens", "16")
    assert done.code == 2
    assert "cannot be imported" in done.err


def test_ops_of_a_broken_one(program: Callable[..., Done]) -> None:
    done = program("ops", "exits")
    assert done.code == 2
    assert done.out == ""
    assert "SystemExit: 3" in done.err


def test_a_constructor_that_raises_is_data(program: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told as a broken law, as it is for a user's own file, and the others go on."""
    point = metadata.EntryPoint(name="picky", value="some_operators:Picky", group=registry.PACKAGE)
    monkeypatch.setattr(registry, "_installed", lambda: {"picky": point})
    done = program("verify", "--op", "picky,linear")
    assert done.code == 1
    assert "RuntimeError: only on Sundays" in done.out
    assert [line.split()[0] for line in done.out.splitlines()[2:4]] == ["picky", "linear"]
    trained = program("train-small", "--op", "picky", "--no-baseline", "--epochs", "1", "--seeds", "1", "--device", "cpu", "--out", "run")
    assert trained.code == 0
    assert "RuntimeError: only on Sundays" in trained.out
    assert program("scale", "--op", "picky", "--no-baseline", "--tokens", "16", *SMALL, "--dry-run").code == 0


def test_the_example_package_installs_and_is_listed(lisabench: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """`.ci/run` verifies and measures it."""
    pytest.importorskip("setuptools", minversion="77")
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([sys.executable, *install, "--target", str(site), str(source)], check=True)
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])

    assert "galerkin" in lisabench("ops", PYTHONPATH=path).stdout
    (one,) = lisabench("ops", "galerkin", "--json", PYTHONPATH=path).stdout.splitlines()
    assert json.loads(one)["origin"] == "package lisabench-example 0.1.0"
