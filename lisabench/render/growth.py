"""The fitted laws of growth and the crossovers with the baseline: sentences for a few operators, a table for many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from lisabench import units
from lisabench.analysis.crossover import Crossover, find_crossover
from lisabench.analysis.scaling import FitError, PowerLaw, fit_power_law
from lisabench.journal import Record
from lisabench.render.terminal import FEW, new_table, varying_of
from lisabench.results import CURVE, Run, curves, samples_by_tokens

# What is fitted: the word that a crossover's sentence knows, and the column.
FITTED = {"latency": "latency_s.median", "memory": "memory_bytes.transient", "flops": "flops.analytic"}
UNDETERMINED = 2.0  # an interval as wide as from constant to quadratic says nothing
TITLE = "growth, t = t0 + c N^p, with 95% intervals"

Laws = Mapping[str, PowerLaw | None]
"""Word of FITTED -> what was fitted, None where there was too little."""


def growth(run: Run) -> list[Text | Table]:
    """Each operator's fitted exponents over tokens, and its crossover with the baseline, curve by curve; nothing where nothing fits."""
    parts: list[Text | Table] = []
    found = curves(run.records)
    for key, by_op in found.items():
        laws = {op: {word: _law(records, column) for word, column in FITTED.items()} for op, records in by_op.items()}
        if not any(law for fits in laws.values() for law in fits.values()):
            continue
        named = zip(CURVE, key, strict=True)
        where = ", ".join(f"{name} {value}" for name, value in named if name in varying_of(run.records)) if len(found) > 1 else ""
        if len(by_op) > FEW:
            parts.append(_table(run, by_op, laws, where))
        else:
            first = [] if parts else [Text(f"{TITLE}:", style="bold")]
            parts += [*first, *([Text(where, style="bold")] if where else []), *_sentences(run, by_op, laws)]
    return parts


def _sentences(run: Run, by_op: Mapping[str, Sequence[Record]], laws: Mapping[str, Laws]) -> list[Text]:
    lines = []
    width = max(len(run.label(op)) for op in by_op)
    for op, fits in laws.items():
        said = [f"{word} ~ N^{_exponent(law)}" for word, law in fits.items() if law]
        if said:
            lines.append(Text(f"{run.label(op):<{width}}  {'   '.join(said)}"))
    baseline = run.baseline or ""
    for op in by_op:
        if baseline in by_op and op != baseline:
            names = run.label(op), run.label(baseline)
            for word in FITTED:
                if crossing := _crossover(by_op[op], by_op[baseline], word):
                    lines.append(Text(f"{names[0]} against {names[1]}, {word}: {crossing.sentence(*names, quantity=word)}"))
    return lines


def _table(run: Run, by_op: Mapping[str, Sequence[Record]], laws: Mapping[str, Laws], where: str) -> Table:
    """An operator a row, the slowest growth of latency first."""
    table = new_table(f"{TITLE}{': ' * bool(where)}{where}")
    baseline = by_op.get(run.baseline or "")
    names = ["operator", "latency, p", "memory, p", "FLOPs, p", *([f"faster than {run.label(run.baseline or '')}, N"] if baseline else [])]
    for name in names:
        table.add_column(name, overflow="fold")
    for op in sorted(by_op, key=lambda op: (_rank(laws[op]["latency"]), op)):
        exponents = [units.MISSING if law is None else "?" if _undetermined(law) else _exponent(law) for law in laws[op].values()]
        against = []
        if baseline:
            crossing = _crossover(by_op[op], baseline, "latency")
            against = ["baseline" if op == run.baseline else _faster(crossing) if crossing else units.MISSING]
        table.add_row(Text(run.label(op)), *exponents, *against, style="cyan" if op == run.baseline else "")
    if any(law and _undetermined(law) for fits in laws.values() for law in fits.values()):
        table.caption = "?: the sizes do not tell"
    return table


def _rank(law: PowerLaw | None) -> float:
    """Exponents in order, then what the sizes do not tell."""
    return float("inf") if law is None or _undetermined(law) else law.exponent


def _undetermined(law: PowerLaw) -> bool:
    return law.ci_high - law.ci_low > UNDETERMINED


def _faster(crossing: Crossover) -> str:
    """At which sizes the first of two is faster, in few words."""
    if crossing.size is None:
        return {"first": "all", "second": f"none up to {crossing.up_to:,.0f}", None: "all are equal"}[crossing.always]
    return f"{'up to' if crossing.after == 'second' else 'from'} {crossing.where.replace(' tokens', '')}"


def _crossover(ours: Sequence[Record], baseline: Sequence[Record], word: str) -> Crossover | None:
    try:
        return find_crossover(*(samples_by_tokens(records, FITTED[word]) for records in (ours, baseline)))
    except FitError:
        return None


def _law(records: Sequence[Record], column: str) -> PowerLaw | None:
    import numpy as np

    samples = samples_by_tokens(records, column)
    values = [float(np.median(rounds)) for rounds in samples.values()]
    try:
        noisy = column.startswith("latency")
        return fit_power_law(list(samples), values, samples=list(samples.values()) if noisy else None)
    except FitError:
        return None


def _exponent(law: PowerLaw) -> str:
    if _undetermined(law):
        return f"? ({law.points} sizes do not tell)"
    if law.ci_high - law.ci_low < 0.005:
        return f"{law.exponent:.2f}"
    return f"{law.exponent:.2f} ({law.ci_low:.2f} to {law.ci_high:.2f})"
