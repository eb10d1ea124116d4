"""What stands under the figures of trainings, and beside their tables, in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from lisabench import units
from lisabench.analysis.accuracy import Series, by_data, data_name
from lisabench.journal import Record
from lisabench.render.curves import SUBJECT

UNCOVERED = "other test images are not covered"
"""What an interval over seeds does not say."""


def own_up(operators: Iterable[str]) -> list[str]:
    """Where LiSA's code comes from, if it is there."""
    return ["LiSA: reconstruction from the paper's abstract"] if SUBJECT in operators else []


def common(series: Sequence[Series]) -> list[str]:
    """What all trainings share, as a footnote says it."""
    epochs = sorted({one.epochs for one in series if one.epochs})
    return [f"{' or '.join(map(str, epochs))} epoch{'s' if epochs != [1] else ''}"] if epochs else []


def counted(counts: Iterable[int]) -> str:
    """'3', or '2 to 3' where the counts differ."""
    ends = sorted(set(counts))
    return f"{ends[0]}" if len(ends) == 1 else f"{ends[0]} to {ends[-1]}"


def seeds_note(shown: Sequence[Series]) -> list[str]:
    """Over how many seeds the means are, what their intervals are, and what these do not cover."""
    counts = {len(one.top1) for one in shown}
    if counts == {1}:
        return ["test accuracy after the last epoch; one seed: no interval"]
    one = "; one seed: no interval" if 1 in counts else ""
    told = f"mean over {counted(counts)} seeds with 95% interval (Student's t){one}"
    return [f"test accuracy after the last epoch: {told}", "intervals are over the seeds and do not cover other test images"]


def not_shown(series: Sequence[Series], absent: Sequence[Series], *, why: str = "not known") -> list[str]:
    """Which series are not in a figure, and why (`why` for those that have finished); which are there without some of their seeds."""
    missing, partial = {}, {}
    several = len(by_data(series)) > 1
    for one in series:
        name = f"{one.label} on {data_name(one.data)}" if several else one.label
        failed = "/".join(sorted(one.failures))
        if any(one is other for other in absent):
            missing[name] = why if one.top1 else failed or "not trained"
        elif failed:
            partial[name] = f"{sum(one.failures.values())} of {one.seeds}: {failed}"
    return [
        f"{words}: " + ", ".join(f"{name} ({word})" for name, word in found.items())
        for words, found in (("not shown", missing), ("without its failed seeds", partial))
        if found
    ]


def warned(known: Mapping[str, Sequence[str]]) -> str:
    """How many latencies carry warnings, and of what kinds, by operator; "" where none does."""
    kinds = sorted({warning.partition(":")[0] for warnings in known.values() for warning in warnings})
    count = sum(bool(warnings) for warnings in known.values())
    return f"{count} of {len(known)} latencies carr{'y' if count != 1 else 'ies'} warnings ({', '.join(kinds)})" if count else ""


def cosine(value: float | None) -> str:
    """A cosine with two decimals."""
    if value is None or math.isnan(value):
        return units.MISSING
    return f"{round(value, 2) + 0:.2f}".replace("-", "−")  # + 0: no minus before 0.00


def noise_floor(tokens: Iterable[int | None]) -> list[str]:
    """How large the absolute cosine is of kernels that have nothing to do with each other, at each number of tokens.

    Of N x N independent normal numbers without each row's mean N (N - 1) are free. The cosine of two such kernels is nearly normal with
    that number's inverse as variance, and the mean of its absolute value is sqrt(2 / (pi N (N - 1))).
    """
    sizes = sorted({count for count in tokens if count and count > 1})
    if not sizes:
        return []
    floors = " or ".join(f"{math.sqrt(2 / (math.pi * size * (size - 1))):.2g} at {size} tokens" for size in sizes)
    return [f"unrelated random kernels have an absolute cosine of about {floors}"]


def kernels_note(trainings: Mapping[str, Sequence[Record]]) -> list[str]:
    """How alike the kernels of each operator are, after and before training, the mean over its trainings; nothing where no record says it."""
    parts, tokens, images = [], [], set[int]()
    for key, records in trainings.items():
        known = [record for record in records if record.get("kernel_similarity")]
        if not known:
            continue
        means = pd.DataFrame([record["kernel_similarity"] for record in known], dtype=float).mean()
        after, before = (
            [cosine(means.get(start + name)) for name in ("heads", "all", "heads_absolute", "all_absolute")] for start in ("", "untrained_")
        )
        told = "{} / {} ({} / {})".format(*after)
        if set(before) != {units.MISSING}:
            told += ", before training {} / {} ({} / {})".format(*before)
        parts.append(f"{key} {told}, {len(known)} seed{'s' if len(known) > 1 else ''}")
        tokens += [record.get("tokens") for record in known]
        images |= {int(record["kernel_similarity"]["images"]) for record in known if record["kernel_similarity"].get("images")}
    on = f" on {counted(images)} test images" if images else ""
    meaning = f"mean cosine of two kernels of a layer / of all layers{on} (absolute, without each row's mean)"
    return [f"{meaning}: {parts[0]}", *parts[1:], *noise_floor(tokens)] if parts else []
