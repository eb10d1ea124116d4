"""A plan of trainings brought into a journal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training import TINY, few

from lisabench import registry
from lisabench.errors import InputError, RunError
from lisabench.journal import Journal, Record, read_environments
from lisabench.train import cost, engine, plan
from lisabench.train.engine import Trainer, run_plan
from lisabench.train.loop import Training, Within
from lisabench.train.point import Epoch, Point, Recipe
from lisabench.train.team import Team


class Log:
    def __init__(self) -> None:
        self.epochs = self.trained_epochs = 0
        self.records: list[Record] = []

    def planned(self, epochs: int) -> None:
        self.epochs = epochs

    def started(self, key: str, point: Point) -> None: ...

    def trained(self, point: Point, progress: Epoch | Within) -> None:
        self.trained_epochs += isinstance(progress, Epoch)

    def finished(self, point: Point, record: Record) -> None:
        self.records.append(record)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.create(tmp_path / "run", {}) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "LIMITS", replace(cost.LIMITS, seconds=0.02, at_least_seconds=0.0, warmup_seconds=0.0))


def planned(*ops: str, **changes: Any) -> dict[str, Any]:
    from dataclasses import asdict

    resolved = [(op, registry.load(op).resolve({})) for op in ops or ("softmax",)]
    told = {
        "baseline": None,
        "data": "digits",
        "patch": 2,
        "image_size": None,
        "data_digest": None,
        "epochs": 1,
        "seeds": [0],
        "search": 0,
        "match": None,
        "dtype": "fp32",
        "compiled": False,
        "model": {"size": "micro", **asdict(TINY), "positions": True},
        "recipe": asdict(Recipe()),
        "operators": plan.stated_operators(resolved),
    }
    return plan.head(**(told | changes))


def run(what: dict[str, Any], journal: Journal, **settings: Any) -> Log:
    log = Log()
    run_plan(what, Trainer(split=few(64), device="cpu", observer=log, journal=journal, **settings))
    return log


def test_only_what_is_missing_is_trained(journal: Journal) -> None:
    first = run(planned(), journal)
    more = run(planned(seeds=[0, 1, 2]), journal)
    assert (first.trained_epochs, more.trained_epochs) == (1, 2) == (first.epochs, more.epochs)
    assert more.records[0] == first.records[0]
    assert [record["seed"] for record in more.records] == [0, 1, 2]
    assert journal.records == more.records
    assert not (journal.run / "checkpoints").exists()
    assert {path.stem for path in (journal.run / "weights").iterdir()} == {record["cell"] for record in more.records}


def test_a_record_is_whole(journal: Journal) -> None:
    (lisa, softmax) = run(planned("lisa", "softmax"), journal).records
    for record in (lisa, softmax):
        assert record["status"] == "ok"
        assert record["latency_s"]["median"] > 0
        assert record["memory_bytes"]["transient"] > 0
        assert record["memory_bytes"]["parameters"] == 4 * record["parameters"]
        assert record["flops"]["analytic"] > record["flops"]["operator"] > 0
        assert record["kernel_similarity"]["images"] > 0
        assert 0.1 <= record["chance"] < 0.2
        assert (record["model"]["mlp_hidden"], record["tokens"], record["searched"]) == (8, 16, 0)
        assert record["absent"] == {"elsewhere": "the data have no larger images"}
    assert (lisa["backend"], softmax["backend"]) == ("dense", "flash")
    assert (journal.run / "patterns" / f"{lisa['cell']}.npz").exists()


def test_record_names_its_environment_and_what_is_absent(journal: Journal, own_operators: Path) -> None:
    (record,) = run(planned(f"{own_operators}:Plain"), journal).records
    assert record["status"] == "ok"
    assert record["flops"] == {"analytic": None, "operator": None}
    assert record["absent"]["flops"] == "the operator states no cost"
    assert set(record["absent"]) == {"flops", "elsewhere", "kernel_similarity"}
    assert set(read_environments(journal.run)) == {record["environment"]}


def test_a_trained_operator_is_kept_whatever_its_other_parts_raise(journal: Journal, tmp_path: Path) -> None:
    """Its kernel cannot be asked for, its cost raises: the training stands, with the reasons."""
    (tmp_path / "odd.py").write_text(
        "from torch import nn\n\n\n"
        "class Odd(nn.Module):\n"
        "    def __init__(self, dim, num_heads, grid):\n"
        "        super().__init__()\n"
        "        self.linear, self.unused = nn.Linear(dim, dim), nn.Linear(dim, dim)\n\n"
        "    def prepare(self, x, mask):\n"
        "        return (x,)\n\n"
        "    def mix(self, x):\n"
        "        return x\n\n"
        "    def forward(self, x):\n"
        "        return self.linear(x)\n"
    )
    (record,) = run(planned(f"{tmp_path / 'odd.py'}:Odd"), journal).records
    assert record["status"] == "ok"
    assert "raised TypeError" in record["absent"]["kernel_similarity"]


def test_a_checkpoint_goes_when_its_record_stands(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(record: Record) -> None:
        raise RunError("no space")

    monkeypatch.setattr(journal, "append", full)
    with pytest.raises(RunError):
        run(planned(), journal)
    assert len(list((journal.run / "checkpoints").iterdir())) == 1
    monkeypatch.undo()
    (journal.run / "checkpoints" / ".torn.pt.1.tmp").write_text("left by a kill")
    log = run(planned(), journal)
    assert (log.trained_epochs, log.records[0]["status"]) == (0, "ok")  # its only epoch was kept
    assert not (journal.run / "checkpoints").exists()


def test_an_unfinished_training_goes_on_even_if_another_seed_took_longer_than_is_left(journal: Journal) -> None:
    run(planned(), journal)
    journal.records[0]["seconds"] = 1e6
    what = planned(seeds=[0, 1])
    (_, _), (_, second) = plan.points_of(what)
    engine.checkpoint.save(journal.run / "checkpoints" / f"{second.key}.pt", second.key, Training(second, few(64), "cpu", Team()).state())
    assert run(what, journal, deadline=time.monotonic() + 1e5).records[1]["status"] == "ok"


def test_the_search_decides_the_recipe_and_is_kept(journal: Journal) -> None:
    what = planned("softmax", "lisa", search=3, seeds=[0, 1])
    log = run(what, journal)
    trials = [record for record in log.records if record["kind"] == "search"]
    final = [record for record in log.records if record["kind"] == "accuracy"]
    assert (len(trials), len(final), log.epochs) == (6, 4, 10)
    for op in ("softmax", "lisa"):
        best = max((record for record in trials if record["op"] == op), key=lambda record: record["top1"])
        for record in final:
            if record["op"] == op:
                assert record["recipe"] == best["recipe"]
                assert record["searched"] == 3
    assert all(record["latency_s"] is None for record in trials)
    again = run(what, journal)
    assert (again.trained_epochs, again.epochs) == (0, 0)  # nothing is planned, though the search had changed the recipes


def test_a_training_that_another_seed_shows_not_to_fit_is_not_begun(journal: Journal) -> None:
    run(planned(), journal)
    journal.records[0]["seconds"] = 1e6
    log = run(planned(seeds=[0, 1]), journal, deadline=time.monotonic() + 1e5)
    assert log.trained_epochs == 0
    assert log.records[1]["status"] == "skipped"
    assert log.records[1]["reason"].startswith("budget: another seed took 1000000.0 s")
    assert {"top1", "loss", "flops", "parameters"} <= set(log.records[1]["absent"])
    assert run(planned(seeds=[0, 1]), journal).trained_epochs == 1  # a larger budget: it is not settled


def test_a_search_that_is_cut_off_is_gone_on_with(journal: Journal) -> None:
    what = planned(search=2)
    log = run(what, journal, deadline=time.monotonic() - 1)
    assert [(record["kind"], record["status"]) for record in log.records] == [("search", "skipped")] * 2
    assert [record["status"] for record in run(what, journal).records] == ["ok"] * 3


def test_what_an_operator_refuses_is_unsupported(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    what = planned()
    refusing = replace(registry.load("softmax"), refuses=lambda workload, **options: f"no grid of {workload.grid}")
    monkeypatch.setattr(registry, "load", lambda name: refusing)
    log = run(what, journal)
    assert log.trained_epochs == 0
    assert (log.records[0]["status"], log.records[0]["reason"]) == ("unsupported", "no grid of 4 x 4")


def test_matched_models(journal: Journal) -> None:
    what = planned("softmax_rpe", "softmax", match="parameters", baseline="softmax")
    plan.match(what)
    table, softmax = run(what, journal).records
    assert softmax["model"]["mlp_hidden"] == 8
    assert table["model"]["mlp_hidden"] < 8
    assert abs(table["parameters"] - softmax["parameters"]) <= TINY.depth * (2 * TINY.dim + 1) / 2


@pytest.mark.parametrize(
    ("op", "match", "words"),
    [
        ("lisa", "parameters", "than the model with softmax costs that with lisa; leave"),
        ("own", "flops", "no FLOPs are stated by Plain; give"),
    ],
)
def test_models_that_cannot_be_matched(op: str, match: str, words: str, own_operators: Path) -> None:
    name = f"{own_operators}:Plain" if op == "own" else op
    with pytest.raises(InputError, match=words):
        plan.match(planned(name, "softmax", match=match, baseline="softmax"))


def test_weights_are_those_that_were_tested(journal: Journal) -> None:
    (record,) = run(planned("lisa"), journal).records
    kept = engine.checkpoint.load(journal.run / "weights" / f"{record['cell']}.pt", record["cell"])
    assert kept is not None
    model = plan.point_of(planned("lisa"), "lisa", 0).model()
    model.load_state_dict(kept["model"])
    test = few(64).test
    with torch.no_grad():
        found = model.eval()(test.images).argmax(-1) == test.labels
    assert float(found.double().mean()) == record["top1"]
