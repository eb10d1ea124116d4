"""`make gpu` without a GPU: what it says, and how it runs, ends and writes down parts of our own."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from lisabench import registry
from lisabench.cli import app

TOP = Path(__file__).parent.parent
PROGRAM = TOP / "benchmarks" / "gpu.py"
MACHINE = {"name": "NVIDIA H200", "torch": "2.11.0", "cuda": "13.0", "python": "3.12.3"}
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    """benchmarks/gpu.py, which is no module of a package."""
    spec = importlib.util.spec_from_file_location("benchmarks_gpu", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def part(gpu: ModuleType, name: str, code: str, *, minutes: float = 1.0) -> Any:
    return gpu.Part(name=name, minutes=minutes, words="", command=f"-c '{code}' OUT/told")


def noted(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "parts.json").read_text())
    return found


@NO_GPU
def test_without_a_gpu_it_says_so_in_one_line_and_exits_3() -> None:
    done = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("Error: no CUDA device")


@NO_GPU
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_gpu_makes_no_venv_and_exits_2() -> None:
    apart = {name: value for name, value in os.environ.items() if name not in ("ARGS", "MAKEFLAGS", "MAKELEVEL")}  # of `make test ARGS=...`
    done = subprocess.run(["make", "gpu", f"PYTHON={sys.executable}"], cwd=TOP, capture_output=True, text=True, check=False, env=apart)
    assert done.returncode == 2
    assert "no CUDA device" in done.stderr
    assert "pip" not in done.stdout


def test_a_python_without_torch_is_told(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "NAME_THE_GPU", "import no_such_package")
    assert "No module named 'no_such_package'" in gpu.find_gpu()
    assert "\n" not in gpu.find_gpu()


@pytest.mark.parametrize("arguments", [["--parts", "tests,nothing"], ["--minutes", "0"], ["--minutes", "soon"]], ids=" ".join)
def test_wrong_usage_exits_2(gpu: ModuleType, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        gpu.main(arguments)
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_wrong_usage_is_told_in_one_line(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main(["--minutes", "soon"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: --minutes: got 'soon'; valid: a number of minutes above 0")


def test_a_python_that_lacks_a_package_is_told_what_to_install(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "NAME_THE_GPU", gpu.NAME_THE_GPU.replace("'pytest'", "'no_such_package'"))
    told = gpu.find_gpu()
    assert "lacks no_such_package; install: " in told
    assert "make gpu PYTHON=.venv/bin/python" in told
    assert "\n" not in told


def test_parts_are_picked_by_name_in_their_order(gpu: ModuleType) -> None:
    assert [part.name for part in gpu.chosen("trust, env,tests")] == ["tests", "env", "trust"]
    assert [part.name for part in gpu.chosen("sweeps")] == ["tokens", "operators", "train", "batch", "resolution"]
    assert gpu.chosen("all") == gpu.PARTS
    assert sum(part.minutes for part in gpu.PARTS) == pytest.approx(gpu.MINUTES)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("NVIDIA H200", "nvidia-h200"), ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "nvidia-a100-sxm4-80gb-mig-1g-10gb"), ("../", "gpu")],
)
def test_the_folder_has_a_safe_name(gpu: ModuleType, name: str, folder: str) -> None:
    assert gpu.folder_name(name) == folder


def test_a_failed_part_stops_no_other(gpu: ModuleType, tmp_path: Path) -> None:
    codes = {"fails": "raise SystemExit(7)", "dies": "import os; os.abort()", "works": "print(42)"}
    parts = [part(gpu, name, code) for name, code in codes.items()]
    assert gpu.run_parts(parts, out=tmp_path, seconds=90, machine=MACHINE) == 1
    assert {name: of["ended"] for name, of in noted(tmp_path).items()} == {
        "fails": "exit code 7",
        "dies": f"killed by signal {int(signal.SIGABRT)}",
        "works": "ok",
    }
    assert (tmp_path / "works.log").read_text() == "42\n"
    assert all(of["seconds"] is not None for of in noted(tmp_path).values())
    assert gpu.run_parts(parts[2:], out=tmp_path, seconds=30, machine=MACHINE) == 0
    assert noted(tmp_path)["fails"]["ended"] == "exit code 7", "what an earlier call did is kept"


def test_a_part_over_its_time_is_ended_with_all_that_it_started(gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "END_SECONDS", 0.5)
    code = (
        "import os, signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        'child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]); print(child.pid, flush=True); time.sleep(600)'
    )
    state = gpu.State(tmp_path, MACHINE, {part.name: part.words for part in gpu.PARTS})
    assert gpu.run_part(part(gpu, "hangs", code), out=tmp_path, limit=3.0, state=state) == "over its time, stopped"
    child = int((tmp_path / "hangs.log").read_text())
    deadline = time.monotonic() + 20
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_one_part_leaves_of_its_time_goes_to_the_next(gpu: ModuleType, tmp_path: Path) -> None:
    parts = [part(gpu, "first", "pass", minutes=3.0), part(gpu, "second", "pass"), part(gpu, "third", "pass", minutes=1e-6)]
    assert gpu.run_parts(parts, out=tmp_path, seconds=400, machine=MACHINE) == 0
    found = noted(tmp_path)
    assert found["first"]["limit_seconds"] == pytest.approx(300, abs=1)
    assert found["second"]["limit_seconds"] > 200
    assert found["third"]["ended"] == "ok", "all that is left is its share"


def test_a_part_without_time_is_not_begun(gpu: ModuleType, tmp_path: Path) -> None:
    assert gpu.run_parts([part(gpu, "late", "print(1)")], out=tmp_path, seconds=1, machine=MACHINE) == 1
    assert "no time" in noted(tmp_path)["late"]["ended"]
    assert not (tmp_path / "late.log").exists()


def test_the_folder_is_true_while_a_part_runs_and_after_a_stop(gpu: ModuleType, tmp_path: Path) -> None:
    """A real run of the program's own loop in a process, stopped from outside in the middle of a part."""
    code = (
        f"import sys; sys.path.insert(0, {str(PROGRAM.parent)!r}); import gpu, signal; from pathlib import Path\n"
        "signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))\n"
        "part = gpu.Part(name='tests', minutes=1.0, words='', command='-c \"import time; time.sleep(600)\"')\n"
        f"gpu.run_parts([part], out=Path({str(tmp_path)!r}), seconds=600, machine={MACHINE!r})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 30
    while not (tmp_path / "tests.log").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "| tests | the tests that need a GPU | running |" in (tmp_path / "README.md").read_text()
    process.terminate()
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert "| tests | the tests that need a GPU | stopped |" in (tmp_path / "README.md").read_text()
    assert "| verify | every operator's laws | not run |" in (tmp_path / "README.md").read_text()


def test_the_readme_states_commands_without_the_machine_s_paths(gpu: ModuleType, tmp_path: Path) -> None:
    state = gpu.State(tmp_path, MACHINE, {part.name: part.words for part in gpu.PARTS})
    for of in gpu.PARTS:
        state.note(of.name, "ok", limit=100, words=gpu.command_words(of, tmp_path, 100), seconds=1.0)
    told = (tmp_path / "README.md").read_text()
    assert told.startswith("# NVIDIA H200\n")
    assert "python -P -m lisabench scale --device cuda" in told
    assert "--budget 75" in told
    assert "BUDGET" not in told
    assert str(tmp_path) not in told
    assert os.fspath(TOP) not in told


def test_a_part_takes_the_installed_package_and_not_the_checkout_s(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unpacked on PYTHONPATH: its operators are there, and are not in the checkout's package of that name."""
    for folder in ("lisabench", "lisabench/operators"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = part(gpu, "asks", "import lisabench.operators, benchmarks.trust; print(lisabench.operators.__file__)")
    assert gpu.run_parts([found], out=tmp_path, seconds=60, machine=MACHINE) == 0
    assert (tmp_path / "asks.log").read_text().strip() == str(tmp_path / "lisabench" / "operators" / "__init__.py")


def test_a_run_that_is_there_is_gone_on_with(gpu: ModuleType, tmp_path: Path) -> None:
    tokens = next(of for of in gpu.PARTS if of.name == "tokens")
    assert "--resume" not in gpu.command_words(tokens, tmp_path, 100)
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "plan.json").write_text("{}")
    assert gpu.command_words(tokens, tmp_path, 100)[-1] == "--resume"


def test_the_sweeps_together_cover_every_axis(gpu: ModuleType, tmp_path: Path) -> None:
    """Planned by the command itself, for a CPU."""
    cells: list[dict[str, Any]] = []
    for name, *_ in gpu.SWEEPS:
        of = next(part for part in gpu.PARTS if part.name == name)
        words = [word.replace("cuda", "cpu") for word in gpu.command_words(of, tmp_path, 100)]
        assert words[:3] == ["-P", "-m", "lisabench"]
        done = CliRunner().invoke(app, [*words[3:], "--dry-run", "--json"])
        cells += [json.loads(line) for line in done.stdout.splitlines()]
    covered = {axis: {cell[axis] for cell in cells} for axis in ("tokens", "batch", "mode", "dtype", "op")}
    assert {256 * 2**k for k in range(9)} | {(side // 16) ** 2 for side in (224, 1024)} <= covered["tokens"]
    assert {1, 64} <= covered["batch"]
    assert covered["mode"] == {"forward", "train"}
    assert covered["dtype"] == {"fp32", "bf16"}
    assert covered["op"] == set(registry.built_in())
    for op in ("lisa", "softmax", "softmax_dense", "performer", "linear"):
        assert {(cell["mode"], cell["dtype"]) for cell in cells if cell["op"] == op} == {
            (mode, dtype) for mode in covered["mode"] for dtype in covered["dtype"]
        }


@pytest.mark.parametrize("plugin", [True, False], ids=["with its plugins", "bare"])
def test_the_tests_of_the_gpu_are_found_on_a_bare_machine(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: bool
) -> None:
    """pytest knows no `timeout` without pytest-timeout, and refuses a setting that it does not know."""
    with monkeypatch.context() as patched:
        if not plugin:
            patched.setattr(importlib.util, "find_spec", lambda name: None)
        (tmp_path / "pytest.ini").write_text(gpu.pytest_settings())
    bare = [] if plugin else ["-p", "no:timeout"]
    words = [word.replace("OUT", str(tmp_path)) for word in gpu.PYTEST.split()]
    done = subprocess.run(
        [sys.executable, *words[:-1], "tests/gpu", "--collect-only", "-q", *bare], cwd=TOP, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tests/gpu/test_sampling.py" in done.stdout
