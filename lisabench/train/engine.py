"""Takes a plan's trainings one by one into the journal: first the search's trials, then what counts, within a budget, as records."""

from __future__ import annotations

import contextlib
import json
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
from lisabench.provenance import device_kind
from lisabench.train import checkpoint, cost, kernels
from lisabench.train.data import Split
from lisabench.train.loop import Trained, Within, train
from lisabench.train.plan import Plan, point_of, points_of, trials_of
from lisabench.train.point import Epoch, Outcome, Point, Recipe
from lisabench.train.search import best_recipe
from lisabench.train.team import FailedInTeamError, Team
from lisabench.train.vit import ViT, layer_workload, operator_flops, other_flops

PATTERNS = "patterns"
PLANS_OWN = ("command", "lisabench", "cells", "model", "recipe", "operators", "data_digest")  # of a plan; compared apart, or not at all
SHOWN_IMAGES = 32
TRAINED = ("parameters", "flops", "top1", "loss", "elsewhere", "curve", "throughput_images_per_s", "seconds")
FIGURES = (*TRAINED, "latency_s", "memory_bytes", "kernel_similarity")


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
        for torn in (self.run / checkpoint.CHECKPOINTS).glob(".*.tmp") if self.journal else ():  # of a process that was killed
            torn.unlink(missing_ok=True)

    def bring(self, key: str, point: Point, *, searched: int = 0, costs: Mapping[str, Any] | None = None, shows: bool = False) -> Record:
        """The record of this training, which is trained where it is not settled. `shows`: what it learned is kept for figures."""
        record = self.settled.get(point.key)
        if record is None:
            self.observer.started(key, point)
            record = _blank(point, self.device, searched, self.team) | dict(costs or {})
            try:
                trained = self.team.told(self._refused(point) or self._over_budget(key, point)) or self._trained(point)
            except FailedInTeamError as failed:
                self._keep(self._filled(record, point, Trained(outcome=Outcome(status=failed.status, reason=failed.reason))))
                raise
            if trained.model is not None and not point.validating and self.team.leads:
                learned = self._learned(point, trained.model, shows=shows)
                record |= learned | {"absent": record["absent"] | learned.get("absent", {})}
            record = self._filled(record, point, trained)
            self._keep(record)
            if self.team.leads and record["status"] != "skipped":
                self._checkpoint(point).unlink(missing_ok=True)  # not before the record stands
                with contextlib.suppress(OSError):  # another training's stands there, or none ever did
                    self._checkpoint(point).parent.rmdir()
        if record["status"] == "ok" and not point.validating:
            self.longest[key] = max(record["seconds"], self.longest.get(key, 0.0))
        self.observer.finished(point, record)
        return record

    def _keep(self, record: Record) -> None:
        if self.journal:
            if record["status"] != "unsupported":
                record["environment"] = environment_hash(self.environment)
                self.journal.add_environment(record["environment"], self.environment)
            self.journal.append(record)

    def _checkpoint(self, point: Point) -> Path:
        return self.run / checkpoint.CHECKPOINTS / f"{point.key}.pt"

    def _trained(self, point: Point) -> Trained:
        deadline = None if self.deadline == math.inf else self.deadline
        training = train(point, self.split, device=self.device, deadline=deadline, kept_at=self._checkpoint(point), team=self.team)
        try:
            while True:
                self.observer.trained(point, next(training))
        except StopIteration as end:
            trained: Trained = end.value
        if trained.model is not None and not point.validating and self.team.leads:
            checkpoint.save(self.run / checkpoint.WEIGHTS / f"{point.key}.pt", point.key, {"model": trained.model.state_dict()})
        return trained

    def _refused(self, point: Point) -> Trained | None:
        """What comes of a point that its operator cannot do."""
        try:
            why = registry.load(point.op).refuses(layer_workload(point.size, point.images.grid), **point.options)
        except Exception as error:  # an operator may be the user's own
            return Trained(outcome=Outcome(status="error", reason=f"refuses raised {type(error).__name__}: {error}"))
        return Trained(outcome=Outcome(status="unsupported", reason=why)) if why else None

    def _over_budget(self, key: str, point: Point) -> Trained | None:
        """What comes of a point for which no time is left, by the longest that the operator took with another seed."""
        left, expected = self.deadline - time.monotonic(), self.longest.get(key, 0.0)
        if left > 0 and (left >= expected or self._checkpoint(point).exists()):
            return None
        why = "its seconds are used up" if left <= 0 else f"another seed took {expected:.1f} s and {left:.1f} s are left"
        return Trained(outcome=Outcome(status="skipped", reason=f"{BUDGET}: {why}; a larger --budget"))

    def _filled(self, record: Record, point: Point, trained: Trained) -> Record:
        """The record with its figures; `flops` are analytic, forward, an image."""
        outcome, flops, absent = trained.outcome, None, {}
        if trained.model is not None:
            try:
                operators = operator_flops(trained.model)
            except Exception as error:  # a user's own formula
                operators, absent = None, {"flops": f"the operator's cost raised {type(error).__name__}: {error}"}
            flops = {"analytic": None if operators is None else operators + other_flops(trained.model), "operator": operators}
            absent = absent or ({"flops": "the operator states no cost"} if operators is None else {})
        labels = self.split.train.labels[self.split.held_out()[1]] if point.validating else self.split.test.labels
        figures = {name: value for name, value in asdict(outcome).items() if name != "absent"}
        record |= figures | {"flops": flops, "curve": [asdict(epoch) for epoch in outcome.curve] or None}
        record |= {"chance": float(labels.bincount().max() / len(labels)), "test_images": len(labels)}
        why = outcome.reason or ("not asked of a trial of a search" if point.validating else "not measured")
        absent = {name: why for name in FIGURES if record[name] is None} | absent
        return record | {"absent": absent | record["absent"] | outcome.absent}

    def _learned(self, point: Point, model: ViT, *, shows: bool) -> Record:
        """How alike the kernels of the trained model are, and those of the same one before; where `shows`, what it learned is kept."""
        some = torch.linspace(0, len(self.split.test) - 1, min(len(self.split.test), SHOWN_IMAGES)).long()
        images = self.split.standardised(self.split.test.images[some].to(self.device))
        try:
            found = kernels.learned(model, images, op=point.op, options=point.options, seed=point.seed)
            torch.manual_seed(point.seed)
            before = (kernels.model_similarity(point.model().to(self.device), images) if found.similarity else None) or {}
        except Exception as error:  # an operator may be the user's own
            return {"absent": {"kernel_similarity": f"asking for its kernel raised {type(error).__name__}: {error}"}}
        if shows and (found.kernel_patterns is not None or found.rows is not None):
            found.save(self.run / PATTERNS / f"{point.key}.npz")
        if found.similarity is None:
            return {
                "absent": {"kernel_similarity": "the operator has no kernel that gives again what it mixes, or there are too many tokens"}
            }
        untrained = {f"untrained_{name}": value for name, value in before.items() if name != "images"}
        return {"kernel_similarity": found.similarity | untrained}


def run_plan(plan: Plan, trainer: Trainer) -> Counter[str]:
    """Brings every training of the plan that is not settled into the journal; how many have which status now."""
    trials = trials_of(plan)
    done = {_told(record) for record in trainer.settled.values() if record["kind"] == "accuracy"}
    wanted = [
        (key, point) for key, point in points_of(plan) if _told({"op": point.op, "options": point.options, "seed": point.seed}) not in done
    ]
    missing = [*(trial for trial in trials if trial[1].key not in trainer.settled), *wanted]
    trainer.observer.planned(sum(point.epochs for _, point in missing))
    costs = _costs(plan, trainer, {key for key, _ in missing})
    found: dict[str, list[Record]] = {key: [] for key in plan["operators"]}
    for key, point in trials:
        found[key].append(trainer.bring(key, point, searched=plan["search"]))
    recipes = {key: best_recipe(Recipe(**plan["recipe"]), records) for key, records in found.items()}
    unsearched = {key for key, records in found.items() if any(record["status"] == "skipped" for record in records)}
    points = [(key, point) for key, point in points_of(plan, recipes) if key not in unsearched]
    statuses: Counter[str] = Counter(skipped=len(unsearched) * len(plan["seeds"]))
    for key, point in points:
        shows = point.seed == plan["seeds"][0]
        statuses[trainer.bring(key, point, searched=plan["search"], costs=costs.get(key), shows=shows)["status"]] += 1
    return +statuses


def facts(plan: Plan, device: str) -> dict[str, Any]:
    """What has to be the same in all processes that train together, by what a message calls it."""
    about = environment(device)
    operators = plan["operators"].items()
    found = {"its device": device_kind(about), "lisabench's commit": (about["git"] or {}).get("commit")}
    found |= {f"{name}.{inner}": value for name in ("model", "recipe") for inner, value in plan[name].items()}
    found |= {name: value for name, value in plan.items() if name not in PLANS_OWN}
    found |= {f"the file of operator {stated['op']}": stated["digest"] for _, stated in operators}
    found |= {f"operator {key}": [stated["options"], stated["mlp_hidden"]] for key, stated in operators}
    return found | {f"the images of {plan['data']}": plan["data_digest"]}


def _told(record: Record) -> str:
    """What a training is told by before a search has found its recipe."""
    return json.dumps([record["op"], record["options"], record["seed"]], sort_keys=True)


def _costs(plan: Plan, trainer: Trainer, missing: set[str]) -> dict[str, Any]:
    """What the models of these operators cost, measured side by side; on the leader, while there is time."""
    if not trainer.team.leads or time.monotonic() > trainer.deadline:
        return {}
    models = {key: point_of(plan, key, plan["seeds"][0]) for key in plan["operators"] if key in missing}
    return cost.model_costs(models, trainer.split, trainer.device)


def _blank(point: Point, device: str, searched: int, team: Team) -> Record:
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
        "processes": team.size,
        "nodes": team.nodes,
        "dtype": point.dtype,
        "compiled": point.compiled,
        "latency_s": None,
        "latency_batch": None,
        "memory_bytes": None,
        "backend": None,
        "kernel_similarity": None,
        "environment": None,
        "started_at": now(),
        "absent": {},
    }
