"""The latency that a sweep found for the operators of trainings, at one size that they all have."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lisabench.analysis.accuracy import Series, Span
from lisabench.journal import Record
from lisabench.render.curves import PANEL_KEYS
from lisabench.results import CURVE, Run

_Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class SweepLatency:
    """Latency a call by operator and options, at `tokens`, and what else was fixed, in words."""

    tokens: int
    words: str
    spans: Mapping[_Key, Span]
    warnings: Mapping[_Key, tuple[str, ...]]

    def of(self, one: Series) -> Span | None:
        """That of a series; None where the sweeps do not have it."""
        return self.spans.get(_key(one.op, one.options))

    def warned(self, one: Series) -> tuple[str, ...]:
        """What the measurement of a series warns of."""
        return self.warnings.get(_key(one.op, one.options), ())


def sweep_latency(series: Iterable[Series], sweeps: Sequence[Run]) -> SweepLatency | None:
    """Latency of one forward at the largest token count that all the operators have which stand in both.

    Of several devices, dtypes, widths and so on those count in which most operators stand, then those that reach the most tokens, then
    the first measured. None where nothing stands in both.
    """
    wanted = {_key(one.op, one.options) for one in series if one.top1}
    best: SweepLatency | None = None
    for fixed, cells in _forwards(sweeps).items():
        found = {key: sizes for key, sizes in cells.items() if key in wanted}
        shared = set.intersection(*(set(sizes) for sizes in found.values())) if found else set()
        if not shared:
            continue
        tokens = max(shared)
        if best is None or (len(found), tokens) > (len(best.spans), best.tokens):
            spans = {
                key: Span(*(sizes[tokens]["latency_s"][end] for end in ("median", "ci_low", "ci_high"))) for key, sizes in found.items()
            }
            warnings = {key: tuple(sizes[tokens]["latency_s"].get("warnings", ())) for key, sizes in found.items()}
            best = SweepLatency(tokens=tokens, words=_words(fixed), spans=spans, warnings=warnings)
    return best


def _forwards(sweeps: Sequence[Run]) -> dict[tuple[Any, ...], dict[_Key, dict[int, Record]]]:
    """What is fixed on a curve over tokens -> operator -> tokens -> record; of several grids the one nearest to a square."""
    found: dict[tuple[Any, ...], dict[_Key, dict[int, Record]]] = {}
    for run in sweeps:
        for record in sorted(run.records, key=lambda r: max(r["height"], r["width"]) / min(r["height"], r["width"])):
            if record["status"] == "ok" and record["mode"] == "forward" and record.get("latency_s"):
                fixed = (run.device_of(record), *(record[name] for name in CURVE))
                found.setdefault(fixed, {}).setdefault(_key(record["op"], record["options"]), {}).setdefault(record["tokens"], record)
    return found


def _key(op: str, options: Mapping[str, Any]) -> _Key:
    return op, json.dumps(options, sort_keys=True)


def _words(fixed: tuple[Any, ...]) -> str:
    device, said = fixed[0], dict(zip(CURVE, fixed[1:], strict=True))
    words = [PANEL_KEYS[name](said[name]) for name in CURVE if name in PANEL_KEYS and name not in ("device", "compiled")]
    return ", ".join([*words, *(["compiled"] if said["compiled"] else []), str(device)])
