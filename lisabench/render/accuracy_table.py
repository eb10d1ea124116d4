"""Trainings as a table for a terminal, and what must be known beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from rich.table import Table
from rich.text import Text

from lisabench import units
from lisabench.analysis.accuracy import Estimate, Series, baseline_of, data_name, difference, leaders
from lisabench.journal import Record
from lisabench.render.curves import SUBJECT
from lisabench.render.terminal import new_table
from lisabench.render.training_notes import UNCOVERED, cosine, noise_floor, warned
from lisabench.results import Run

MEASURED = ("params", "FLOP", "latency", "memory", "images/s", "seeds", "a seed")
MOST_NAMED = 4  # operators in a line of text
LEAST_NEEDED = ("a seed", "images/s", "memory", "FLOP", "params", "latency")
"""What a narrow table leaves out first; behind these go the accuracies on larger images, the difference to the baseline, last the seeds."""


def least_needed(series: Sequence[Series]) -> list[str]:
    """The columns that a table of these can do without, the first to go first."""
    against = [f"− {label}" for label in _baselines(series)]
    return [*LEAST_NEEDED, *_sizes(series), *against, "seeds"]


def accuracy_table(series: Sequence[Series], *, omitted: Sequence[str] = ()) -> Table:
    """The trainings on one data set, the most accurate first: accuracy with its interval, difference to the baseline, costs. In bold the
    best and those that are not told apart from it."""
    table = new_table(_heading(series))
    against = [f"− {label}" for label in _baselines(series)]
    names = [name for name in ("top-1", "±", *against, *_sizes(series), *MEASURED) if name not in omitted]
    for name in ("operator", *names):
        table.add_column(name, justify="left" if name == "operator" else "right", no_wrap=name != "operator", overflow="fold")
    best = leaders(series)
    for one in sorted(series, key=lambda one: -one.accuracy.mean if one.accuracy else 1.0):
        figures = _figures(one, series)
        label = Text(one.label).append(", baseline" if one.is_baseline and "− " + one.label not in names else "")
        table.add_row(label, *(figures.get(name, "") for name in names), style="bold" if one in best else "")
    return table


def _heading(series: Sequence[Series]) -> str:
    epochs = sorted({one.epochs for one in series if one.epochs is not None})
    words = f"{' or '.join(map(str, epochs))} epoch{'' if epochs == [1] else 's'}"
    return " · ".join([data_name(series[0].data), *([words] if epochs else [])])


def _baselines(series: Iterable[Series]) -> list[str]:
    """The name of the baseline; where runs have several, one word for all."""
    names = list(dict.fromkeys(one.label for one in series if one.is_baseline))
    return names if len(names) < 2 else ["baseline"]


def _sizes(series: Iterable[Series]) -> list[str]:
    return list(dict.fromkeys(size for one in series for size in one.elsewhere))


def _figures(one: Series, series: Sequence[Series]) -> dict[str, str]:
    """What stands in each column; of an operator that never finished how it ended."""
    seeds = f"{len(one.top1)} of {one.seeds}"
    if one.accuracy is None:
        return {"top-1": "/".join(sorted(one.failures)) or "not trained", "seeds": seeds, "params": _count(one.parameters)}
    baseline = baseline_of(one, series)
    apart = difference(one, baseline) if baseline and baseline is not one else None
    latency = one.latency.median if one.latency else None
    figures = {
        "top-1": f"{100 * one.accuracy.mean:.2f}%",
        "±": _half(one.accuracy) or "one seed",
        "params": _count(one.parameters),
        "FLOP": units.flops(one.flops),
        "latency": units.seconds(latency) + ("*" if one.warnings else ""),
        "memory": units.size_in_bytes(one.memory),
        "images/s": units.MISSING if one.throughput is None else f"{one.throughput:,.0f}",
        "seeds": seeds,
        "a seed": units.seconds(one.seconds),
    }
    for label in _baselines(series):
        figures[f"− {label}"] = f"{100 * apart.mean:+.2f} {_half(apart)}".rstrip().replace("-", "−") if apart else units.MISSING
    return figures | {size: f"{100 * found.mean:.1f}% {_half(found, 1)}".rstrip() for size, found in one.elsewhere.items()}


def _count(value: int | None) -> str:
    return units.MISSING if value is None else f"{value:,}"


def _half(found: Estimate, decimals: int = 2) -> str:
    """Half the interval in points: '±0.62', or '+0.31 −0.62' where 0 or 100% cuts one side; "" where there is none."""
    if found.low is None or found.high is None:
        return ""
    above, below = (f"{100 * abs(end - found.mean):.{decimals}f}" for end in (found.high, found.low))
    return f"±{above}" if above == below else f"+{above} −{below}"


def notes(series: Sequence[Series], runs: Sequence[Run], *, omitted: Sequence[str] = ()) -> list[Text]:
    """What a reader must know beside the table of a data set: how its figures came about, failures with their reasons, how the recipe
    was chosen, and where an operator is a reconstruction; nothing of the columns that are omitted."""
    series, runs = list(series), [run for run in runs if any(one.run == run.path for one in series)]
    lines = [
        _convention(series, omitted),
        *_chance(series),
        *_plain(series),
        *_recipes(series, runs),
        *_matched(series, runs),
        *_measured(series, omitted),
        *_warned(series, omitted),
        *_backends(series),
        *_similar(series),
        *_failures(series, runs),
    ]
    caveats = {
        one.op: stated["caveat"]
        for one in series
        for run in runs
        if run.path == one.run and (stated := run.plan["operators"][one.key]).get("caveat")
    }
    return [Text(line) for line in [*lines, *(f"{op}: {caveat}" for op, caveat in caveats.items())]]


def _convention(series: Sequence[Series], omitted: Sequence[str]) -> str:
    images = next((one.test_images for one in series if one.test_images), None)
    of = f" of {images:,} test images" if images else ""
    parts = [
        f"top-1: share{of} after the last epoch, mean over the seeds; ±: its 95% interval over the seeds (Student's t), no narrower than"
        f" half an image; {UNCOVERED}"
    ]
    there = [each for one in series for each in (one.accuracy, *(one.elsewhere[size] for size in one.elsewhere if size not in omitted))]
    if any(each and "−" in _half(each) for each in there):
        parts.append("+ −: uneven where 0 or 100% cuts it")
    if _baselines(series) and f"− {_baselines(series)[0]}" not in omitted:
        parts.append(f"− {_baselines(series)[0]}: difference in points with its own 95% interval (Welch's)")
    if leaders(series):
        parts.append("bold: the best, and what that interval does not tell apart from it")
    return "; ".join(parts)


def _chance(series: Sequence[Series]) -> list[str]:
    chance = next((one.chance for one in series if one.chance is not None), None)
    return [] if chance is None else [f"always guessing the commonest class: {100 * chance:.1f}%"]


def _recipes(series: Sequence[Series], runs: Sequence[Run]) -> list[str]:
    """Whether the recipe was searched for, and what it was."""
    planned = {run.path: run.plan.get("search") or 0 for run in runs}
    trials = {one.searched or planned.get(one.run, 0) for one in series}
    if trials == {0}:
        rates = sorted({(one.learning_rate, one.weight_decay) for one in series if one.learning_rate is not None}, key=str)
        told = " or ".join(
            f"learning rate {rate:g}, weight decay {decay:g}" for rate, decay in rates if rate is not None and decay is not None
        )
        same = "all operators had the same recipe" if len(rates) < 2 else "all operators of a run had the same recipe"
        return [f"no search: {same}" + (f" ({told})" if told else "")]
    ended = {id(one): [r["status"] for r in _own(one, runs, "search")] for one in series}
    failed = [one for one in series if (own := ended[id(one)]) and len(own) >= planned.get(one.run, 0) and "ok" not in own]
    unfinished = [one for one in series if not one.searched and len(ended[id(one)]) < planned.get(one.run, 0)]
    found = ", ".join(
        f"{one.label} {one.learning_rate:g} and {one.weight_decay:g}"
        for one in series
        if one.searched and one not in failed and one.learning_rate is not None and one.weight_decay is not None
    )
    parts = [f"search: {' or '.join(map(str, sorted(trials)))} trials each on held-out training images"]
    parts += [f"learning rate and weight decay found: {found}"] if found else []
    parts += [f"every trial of {', '.join(one.label for one in failed)} failed"] if failed else []
    counts = [f"{one.label} ({len(ended[id(one)])} of {planned[one.run]} trials)" for one in unfinished]
    return ["; ".join([*parts, *([f"not finished for {', '.join(counts)}"] if counts else [])])]


def _own(one: Series, runs: Sequence[Run], kind: str) -> Iterator[Record]:
    """The records of a kind that belong to a series."""
    for run in runs:
        for record in run.records if run.path == one.run else ():
            if record["kind"] == kind and record["op"] == one.op and record["options"] == one.options:
                yield record


def _matched(series: Sequence[Series], runs: Sequence[Run]) -> list[str]:
    lines = []
    for matched in dict.fromkeys(run.plan.get("match") for run in runs):
        if matched:
            inside = {run.path for run in runs if run.plan.get("match") == matched}
            widths = ", ".join(f"{one.label} {one.mlp_hidden}" for one in series if one.run in inside and one.mlp_hidden)
            lines.append(f"MLPs made as wide as it takes for equal {matched.replace('flops', 'FLOPs')}: {widths}")
    return lines


def _measured(series: Sequence[Series], omitted: Sequence[str]) -> list[str]:
    """On what latency, memory and speed were measured."""
    parts = []
    batches = sorted({one.latency_batch for one in series if one.latency_batch})
    there = [words for name, words in (("latency", "latency"), ("memory", "transient memory")) if name not in omitted]
    if batches and there:
        on = f"one forward of the whole model on {' or '.join(map(str, batches))} images, measured before training"
        parts.append(f"{' and '.join(there)}: {on}")
    if "FLOP" not in omitted and any(one.flops is not None for one in series):
        parts.append("FLOP: whole model, forward, an image")
    if "images/s" not in omitted and any(one.throughput is not None for one in series):
        parts.append("images/s: while training")
    sizes = [size for size in _sizes(series) if size not in omitted]
    if sizes:
        parts.append(f"{', '.join(sizes)}: top-1 on images larger than those trained on")
    return ["; ".join(parts)] if parts else []


def _warned(series: Sequence[Series], omitted: Sequence[str]) -> list[str]:
    told = warned({one.label: one.warnings for one in series if one.latency}) if "latency" not in omitted else ""
    first = next((one.warnings[0] for one in series if one.warnings), "")
    return [f"* {told}, told in full in results.csv; the first: {first}"] if told else []


def _plain(series: Sequence[Series]) -> list[str]:
    """With what options an operator stands whose variants name only those in which they differ from it."""
    counted = Counter(one.op for one in series)
    options = {one.op: one.options for one in series if counted[one.op] > 1 and not one.given and one.options}
    return [
        f"{op} where brackets say nothing else: {', '.join(f'{name}={value}' for name, value in known.items())}"
        for op, known in options.items()
        if any(one.op == op and one.given for one in series)
    ]


def _telling(known: Sequence[Series]) -> list[Series]:
    """The few whose kernels are told: the baseline, the subject as it stands, then others, each operator once before its variants."""
    seen, first = set[str](), set[str]()
    for one in sorted(known, key=lambda one: (not one.is_baseline, bool(one.given))):
        first |= {one.label} if one.op not in seen else set()
        seen.add(one.op)

    def rank(one: Series) -> tuple[bool, bool, bool]:
        return not one.is_baseline, one.op != SUBJECT or bool(one.given), one.label not in first

    return sorted(known, key=rank)[:MOST_NAMED]


def _backends(series: Sequence[Series]) -> list[str]:
    """Which implementation of an operator the costs are of, where it has several."""
    ran = {one.label: one.backend for one in series if one.backend}
    return [f"costs are of what ran at these sizes: {', '.join(f'{label} {backend}' for label, backend in ran.items())}"] if ran else []


def _similar(series: Sequence[Series]) -> list[str]:
    """How alike the kernels of heads are, after and before training, where that is known, and how alike chance makes them."""
    known = [one for one in series if one.similarity.get("heads") is not None]
    if not known:
        return []
    named = _telling(known)
    images = max(one.similarity.get("images", 0) for one in known)
    of = f" on {images:.0f} test images" if images else ""
    parts = []
    for ending, words in (
        ("heads", f"mean cosine of the kernels of a layer's heads{of} (1: all alike)"),
        ("heads_absolute", "absolute, without each row's mean"),
    ):
        told = [f"{one.label} {cosine(one.similarity.get(ending))} ({cosine(one.similarity.get(f'untrained_{ending}'))})" for one in named]
        parts.append(f"{words}: {', '.join(told)}")
    more = ["the others' are in results.csv"] if len(named) < len(known) else []
    return ["; ".join([*parts, "in brackets before training", *noise_floor(one.tokens for one in known), *more])]


def _failures(series: Sequence[Series], runs: Sequence[Run]) -> list[str]:
    """What did not come to its end, and why; equal reasons in one line."""
    found: Counter[tuple[str, str, str]] = Counter()
    for one in series:
        for record in _own(one, runs, "accuracy"):
            if record["status"] != "ok":
                found[one.label, record["status"], record["reason"] or ""] += 1
    seeds = {count: f"{count} seed{'s' if count > 1 else ''}" for count in found.values()}
    return [f"{label}, {seeds[count]} {status}" + (f": {why}" if why else "") for (label, status, why), count in found.items()]
