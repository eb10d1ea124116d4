"""Runs of trainings become one: seeds and operators of several machines, with what stands beside their journals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import made_shards
import numpy as np
import pytest
from made_shards import keys, plan_on_disk
from made_trainings import write_run

from lisabench.errors import InputError
from lisabench.journal import read_records
from lisabench.merging.runs import Merged
from lisabench.results import Run, read_run

OTHER = {"device": "cpu", "device_name": "Another CPU", "cpu": {"threads": 2}}


def merged(*runs: Run, **asked: Any) -> Merged:
    return made_shards.merged(*(run.path for run in runs), **asked)


def two_machines(folder: Path, **plan: Any) -> tuple[Run, Run]:
    one = write_run(folder / "one", {"lisa": [0.9, 0.91], "softmax": [0.8, 0.81]}, **plan)
    return one, write_run(folder / "other", {"lisa": [0.9, 0.91], "linear": [0.7, 0.71]}, **plan | {"seeds": [2, 3]})


def test_seeds_and_operators_are_united(tmp_path: Path) -> None:
    one, other = two_machines(tmp_path)
    moved = [record | {"seed": record["seed"] + 2} for record in other.records]
    rewrite(other.path, moved)
    found = merged(one, other)
    plan = plan_on_disk(tmp_path / "out")
    assert plan["seeds"] == [0, 1, 2, 3]
    assert list(plan["operators"]) == ["lisa", "softmax", "linear"]
    assert found.cells == len(plan["cells"]) == 12
    assert found.missing == {None: 4}
    assert found.can_go_on
    assert plan["baseline"] == "softmax"
    assert read_run(tmp_path / "out", kind="accuracy").records == one.records + moved


def rewrite(run: Path, records: list[dict[str, Any]]) -> None:
    (run / "journal.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_what_belongs_to_a_training_goes_with_it(tmp_path: Path) -> None:
    one, other = two_machines(tmp_path)
    rewrite(other.path, [one.records[0], *other.records])
    for number, run in enumerate((one, other)):
        for folder in ("patterns", "weights", "checkpoints", "figures"):
            (run.path / folder).mkdir()
        for cell in keys(run.path):
            np.savez(run.path / "patterns" / f"{cell}.npz", number=number)
            (run.path / "weights" / f"{cell}.pt").write_text(f"{number}")
            (run.path / "weights" / f".{cell}.pt.7.tmp").write_text("half")
            (run.path / "checkpoints" / f"{cell}.pt").write_text("an epoch")
        (run.path / "weights" / "of another run.pt").write_text("x")
    merged(one, other)
    cells = keys(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "environment.json",
        "journal.jsonl",
        "patterns",
        "plan.json",
        "weights",
    ]
    assert {path.name for path in (tmp_path / "out/weights").iterdir()} == {f"{cell}.pt" for cell in cells}
    assert {path.name for path in (tmp_path / "out/patterns").iterdir()} == {f"{cell}.npz" for cell in cells}
    assert (tmp_path / f"out/weights/{one.records[0]['cell']}.pt").read_text() == "0"


def test_trainings_of_another_plan_are_refused(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", {"lisa": [0.9]})
    other = write_run(tmp_path / "other", {"lisa": [0.8]}, epochs=5, data="structures-8")
    with pytest.raises(InputError, match=r"differ in data, epochs\): .*lisabench report .*one .*other"):
        merged(one, other)
    matched = [write_run(tmp_path / f"m{b}", {"lisa": [0.9]}, baseline=b, match="flops") for b in ("softmax", None)]
    with pytest.raises(InputError, match=r"differ in baseline\)"):
        merged(*matched)
    searched = [write_run(tmp_path / f"s{n}", {"lisa": [0.9]}, search=4, seeds=[n, 7]) for n in (0, 1)]
    with pytest.raises(InputError, match="seed of the search"):
        merged(*searched)


def test_a_trial_of_a_search_is_no_training_of_the_plan(tmp_path: Path) -> None:
    run = write_run(tmp_path / "one", {"lisa": [0.9, 0.91]}, search=1)
    rewrite(run.path, [run.records[0] | {"kind": "search", "cell": "trial"}, run.records[1]])
    assert merged(run).missing == {None: 1}
    assert len(keys(tmp_path / "out")) == 2


def test_conflicting_accuracies_are_named(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", {"lisa": [0.9]})
    other = write_run(tmp_path / "other", {"lisa": [0.8]})
    rewrite(other.path, [other.records[0] | {"cell": one.records[0]["cell"]}])
    with pytest.raises(InputError, match=r"1 cell has different records in two runs: lisa, seed 0: 90.00% top-1 in .* and 80.00% top-1 in"):
        merged(one, other)
    merged(one, other, conflicts="last")
    (found,) = read_records(tmp_path / "out")
    assert found["top1"] == 0.8


def test_trainings_on_unlike_machines_are_refused(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", {"lisa": [0.9]})
    other = write_run(tmp_path / "other", {"softmax": [0.8]}, environment=OTHER)
    with pytest.raises(InputError, match=r"differ in device_name .*--mix merges them"):
        merged(one, other)
    found = merged(one, other, mix=True)
    assert found.kinds == ()
    assert keys(tmp_path / "out") == [one.records[0]["cell"], other.records[0]["cell"]]
