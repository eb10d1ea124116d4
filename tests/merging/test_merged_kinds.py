"""Runs of several kinds of devices become the run of an uneven fleet: each kind has cells, and so series, of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_shards import LARGE_KIND, SKIPPED, SMALL_KIND, UNSUPPORTED, a_sweep, keys, lines, machine, merged, plan_on_disk, write_shard

from lisabench.errors import InputError
from lisabench.journal import read_records
from lisabench.plans import stated, visits_of

KINDS = (SMALL_KIND, LARGE_KIND)
LARGE = machine("Large CPU", host="two", cpu={"threads": 2}, libraries={"torch": "2.12.0"})


@pytest.mark.parametrize("older", [False, True])
def test_each_kind_has_cells_of_its_own(older: bool, tmp_path: Path) -> None:
    """Other surroundings are no matter there: the figures never stand in one series."""
    small = write_shard(tmp_path / "small", a_sweep(), older=older)
    large = write_shard(tmp_path / "large", a_sweep(), on=LARGE, factor=0.5)
    found = merged(small, large)
    assert found.kinds == KINDS
    assert (found.joined.conflicting, found.differing, found.missing.total()) == (0, [], 0)
    both = a_sweep(kinds=KINDS)
    assert sorted(keys(tmp_path / "out")) == sorted(cell.key for cell in both.cells())
    assert {r["device_kind"]: r["latency_s"]["median"] / r["tokens"] for r in read_records(tmp_path / "out")} == pytest.approx(
        {SMALL_KIND: 1e-5, LARGE_KIND: 0.5e-5}
    )
    plan = plan_on_disk(tmp_path / "out")
    assert plan["cells"] == both.count
    assert plan.get("sweeps") == (None if older else [stated(both)])
    again = merged(small, tmp_path / "out", large, out="again")
    assert [(tally.taken, tally.equal) for tally in again.joined.runs] == [(8, 0), (8, 8), (0, 8)]


def test_what_a_kind_misses_is_told_by_kind(tmp_path: Path) -> None:
    small = [write_shard(tmp_path / f"small {n}", a_sweep(share=(n, 2))) for n in (1, 2)]
    large = write_shard(tmp_path / "large", a_sweep(share=(1, 2)), on=LARGE, came_of=lambda cell: {} if cell.op == "linear" else SKIPPED)
    found = merged(*small, large)
    plan = plan_on_disk(tmp_path / "out")
    assert plan["sweeps"] == [stated(a_sweep(kinds=(SMALL_KIND,))), stated(a_sweep(kinds=(LARGE_KIND,), share=(1, 2)))]
    assert found.missing == {LARGE_KIND: 2}
    planned = {cell.key for cell in visits_of(plan, run="out").cells()}
    assert planned == set(keys(tmp_path / "out"))
    merged(tmp_path / "out", *small, out="again")
    assert plan_on_disk(tmp_path / "again")["sweeps"] == plan["sweeps"]


@pytest.mark.parametrize("came_of", [UNSUPPORTED, SKIPPED])
def test_a_cell_that_never_ran_is_of_its_runs_kind(came_of: dict[str, Any], tmp_path: Path) -> None:
    small, large = (
        write_shard(tmp_path / name, a_sweep(), on=on, came_of=lambda cell: came_of if cell.workload.tokens > 64 else {})
        for name, on in (("small", machine()), ("large", LARGE))
    )
    merged(small, large)
    never = [record for record in read_records(tmp_path / "out") if record["tokens"] > 64]
    assert [record["device_kind"] for record in never] == [SMALL_KIND] * 2 + [LARGE_KIND] * 2
    assert {record["cell"] for record in never} <= {cell.key for cell in a_sweep(kinds=KINDS).cells()}


def test_merging_what_was_merged_gives_the_same_keys(tmp_path: Path) -> None:
    parts = [
        write_shard(
            tmp_path / f"{name} {n}", a_sweep(share=(n, 2)), on=on, came_of=lambda cell: UNSUPPORTED if cell.workload.tokens > 64 else {}
        )
        for name, on in (("small", machine()), ("large", LARGE))
        for n in (1, 2)
    ]
    merged(*parts, out="at once")
    merged(*parts[:2], out="small")
    merged(parts[0], parts[2], out="mixed")
    merged(tmp_path / "small", tmp_path / "mixed", *parts[2:], out="by and by")
    merged(tmp_path / "by and by", out="again")
    assert [sorted(map(json.loads, lines(tmp_path / n)), key=str) for n in ("by and by", "again")] == [
        sorted(map(json.loads, lines(tmp_path / "at once")), key=str)
    ] * 2
    plans = [plan_on_disk(tmp_path / name) for name in ("at once", "by and by", "again")]
    assert [plan["sweeps"] for plan in plans] == [[stated(a_sweep(kinds=KINDS))]] * 3
    assert lines(tmp_path / "again") == lines(tmp_path / "by and by")


def test_a_fleet_of_one_kind_is_as_any_run(tmp_path: Path) -> None:
    alone = write_shard(tmp_path / "alone", a_sweep(share=(1, 2)))
    fleet = write_shard(tmp_path / "fleet", a_sweep(share=(2, 2), kinds=(SMALL_KIND,)))
    merged(alone, fleet)
    assert plan_on_disk(tmp_path / "out")["sweeps"] == [stated(a_sweep())]
    assert sorted(keys(tmp_path / "out")) == sorted(cell.key for cell in a_sweep().cells())


def test_a_conflict_is_one_on_equal_devices_alone(tmp_path: Path) -> None:
    first, again = (write_shard(tmp_path / f"small {n}", a_sweep(), factor=n, on=machine(host=f"h{n}")) for n in (1, 2))
    large = write_shard(tmp_path / "large", a_sweep(), on=LARGE)
    with pytest.raises(InputError, match=r"8 cells have different records in two runs: .*on h1 and .*on h2"):
        merged(first, large, again)
    assert merged(first, large, again, conflicts="last").joined.conflicting == 8


def test_unlike_surroundings_of_one_kind_are_refused_beside_another(tmp_path: Path) -> None:
    small, other = (write_shard(tmp_path / f"small {n}", a_sweep(share=(n, 2)), on=machine(torch=f"2.1{n}.0")) for n in (1, 2))
    large = write_shard(tmp_path / "large", a_sweep(), on=LARGE)
    with pytest.raises(InputError, match=r"differ in libraries.torch \('2.11.0' and '2.12.0'\)"):
        merged(small, large, other)


def test_a_run_that_does_not_tell_its_device(tmp_path: Path) -> None:
    """Of those that were planned for the same device it is one; where they are of several kinds there is no telling."""
    empty = write_shard(tmp_path / "empty", a_sweep(share=(2, 2)), came_of=lambda cell: None)
    (empty / "environment.json").unlink()
    half = write_shard(tmp_path / "half", a_sweep(share=(1, 2)))
    on_gpu = machine("GPU", host="three", device="cuda:0")
    gpu = write_shard(tmp_path / "gpu", a_sweep(device="cuda:0"), on=on_gpu, device="cuda:0")
    found = merged(half, gpu, empty)
    assert found.kinds == (SMALL_KIND, "GPU")
    assert found.missing == {SMALL_KIND: 4}
    large = write_shard(tmp_path / "large", a_sweep(), on=LARGE)
    with pytest.raises(InputError, match=r"'.*empty' holds nothing that says what device it was for.*leave it out"):
        merged(half, large, empty, out="other")


def test_a_run_that_never_came_to_a_record_is_of_its_machines_kind(tmp_path: Path) -> None:
    small, large = (
        write_shard(tmp_path / "small", a_sweep()),
        write_shard(tmp_path / "large", a_sweep(), on=LARGE, came_of=lambda cell: None),
    )
    assert merged(small, large).missing == {LARGE_KIND: 8}


def test_cells_of_a_fleet_that_never_ran_are_of_the_kind_in_their_key(tmp_path: Path) -> None:
    fleet = write_shard(tmp_path / "fleet", a_sweep(kinds=KINDS), came_of=lambda cell: UNSUPPORTED)
    assert {record["device_kind"] for record in read_records(fleet)} == {None}
    found = merged(fleet, write_shard(tmp_path / "large", a_sweep(), on=LARGE, came_of=lambda cell: None))
    assert keys(tmp_path / "out") == keys(fleet)
    assert {record["cell"]: record["device_kind"] for record in read_records(tmp_path / "out")} == {
        cell.key: cell.kind for cell in a_sweep(kinds=KINDS).cells()
    }
    assert found.missing.total() == 0


def test_a_run_that_was_gone_on_with_elsewhere_is_of_both_kinds(tmp_path: Path) -> None:
    """What --mix put into one run is apart again; what never ran stays with the kind that the run was begun on."""
    both = write_shard(tmp_path / "both", a_sweep(), came_of=lambda cell: {} if cell.workload.tokens < 64 else None)
    rest = write_shard(tmp_path / "rest", a_sweep(), on=LARGE, came_of=lambda cell: UNSUPPORTED if cell.workload.tokens > 64 else {})
    with open(both / "journal.jsonl", "a") as file:
        file.writelines(f"{line}\n" for line in lines(rest)[4:])
    environments = [json.loads((run / "environment.json").read_text()) for run in (both, rest)]
    (both / "environment.json").write_text(json.dumps(environments[0] | environments[1]))
    found = merged(both)
    assert [record["device_kind"] for record in read_records(tmp_path / "out")] == [SMALL_KIND] * 4 + [LARGE_KIND] * 2 + [SMALL_KIND] * 2
    assert found.missing == {SMALL_KIND: 2, LARGE_KIND: 6}


def test_an_older_record_whose_environment_is_gone_is_of_its_runs_kind(tmp_path: Path) -> None:
    small = write_shard(tmp_path / "small", a_sweep(), older=True)
    first, *rest = lines(small)
    (small / "journal.jsonl").write_text("\n".join([json.dumps(json.loads(first) | {"environment": "gone"}), *rest, ""]))
    merged(small, write_shard(tmp_path / "large", a_sweep(), on=LARGE))
    assert {record["device_kind"] for record in read_records(tmp_path / "out")[:8]} == {SMALL_KIND}
