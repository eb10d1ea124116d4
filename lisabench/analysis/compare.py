"""Which cells two runs share, and whether one is faster: said only when separate criteria agree, corrected for how many they are.

What is tested are the medians of a cell's rounds, not its samples: those of one round share the machine's mood, so that a
hundred of them say little more than the round. Two tests, since each has what the other lacks. Mann-Whitney assumes no
distribution, but of 6 rounds against 6 it never gives less than 0.002, however far they are apart: among hundreds of cells
a lone change could not be shown. Welch's t on the rounds' logarithms can show it, and is what is corrected.

What no test on two runs can see is what moves a whole run: a busier neighbour, another layout of memory. Then many cells
move, in operators whose code is the same; `mean_ratio` over all cells tells that, and so do the warnings of the records.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import stdtr
from scipy.stats import false_discovery_control, mannwhitneyu
from scipy.stats import t as student

from lisabench.analysis.statistics import Array
from lisabench.errors import InputError
from lisabench.records import Record, independent_samples
from lisabench.results import CURVE, WORKLOAD, Run

# Below this many rounds a median has no 95% interval (see statistics.median_interval), so nothing can be told.
_FEWEST = 6
# Up to this many rounds a side the exact distribution of Mann-Whitney's U is cheap; above, the normal one is as good.
_EXACT = 30
# Records hold five digits: logarithms of rounds are not known better, even where all rounds are equal.
_ROUNDED = 1e-5

Latency = Mapping[str, Any]
"""`latency_s` of a record: `median`, `ci_low`, `ci_high`, and `rounds`, or `samples` where a record has no rounds."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What `compare` found of a cell: new / base as a ratio of medians with its 95% interval, the p of Mann-Whitney (two-sided), and that
    of Welch's t, adjusted for the number of cells."""

    verdict: Literal["faster", "slower", "same", "can't tell"]
    ratio: float
    ci_low: float
    ci_high: float
    p_value: float
    p_adjusted: float


def compare(base: Sequence[Latency], new: Sequence[Latency], *, threshold: float = 0.05, alpha: float = 0.01) -> list[Verdict]:
    """Compares the latencies of cells of two runs, pair by pair; lower is better, so a ratio new / base below 1 is "faster".

    "faster" and "slower" need all of: the recorded 95% intervals of the two medians are apart, Mann-Whitney gives p < `alpha`,
    Welch's t gives p < `alpha` after Benjamini and Hochberg's correction over all cells, and the ratio is beyond `threshold`,
    that is above 1 + threshold or below its reciprocal (the same factor both ways). "same": the whole interval of the ratio is
    within the threshold. Else, and with fewer than 6 rounds a side, "can't tell".

    The correction bounds the share of false ones among the cells called faster or slower, at `alpha`, whatever their number;
    where nothing changed, so the chance that there is any. Holm's would bound that chance always, at the price of seeing less
    the more cells there are. Cells of one workload are measured in turns, so their errors go together: there it holds too.

    The ratio's interval combines those of the medians on a logarithmic scale, each side by the root of the sum of squares.

    Raises: InputError when a figure is not finite and positive, `threshold` is negative or `alpha` is not within 0 and 1.
    Source: Benjamini and Hochberg (1995), under dependence Benjamini and Yekutieli (2001); Welch (1947); the interval: Zou and
    Donner, Construction of confidence limits about effect measures (2008); the pair of criteria: asv (airspeed velocity).
    """
    if not (threshold >= 0 and 0 < alpha < 1):
        raise InputError(f"compare needs threshold >= 0 and alpha between 0 and 1, given {threshold} and {alpha}")
    if not base:
        return []
    (old, old_low, old_high), (now, now_low, now_high) = (_logs([[one[k] for k in _ENDS] for one in of]).T for of in (base, new))
    change = now - old
    low, high = change - np.hypot(now - now_low, old_high - old), change + np.hypot(now_high - now, old - old_low)
    p_values, p_means, rounds = _tests(*([independent_samples(one) for one in of] for of in (base, new)))
    adjusted = false_discovery_control(p_means)

    bound = math.log1p(threshold)
    apart = (now_high < old_low) | (old_high < now_low)
    changed = apart & (p_values < alpha) & (adjusted < alpha) & (abs(change) > bound)
    same = (-bound <= low) & (high <= bound)
    verdicts = np.select(
        [rounds < _FEWEST, changed & (change < 0), changed, same], ["can't tell", "faster", "slower", "same"], "can't tell"
    )
    columns = (verdicts, *np.exp([change, low, high]), p_values, adjusted)
    names = ("verdict", "ratio", "ci_low", "ci_high", "p_value", "p_adjusted")
    return [Verdict(**dict(zip(names, row, strict=True))) for row in zip(*(column.tolist() for column in columns), strict=True)]


def mean_ratio(verdicts: Iterable[Verdict]) -> tuple[float, float, float]:
    """The geometric mean of some cells' ratios and its 95% interval: Student's t over their logarithms, of one cell its own.

    What moves a whole cell from one run to the next is in this interval, as it is not in those of the cells.
    """
    found = list(verdicts)
    if len(found) == 1:
        return found[0].ratio, found[0].ci_low, found[0].ci_high
    logs = np.log([one.ratio for one in found])
    half = student.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs))
    low, middle, high = np.exp(logs.mean() + np.array([-half, 0, half])).tolist()
    return middle, low, high


_NEEDED = ("cell", "op", "options", *WORKLOAD, "status", "reason", "environment")


def trimmed(record: Record) -> Record:
    """What a comparison needs of a record: a tenth of it, so that two large runs fit into memory."""
    latency = record["latency_s"]
    named = ("median", "ci_low", "ci_high", "warnings", "rounds" if latency and latency.get("rounds") else "samples")
    kept = {name: record[name] for name in _NEEDED} | {"device_kind": record.get("device_kind")}
    return kept | {"latency_s": latency and {name: latency.get(name) for name in named}}


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The cells of two runs: those finished in both, those finished only before or only now though both have them, and the finished ones
    that the other run does not have. `changed` are own operators whose files are not the same in both."""

    finished: list[tuple[Record, Record]]
    stopped: list[tuple[Record, Record]]
    started: list[tuple[Record, Record]]
    only_base: list[Record]
    only_new: list[Record]
    changed: list[str]


def paired(base: Run, new: Run) -> Pairs:
    """Cells of equal content, operator, options and workload, on the same kind of device; an own operator's also where the text of its
    file has changed, which is what its author wants to compare. Two runs of one kind each are paired whatever the kinds.

    Raises: InputError when both are one run, or share no finished cell or kind of device; it says what keeps them apart.
    """
    if base.path.resolve() == new.path.resolve():
        raise InputError(f"{str(base.path)!r} and {str(new.path)!r} are the same run; give two runs of the same cells")
    before, after = ({record["cell"]: record for record in run.records} for run in (base, new))
    partners, changed = _partners(base, new)
    both = [(before[cell], after[partner]) for cell, partner in partners.items()]
    taken = {*partners.values()}
    pairs = Pairs(
        finished=[pair for pair in both if _finished(pair[0]) and _finished(pair[1])],
        stopped=[pair for pair in both if _finished(pair[0]) and not _finished(pair[1])],
        started=[pair for pair in both if _finished(pair[1]) and not _finished(pair[0])],
        only_base=[record for cell, record in before.items() if cell not in partners and _finished(record)],
        only_new=[record for cell, record in after.items() if cell not in taken and _finished(record)],
        changed=changed,
    )
    if not pairs.finished:
        words = f"{str(base.path)!r} and {str(new.path)!r} share no finished cell: {_why_apart(base, new)}"
        raise InputError(f"{words}; measure the same operators at the same workloads in both")
    return pairs


def _partners(base: Run, new: Run) -> tuple[dict[str, str], list[str]]:
    """The cell of `new` that is the same work as each cell of `base`, in the order of the latter; own operators whose files have changed.

    Of records of one kind of device each, keys are equal where contents are; a run over several kinds has the kind in its keys.
    """
    several = _several_kinds(base, new)
    left = [{record["cell"]: record for record in run.records} for run in (base, new)]
    partners: dict[str, str] = {}
    changed: set[str] = set()
    for known_by in (_key, _content, _own_content):
        names, found = (
            {(name, run.device_of(record) * several): cell for cell, record in of.items() if (name := known_by(run, record))}
            for run, of in zip((base, new), left, strict=True)
        )
        for name, cell in names.items():
            if name in found:
                record = left[1].pop(found[name])
                partners[cell] = record["cell"]
                left[0].pop(cell)
                changed |= {operator_of(record)} if known_by is _own_content else set()
        if not left[0] or not left[1]:
            break
    return {record["cell"]: partners[record["cell"]] for record in base.records if record["cell"] in partners}, sorted(changed)


def _several_kinds(base: Run, new: Run) -> bool:
    """Whether either run is of several kinds of devices. InputError where then no kind is in both."""
    if len(base.devices) == len(new.devices) == 1:
        return False
    if {*base.devices}.isdisjoint(new.devices):
        told = (f"{str(run.path)!r} was measured on {' and '.join(run.devices)}" for run in (base, new))
        first, second = ({run.device_of(record): record["device"] for record in run.records} for run in (base, new))
        one_each = max(itertools.product(base.devices, new.devices), key=lambda pair: first[pair[0]] == second[pair[1]])
        choice = f"device_kind={','.join(one_each)}"
        raise InputError(f"{', '.join(told)}: no kind of device is in both; choose one of each: --mix --where {choice!r} compares them")
    return True


def _key(_: Run, record: Record) -> str:
    key: str = record["cell"]
    return key


def _content(run: Run, record: Record) -> tuple[Any, ...] | None:
    """What the work is; None for an own operator of a run that does not tell the text of its file."""
    digest = run.plan.get("operators", {}).get(record["op"], {}).get("digest")
    return (digest, *_work(record)) if digest or ".py:" not in record["op"] else None


def _own_content(_: Run, record: Record) -> tuple[Any, ...] | None:
    """The same of an own operator alone, whatever its file holds."""
    return _work(record) if ".py:" in record["op"] else None


def _work(record: Record) -> tuple[Any, ...]:
    return operator_of(record), *(_stated(record, name) for name in ("options", *WORKLOAD))


def _finished(record: Record) -> bool:
    return record["status"] == "ok" and record["latency_s"] is not None


def operator_of(record: Record) -> str:
    """The operator's name, without the path of a user's own file."""
    name: str = record["op"]
    return name.rpartition(":")[2] if ".py:" in name else name


def _why_apart(base: Run, new: Run) -> str:
    """What keeps the finished cells of two runs apart: the first of operators, options and workload that no two have in common."""
    finished = [[record for record in run.records if _finished(record)] for run in (base, new)]
    for run, records in zip((base, new), finished, strict=True):
        if not records:
            counts = Counter(record["status"] for record in run.records)
            return f"none of {str(run.path)!r} finished ({', '.join(f'{count} {status}' for status, count in counts.items())})"
    kinds = [{run.device_of(record) for record in records} for run, records in zip((base, new), finished, strict=True)]
    if _several_kinds(base, new) and kinds[0].isdisjoint(kinds[1]):
        return f"what finished differs in kinds of devices ({_some(kinds[0])} and {_some(kinds[1])})"
    ops = [{operator_of(record) for record in records} for records in finished]
    if ops[0].isdisjoint(ops[1]):
        return f"they differ in operators ({_some(ops[0])} and {_some(ops[1])})"
    sides = [[record for record in records if operator_of(record) in ops[0] & ops[1]] for records in finished]
    for names in (("options", *CURVE, "tokens"), ("height", "width")):
        held = {name: [{_stated(record, name) for record in records} for records in sides] for name in names}
        apart = [f"{name} ({_some(old)} and {_some(now)})" for name, (old, now) in held.items() if old.isdisjoint(now)]
        if apart:
            return f"they differ in {', '.join(apart)}"
    return "no combination of their axes is in both"


def _stated(record: Record, name: str) -> Any:
    return json.dumps(record[name], sort_keys=True) if name == "options" else record[name]


def _some(values: Iterable[Any], most: int = 3) -> str:
    ordered = sorted(values, key=lambda value: (str(type(value)), value))
    return ", ".join(map(str, ordered[:most])) + (f" and {len(ordered) - most} more" if len(ordered) > most else "")


_ENDS = ("median", "ci_low", "ci_high")


def _logs(values: Sequence[Sequence[float]]) -> Array:
    found = np.array(values, dtype=float)
    if not (np.isfinite(found) & (found > 0)).all():
        raise InputError("a latency is no positive number; restore the journal from a copy, or measure again")
    return np.asarray(np.log(found))


def _tests(base: Sequence[Sequence[float]], new: Sequence[Sequence[float]]) -> tuple[Array, Array, Array]:
    """Mann-Whitney's p and Welch's of every cell, and the rounds of the side that has fewer. Cells with as many rounds go together."""
    counts = np.array([[len(one), len(other)] for one, other in zip(base, new, strict=True)])
    ranked, means = np.ones(len(counts)), np.ones(len(counts))
    for pair in np.unique(counts, axis=0):
        if min(pair) >= _FEWEST:
            (places,) = (counts == pair).all(axis=1).nonzero()
            old, now = (_logs([of[place] for place in places]) for of in (base, new))
            ranked[places] = mannwhitneyu(old, now, axis=1, method="exact" if max(pair) <= _EXACT else "asymptotic").pvalue
            means[places] = _welch(old, now)
    return ranked, means, counts.min(axis=1)


def _welch(base: Array, new: Array) -> Array:
    """Welch's two-sided p for the means of rows."""
    parts = [np.maximum(of.var(axis=1, ddof=1), _ROUNDED**2) / of.shape[1] for of in (base, new)]
    error = parts[0] + parts[1]
    freedom = error**2 / sum(part**2 / (of.shape[1] - 1) for part, of in zip(parts, (base, new), strict=True))
    return np.asarray(2 * stdtr(freedom, -abs(new.mean(axis=1) - base.mean(axis=1)) / np.sqrt(error)))
