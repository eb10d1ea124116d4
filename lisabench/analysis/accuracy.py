"""What trainings say together: accuracy over the seeds with its interval, beside what each operator costs."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import stdtrit

from lisabench.journal import Record
from lisabench.results import Run

if TYPE_CHECKING:
    import pandas as pd

_UPPER = 0.975  # the quantile at the upper end of a two-sided 95% interval


@dataclass(frozen=True)
class Estimate:
    """A mean over so many seeds with its 95% interval; one seed has none."""

    mean: float
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class Span:
    """A median with the ends of its interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """The trainings of one operator with its options on one data set, in one run.

    `label` is unlike all others of the data set. `top1` are the test accuracies of the finished seeds (0 to 1), `failures` how many of
    the others ended how, `curves` the epochs of each finished seed. Costs are None where no finished seed has them: parameters and
    FLOPs an image of the whole model, latency and transient memory of its forward on `latency_batch` images; memory, training images
    a second and seconds a seed are medians over the seeds, `latency` is with the widest interval that its seeds' intervals span;
    `warnings` are what its measurement warns of.
    """

    run: Path
    key: str
    label: str
    op: str
    options: Mapping[str, Any]
    given: Mapping[str, Any]
    family: str
    data: str
    is_baseline: bool
    seeds: int
    epochs: int | None
    top1: tuple[float, ...]
    failures: Mapping[str, int]
    curves: tuple[tuple[Mapping[str, Any], ...], ...]
    test_images: int | None
    chance: float | None
    parameters: int | None
    flops: float | None
    operator_flops: float | None
    latency: Span | None
    latency_batch: int | None
    warnings: tuple[str, ...]
    tokens: int | None
    memory: float | None
    throughput: float | None
    seconds: float | None
    elsewhere: Mapping[str, Estimate]
    similarity: Mapping[str, float]
    backend: str | None
    mlp_hidden: int | None
    searched: int
    learning_rate: float | None
    weight_decay: float | None

    @property
    def accuracy(self) -> Estimate | None:
        """The mean test accuracy; None where no seed has finished."""
        return estimate(self.top1, images=self.test_images) if self.top1 else None


def estimate(values: Sequence[float], *, images: int | None) -> Estimate:
    """The mean of accuracies with its 95% interval by Student's t, within 0 and 1.

    It is never narrower than half an image of so many `images` to both sides: equal seeds do not make an accuracy exact.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, None, None, len(values))
    half = float(stdtrit(len(values) - 1, _UPPER) * np.std(values, ddof=1) / np.sqrt(len(values)))
    half = max(half, _half_an_image(images))
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), len(values))


def difference(one: Series, other: Series) -> Estimate | None:
    """By how much the first is more accurate, with Welch's 95% interval; None where one of them has no finished seed.

    There is no interval where one of them has fewer than two; it is never narrower than half an image of each to both sides.

    Source: B. L. Welch, The generalization of Student's problem when several different population variances are involved (1947).
    """
    if not one.top1 or not other.top1:
        return None
    apart = float(np.mean(one.top1) - np.mean(other.top1))
    counts = np.array([len(one.top1), len(other.top1)])
    if counts.min() < 2:
        return Estimate(apart, None, None, int(counts.min()))
    parts = np.array([np.var(one.top1, ddof=1), np.var(other.top1, ddof=1)]) / counts
    half = _half_an_image(one.test_images) + _half_an_image(other.test_images)
    if parts.sum() > 0:
        shares = parts / parts.sum()  # of variances as small as 1e-200 the squares would vanish
        freedom = 1 / (shares**2 / (counts - 1)).sum()
        half = max(half, float(stdtrit(freedom, _UPPER) * np.sqrt(parts.sum())))
    return Estimate(apart, apart - half, apart + half, int(counts.min()))


def leaders(series: Sequence[Series]) -> list[Series]:
    """The most accurate, and those whose difference to it has an interval that holds 0; none where the best has no interval."""
    finished = [one for one in series if one.top1]
    if not finished:
        return []
    best = max(finished, key=lambda one: float(np.mean(one.top1)))
    if len(best.top1) < 2:
        return []
    apart = {id(one): difference(best, one) for one in finished}
    return [one for one in finished if one is best or ((found := apart[id(one)]) and found.low is not None and found.low <= 0)]


def front(costs: Sequence[float], accuracies: Sequence[float]) -> list[int]:
    """The Pareto front: what nothing else beats in one of the two without losing in the other, cheap before dear.

    Equal points are on it together; of points with equal cost, or equal accuracy, the better one alone.
    """
    found: list[int] = []
    for index in sorted(range(len(costs)), key=lambda index: (costs[index], -accuracies[index])):
        last = found[-1] if found else None
        twin = last is not None and costs[index] == costs[last] and accuracies[index] == accuracies[last]
        if last is None or twin or accuracies[index] > accuracies[last]:
            found.append(index)
    return found


def summarise(runs: Sequence[Run]) -> list[Series]:
    """A series for each operator of each run, in the order of runs and plans. Where one label stands for series of several runs on one
    data set, the run's name is added to it, or its whole path where names are alike."""
    found = [(_label(run, key), _series(run, key)) for run in runs for key in run.plan["operators"]]
    name_of: Callable[[Path], str]
    for name_of in (lambda run: run.name, str):
        counted = Counter((one.data, one.label) for _, one in found)
        twice = [counted[one.data, one.label] > 1 for _, one in found]
        found = [
            (label, replace(one, label=f"{label}, {name_of(one.run)}") if again else one)
            for (label, one), again in zip(found, twice, strict=True)
        ]
    return [one for _, one in found]


def by_data(series: Sequence[Series]) -> dict[str, list[Series]]:
    """The series of each data set."""
    found: dict[str, list[Series]] = {}
    for one in series:
        found.setdefault(one.data, []).append(one)
    return found


def baseline_of(one: Series, series: Sequence[Series]) -> Series | None:
    """The baseline of a series: that of its own run."""
    return next((other for other in series if other.is_baseline and other.run == one.run and other.data == one.data), None)


def data_name(data: str) -> str:
    """A data set's name; of a folder or a file its last part."""
    return data if data.startswith("hub:") or "/" not in data else Path(data).name


def frame(runs: Sequence[Run]) -> pd.DataFrame:
    """A row a record, trials of a search among them; nested fields with a dot (`latency_s.median`), lists and options as JSON text."""
    import pandas as pd

    rows = []
    for run in runs:
        labels = {
            (stated.get("op", key), json.dumps(stated["options"], sort_keys=True)): _label(run, key)
            for key, stated in run.plan["operators"].items()
        }
        for record in run.records:
            known = labels.get((record["op"], json.dumps(record["options"], sort_keys=True)), record["op"])
            rows.append({"run": run.path.name, "label": known} | _flat(record))
    return pd.DataFrame(rows)


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict) and name not in ("options", "absent"):
            row |= _flat(value, f"{prefix}{name}.")
        else:
            row[prefix + name] = json.dumps(value, sort_keys=True) if isinstance(value, (dict, list)) else value
    return row


def _half_an_image(images: int | None) -> float:
    return 0.5 / images if images else 0.0


def _label(run: Run, key: str) -> str:
    stated = run.plan["operators"][key]
    return re.sub(r"^.*\.py:", "", key) if "op" in stated else run.label(key)


def _series(run: Run, key: str) -> Series:
    stated = run.plan["operators"][key]
    op = stated.get("op", key)
    records = [r for r in run.records if r["kind"] == "accuracy" and r["op"] == op and r["options"] == stated["options"]]
    done = [record for record in records if record["status"] == "ok"]
    recipe = _first(done or records, "recipe") or run.plan.get("recipe") or {}
    flops, test_images = _first(done or records, "flops") or {}, _first(done, "test_images")
    return Series(
        run=run.path,
        key=key,
        label=_label(run, key),
        op=op,
        options=stated["options"],
        given=stated.get("given", {}),
        family=stated.get("family") or "",
        data=str(run.plan["data"]),
        is_baseline=key == run.baseline,
        seeds=len(run.plan["seeds"]),
        epochs=run.plan.get("epochs"),
        top1=tuple(record["top1"] for record in done),
        failures=Counter(record["status"] for record in records if record["status"] != "ok"),
        curves=tuple(tuple(record["curve"]) for record in done if record.get("curve")),
        test_images=test_images,
        chance=_first(done, "chance"),
        parameters=_first(done or records, "parameters"),
        flops=flops.get("analytic"),
        operator_flops=flops.get("operator"),
        latency=_latency(done),
        latency_batch=_first(done, "latency_batch"),
        warnings=tuple(dict.fromkeys(told for r in done for told in (r.get("latency_s") or {}).get("warnings", ()))),
        tokens=_first(done or records, "tokens"),
        memory=_median((record.get("memory_bytes") or {}).get("transient") for record in done),
        throughput=_median(record.get("throughput_images_per_s") for record in done),
        seconds=_median(record.get("seconds") for record in done),
        elsewhere=_elsewhere(done, test_images),
        similarity=_means([record.get("kernel_similarity") or {} for record in done]),
        backend=_first(done, "backend"),
        mlp_hidden=(_first(records, "model") or {}).get("mlp_hidden"),
        searched=_first(records, "searched") or 0,
        learning_rate=recipe.get("learning_rate"),
        weight_decay=recipe.get("weight_decay"),
    )


def _first(records: Sequence[Record], name: str) -> Any:
    return next((record[name] for record in records if record.get(name) is not None), None)


def _median(values: Any) -> float | None:
    known = [float(value) for value in values if value is not None]
    return median(known) if known else None


def _latency(done: Sequence[Record]) -> Span | None:
    known = [record["latency_s"] for record in done if record.get("latency_s")]
    if not known:
        return None
    low, high = min(each["ci_low"] for each in known), max(each["ci_high"] for each in known)
    return Span(median(each["median"] for each in known), low, high)


def _elsewhere(done: Sequence[Record], images: int | None) -> dict[str, Estimate]:
    """The accuracy on larger images by their size, for intervals taken to be as many as the test images."""
    known = [record["elsewhere"] for record in done if record.get("elsewhere")]
    sizes = dict.fromkeys(size for each in known for size in each)
    return {size: estimate([each[size] for each in known if each.get(size) is not None], images=images) for size in sizes}


def _means(parts: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    names = dict.fromkeys(name for part in parts for name, value in part.items() if value is not None)
    return {name: float(np.mean([part[name] for part in parts if part.get(name) is not None])) for name in names}
