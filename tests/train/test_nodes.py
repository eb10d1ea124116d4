"""Two nodes, each with a folder of its own, train what one process does; what parts them ends both in a line."""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import records
from test_train_engine import planned

from lisabench.train.engine import facts
from lisabench.train.team import is_loss

ARGS = ("--op", "linear", "--no-baseline", "--patch", "2", "--seeds", "1", "--batch", "50", "--device", "cpu", "--threads", "1")
MIXER = """
import os

from torch import nn


class Mixer(nn.Module):
    def __init__(self, dim, num_heads, grid):
        super().__init__()
        self.linear, self.calls = nn.Linear(dim, dim), 0

    def forward(self, x):
        self.calls += self.training
        if self.calls == 20 and os.environ.get("RANK") == "{failing}":
            raise ValueError("it does not like this batch")
        return self.linear(x)
"""


@dataclass
class Node:
    """One torchrun, in a folder that no other node sees."""

    folder: Path
    agent: subprocess.Popen[str]

    @property
    def worker(self) -> psutil.Process:
        return psutil.Process(self.agent.pid).children()[0]

    @property
    def holds(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def ended(self) -> Ended:
        out, err = self.agent.communicate(timeout=120)
        return Ended(code=self.agent.returncode, out=out, err=err)


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("Error: ")]


Start = Callable[..., list[Node]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a node in each folder; `more` are further words of each one's command, `torchrun` those of torchrun."""
    with ExitStack() as stack:

        def begun(
            *words: str, folders: tuple[str, ...] = ("a", "b"), more: tuple[tuple[str, ...], ...] = ((), ()), torchrun: tuple[str, ...] = ()
        ) -> list[Node]:
            meeting = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--rdzv-id", "training")
            nodes = []
            for name, own in zip(folders, more, strict=True):
                folder = tmp_path / name
                folder.mkdir(exist_ok=True)
                command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", *meeting, *torchrun]
                agent = subprocess.Popen(
                    [*command, "-m", "lisabench", "train-small", "--out", "run", *words, *own],
                    cwd=folder,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
                )
                stack.callback(stop, agent)
                nodes.append(Node(folder=folder, agent=agent))
            return nodes

        yield begun


def stop(agent: subprocess.Popen[str]) -> None:
    if agent.poll() is None:
        for process in [*psutil.Process(agent.pid).children(recursive=True), agent]:
            process.kill()
    agent.communicate()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def alone(folder: Path, *words: str) -> dict[str, Any]:
    """The record that one process comes to."""
    folder.mkdir()
    command = [sys.executable, "-m", "lisabench", "train-small", "--out", "run", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    (record,) = records(folder / "run")
    return record


def same_result(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert (found["cell"], found["status"], len(found["curve"])) == (wanted["cell"], "ok", wanted["epochs"])
    for one, other in zip(found["curve"], wanted["curve"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["top1"] == pytest.approx(other["top1"], abs=1 / wanted["test_images"])


def leading(nodes: list[Node]) -> tuple[Node, Node]:
    """The node that has the run, and the other, once an epoch is kept."""
    until = time.monotonic() + 90
    while time.monotonic() < until:
        for one, other in (nodes, nodes[::-1]):
            if list(one.folder.glob("run/checkpoints/*.pt")):
                return one, other
        time.sleep(0.05)
    raise AssertionError("no node has kept an epoch")


@pytest.mark.slow
def test_two_nodes_give_the_result_of_one_process_and_one_of_them_writes(start: Start, tmp_path: Path) -> None:
    nodes = start(*ARGS, "--epochs", "2", "--json")
    ends = [node.ended() for node in nodes]
    assert [end.code for end in ends] == [0, 0], [end.err for end in ends]
    (leader, printed), (other, silent) = sorted(zip(nodes, ends, strict=True), key=lambda pair: pair[1].out, reverse=True)
    (record,) = records(leader.folder / "run")
    assert [json.loads(line) for line in printed.out.splitlines()] == [record]
    assert (silent.out, other.holds, leader.holds) == ("", [], ["run"])
    assert (record["processes"], record["nodes"]) == (2, 2)
    whole = alone(tmp_path / "one", *ARGS, "--epochs", "2")
    assert (whole["processes"], whole["nodes"]) == (1, 1)
    same_result(record, whole)


@pytest.mark.slow
def test_a_node_that_is_killed_ends_all_and_resume_comes_to_the_same_result(start: Start, tmp_path: Path) -> None:
    words = (*ARGS, "--epochs", "6")
    leader, other = leading(start(*words))
    other.worker.send_signal(signal.SIGKILL)
    ends = [leader.ended(), other.ended()]
    assert all(end.code for end in ends)
    (said,) = ends[0].errors
    assert said.startswith("Error: another process of this training is gone (")
    assert said.endswith("); start all nodes again, with --resume")
    assert records(leader.folder / "run") == []
    assert other.holds == []
    # The node without the run comes first: it may be the one that torchrun counts as the first.
    again = start("--resume", folders=(other.folder.name, leader.folder.name))
    ends = [node.ended() for node in again]
    assert [end.code for end in ends] == [0, 0], [end.err for end in ends]
    (record,) = records(leader.folder / "run")
    assert other.holds == []
    same_result(record, alone(tmp_path / "one", *words))


@pytest.mark.slow
def test_what_torchrun_starts_again_goes_on(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    words = (*ARGS, "--epochs", "6")
    nodes = start(*words, torchrun=("--max-restarts", "1"))
    leader, other = leading(nodes)
    other.worker.send_signal(signal.SIGKILL)
    ends = [node.ended() for node in nodes]
    assert [end.code for end in ends] == [0, 0], [end.err for end in ends]
    (record,) = records(leader.folder / "run")
    assert other.holds == []
    same_result(record, alone(tmp_path / "one", *words))


def other_version(second: Path) -> None:
    (second / "sitecustomize.py").write_text("import lisabench\n\nlisabench.__version__ = '0.0.1'\n")


def other_operator(second: Path) -> None:
    for place, folder in enumerate((second.with_name("a"), second)):
        folder.mkdir(exist_ok=True)
        (folder / "mixer.py").write_text(MIXER.format(failing="none") + "#" * place)


def nothing(second: Path) -> None: ...


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prepare", "words", "own", "told"),
    [
        (other_version, (), (), "differs in lisabench ('0."),
        (other_operator, ("--op", "mixer.py:Mixer"), (), "differs in the file of operator mixer.py:Mixer ('"),
        (nothing, (), ("--batch", "64"), "differs in recipe.batch ("),
        (nothing, (), ("--budget", "900"), "differs in having a --budget (True, and False in process 0"),
        (nothing, (), ("--threads", "2"), "differs in its device ('"),
        (nothing, (), ("--data", "pictures"), "unknown --data 'pictures'; valid: digits"),
    ],
    ids=["version", "operator", "command", "budget", "device", "data"],
)
def test_what_differs_between_nodes_is_told_in_a_line_that_names_one(
    prepare: Callable[[Path], None], words: tuple[str, ...], own: tuple[str, ...], told: str, start: Start, tmp_path: Path
) -> None:
    second = tmp_path / "b"
    second.mkdir()
    prepare(second)
    nodes = start(*ARGS, "--epochs", "2", *words, more=((), own))
    held = [node.holds for node in nodes]
    ends = [node.ended() for node in nodes]
    assert all(end.code for end in ends)
    (said,) = ends[0].errors + ends[1].errors
    assert said.startswith(f"Error: process 1 on {platform.node()}")
    assert told in said
    assert any("exitcode  : 2" in end.err for end in ends)
    assert [[name for name in node.holds if name != "__pycache__"] for node in nodes] == held


@pytest.mark.slow
def test_a_training_that_fails_on_another_node_is_recorded_with_its_reason(start: Start, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mixer.py").write_text(MIXER.format(failing=1))
    ends = [node.ended() for node in start(*ARGS, "--op", "mixer.py:Mixer", "--epochs", "2")]
    assert all(end.code for end in ends)
    (run,) = tmp_path.glob("*/run")
    (record,) = (record for record in records(run) if ":" in record["op"])
    assert record["status"] == "error"
    assert record["reason"] == f"process 1 on {platform.node()}: ValueError: it does not like this batch"
    assert any(record["reason"].split(": ", 1)[1] in line for end in ends for line in end.errors)


@pytest.mark.slow
def test_restarts_that_would_be_in_vain_are_refused_before_anything_is_begun(start: Start) -> None:
    nodes = start(*ARGS, "--epochs", "2", torchrun=("--max-restarts", "1"))
    ends = [node.ended() for node in nodes]
    assert all(end.code for end in ends)
    lines = {line for end in ends for line in end.errors}
    assert lines
    assert all("set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 on all nodes" in line for line in lines)
    assert [node.holds for node in nodes] == [[], []]


def test_images_and_operators_of_other_content_are_other_facts() -> None:
    plan = planned("lisa", "softmax", data_digest="one")
    assert facts(plan, "cpu") == facts(plan | {"command": ["another"]}, "cpu")
    other = facts(plan | {"data_digest": "two"}, "cpu")
    assert {name for name, value in facts(plan, "cpu").items() if other[name] != value} == {"the images of digits"}


def test_a_process_that_is_gone_is_told_from_what_an_operator_raises() -> None:
    gone = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [10.0.0.7]:1695: Connection reset by peer"
    assert is_loss(RuntimeError(gone))
    assert not is_loss(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_loss(ValueError(gone))
