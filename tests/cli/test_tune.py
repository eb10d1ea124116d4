"""`lisabench tune`: real timings become the table that "auto" chooses by, and what stood there stands until then."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PROGRAM, only_error

from lisabench.cli.tune import _squares
from lisabench.measure import tuning
from lisabench.measure.tuning import choice
from lisabench.workload import Grid

Run = Callable[..., subprocess.CompletedProcess[str]]
Tune = Callable[..., tuple[int, str, str]]
CPU = ("--device", "cpu")
TINY = [choice().Shape(Grid(height, 3), "zero", batch, 2, 2, 4, 4, 4) for height in (1, 2, 3) for batch in (1, 2)]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the tables stand in this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    choice().forget()
    yield tmp_path / "cache" / "lisabench" / "lisa_engines.json"
    torch.set_num_threads(threads)
    choice().forget()


@pytest.fixture
def tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Tune:
    """Exit code, stdout and stderr of the command in this process, over shapes so small that it takes seconds."""
    from lisabench.cli import main

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(tuning, "shapes", lambda *, quick: TINY)
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        monkeypatch.setattr("sys.argv", ["lisabench", "tune", *CPU, *args])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return run


def test_what_is_measured_is_kept_and_followed(tune: Tune, cache: Path) -> None:
    before = torch.get_num_threads()
    code, out, err = tune("--threads", "2")
    told = [line for line in err.splitlines() if not line.startswith("engine triton does not run on cpu: ")]
    assert (code, told) == (0, [f"cpu, {threads}: measuring for up to 1 min 20 s" for threads in ("1 thread", "2 threads")])
    assert torch.get_num_threads() == before
    assert out.splitlines()[-1] == f"Kept in {cache}."
    for words in ("fastest on squares, tokens", "now (worst)", "cpu, 1 thread", "cpu, 2 threads", "evaluation", "training"):
        assert words in out
    tables = choice().read(cache)
    assert [(table.kind, table.threads) for table in tables] == [("cpu, one thread", 1), ("cpu, several threads", 2)]
    for table in tables:
        torch.set_num_threads(table.threads)
        assert choice().chosen_by("cpu").startswith(f"tuned {table.date}, {table.machine}, {table.threads} thread")
        for shape in TINY:
            seconds = choice().seconds_by(table.coefficients, shape, "train", "cpu")
            assert choice().predicted(shape, device="cpu", trained=True, prepared=False) == seconds
            assert choice().choose(shape, device="cpu", trained=True, prepared=False) == min(seconds, key=seconds.__getitem__)


def test_json_lines_are_the_timings_and_what_follows(tune: Tune, cache: Path) -> None:
    code, out, _ = tune("--threads", "1", "--json")
    assert code == 0
    found = [json.loads(line) for line in out.splitlines()]
    kinds = [record["kind"] for record in found]
    assert kinds == ["timing"] * 3 * len(TINY) + ["choice"] * 3 + ["kept"]
    assert found[-1]["path"] == str(cache)
    assert {record["threads"] for record in found[:-1]} == {1}
    for record in found[: kinds.index("choice")]:
        assert record["mode"] in choice().MODES
        assert set(record["latency_s"]) >= {"dense", "mixed", "fft"}
        assert all(seconds > 0 for seconds in record["latency_s"].values())
    for record in found[kinds.index("choice") : -1]:
        assert record["regret"]["now"]["shapes"] == len(TINY)
        assert record["regret"]["now"]["worst"] >= record["regret"]["now"]["median"] >= 1


def test_tables_of_other_machines_stay_and_a_file_of_ones_own_has_none(tune: Tune, cache: Path, tmp_path: Path) -> None:
    code, _, _ = tune("--threads", "1")
    assert code == 0
    other = choice().read(cache)[0]._replace(machine="another")
    cache.write_bytes(choice().written([other, *choice().read(cache)]))
    before = cache.read_bytes()
    code, out, _ = tune("--threads", "1", "--out", "own.json")
    assert (code, out.splitlines()[-1]) == (0, "Kept in own.json.")
    assert [table.machine for table in choice().read(tmp_path / "own.json")] == [choice().machine("cpu")]
    assert cache.read_bytes() == before
    code, _, _ = tune("--threads", "1")
    assert code == 0
    assert [table.machine for table in choice().read(cache)] == [choice().machine("cpu"), "another"]


def test_env_says_what_the_choice_goes_by(lisabench: Run, cache: Path) -> None:
    here = (
        choice().read(choice().BUILT_IN)[0]._replace(threads=1, machine=choice().machine("cpu"), torch=torch.__version__, date="2020-02-02")
    )
    cache.parent.mkdir(parents=True)
    cache.write_bytes(choice().written([here]))
    done = lisabench("env", *CPU, "--threads", "1", "--no-peaks")
    assert f"tuned 2020-02-02, {here.machine}, 1 thread, torch {here.torch}" in done.stdout
    assert "lisa auto" in done.stdout


def test_too_little_time_says_so_and_keeps_what_stood_there(tune: Tune, cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("whatever stood there")
    code, out, err = tune("--budget", "0.001")
    assert (code, out) == (2, "")
    assert "too few for a table; give a larger --budget" in err.splitlines()[-1]
    assert cache.read_text() == "whatever stood there"


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--budget", "0"], 2, "--budget got 0"),
        (["--budget", "nan"], 2, "--budget got nan"),
        (["--threads", "0"], 2, "--threads got 0"),
        (["--device", "abacus"], 2, "--device got 'abacus'"),
        (["--device", "cuda:99"], 3, "cuda:99 is not there"),
        (["--out", "."], 4, "'.' cannot be written (a folder)"),
        (["--out", "/proc/table.json"], 4, "'/proc/table.json' cannot be written"),
        (["--out", "file/table.json"], 4, "'file/table.json' cannot be written"),
        (["lisa"], 2, "unexpected extra argument"),
    ],
)
def test_tune_refuses_before_it_measures(args: list[str], code: int, words: str, lisabench: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = lisabench("tune", *(() if "--device" in args else CPU), *args)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in only_error(done)


def test_a_cache_that_cannot_be_written_is_found_before_the_measuring(lisabench: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = lisabench("tune", *CPU, XDG_CACHE_HOME=str(tmp_path / "file"))
    assert done.returncode == 4
    assert "cannot be written" in only_error(done)


def test_it_has_help(lisabench: Run) -> None:
    done = lisabench("tune", "--help")
    assert done.returncode == 0
    assert "--budget" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_a_stop_leaves_the_file_as_it_was(tmp_path: Path, cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("whatever stood there")
    victim = subprocess.Popen([PROGRAM, "tune", *CPU, "--json"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert victim.stdout is not None
    assert json.loads(victim.stdout.readline())["kind"] == "timing"
    time.sleep(0.3)
    victim.send_signal(signal.SIGINT)
    _, said = victim.communicate(timeout=60)
    assert victim.returncode == 128 + signal.SIGINT
    assert "Traceback" not in said
    assert said.splitlines()[-1] == f"stopped: {cache} is as it was"
    assert cache.read_text() == "whatever stood there"
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


@pytest.mark.slow
def test_quickly_on_real_shapes(lisabench: Run, cache: Path) -> None:
    done = lisabench("tune", *CPU, "--quick", "--threads", "1", timeout=200)
    assert done.returncode == 0, done.stderr
    assert "dense to " in done.stdout
    assert [table.threads for table in choice().read(cache)] == [1]


def test_runs_in_words() -> None:
    assert _squares([("dense", 196), ("mixed", 4096), ("fft", 16384)]) == "dense to 196, mixed to 4,096, fft"
    assert _squares([("fft", 16384)]) == "fft"
    assert _squares([]) == ""
