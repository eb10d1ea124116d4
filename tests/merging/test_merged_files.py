"""What merging reads stays as it is, and what it writes is there whole or not at all."""

from __future__ import annotations

import json
import multiprocessing
import resource
from pathlib import Path
from typing import Any

import pytest
from made_shards import lines, merged, shards

from lisabench.errors import InputError, LisaBenchError, RunError
from lisabench.journal import Journal


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    first, second = shards(tmp_path)
    whole = lines(first)
    with open(first / "journal.jsonl", "a") as file:
        file.write('{"schema": 1, "kind"')
    found = merged(first, second)
    assert [tally.torn for tally in found.joined.runs] == [True, False]
    assert lines(tmp_path / "out") == whole + lines(second)


def test_damage_before_the_end_is_an_error(tmp_path: Path) -> None:
    first, second = shards(tmp_path)
    (first / "journal.jsonl").write_text("\n".join(["{broken", *lines(first), ""]))
    with pytest.raises(RunError, match="line 1 is damaged"):
        merged(first, second)


def test_a_run_that_is_being_written_is_only_read(tmp_path: Path) -> None:
    first, second = shards(tmp_path)
    with Journal.resume(first) as journal:
        with open(first / "journal.jsonl", "a") as file:
            file.write('{"schema": 1')
        before = {path: path.read_bytes() for path in first.iterdir()}
        found = merged(first, second)
        assert {path: path.read_bytes() for path in first.iterdir()} == before
        journal.append(json.loads(lines(second)[0]))  # the lock is still held by the one that writes
    assert [(tally.being_written, tally.torn) for tally in found.joined.runs] == [(True, False), (False, False)]
    assert not merged(second, out="again").joined.runs[0].being_written


def test_a_source_that_no_one_locked_stays_as_it_is(tmp_path: Path) -> None:
    first, second = shards(tmp_path)
    (first / ".lock").unlink()
    merged(first, second)
    assert {path.name for path in first.iterdir()} == {"plan.json", "environment.json", "journal.jsonl"}


def test_nothing_is_written_over(tmp_path: Path) -> None:
    first, second = shards(tmp_path)
    before = lines(second)
    with pytest.raises(InputError, match="is there already; give a new folder with --out"):
        merged(first, out="2")
    assert lines(second) == before
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is there already"):
        merged(first, out="file")
    (tmp_path / "empty").mkdir()
    merged(first, out="empty")
    assert lines(tmp_path / "empty") == lines(first)


def test_a_place_that_cannot_be_written_is_told_in_a_line(tmp_path: Path) -> None:
    (run,) = shards(tmp_path, 1)
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match=r"cannot be written \(Not a directory\)"):
        merged(run, out="file/below/out")
    with pytest.raises(RunError, match=r"cannot be written \(File name too long\)"):
        merged(run, out="a" * 300 + "/below")
    assert {path.name for path in tmp_path.iterdir()} == {"1", "file"}


def fill(run: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
    try:
        merged(run, out="new/out")
    except LisaBenchError as error:
        (run.parent / "told").write_text(f"{error.exit_code} {error}")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    (run,) = shards(tmp_path, 1)
    process = multiprocessing.get_context("fork").Process(target=fill, args=(run,))
    process.start()
    process.join()
    told = (tmp_path / "told").read_text()
    assert told.startswith("4 ")
    assert "cannot be written (File too large); make room or give another --out" in told
    assert {path.name for path in tmp_path.iterdir()} == {"1", "told"}


def test_a_stop_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = shards(tmp_path, 1)

    def stopped(*_: Any) -> None:
        assert any(path.name.endswith(".merging") for path in (tmp_path / "new").iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr("lisabench.merging.runs._write_journal", stopped)
    with pytest.raises(KeyboardInterrupt):
        merged(run, out="new/out")
    assert {path.name for path in tmp_path.iterdir()} == {"1"}


def test_more_journals_than_may_be_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lisabench.merging.sources.MOST_OPEN", 1)
    parts = shards(tmp_path, 4)
    merged(*parts, *parts)
    assert lines(tmp_path / "out") == [line for part in parts for line in lines(part)]
