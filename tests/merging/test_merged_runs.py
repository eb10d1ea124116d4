"""Runs that were measured apart become one: nothing lost, nothing doubled, nothing chosen unasked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_shards import SKIPPED, UNSUPPORTED, a_sweep, keys, latency, lines, machine, merged, plan_on_disk, shards, write_shard

from lisabench.errors import InputError
from lisabench.journal import Journal, read_environments, read_records
from lisabench.merging.runs import Merged
from lisabench.plans import stated, visits_of
from lisabench.results import read_run
from lisabench.sweep import Cell


def counts(found: Merged) -> list[tuple[int, int, int, int, int]]:
    """records, taken, equal, replaced and overruled of each run."""
    return [(of.records, of.taken, of.equal, of.replaced, of.overruled) for of in found.joined.runs]


def test_shards_are_the_whole_sweep(tmp_path: Path) -> None:
    parts = shards(tmp_path, 3)
    found = merged(*parts)
    whole = a_sweep()
    plan = plan_on_disk(tmp_path / "out")
    assert plan["sweeps"] == [stated(whole)]
    assert plan["cells"] == found.cells == whole.count
    assert found.missing.total() == 0
    assert sorted(keys(tmp_path / "out")) == sorted(cell.key for cell in whole.cells())
    assert lines(tmp_path / "out") == [line for part in parts for line in lines(part)]
    assert [run["run"] for run in plan["merged_from"]] == ["1", "2", "3"]
    assert plan["merged_from"][0]["cells"] == len(keys(parts[0]))
    assert plan["command"] == ["lisabench", "merge"]


def test_a_part_that_is_not_there_leaves_the_others_apart(tmp_path: Path) -> None:
    first, _, last = shards(tmp_path, 3)
    merged(first, last)
    plan = plan_on_disk(tmp_path / "out")
    assert [axes["share"] for axes in plan["sweeps"]] == [[1, 3], [3, 3]]
    assert plan["cells"] == len(keys(first)) + len(keys(last)) < a_sweep().count


def test_sweeps_that_overlap_count_each_cell_once(tmp_path: Path) -> None:
    whole = a_sweep()
    few = write_shard(tmp_path / "few", a_sweep(shapes=whole.shapes[:3]), came_of=lambda cell: {} if cell.workload.tokens < 64 else None)
    more = write_shard(tmp_path / "more", a_sweep(shapes=whole.shapes[1:]), came_of=lambda cell: None)
    found = merged(few, more)
    assert len(plan_on_disk(tmp_path / "out")["sweeps"]) == 2
    assert (found.cells, found.missing.total()) == (whole.count, 2 * len(whole.ops))


def test_the_same_run_twice_is_the_run(tmp_path: Path) -> None:
    run = write_shard(tmp_path / "run", a_sweep())
    found = merged(run, run)
    assert counts(found) == [(8, 8, 0, 0, 0), (8, 0, 8, 0, 0)]
    assert lines(tmp_path / "out") == lines(run)


@pytest.mark.parametrize("skipped_first", [True, False])
def test_what_was_skipped_for_want_of_budget_gives_way(skipped_first: bool, tmp_path: Path) -> None:
    hasty = write_shard(tmp_path / "hasty", a_sweep(), came_of=lambda cell: SKIPPED if cell.workload.tokens > 32 else {})
    patient = write_shard(tmp_path / "patient", a_sweep(), came_of=lambda cell: {} if cell.workload.tokens > 32 else None)
    found = merged(*((hasty, patient) if skipped_first else (patient, hasty)))
    of_hasty, of_patient = counts(found) if skipped_first else reversed(counts(found))
    assert (of_hasty, of_patient) == ((8, 4, 0, 4, 0), (4, 4, 0, 0, 0))
    assert {record["status"] for record in read_records(tmp_path / "out")} == {"ok"}
    assert found.missing == {}


def test_the_last_record_of_a_run_counts(tmp_path: Path) -> None:
    """A run that skipped a cell and measured it when it was gone on with holds no conflict with itself, nor its copy with it."""
    run = write_shard(tmp_path / "run", a_sweep())
    with Journal.resume(run) as journal:
        older = [json.loads(line) for line in lines(run)]
        journal.append(older[0] | {"latency_s": latency(7.0)})
        journal.append(older[1] | SKIPPED)
    found = merged(run, run)
    assert counts(found)[0] == (8, 8, 0, 0, 0)
    assert sorted(lines(tmp_path / "out")) == sorted(lines(run)[2:])


def test_a_conflict_is_named_and_refused(tmp_path: Path) -> None:
    one = write_shard(tmp_path / "one", a_sweep(), on=machine(host="abacus"))
    other = write_shard(tmp_path / "other", a_sweep(), on=machine(host="beacon"), factor=1.5)
    with pytest.raises(InputError) as told:
        merged(one, other)
    text = str(told.value)
    assert text.startswith("8 cells have different records in two runs: ")
    assert "linear at 16 tokens (4 x 4), batch 1, forward, fp32: 160 µs in" in text
    assert text.count("on abacus") == text.count("on beacon") == 3
    assert "and 5 more; say by --conflicts first or last" in text
    assert "240 µs" in text
    assert {path.name for path in tmp_path.iterdir()} == {"one", "other"}


@pytest.mark.parametrize(("asked", "factor"), [("first", 1.0), ("last", 2.0)])
def test_in_a_conflict_counts_whose_record_was_asked_for(asked: str, factor: float, tmp_path: Path) -> None:
    runs = [write_shard(tmp_path / f"{n}", a_sweep(), factor=n, on=machine(host=f"h{n}")) for n in (1.0, 3.0, 2.0)]
    found = merged(*runs, conflicts=asked)
    assert found.joined.conflicting == 8
    assert {r["latency_s"]["median"] / r["tokens"] for r in read_records(tmp_path / "out")} == {factor * 1e-5}
    assert [taken for _, taken, *_ in counts(found)] == ([8, 0, 0] if asked == "first" else [0, 0, 8])
    assert all(records == sum(rest) for records, *rest in counts(found))
    assert plan_on_disk(tmp_path / "out")["conflicts"] == [{"kept": asked, "cells": 8}]


def test_no_such_way_with_conflicts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown --conflicts 'mean'; .*refuse, first, last"):
        merged(write_shard(tmp_path / "run", a_sweep()), conflicts="mean")


@pytest.mark.parametrize(("reason", "agree"), [("no odd grids", True), ("no heads", False)])
def test_cells_that_did_not_finish_agree_in_how_that_was(reason: str, agree: bool, tmp_path: Path) -> None:
    one = write_shard(tmp_path / "one", a_sweep(), came_of=lambda cell: UNSUPPORTED)
    other = write_shard(tmp_path / "other", a_sweep(), came_of=lambda cell: UNSUPPORTED | {"reason": reason, "started_at": "later"})
    found = merged(one, other, conflicts="first")
    assert found.joined.conflicting == (0 if agree else 8)


def test_a_failure_and_a_figure_are_a_conflict(tmp_path: Path) -> None:
    one = write_shard(tmp_path / "one", a_sweep(), came_of=lambda cell: {"status": "oom", "reason": "out of memory", "latency_s": None})
    with pytest.raises(InputError, match=r"oom in .* and 160 µs in"):
        merged(one, write_shard(tmp_path / "other", a_sweep()))


def test_environments_are_kept_apart(tmp_path: Path) -> None:
    ours = machine(peaks={"bytes_per_s": 5.0, "flops_per_s_fp32": 2.0}, load_average=[1])
    first, second = (write_shard(tmp_path / f"{n}", a_sweep(share=(n, 3)), on=machine(host=f"h{n}")) for n in (1, 2))
    third = write_shard(tmp_path / "3", a_sweep(share=(3, 3)), on=ours | {"host": "h1", "load_average": [2]})
    merged(first, second, third)
    found = read_environments(tmp_path / "out")
    assert {environment["host"] for environment in found.values()} == {"h1", "h2"}
    used = next(environment for environment in found.values() if environment["host"] == "h1")
    assert used["peaks"] == ours["peaks"]
    assert "load_average" not in used
    assert {r["environment"] for r in read_records(tmp_path / "out")} == set(found)


def test_of_peaks_the_larger_stays(tmp_path: Path) -> None:
    runs = [write_shard(tmp_path / f"{n}", a_sweep(share=(n, 2)), on=machine(peaks={"bytes_per_s": 3.0 - n, f"p{n}": 1.0})) for n in (1, 2)]
    merged(*runs)
    (found,) = read_environments(tmp_path / "out").values()
    assert found["peaks"] == {"bytes_per_s": 2.0, "p1": 1.0, "p2": 1.0}


def test_one_device_in_other_surroundings_is_refused(tmp_path: Path) -> None:
    first = write_shard(tmp_path / "1", a_sweep(share=(1, 2)))
    second = write_shard(tmp_path / "2", a_sweep(share=(2, 2)), on=machine(host="two", torch="2.12.0"))
    with pytest.raises(InputError, match=r"differ in libraries.torch \('2.13.0' and '2.12.0'\): .*; --mix merges them all the same"):
        merged(first, second)
    found = merged(first, second, mix=True)
    assert [difference.name for difference in found.differing] == ["libraries.torch"]
    assert len(keys(tmp_path / "out")) == 8


def test_a_run_without_records_is_planned(tmp_path: Path) -> None:
    first = write_shard(tmp_path / "1", a_sweep(share=(1, 2)))
    second = write_shard(tmp_path / "2", a_sweep(share=(2, 2)), came_of=lambda cell: None)
    for name in ("journal.jsonl", "environment.json"):
        (second / name).unlink()
    found = merged(first, second)
    assert plan_on_disk(tmp_path / "out")["sweeps"] == [stated(a_sweep())]
    assert found.missing == {None: a_sweep(share=(2, 2)).count}


def test_merging_what_was_merged_changes_nothing(tmp_path: Path) -> None:
    one, two, three = shards(tmp_path, 3)
    merged(one, two, three, out="at once")
    merged(one, three, out="some")
    merged(tmp_path / "some", two, tmp_path / "some", out="by and by")
    merged(tmp_path / "by and by", out="again")
    plans = [plan_on_disk(tmp_path / name) for name in ("at once", "by and by", "again")]
    assert [plan["sweeps"] for plan in plans] == [[stated(a_sweep())]] * 3
    assert plans[1] == plans[2]
    assert sorted(run["run"] for run in plans[1]["merged_from"]) == ["1", "2", "3"]
    assert [sorted(lines(tmp_path / name)) for name in ("by and by", "again")] == [sorted(lines(tmp_path / "at once"))] * 2


def test_what_runs_do_not_have_in_common_is_null(tmp_path: Path) -> None:
    ways: list[dict[str, Any]] = [{"threads": 1, "baseline": "softmax"}, {"threads": 2, "baseline": None, "patch": 16, "seed": 3}]
    runs = [write_shard(tmp_path / f"{n}", a_sweep(share=(n + 1, 2)), **of) for n, of in enumerate(ways)]
    merged(*runs)
    plan = plan_on_disk(tmp_path / "out")
    assert (plan["threads"], plan["baseline"], plan["patch"]) == (None, None, None)
    assert (plan["device"], plan["seed"]) == ("cpu", 0)


def test_two_operators_under_one_name_are_refused(tmp_path: Path) -> None:
    first = write_shard(tmp_path / "1", a_sweep())
    second = write_shard(tmp_path / "2", a_sweep(ops=(("linear", {"feature": "relu"}), ("softmax", {}))))
    with pytest.raises(InputError, match=r"operator linear is not the same in .* \(its option feature is 'elu' and 'relu'\)"):
        merged(first, second)
    own = [write_shard(tmp_path / d, a_sweep(ops=(("own.py:Mine", {}),), digests={"own.py:Mine": d})) for d in ("a1", "b2")]
    with pytest.raises(InputError, match=r"\(its file has changed\)"):
        merged(*own)


def test_a_file_of_ones_own_is_one_operator_wherever_it_lies(tmp_path: Path) -> None:
    parts = []
    for part, home in ((1, "/home/ann"), (2, "/home/bob")):
        op = f"{home}/own.py:Mine"
        sweep = a_sweep(ops=((op, {}), ("softmax", {})), digests={op: "f00"}, share=(part, 2))
        parts.append(write_shard(tmp_path / f"{part}", sweep, baseline=op))
    merged(*parts)
    plan = plan_on_disk(tmp_path / "out")
    assert list(plan["operators"]) == ["/home/ann/own.py:Mine", "softmax"]
    assert (plan["baseline"], plan["cells"], len(plan["sweeps"])) == ("/home/ann/own.py:Mine", 8, 1)
    assert {r["op"] for r in read_records(tmp_path / "out")} == set(plan["operators"])
    assert sorted(keys(tmp_path / "out")) == sorted(cell.key for cell in visits_of(plan, run="out").cells())
    found = merged(tmp_path / "out", *parts, out="twice")
    assert [taken for _, taken, *_ in counts(found)] == [8, 0, 0]
    assert sorted(lines(tmp_path / "twice")) == sorted(lines(tmp_path / "out"))


def test_runs_of_two_commands_are_refused(tmp_path: Path) -> None:
    sweep, training = write_shard(tmp_path / "sweep", a_sweep()), write_shard(tmp_path / "training", a_sweep(), kind="accuracy")
    with pytest.raises(
        InputError, match=r"'.*sweep' was written by `lisabench scale` and '.*training' was written by `lisabench train-small`"
    ):
        merged(sweep, training)
    with pytest.raises(InputError, match="is no run"):
        merged(sweep, tmp_path)


def test_plans_of_an_older_lisabench_are_merged_for_reading(tmp_path: Path) -> None:
    whole = a_sweep()
    few = write_shard(tmp_path / "few", a_sweep(shapes=whole.shapes[:3]), older=True)
    more = write_shard(tmp_path / "more", a_sweep(shapes=whole.shapes[3:]), older=True, came_of=lambda cell: SKIPPED)
    found = merged(few, more)
    plan = plan_on_disk(tmp_path / "out")
    assert (plan["cells"], found.missing.total()) == (8, 2)
    assert not found.can_go_on
    with pytest.raises(InputError, match="older lisabench"):
        visits_of(plan, run="out")
    assert len(read_run(tmp_path / "out").records) == 8
    assert merged(tmp_path / "out", out="again").cells == 8
    newer = write_shard(tmp_path / "newer", a_sweep(shapes=whole.shapes[2:]), came_of=lambda cell: None)
    assert merged(few, newer, out="both").cells == 8


def test_a_cell_may_be_any_word(tmp_path: Path) -> None:
    """Keys are compared, not taken apart: what wrote a run may have made them otherwise."""
    run = write_shard(tmp_path / "run", a_sweep())
    text = (run / "journal.jsonl").read_text()
    first: Cell = a_sweep().cells()[0]
    (run / "journal.jsonl").write_text(text.replace(first.key, "a word"))
    assert merged(run).missing == {None: 1}
