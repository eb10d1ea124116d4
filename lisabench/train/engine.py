"""Takes a plan's trainings one by one into the journal: first the search's trials, then what counts, within a budget, as records."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from lisabench import registry
from lisabench.journal import BUDGET, SCHEMA, Journal, Record, now
from lisabench.measure.environment import environment, environment_hash
from lisabench.train import checkpoint, cost, kernels
from lisabench.train.data import Part, Split
from lisabench.train.loop import Trained, Within, train
from lisabench.train.plan import Plan, points_of, trials_of
from lisabench.train.point import Epoch, Outcome, Point, Recipe
from lisabench.train.search import best_recipe
from lisabench.train.team import Team
from lisabench.train.vit import layer_workload, operator_flops, other_flops

PATTERNS = "patterns"
SHOWN_IMAGES = 32
ABSENT = dict.fromkeys(("parameters", "flops", "top1", "loss", "curve", "throughput_images_per_s", "seconds"), "not measured") | {
    "latency_s": "not measured for a trial of a search",
    "memory_bytes": "not measured for a trial of a search",
    "elsewhere": "the operator's parameters belong to one grid",
    "kernel_similarity": "the operator has no kernel that gives again what it mixes, or too many tokens",
}


class Observer(Protocol):
    """Is told how a run goes on; only what is missing is started."""

    def planned(self, epochs: int) -> None: ...

    def started(self, key: str, point: Point) -> None: ...

    def trained(self, point: Point, progress: Epoch | Within) -> None: ...

    def finished(self, point: Point, record: Record) -> None: ...


@dataclass(kw_only=True)
class Trainer:
    """Where trainings are done. Of several processes all train, and the leader alone has a journal."""

    split: Split
    device: str
    observer: Observer
    journal: Journal | None
    team: Team = field(default_factory=Team)
    deadline: float = math.inf

    def __post_init__(self) -> None:
        self.environment = environment(self.device)
        self.settled: dict[str, Record] = self.team.told(self.journal.settled if self.journal else None)
        self.run: Path = self.team.told(self.journal.run if self.journal else None)
        self.longest: dict[str, float] = {}

    def bring(self, key: str, point: Point, *, searched: int = 0, costs: Mapping[str, Any] | None = None, shows: bool = False) -> Record:
        """The record of this training, which is trained where it is not settled. `shows`: what it learned is kept for figures."""
        record = self.settled.get(point.key)
        if record is None:
            self.observer.started(key, point)
            trained = self.team.told(self._refused(point) or self._over_budget(key)) or self._trained(point)
            record = _blank(point, self.device, searched) | dict(costs or {})
            if trained.model is not None and not point.validating and self.team.leads:
                record |= self._learned(point, trained, shows=shows)
            record = self._filled(record, point, trained)
            if self.journal:
                if trained.outcome.status not in ("unsupported",):
                    record["environment"] = environment_hash(self.environment)
                    self.journal.add_environment(record["environment"], self.environment)
                self.journal.append(record)
        if record["status"] == "ok" and not point.validating:
            self.longest[key] = max(record["seconds"], self.longest.get(key, 0.0))
        self.observer.finished(point, record)
        return record

    def _trained(self, point: Point) -> Trained:
        kept_at = self.run / checkpoint.CHECKPOINTS / f"{point.key}.pt"
        deadline = None if self.deadline == math.inf else self.deadline
        training = train(point, self.split, device=self.device, deadline=deadline, kept_at=kept_at, team=self.team)
        try:
            while True:
                self.observer.trained(point, next(training))
        except StopIteration as end:
            trained: Trained = end.value
        if self.team.leads and trained.outcome.status != "skipped":
            if trained.model is not None and not point.validating:
                checkpoint.save(self.run / checkpoint.WEIGHTS / f"{point.key}.pt", point.key, {"model": trained.model.state_dict()})
            kept_at.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # another training's stands there
                kept_at.parent.rmdir()
        return trained

    def _refused(self, point: Point) -> Trained | None:
        """What comes of a point that its operator cannot do."""
        why = registry.load(point.op).refuses(layer_workload(point.size, point.images.grid), **point.options)
        return Trained(outcome=Outcome(status="unsupported", reason=why)) if why else None

    def _over_budget(self, key: str) -> Trained | None:
        """What comes of a point for which no time is left, by the longest that the operator took with another seed."""
        left, expected = self.deadline - time.monotonic(), self.longest.get(key, 0.0)
        if 0 < left >= expected:
            return None
        why = "its seconds are used up" if left <= 0 else f"another seed took {expected:.1f} s and {left:.1f} s are left"
        return Trained(outcome=Outcome(status="skipped", reason=f"{BUDGET}: {why}; a larger --budget"))

    def _filled(self, record: Record, point: Point, trained: Trained) -> Record:
        """The record with its figures; `flops` are analytic, forward, an image."""
        outcome = trained.outcome
        flops = None
        if trained.model is not None:
            operators = operator_flops(trained.model)
            flops = {"analytic": None if operators is None else operators + other_flops(trained.model), "operator": operators}
        tested = self.split.held_out()[1] if point.validating else self.split.test
        figures = asdict(outcome) | {"flops": flops, "curve": [asdict(epoch) for epoch in outcome.curve] or None}
        figures |= {"chance": _chance(tested), "test_images": len(tested)}
        record |= figures
        absent = {name: outcome.reason or why for name, why in ABSENT.items() if record[name] is None}
        if flops and flops["operator"] is None:
            absent["flops"] = "the operator states no cost"
        if "elsewhere" in absent and not self.split.elsewhere:
            absent["elsewhere"] = "the data have no larger images"
        return record | {"absent": absent | record["absent"]}

    def _learned(self, point: Point, trained: Trained, *, shows: bool) -> Record:
        """How alike the kernels of the trained model are, and those of the same one before; where `shows`, what it learned is kept."""
        assert trained.model is not None
        images = self.split.standardised(self.split.test.images[:SHOWN_IMAGES].to(self.device))
        found = kernels.learned(trained.model, images, op=point.op, options=point.options, seed=point.seed)
        if shows and (found.kernel_patterns is not None or found.rows is not None):
            found.save(self.run / PATTERNS / f"{point.key}.npz")
        if found.similarity is None:
            return {"kernel_similarity": None}
        torch.manual_seed(point.seed)
        before = kernels.model_similarity(point.model().to(self.device), images) or {}
        untrained = {f"untrained_{name}": value for name, value in before.items() if name != "images"}
        return {"kernel_similarity": found.similarity | untrained}


def run_plan(plan: Plan, trainer: Trainer) -> Counter[str]:
    """Brings every training of the plan that is not settled into the journal; how many have which status now."""
    trials, points = trials_of(plan), points_of(plan)
    trainer.observer.planned(sum(point.epochs for _, point in [*trials, *points] if point.key not in trainer.settled))
    found: dict[str, list[Record]] = {key: [] for key in plan["operators"]}
    for key, point in trials:
        found[key].append(trainer.bring(key, point, searched=plan["search"]))
    recipes = {key: best_recipe(Recipe(**plan["recipe"]), records) for key, records in found.items()}
    unsearched = {key for key, records in found.items() if any(record["status"] == "skipped" for record in records)}
    points = [(key, point) for key, point in points_of(plan, recipes) if key not in unsearched]
    missing = {key: point for key, point in points if point.key not in trainer.settled}
    costs = cost.model_costs(missing, trainer.split, trainer.device) if missing and trainer.team.leads else {}
    statuses: Counter[str] = Counter(skipped=len(unsearched) * len(plan["seeds"]))
    for key, point in points:
        shows = point.seed == plan["seeds"][0]
        statuses[trainer.bring(key, point, searched=plan["search"], costs=costs.get(key), shows=shows)["status"]] += 1
    return +statuses


def _blank(point: Point, device: str, searched: int) -> Record:
    grid, size = point.images.grid, point.size
    hidden = size.mlp_ratio * size.dim if point.mlp_hidden is None else point.mlp_hidden
    model = {"dim": size.dim, "depth": size.depth, "heads": size.heads, "mlp_hidden": hidden, "positions": point.positions}
    return {
        "schema": SCHEMA,
        "kind": "search" if point.validating else "accuracy",
        "cell": point.key,
        "op": point.op,
        "options": point.options,
        "data": point.data,
        "patch": point.images.patch,
        "seed": point.seed,
        "epochs": point.epochs,
        "model": model,
        "height": grid.height,
        "width": grid.width,
        "tokens": grid.tokens,
        "recipe": asdict(point.recipe),
        "searched": searched,
        "device": device,
        "dtype": point.dtype,
        "compiled": point.compiled,
        "latency_s": None,
        "latency_batch": None,
        "memory_bytes": None,
        "kernel_similarity": None,
        "environment": None,
        "started_at": now(),
        "absent": {},
    }


def _chance(tested: Part) -> float:
    """The accuracy of a guess that is always the commonest class."""
    return float(tested.labels.bincount().max() / len(tested))
