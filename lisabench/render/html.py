"""The page of a report: one HTML file with everything in it, which asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from lisabench import units
from lisabench.analysis.accuracy import Series, baseline_of, data_name, difference, summarise
from lisabench.analysis.growth import sentences
from lisabench.render import charts
from lisabench.render.accuracy import COSTS
from lisabench.render.curves import SUBJECT, common, complete
from lisabench.render.quantities import FLOPS_NOTE, QUANTITIES
from lisabench.render.training_notes import own_up, seeds_note
from lisabench.results import Run

_SCRIPTS = "report.js", "report_plots.js", "report_sweep.js", "report_trainings.js"
_MOST_ROWS = 500  # of the table at a time; filter and order work on all
_MOST_FAILURES = 200
_MOST_FINDINGS = 200  # those after the first few are folded
_FEW_FINDINGS = 8
_FEW_NAMES = 4


def page(sweep: Run | None, trainings: Sequence[Run], *, command: Sequence[str], frame: pd.DataFrame | None = None) -> str:
    """The page of a sweep (one, or several joined), of trainings, or of both.

    `command` is the one that makes it; `frame` is the sweep's, where that has been made already. The same runs give the same text. Charts
    and tables hold medians with their intervals, no samples.
    """
    runs = [*([sweep] if sweep else []), *trainings]
    sweep = sweep if sweep and sweep.records else None
    series = summarise(trainings) if trainings else []
    frame = complete(sweep.frame() if frame is None else frame, charts.needed()) if sweep else None
    baseline = sweep.baseline if sweep else None
    data = {"most": _MOST_ROWS, "sweep": None, "trainings": charts.training_data(series) if series else None}
    if frame is not None:
        data["sweep"] = charts.sweep_data(frame, baseline=baseline, patch=sweep.patch if sweep else None)
    script, plotly = "".join(map(_asset, _SCRIPTS)), get_plotlyjs()
    failed, left_out = charts.failures(frame, most=_MOST_FAILURES) if frame is not None else ([], 0)
    found = sorted(sentences(sweep), key=lambda told: SUBJECT not in told) if sweep else []
    found += _accuracies(series)
    environment = Environment(
        loader=PackageLoader("lisabench", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["exponents"] = _exponents
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment.get_template("report.html").render(
        title=_title(frame, series),
        facts=[*_sweep_facts(frame), *_training_facts(trainings, series), *_dates(runs)],
        findings=found[:_FEW_FINDINGS],
        more_findings=found[_FEW_FINDINGS:_MOST_FINDINGS],
        unsaid_findings=max(0, len(found) - _MOST_FINDINGS),
        caveats=_caveats(runs),
        data=data,
        failures=[*failed, *_failed_trainings(trainings)],
        failures_left_out=left_out,
        environments=list(_environments(runs)),
        commands=_commands(runs, command),
        installs=_installs(runs),
        commits=_commits(runs),
        conventions=[*_sweep_notes(frame, baseline), *_training_notes(series)],
        style=_asset("report.css"),
        plotly=plotly,
        script=script,
        script_hashes=[_hash(text) for text in (plotly, script)],
    )


def _asset(name: str) -> str:
    return resources.files("lisabench").joinpath("templates", name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """What the page's policy says of a script that may run; no other does, whatever a name in the run holds."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _exponents(text: str) -> Markup:
    """The text with what stands after `N^` raised, and nothing else of it as markup."""
    return Markup(re.sub(r"\b([NBs])\^(\d+(?:\.\d+)?)", r"\1<sup>\2</sup>", str(escape(text))))


def _listed(names: Iterable[Any], *, what: str) -> str:
    """'lisa and softmax', or '30 operators'."""
    words = list(dict.fromkeys(map(str, names)))
    if len(words) > _FEW_NAMES:
        return f"{len(words)} {what}s"
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' if count != 1 else ''}"


def _title(frame: pd.DataFrame | None, series: Sequence[Series]) -> str:
    if frame is not None:
        return (
            f"{_listed(_names(frame['op'].unique()), what='operator')} on {_listed(sorted(frame['device_name'].unique()), what='device')}"
        )
    if not series:
        return "Nothing was measured"
    return f"{_listed(_names(one.op for one in series), what='operator')}, trained on {_listed((data_name(one.data) for one in series), what='data set')}"


def _names(operators: Iterable[str]) -> list[str]:
    """What operators are called without the file that they stand in, LiSA first."""
    return [op.rpartition(":")[2] for op in sorted(set(operators), key=lambda op: (op != SUBJECT, op))]


def _sweep_facts(frame: pd.DataFrame | None) -> Iterator[tuple[str, str]]:
    if frame is None:
        return
    sizes = frame["tokens"]
    yield "Tokens", f"{sizes.min():,} to {sizes.max():,}" if sizes.min() != sizes.max() else f"{sizes.min():,}"
    devices = set(frame["device_name"].unique())  # the title names them
    conditions = [words for words in common(frame) if words not in devices]
    if conditions:
        yield "Conditions", ", ".join(conditions)
    counts = frame["status"].value_counts()
    ended = "".join(f", {counts[status]:,} {status}" for status in sorted(counts.index) if status != "ok")
    yield "Cells", f"{counts.get('ok', 0):,} finished{ended}"


def _training_facts(runs: Sequence[Run], series: Sequence[Series]) -> Iterator[tuple[str, str]]:
    if series:
        done = sum(len(one.top1) for one in series)
        ended = sum(sum(one.failures.values()) for one in series)
        epochs = sorted({one.epochs for one in series if one.epochs})
        data = _listed((data_name(one.data) for one in series), what="data set")
        known = f", {' or '.join(map(str, epochs))} epochs" if epochs else ""
        yield "Trainings", f"{done} finished{f', {ended} not' if ended else ''}: {len(series)} series on {data}{known}"


def _dates(runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    days = sorted({record["started_at"][:10] for run in runs for record in run.records if record.get("started_at")})
    if days:
        yield "Measured", days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _accuracies(series: Sequence[Series]) -> list[str]:
    """A sentence a series: its accuracy, and how it stands to the baseline."""
    found = []
    for one in series:
        reached = one.accuracy
        if reached is None:
            continue
        span = f" ({100 * reached.low:.1f} to {100 * reached.high:.1f})" if reached.low is not None and reached.high is not None else ""
        told = f"{one.label} reaches {100 * reached.mean:.1f}%{span} on {data_name(one.data)}, {_counted(reached.count, 'seed')}"
        baseline = baseline_of(one, series)
        apart = difference(one, baseline) if baseline and baseline is not one else None
        if baseline and apart and apart.low is not None and apart.high is not None:
            mean, low, high = (f"{round(100 * part, 1) + 0:+.1f}".replace("-", "−") for part in (apart.mean, apart.low, apart.high))
            words = f"{mean} points ({low} to {high})"  # + 0: no minus before 0.0
            told += f"; against {baseline.label} {words}" + (", which does not tell them apart" if apart.low <= 0 <= apart.high else "")
        found.append(told)
    return found


def _caveats(runs: Sequence[Run]) -> list[str]:
    stated = (
        (one.get("op", key), one["caveat"]) for run in runs for key, one in run.plan.get("operators", {}).items() if one.get("caveat")
    )
    operators = {record["op"] for run in runs for record in run.records}
    return [f"{op}: {caveat}" for op, caveat in dict.fromkeys(stated)] or own_up(operators)


def _failed_trainings(runs: Sequence[Run]) -> list[dict[str, Any]]:
    counts: dict[tuple[str, str, str], list[Any]] = {}
    for run in runs:
        for record in run.records:
            if record["status"] != "ok":
                counts.setdefault((record["op"], record["status"], record["reason"] or ""), []).append(record.get("seed"))
    return [
        {
            "label": label,
            "device": "",
            "status": status,
            "reason": reason,
            "count": len(seeds),
            "sizes": f"seed {', '.join(map(str, sorted(set(seeds))))}",
        }
        for (label, status, reason), seeds in sorted(counts.items())
    ]


def _environments(runs: Sequence[Run]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each machine that something was measured on: its name, and what is known of it."""
    known = {key: environment for run in runs for key, environment in run.environments.items()}
    for key, environment in known.items():
        told = {name: value for name, value in environment.items() if name != "command"}
        yield f"{environment.get('device_name', 'unknown device')} ({key})", list(_flat(told))


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        words = f"{before}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{words}: ")
        elif value not in (None, [], ""):
            yield words, _value(name, value)


def _value(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        if name.startswith(("flops_per_s", "bytes_per_s")):
            return f"{units.flops(value)}{'FLOP/s' if name.startswith('flops') else 'B/s'}"
        return units.size_in_bytes(value) if name.endswith("bytes") else f"{value:.4g}" if isinstance(value, float) else str(value)
    return ", ".join(_value(name, part) for part in value) if isinstance(value, list) else str(value)


def _commands(runs: Sequence[Run], command: Sequence[str]) -> list[str]:
    """What made the runs, then what made the page."""
    measured = [run.plan.get("command") for run in runs]
    measured += [environment.get("command") for run in runs for environment in run.environments.values()]
    return list(dict.fromkeys(shlex.join(one) for one in [*measured, command] if one))


def _installs(runs: Sequence[Run]) -> list[str]:
    """A command for each set of libraries; a build's own mark ('+cpu') is no part of a version that can be asked for."""
    sets = (environment.get("libraries") or {} for run in runs for environment in run.environments.values())
    return list(
        dict.fromkeys(
            "pip install " + " ".join(f"{name}=={version.partition('+')[0]}" for name, version in known.items() if version)
            for known in sets
            if known
        )
    )


def _commits(runs: Sequence[Run]) -> list[tuple[str, bool]]:
    """The commits of lisabench that were measured with, and whether files were changed beside them."""
    stated = (environment.get("git") or {} for run in runs for environment in run.environments.values())
    return list(dict.fromkeys((git["commit"], bool(git.get("dirty"))) for git in stated if git.get("commit")))


def _sweep_notes(frame: pd.DataFrame | None, baseline: str | None) -> Iterator[tuple[str, str]]:
    """How each kind of figure that the sweep has came about."""
    if frame is None:
        return
    cold = "cold" in set(frame.get("latency_s.kind", pd.Series(dtype=object)).dropna().unique())
    notes = {
        "latency_s.median": (
            "Latency",
            "median over the samples of a cell, its 95% interval by order statistics (the wider of samples' and rounds'); "
            + ("the L2 cache is flushed before each call" if cold else "calls follow each other, so caches are warm"),
        ),
        "ratio.median": ("Speed-up", f"{baseline or 'the baseline'}'s time over the operator's, within rounds that both took part in"),
        "memory_bytes.transient": ("Memory", f"transient: {QUANTITIES['memory'].note}"),
        "flops.analytic": ("FLOPs", FLOPS_NOTE),
        "energy_j": ("Energy", "joules a call by the device's own counter, what idles among it"),
        "roofline.share": ("Roofline", "share of what the measured peaks of the device allow for the operator's FLOPs and bytes"),
        "relative_error": ("Error", "norm of the difference to the operator's reference in float64, over that reference's norm"),
    }
    yield from ((name, f"{note}.") for column, (name, note) in notes.items() if frame[column].notna().any())


def _training_notes(series: Sequence[Series]) -> Iterator[tuple[str, str]]:
    done = [one for one in series if one.top1]
    if done:
        yield "Accuracy", "; ".join(seeds_note(done)) + "."
        for cost in COSTS:
            if any(cost.of(one) for one in done):
                yield re.sub(r",? (per image|of a forward).*", "", cost.axis.name) + " (trainings)", "; ".join(cost.note(done)) + "."
