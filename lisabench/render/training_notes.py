"""What stands under the figures of trainings, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lisabench.analysis.accuracy import Series, by_data, data_name
from lisabench.render.curves import SUBJECT


def own_up(series: Iterable[Series]) -> list[str]:
    """Where LiSA's code comes from, if it is there."""
    return ["LiSA: reconstruction from the paper's abstract"] if any(one.op == SUBJECT for one in series) else []


def common(series: Sequence[Series]) -> list[str]:
    """What all trainings share, as a footnote says it."""
    epochs = sorted({one.epochs for one in series if one.epochs})
    return [f"{' or '.join(map(str, epochs))} epoch{'s' if epochs != [1] else ''}"] if epochs else []


def seeds_note(shown: Sequence[Series]) -> str:
    """Over how many seeds the means are, and what their intervals are."""
    counts = sorted({len(one.top1) for one in shown})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    if counts == [1]:
        return "one seed: no interval"
    one = "; one seed: no interval" if counts[0] == 1 else ""
    return f"test accuracy after the last epoch: mean over {seeds} seeds with 95% interval (Student's t){one}"


def not_shown(series: Sequence[Series], absent: Sequence[Series], *, why: str = "not known") -> list[str]:
    """Which series are not, or not with all seeds, in a figure, and why: `why` for those that have finished."""
    words = {}
    several = len(by_data(series)) > 1
    for one in series:
        name = f"{one.label} on {data_name(one.data)}" if several else one.label
        failed = "/".join(sorted(one.failures))
        if any(one is other for other in absent):
            words[name] = why if one.top1 else failed or "not trained"
        elif failed:
            words[name] = f"{sum(one.failures.values())} of {one.seeds} seeds: {failed}"
    return ["not shown: " + ", ".join(f"{name} ({word})" for name, word in words.items())] if words else []
