"""`lisabench verify` with its device and its FLOP audit, as users meet them."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import only_error
from rich.console import Console

from lisabench import registry
from lisabench.cli.verify import COLUMNS, print_audit
from lisabench.run.audit import audit, audited_workload

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_flops_of_all_operators_are_what_is_counted(lisabench: Run) -> None:
    done = lisabench("verify", "--flops")
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in registry.names())
    assert "1 multiply-add = 2 FLOPs" in done.stdout
    table, _, _ = done.stdout.partition("Convention")
    assert max(map(len, table.splitlines())) <= 110
    assert all(column.split()[-1] in table for column in COLUMNS)


def test_flops_as_json_lines_with_the_engine_asked_for(lisabench: Run) -> None:
    done = lisabench("verify", "--flops", "--op", "lisa", "--op-option", "engine=dense", "--json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["direction"] for row in rows] == ["forward", "backward"]
    for row in rows:
        assert row["options"]["engine"] == "dense"
        assert row["coverage"] == pytest.approx(1, abs=0.01)
        assert row["holds"]
    assert rows[1]["fvcore"] is None
    assert "no backward" in rows[1]["absent"]["fvcore"]


def test_flops_of_own_operators(lisabench: Run, own_operators: Path) -> None:
    done = lisabench("verify", "--flops", "--op", "own.py:Plain,own.py:Raises")
    assert done.returncode == 1
    assert "Plain forward: the operator states no cost" in done.stdout
    assert "Raises forward: RuntimeError: no such luck" in done.stdout
    assert "2 of 4 FLOP figures are off or absent" in only_error(done)
    assert lisabench("verify", "--flops", "--op", "own.py:Plain").returncode == 0


def test_a_wrong_formula_is_told_with_its_parts(lisabench: Run, tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text(
        "from torch import nn\n"
        "from lisabench.contract import Cost, Operator\n"
        "class Half(nn.Module):\n"
        "    def __init__(self, dim, num_heads, grid):\n"
        "        super().__init__()\n"
        "        self.linear = nn.Linear(dim, dim)\n"
        "    def mix(self, x):\n"
        "        return self.linear(x).exp()\n"
        "OPERATOR = Operator(name='half', title='', module=Half, source='', formula='', time_order='', memory_order='',\n"
        "    cost=lambda w: Cost(mix_flops=4.0 * w.batch * w.tokens * w.dim**2, transient_bytes=0, saved_bytes=0, traffic_bytes=0))\n"
    )
    done = lisabench("verify", "--flops", "--op", "half.py:Half")
    assert done.returncode == 1
    assert "torch counts addmm 50.0%: 50.0% is not counted" in done.stdout
    assert "fvcore counts linear 50.0%: 50.0% is not counted" in done.stdout
    assert "without a count ran exp" in done.stdout
    only_error(done)


def test_a_narrow_terminal_drops_columns_and_says_which() -> None:
    rows = audit("softmax_dense", registry.load("softmax_dense").resolve({}))
    printed = {}
    for width in (60, 110):
        console = Console(file=io.StringIO(), width=width)
        print_audit(console, rows, audited_workload())
        assert isinstance(console.file, io.StringIO)
        printed[width] = console.file.getvalue()
    table, _, rest = printed[60].partition("Convention")
    assert max(map(len, table.splitlines())) <= 60
    assert "softmax_dense" in table
    assert "100.0%" in table
    assert "Left out on 60 columns: stock torch, stock fvcore, stock misses, not counted; --json has all." in rest
    assert "Left out" not in printed[110]


def test_laws_on_a_device(lisabench: Run) -> None:
    done = lisabench("verify", "--op", "linear", "--device", "auto", "--json")
    assert done.returncode == 0
    assert {json.loads(line)["holds"] for line in done.stdout.splitlines()} == {True}


def test_one_broken_law_of_a_file_in_a_folder_with_brackets(lisabench: Run, tmp_path: Path, own_operators: Path) -> None:
    (tmp_path / "[x]").mkdir()
    own_operators.rename(tmp_path / "[x]" / "own.py")
    done = lisabench("verify", "--op", "[x]/own.py:NotANumber")
    assert done.returncode == 1
    assert all(line.startswith("NotANumber ") for line in done.stdout.splitlines())
    broken = done.stdout.count("BROKEN")
    assert f"{broken} law{'s are' if broken > 1 else ' is'} broken" in only_error(done)
    named = {json.loads(line)["op"] for line in lisabench("verify", "--op", "[x]/own.py:NotANumber", "--json").stdout.splitlines()}
    assert named == {"[x]/own.py:NotANumber"}


def test_a_device_that_is_no_device(lisabench: Run) -> None:
    done = lisabench("verify", "--device", "tpu")
    assert done.returncode == 2
    assert "valid: auto, cpu, cuda" in only_error(done)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
@pytest.mark.parametrize("flag", [(), ("--flops",)], ids=["laws", "flops"])
def test_a_device_that_is_not_there(flag: tuple[str, ...], lisabench: Run) -> None:
    done = lisabench("verify", "--device", "cuda", *flag)
    assert done.returncode == 3
    assert done.stdout == ""
    assert "--device cuda is not there" in only_error(done)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("flag", [(), ("--flops",)], ids=["laws", "flops"])
def test_everything_holds_on_a_gpu(flag: tuple[str, ...], lisabench: Run) -> None:
    done = lisabench("verify", "--device", "cuda", *flag)
    assert done.returncode == 0, done.stdout
