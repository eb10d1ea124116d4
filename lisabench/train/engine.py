"""Takes points one by one through training into the journal: what is missing of a plan, within a budget, as records."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

from lisabench import registry
from lisabench.errors import InputError
from lisabench.journal import BUDGET, SCHEMA, Journal, Record, now
from lisabench.measure.environment import environment, environment_hash
from lisabench.train import data
from lisabench.train.loop import Epoch, Outcome, Point, Recipe, train
from lisabench.train.vit import Size, layer_workload

FIGURES = ("parameters", "flops", "top1", "loss", "curve", "throughput_images_per_s", "seconds")


class Observer(Protocol):
    """Is told how a run goes on; only what is missing is started."""

    def started(self, point: Point) -> None: ...

    def trained(self, point: Point, epoch: Epoch) -> None: ...

    def finished(self, point: Point, record: Record) -> None: ...


def planned_points(plan: dict[str, Any]) -> list[Point]:
    """The points of a plan.json, seed by seed, so that a budget that runs out leaves the operators with equally many."""
    shared = {"data": plan["data"], "epochs": plan["epochs"], "size": Size(**plan["model"]), "recipe": Recipe(**plan["recipe"])}
    return [
        Point(op=op, options=stated["options"], digest=stated["digest"], seed=seed, **shared)
        for seed in plan["seeds"]
        for op, stated in plan["operators"].items()
    ]


def check_models(points: Sequence[Point]) -> None:
    """InputError for options that an operator does not take in this model; the constructor of a user's file or package is not run for it."""
    ours = registry.built_in()
    for point in {point.op: point for point in points if point.op in ours}.values():
        try:
            point.model()  # small: no need of the meta device, whose imports take a second
        except ValueError as error:
            raise InputError(f"operator {point.op}: {error}; see `lisabench ops {point.op}`") from error


def run_points(
    points: Sequence[Point], split: data.Split, *, device: str, journal: Journal, budget: float | None, observer: Observer
) -> Counter[str]:
    """Brings every point that is not settled in the journal there; how many have which status now. `budget` in seconds, None for no limit."""
    deadline = None if budget is None else time.monotonic() + budget
    found = environment(device)
    settled = journal.settled
    longest: dict[str, float] = {}
    statuses: Counter[str] = Counter()
    for point in points:
        record = settled.get(point.key)
        if record is None:
            observer.started(point)
            record = _blank(point, device)
            outcome = _refusal(point) or _over_budget(longest.get(point.op), deadline)
            if outcome is None:
                journal.add_environment(environment_hash(found), found)
                record["environment"] = environment_hash(found)
                outcome = _trained(point, split, device, deadline, observer)
            record = _filled(record, outcome, point)
            journal.append(record)
        if record["status"] == "ok":
            longest[point.op] = max(record["seconds"], longest.get(point.op, 0.0))
        observer.finished(point, record)
        statuses[record["status"]] += 1
    return statuses


def _trained(point: Point, split: data.Split, device: str, deadline: float | None, observer: Observer) -> Outcome:
    training = train(point, split, device=device, deadline=deadline)
    try:
        while True:
            observer.trained(point, next(training))
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome


def _refusal(point: Point) -> Outcome | None:
    """The outcome of a point that its operator cannot do."""
    why = registry.load(point.op).refuses(layer_workload(point.size, data.find(point.data).grid), **point.options)
    return Outcome(status="unsupported", reason=why) if why else None


def _over_budget(expected: float | None, deadline: float | None) -> Outcome | None:
    """The outcome of a point for which no time is left; `expected` is the longest that the operator took with another seed."""
    left = math.inf if deadline is None else deadline - time.monotonic()
    if left <= 0:
        return Outcome(status="skipped", reason=f"{BUDGET}: its seconds are used up; a larger --budget")
    if expected is not None and expected > left:
        return Outcome(
            status="skipped", reason=f"{BUDGET}: another seed took {expected:.1f} s and {left:.1f} s are left; a larger --budget"
        )
    return None


def _blank(point: Point, device: str) -> Record:
    stated = {"schema": SCHEMA, "kind": "accuracy"} | point.record_fields()
    return stated | {"device": device, "dtype": "fp32", "environment": None, "started_at": now()}


def _filled(record: Record, outcome: Outcome, point: Point) -> Record:
    """The record with its figures; `flops` is one group as in a sweep's records, analytic, forward, an image (see `operator_flops`)."""
    flops = point.flops() if outcome.status != "unsupported" else None
    figures = asdict(outcome) | {
        "flops": None if flops is None else {"analytic": flops},
        "curve": [asdict(epoch) for epoch in outcome.curve] or None,
    }
    absent = {name: outcome.reason or "the operator states no cost" for name in FIGURES if figures[name] is None}
    return record | figures | {"absent": absent}
