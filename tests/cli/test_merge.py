"""`lisabench merge` as its users meet it: shards that were measured apart, joined, shown and gone on with."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import PROGRAM, SMALL, only_error, records
from made_shards import a_sweep, machine, write_shard

from lisabench.merging.runs import merge

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_shards_are_merged_shown_and_gone_on_with(lisabench: Run, tmp_path: Path) -> None:
    """Of the second shard the last record is lost: it alone is measured again."""
    for part in "12":
        args = ["scale", "--op", "linear", "--tokens", "16..128", *SMALL, "--shard", f"{part}/2", "--out", part, "--quiet"]
        assert lisabench(*args).returncode == 0
    lines = (tmp_path / "2/journal.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "2/journal.jsonl").write_text("".join(lines[:-1]))
    done = lisabench("merge", "1", "2", "--out", "whole")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "1: 4 records, 4 taken",
        "2: 3 records, 3 taken",
        "whole: 7 records, 7 of 8 cells settled, 1 missing",
    ]
    assert done.stderr.splitlines() == ["1 cell missing; go on with: lisabench scale --resume --out whole"]
    before = (tmp_path / "whole/journal.jsonl").read_text()
    resumed = lisabench("scale", "--resume", "--out", "whole", "--cell-seconds", "0.1")
    assert resumed.returncode == 0, resumed.stderr
    assert "8 records, " in resumed.stderr
    found = records(tmp_path / "whole")
    assert (tmp_path / "whole/journal.jsonl").read_text().startswith(before)
    assert [record["status"] for record in found] == ["ok"] * 8
    assert found[-1]["cell"] == json.loads(lines[-1])["cell"]
    compared = [json.loads(line) for line in lisabench("compare", "2", "whole", "--json").stdout.splitlines()]
    assert sum(cell["verdict"] is not None for cell in compared) == 3
    again = lisabench("merge", "whole", "1", "2", "--out", "again")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.splitlines()[1:] == [
        "1: 4 records, 0 taken, 4 there already",
        "2: 3 records, 0 taken, 3 there already",
        "again: 8 records, 8 of 8 cells settled",
    ]


def made(folder: Path, factor: float = 1.0, **axes: Any) -> Path:
    return write_shard(folder, a_sweep(**axes), factor=factor, on=machine(host=f"host-{folder.name}"))


def test_a_json_object_tells_all(lisabench: Run, tmp_path: Path) -> None:
    for part in (1, 2):
        made(tmp_path / f"{part}", share=(part, 2))
    done = lisabench("merge", "1", "2", "1", "--out", "whole", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    counts = {"taken": 4, "equal": 0, "replaced": 0, "overruled": 0, "torn": False, "being_written": False}
    assert found["runs"][0] == {"run": "1", "records": 4} | counts
    assert found["runs"][2]["equal"] == 4
    assert (found["records"], found["cells"], found["missing"], found["go_on"]) == (8, 8, 0, None)
    assert done.stderr == ""


def test_conflicts_end_it_with_one_line_or_are_told(lisabench: Run, tmp_path: Path) -> None:
    for name, factor in (("a", 1.0), ("b", 2.0)):
        made(tmp_path / name, factor)
    refused = lisabench("merge", "a", "b", "--out", "both")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "8 cells have different records in two runs" in only_error(refused)
    assert not (tmp_path / "both").exists()
    done = lisabench("merge", "a", "b", "--out", "both", "--conflicts", "last")
    assert done.returncode == 0, done.stderr
    assert "a: 8 records, 0 taken, 8 set aside in conflicts" in done.stdout
    assert "320 µs in 'b' on host-b" in done.stderr
    assert "the last of each was taken" in done.stderr
    told = json.loads(lisabench("merge", "a", "b", "--out", "json", "--conflicts", "first", "--json", "--quiet").stdout)
    assert told["conflicts"]["cells"] == len(told["conflicts"]["named"]) == 8
    assert told["conflicts"]["named"][0]["records"][1] == {
        "run": "b",
        "host": "host-b",
        "status": "ok",
        "latency_s": pytest.approx(3.2e-4),
        "top1": None,
    }
    quiet = lisabench("merge", "a", "b", "--out", "quiet", "--conflicts", "first", "--quiet")
    assert (quiet.returncode, quiet.stderr) == (0, "")


def test_kinds_of_devices_and_what_each_misses_are_told(lisabench: Run, tmp_path: Path) -> None:
    made(tmp_path / "a")
    write_shard(tmp_path / "b", a_sweep(), on=machine("Large CPU"), came_of=lambda cell: {} if cell.op == "linear" else None)
    done = lisabench("merge", "a", "b", "--out", "both")
    assert "12 of 16 cells settled, 4 missing (4 on Large CPU, 2 threads)" in done.stdout
    assert "2 kinds of devices are series of their own: Small CPU, 2 threads; Large CPU, 2 threads" in done.stderr


def test_what_cannot_be_is_one_line(lisabench: Run, tmp_path: Path) -> None:
    made(tmp_path / "a")
    (tmp_path / "file").write_text("x")
    for args, code, words in (
        (("a", "nothing", "--out", "m"), 2, "is no run"),
        (("a", "--out", "a"), 2, "is there already"),
        (("a", "--out", "file/m"), 4, "cannot be written"),
        (("a", "--out", "m", "--conflicts", "mean"), 2, "unknown --conflicts 'mean'"),
        (("a",), 2, "--out"),
        (("--out", "m"), 2, "'runs'"),
    ):
        done = lisabench("merge", *args)
        assert done.returncode == code, done.stderr
        assert words in only_error(done)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "file"}


@pytest.mark.slow
def test_a_stop_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C in the midst of the writing, which a large run makes long enough to be met."""
    run = made(tmp_path / "a")
    line = (run / "journal.jsonl").read_text().splitlines()[0]
    record = json.loads(line)
    with open(run / "journal.jsonl", "w") as file:
        for number in range(60_000):
            file.write(json.dumps(record | {"cell": f"{number}"}) + "\n")
    process = subprocess.Popen([PROGRAM, "merge", "a", "--out", "new/m"], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while process.poll() is None and not list(tmp_path.glob("new/.m.*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in told
    assert {path.name for path in tmp_path.iterdir()} == {"a"}


def test_a_merged_run_is_reported_as_any(report: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    merge([made(tmp_path / f"{part}", share=(part, 2)) for part in (1, 2)], tmp_path / "whole", command=["lisabench", "merge"])
    code, out, err = report("whole")
    assert code == 0, err
    assert "linear" in out
    assert err.splitlines()[-1].startswith("8 records, ")
