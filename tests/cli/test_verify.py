"""`lisabench verify`, its laws, its device and its FLOP audit, as users meet them."""

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
from lisabench.cli.findings import SHORT, print_count, print_table
from lisabench.cli.verify import COLUMNS, print_audit
from lisabench.law import Finding
from lisabench.laws import LAWS
from lisabench.run.audit import audit, audited_workload

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_flops_are_what_is_counted(lisabench: Run) -> None:
    """Of some; `.ci/run` audits all."""
    names = ["softmax", "lisa", "linear", "depthwise", "identity"]
    done = lisabench("verify", "--flops", "--op", ",".join(names))
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in names)
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


def test_laws_of_one_operator_are_a_line_each(lisabench: Run) -> None:
    done = lisabench("verify", "--op", "linear")
    assert done.returncode == 0
    *rows, count = done.stdout.splitlines()
    assert [(row[:16].strip(), row[17:43].strip()) for row in rows] == [("linear", law) for law in LAWS]
    assert all(" holds  " in row for row in rows)
    assert count == f"1 operator: ✓ {len(LAWS)} hold, ✗ 0 broken, – 0 cannot be asked"


def test_an_engine_that_does_not_run_here_is_told_with_the_reason(lisabench: Run) -> None:
    done = lisabench("verify", "--op", "lisa")
    assert done.returncode == 0
    last = done.stdout.splitlines()[-1]
    assert last == "lisa: engine triton does not run on cpu: Triton kernels need an NVIDIA GPU (CUDA), not cpu"


def test_laws_of_several_operators_are_a_table(lisabench: Run, own_operators: Path) -> None:
    done = lisabench("verify", "--op", "linear,own.py:Plain,own.py:Raises")
    assert done.returncode == 1
    header, _, linear, plain, raises, *rest = done.stdout.splitlines()
    assert header.split() == ["operator", *(SHORT[law] for law in LAWS)]
    assert linear.split() == ["linear", *"✓" * len(LAWS)]
    assert {plain.split()[0], *plain.split()[1:]} == {"Plain", "✓", "–"}
    assert {raises.split()[0], *raises.split()[1:]} == {"Raises", "✗", "–"}
    broken = [line for line in rest if "BROKEN" in line]
    assert len(broken) == raises.count("✗") > 1
    assert all(line.startswith("Raises ") and line.endswith("RuntimeError: no such luck") for line in broken)
    assert "– states no reference: Plain, Raises" in rest
    assert rest[-1].startswith("3 operators: ✓ ")
    assert f"✗ {len(broken)} broken" in rest[-1]
    assert "\x1b" not in done.stdout
    assert f"{len(broken)} laws are broken" in only_error(done)


def test_json_lines_of_several_operators(lisabench: Run, own_operators: Path) -> None:
    done = lisabench("verify", "--op", "linear,own.py:Narrow", "--json")
    assert done.returncode == 1
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["op"], row["law"]) for row in found] == [(op, law) for op in ("linear", "own.py:Narrow") for law in LAWS]
    assert all(set(row) == {"op", "law", "holds", "detail"} for row in found)
    only_error(done)


def made_findings(operators: int) -> dict[str, list[Finding]]:
    """The second law of the first operator is broken, the third of all cannot be asked."""

    def finding(operator: int, place: int, law: str) -> Finding:
        holds = None if place == 2 else not (operator == 0 and place == 1)
        return Finding(law=law, holds=holds, detail="claims nothing" if place == 2 else f"seen {operator} {place}")

    return {f"a/own.py:Operator{n}": [finding(n, place, law) for place, law in enumerate(LAWS)] for n in range(operators)}


@pytest.mark.parametrize(
    ("width", "operators", "first"), [(110, 30, "operator"), (80, 30, "operator"), (60, 2, "law"), (60, 30, "operator")], ids=str
)
def test_the_table_of_laws_fits(width: int, operators: int, first: str) -> None:
    screen = Console(width=width, file=io.StringIO(), record=True)
    print_table(screen, made_findings(operators))
    text = screen.export_text()
    table = [row.rstrip() for row in text.splitlines()[: (len(LAWS) if first == "law" else operators) + 2]]
    assert table[0].split()[0] == first
    assert max(map(len, table)) <= width
    counted = table[0].split()[1:] == ["hold", "broken", "cannot", "be", "asked"]
    assert counted is (width == 60 and operators == 30)
    if counted:
        assert table[2].split() == ["Operator0", str(len(LAWS) - 2), "1", "1"]
    elif first == "law":
        assert table[3].split()[-2:] == ["✗", "✓"]
    else:
        assert table[2].split() == ["Operator0", "✓", "✗", "–", *"✓" * (len(LAWS) - 3)]
    assert text.count("BROKEN") == 1
    assert "seen 0 1" in text
    assert "claims nothing: Operator0, Operator1" in text


def test_marks_on_a_terminal_of_few_characters_and_in_colour() -> None:
    plain = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"), width=110)
    print_table(plain, made_findings(2))
    print_count(plain, made_findings(2))
    plain.file.flush()
    assert isinstance(plain.file, io.TextIOWrapper)
    told = plain.file.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert f"2 operators: + {2 * len(LAWS) - 3} hold, X 1 broken, - 2 cannot be asked" in told
    bright = Console(file=io.StringIO(), width=110, force_terminal=True, color_system="standard")
    print_table(bright, made_findings(2))
    assert isinstance(bright.file, io.StringIO)
    assert "\x1b[1;31m" in bright.file.getvalue()


def test_a_law_that_has_no_short_name_shows_its_first_word() -> None:
    screen = Console(width=110, file=io.StringIO(), record=True)
    print_table(screen, {name: [Finding(law="novel, and long", holds=True, detail="")] for name in ("a", "b")})
    assert screen.export_text().split()[:2] == ["operator", "novel"]


def test_wrong_options_are_told_before_anything_runs(lisabench: Run) -> None:
    done = lisabench("verify", "--op", "linear,lisa", "--op-option", "engine=magic")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "valid: auto, mixed, fft, dense" in only_error(done)


def test_what_an_operator_prints_is_no_result(lisabench: Run, tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(
        "from torch import nn\nclass Loud(nn.Module):\n    def forward(self, x):\n        print('chatter')\n        return x\n"
    )
    done = lisabench("verify", "--op", "loud.py:Loud", "--json")
    assert all(json.loads(line)["op"] == "loud.py:Loud" for line in done.stdout.splitlines())
    assert "chatter" in done.stderr


def test_one_broken_law_of_a_file_in_a_folder_with_brackets(lisabench: Run, tmp_path: Path, own_operators: Path) -> None:
    (tmp_path / "[x]").mkdir()
    own_operators.rename(tmp_path / "[x]" / "own.py")
    done = lisabench("verify", "--op", "[x]/own.py:NotANumber")
    assert done.returncode == 1
    *rows, count = done.stdout.splitlines()
    assert all(line.startswith("NotANumber ") for line in rows)
    broken = done.stdout.count("BROKEN")
    assert f"✗ {broken} broken" in count
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
