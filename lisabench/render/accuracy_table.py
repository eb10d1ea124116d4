"""Trainings as a table for a terminal, and what must be known beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from lisabench import units
from lisabench.analysis.accuracy import Estimate, Series, baseline_of, data_name, difference, leaders
from lisabench.render.curves import SUBJECT
from lisabench.render.terminal import new_table
from lisabench.results import Run

MEASURED = ("params", "FLOP", "latency", "memory", "images/s", "seeds", "a seed")
MOST_NAMED = 4  # operators in a line of text
LEAST_NEEDED = ("a seed", "images/s", "memory", "FLOP", "params", "latency", "seeds")
"""What a narrow table leaves out first; behind these go the accuracies on larger images and the difference to the baseline."""


def least_needed(series: Sequence[Series]) -> list[str]:
    """The columns that a table of these can do without, the first to go first."""
    against = [f"− {label}" for label in _baselines(series)]
    return [*LEAST_NEEDED, *_sizes(series), *against]


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
        "latency": units.seconds(latency),
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


def notes(series: Sequence[Series], runs: Sequence[Run]) -> list[Text]:
    """What a reader must know beside the table of a data set: how its figures came about, failures with their reasons, how the recipe
    was chosen, and where an operator is a reconstruction."""
    series, runs = list(series), [run for run in runs if any(one.run == run.path for one in series)]
    lines = [
        _convention(series),
        *_chance(series),
        *_recipes(series),
        *_matched(series, runs),
        *_measured(series),
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


def _convention(series: Sequence[Series]) -> str:
    images = next((one.test_images for one in series if one.test_images), None)
    of = f" of {images:,} test images" if images else ""
    parts = [
        f"top-1: share{of} after the last epoch, mean over the seeds; ±: its 95% interval (Student's t), no narrower than half an image"
    ]
    if _baselines(series):
        parts.append(f"− {_baselines(series)[0]}: difference in points with its own 95% interval (Welch's)")
    if leaders(series):
        parts.append("bold: the best, and what that interval does not tell apart from it")
    return "; ".join(parts)


def _chance(series: Sequence[Series]) -> list[str]:
    chance = next((one.chance for one in series if one.chance is not None), None)
    return [] if chance is None else [f"always guessing the commonest class: {100 * chance:.1f}%"]


def _recipes(series: Sequence[Series]) -> list[str]:
    """Whether the recipe was searched for, and what it was."""
    trials = {one.searched for one in series}
    if trials == {0}:
        rates = sorted({(one.learning_rate, one.weight_decay) for one in series if one.learning_rate is not None}, key=str)
        told = " or ".join(
            f"learning rate {rate:g}, weight decay {decay:g}" for rate, decay in rates if rate is not None and decay is not None
        )
        same = "all operators had the same recipe" if len(rates) < 2 else "all operators of a run had the same recipe"
        return [f"no search: {same}" + (f" ({told})" if told else "")]
    found = ", ".join(
        f"{one.label} {one.learning_rate:g} and {one.weight_decay:g}"
        for one in series
        if one.searched and one.learning_rate is not None and one.weight_decay is not None
    )
    counted = " or ".join(str(count) for count in sorted(trials))
    return [f"search: {counted} trials each on held-out training images; learning rate and weight decay found: {found}"]


def _matched(series: Sequence[Series], runs: Sequence[Run]) -> list[str]:
    lines = []
    for matched in dict.fromkeys(run.plan.get("match") for run in runs):
        if matched:
            inside = {run.path for run in runs if run.plan.get("match") == matched}
            widths = ", ".join(f"{one.label} {one.mlp_hidden}" for one in series if one.run in inside and one.mlp_hidden)
            lines.append(f"MLPs made as wide as it takes for equal {matched.replace('flops', 'FLOPs')}: {widths}")
    return lines


def _measured(series: Sequence[Series]) -> list[str]:
    """On what latency, memory and speed were measured."""
    parts = []
    batches = sorted({one.latency_batch for one in series if one.latency_batch})
    if batches:
        parts.append(f"latency and transient memory: one forward of the whole model on {' or '.join(map(str, batches))} images")
    if any(one.flops is not None for one in series):
        parts.append("FLOP: whole model, forward, an image")
    if any(one.throughput is not None for one in series):
        parts.append("images/s: while training")
    sizes = _sizes(series)
    if sizes:
        parts.append(f"{', '.join(sizes)}: top-1 on images larger than those trained on")
    return ["; ".join(parts)] if parts else []


def _similar(series: Sequence[Series]) -> list[str]:
    """How alike the kernels of heads are, after and before training, where that is known; of many operators for the first ones."""
    known = [one for one in series if one.similarity.get("heads") is not None]
    if not known:
        return []
    named = known if len(known) <= MOST_NAMED else [one for one in known if one.is_baseline or one.op == SUBJECT][:MOST_NAMED]
    images = max(one.similarity.get("images", 0) for one in known)
    of = f" on {images:.0f} test images" if images else ""
    parts = []
    for ending, words in (
        ("heads", f"mean cosine of the kernels of a layer's heads{of} (1: all alike)"),
        ("heads_absolute", "absolute, without each row's mean"),
    ):
        told = [
            f"{one.label} {_cosine(one.similarity.get(ending))} ({_cosine(one.similarity.get(f'untrained_{ending}'))})" for one in named
        ]
        parts.append(f"{words}: {', '.join(told)}")
    more = "" if named == known else "; the others' are in results.csv"
    return [f"{'; '.join(parts)}; in brackets before training{more}"]


def _cosine(value: float | None) -> str:
    return units.MISSING if value is None else f"{round(value, 2) + 0:.2f}".replace("-", "−")  # + 0: no minus before 0.00


def _failures(series: Sequence[Series], runs: Sequence[Run]) -> list[str]:
    """What did not come to its end, and why; equal reasons in one line."""
    found: Counter[tuple[str, str, str]] = Counter()
    for one in series:
        for run in runs:
            for record in run.records if run.path == one.run else ():
                own = record["kind"] == "accuracy" and record["op"] == one.op and record["options"] == one.options
                if own and record["status"] != "ok":
                    found[one.label, record["status"], record["reason"] or ""] += 1
    seeds = {count: f"{count} seed{'s' if count > 1 else ''}" for count in found.values()}
    return [f"{label}, {seeds[count]} {status}" + (f": {why}" if why else "") for (label, status, why), count in found.items()]
