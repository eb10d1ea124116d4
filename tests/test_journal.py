from __future__ import annotations

import json
import multiprocessing
import os
import resource
from pathlib import Path
from typing import Any

import pytest

from lisabench.errors import InputError, RunError
from lisabench.journal import JOURNAL, Journal, blank_record, is_settled, read_environments, read_plan, read_records


def record(cell: str, **fields: Any) -> dict[str, Any]:
    return blank_record({"cell": cell, "op": "linear"}) | {"status": "ok", **fields}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    with Journal.create(path, {"plan": 1}) as journal:
        for cell in "abc":
            journal.append(record(cell))
    return path


def test_records_come_back_as_written(run: Path) -> None:
    assert [r["cell"] for r in read_records(run)] == ["a", "b", "c"]
    assert read_records(run)[0] == record("a") | {"started_at": read_records(run)[0]["started_at"]}


@pytest.mark.parametrize("torn", ['{"schema": 1, "kind": "sca', '{"schema":1,"cell":"d"}', "\x00\x00", "{nonsense\n"])
def test_a_torn_last_line_is_dropped(run: Path, torn: str) -> None:
    before = (run / JOURNAL).read_text()
    with open(run / JOURNAL, "a") as file:
        file.write(torn)
    assert [r["cell"] for r in read_records(run)] == ["a", "b", "c"]
    with Journal.resume(run) as journal:
        assert journal.dropped_torn_line
        journal.append(record("d"))
    after = (run / JOURNAL).read_text()
    assert after.startswith(before)
    assert [json.loads(line)["cell"] for line in after.splitlines()] == ["a", "b", "c", "d"]


def test_a_torn_line_at_every_byte(run: Path) -> None:
    whole = (run / JOURNAL).read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(0, len(whole), 7):
        (run / JOURNAL).write_bytes(whole[:cut])
        assert len(read_records(run)) == sum(end <= cut for end in ends)


def test_damage_before_the_end_is_an_error(run: Path) -> None:
    lines = (run / JOURNAL).read_text().splitlines()
    (run / JOURNAL).write_text("\n".join([lines[0], "{broken", lines[2], ""]))
    with pytest.raises(RunError, match="line 2 is damaged"):
        read_records(run)


def test_a_line_that_is_no_record_is_an_error(run: Path) -> None:
    with open(run / JOURNAL, "a") as file:
        file.write('{"schema": 1}\n{"schema": 1}\n')
    with pytest.raises(RunError, match="lacks cell"):
        read_records(run)


@pytest.mark.parametrize("content", ["[]", "{}", "{torn"])
def test_a_damaged_plan_is_an_error(run: Path, content: str) -> None:
    (run / "plan.json").write_text(content)
    with pytest.raises(RunError, match="is damaged"):
        read_plan(run)


def test_a_run_stopped_before_its_first_record_goes_on(tmp_path: Path) -> None:
    Journal.create(tmp_path / "run", {"plan": 1}).close()
    (tmp_path / "run" / JOURNAL).unlink()
    with pytest.raises(InputError, match="--resume"):
        Journal.create(tmp_path / "run", {})
    with Journal.resume(tmp_path / "run") as journal:
        journal.append(record("a"))
    assert len(read_records(tmp_path / "run")) == 1


def test_a_run_that_cannot_be_begun_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lisabench.journal.FREE_BYTES_NEEDED", 2**80)
    with pytest.raises(RunError, match="MiB free"):
        Journal.create(tmp_path / "run", {})
    assert not (tmp_path / "run").exists()


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no run"):
        read_records(tmp_path / ("x" * 300))
    with pytest.raises(RunError, match="cannot be written"):
        Journal.create(tmp_path / ("x" * 300), {})


def test_another_schema_is_an_error(run: Path) -> None:
    (run / JOURNAL).write_text('{"schema": 99, "cell": "a"}\n{"schema": 99, "cell": "b"}\n')
    with pytest.raises(InputError, match="schema 99"):
        read_records(run)


def test_an_existing_run_is_never_overwritten(run: Path, tmp_path: Path) -> None:
    before = (run / JOURNAL).read_bytes()
    with pytest.raises(InputError, match="--resume"):
        Journal.create(run, {})
    assert (run / JOURNAL).read_bytes() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="is no run"):
        Journal.create(tmp_path / "other", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is no run"):
        Journal.create(tmp_path / "file", {})


def test_resume_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no run"):
        Journal.resume(tmp_path / "nowhere")


def test_budget_skips_are_taken_up_again_and_the_last_record_counts(run: Path) -> None:
    skipped = record("d", status="skipped", reason="budget: used up")
    assert not is_settled(skipped)
    assert is_settled(record("e", status="skipped", reason="1,024 tokens ran out of memory"))
    with Journal.resume(run) as journal:
        journal.append(skipped)
        assert set(journal.settled) == {"a", "b", "c"}
        journal.append(record("d"))
        assert set(journal.settled) == {"a", "b", "c", "d"}
    assert [(r["cell"], r["status"]) for r in read_records(run)] == [(cell, "ok") for cell in "abcd"]


def _try_to_open(run: Path, queue: Any) -> None:
    try:
        Journal.resume(run).close()
        queue.put("opened")
    except RunError as error:
        queue.put(str(error))


def test_a_second_program_is_told_that_the_run_is_locked(run: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    for held in (True, False):
        if held:
            journal = Journal.resume(run)
        other = context.Process(target=_try_to_open, args=(run, queue))
        other.start()
        said = queue.get(timeout=60)
        other.join()
        assert ("is locked" in said) is held
        if held:
            journal.close()


def test_a_full_disk_leaves_whole_records(run: Path) -> None:
    """The kernel refuses to let the file grow, as it does on a full disk, in the middle of a record."""
    size = (run / JOURNAL).stat().st_size
    pid = os.fork()
    if pid == 0:  # the limit holds for this process alone
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        journal = Journal.resume(run)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, size + 40))
        try:
            journal.append(record("d"))
        except RunError as error:
            os._exit(7 if "cannot be written" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert (run / JOURNAL).stat().st_size == size
    assert len(read_records(run)) == 3


def test_environments_are_kept_by_their_hash(run: Path) -> None:
    with Journal.resume(run) as journal:
        journal.add_environment("1", {"device": "cpu"})
        journal.add_environment("2", {"device": "cuda:0"})
        journal.add_environment("1", {"device": "cpu"})
    assert read_environments(run) == {"1": {"device": "cpu"}, "2": {"device": "cuda:0"}}


def test_figures_that_are_not_numbers_never_reach_the_journal(run: Path) -> None:
    with Journal.resume(run) as journal, pytest.raises(ValueError, match="JSON"):
        journal.append(record("d", relative_error=float("nan")))
    assert len(read_records(run)) == 3
