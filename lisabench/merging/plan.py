"""The plan of a merged run: what its runs were to measure, together, so that it can be gone on with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lisabench import __version__
from lisabench.errors import InputError
from lisabench.merging.sources import Source
from lisabench.plans import visits_of
from lisabench.records import SCHEMA

Plan = dict[str, Any]
# Two runs mean the same operator by one name where these are equal.
OPERATOR = ("op", "options", "digest", "mlp_hidden")
# What all trainings of a run have in common.
TRAINING = ("data", "patch", "image_size", "data_digest", "epochs", "search", "match", "dtype", "compiled", "model", "recipe")
# A run is gone on with by these: those of the first, where runs differ. Each sweep keeps a seed and a device of its own.
FIRST = ("device", "seed")
UNITED = ("operators", "sweeps", "cells", "seeds", "conflicts")
WHOLE = (1, 1)


def unite_operators(sources: Sequence[Source]) -> dict[str, Any]:
    """All operators by name; a user's own file is one operator wherever it lies, and has the name of the first run (`Source.renamed`).

    Raises:
        InputError: a name stands for two operators.
    """
    found: dict[str, Any] = {}
    said_by: dict[str, Path] = {}
    by_content: dict[str, str] = {}
    for source in sources:
        renamed = {}
        for name, stated in source.plan["operators"].items():
            same_file = by_content.setdefault(_content(name, stated), name) if "op" not in stated and stated.get("digest") else name
            if name not in found and same_file != name:
                renamed[name] = same_file
                continue
            known = found.setdefault(name, stated)
            differing = [part for part in OPERATOR if known.get(part) != stated.get(part)]
            if differing:
                one, other = (str(path) for path in (said_by[name], source.path))
                raise InputError(
                    f"operator {name} is not the same in {one!r} and {other!r} ({_difference(known, stated, differing[0])}): two operators "
                    f"would have one name in a run; show them side by side: lisabench report {one} {other}"
                )
            said_by.setdefault(name, source.path)
        source.renamed = renamed
    return found


def _content(name: str, stated: Mapping[str, Any]) -> str:
    return json.dumps([name.rpartition(":")[2], stated["digest"], stated.get("options")], sort_keys=True)


def _difference(one: Mapping[str, Any], other: Mapping[str, Any], part: str) -> str:
    """'its option engine is 'fft' and 'auto''."""
    if part == "digest":
        return "its file has changed"
    values = [each.get(part) for each in (one, other)]
    if isinstance(values[0], Mapping) and isinstance(values[1], Mapping):
        name = next(name for name in {**values[0], **values[1]} if values[0].get(name) != values[1].get(name))
        return f"its option {name} is {values[0].get(name)!r} and {values[1].get(name)!r}"
    return f"its {part} is {values[0]!r} and {values[1]!r}"


def merged_plan(sources: Sequence[Source], operators: Mapping[str, Any], kinds: Sequence[Sequence[str]], *, command: Sequence[str]) -> Plan:
    """plan.json of the merged run, but for the number of a sweep's cells; `kinds`: of each run, where they are of several kinds of devices.

    What the runs do not have in common is null. Older plans, which list their cells, leave a plan without sweeps.

    Raises:
        InputError: the runs are of trainings that do not belong together.
    """
    plans = [source.plan for source in sources]
    found: Plan = {"schema": SCHEMA, "kind": plans[0]["kind"], "lisabench": __version__, "command": list(command)}
    found["merged_from"] = _merged_from(sources)
    for name in dict.fromkeys(name for plan in plans for name in plan if name not in found and name not in UNITED):
        values = [_stated(source, name) for source in sources]
        found[name] = values[0] if name in FIRST or all(value == values[0] for value in values) else None
    found["operators"] = dict(operators)
    if conflicts := [conflict for plan in plans for conflict in plan.get("conflicts", ())]:
        found["conflicts"] = conflicts
    if found["kind"] == "accuracy":
        _check_trainings(sources)
        found["seeds"] = list(dict.fromkeys(seed for plan in plans for seed in plan.get("seeds", ())))
        found["cells"] = [{"key": key, "seed": seed} for seed in found["seeds"] for key in operators]
    elif all("sweeps" in plan for plan in plans):
        found["sweeps"] = unite_sweeps(sources, kinds)
    return found


def _stated(source: Source, name: str) -> Any:
    value = source.plan.get(name)
    return source.renamed.get(str(value), value) if name == "baseline" else value


def _merged_from(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """The runs that were measured; of a merged one those that it was merged from."""
    found: list[dict[str, Any]] = []
    for source in sources:
        stated = {name: source.plan.get(name) for name in ("command", "lisabench")}
        own = {"run": source.path.resolve().name, **stated, "cells": len(source.places)}
        found += [run for run in source.plan.get("merged_from") or [own] if run not in found]
    return found


def unite_sweeps(sources: Sequence[Source], kinds: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """The axes of all sweeps that plans state: equal ones are one, shares are the whole where all are there, kinds of devices stand together."""
    shares: dict[str, dict[str | None, list[tuple[int, int]]]] = {}
    for source, of in zip(sources, kinds, strict=True):
        for axes in source.plan.get("sweeps", ()):
            plain = {name: value for name, value in axes.items() if name not in ("kinds", "share")}
            plain["ops"] = [source.renamed.get(op, op) for op in plain["ops"]]
            by_kind = shares.setdefault(json.dumps(plain), {})
            for kind in (axes["kinds"] or of) if of else (None,):
                by_kind.setdefault(kind, []).append((axes["share"][0], axes["share"][1]))
    found = []
    for stated, by_kind in shares.items():
        kinds_of: dict[tuple[int, int], list[str]] = {}
        for kind, some in by_kind.items():
            for share in _joined(some):
                kinds_of.setdefault(share, []).extend([kind] if kind else [])
        found += [json.loads(stated) | {"kinds": among, "share": list(share)} for share, among in kinds_of.items()]
    return found


def _joined(shares: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The shares, each once; the whole where all of some number of parts are there."""
    there = dict.fromkeys(shares)
    if any(all((part, parts) in there for part in range(1, parts + 1)) for _, parts in there):
        return [WHOLE]
    return list(there)


def planned_cells(
    sources: Sequence[Source], operators: Mapping[str, Any], kinds: Sequence[Sequence[str]]
) -> Iterator[tuple[str, str | None]]:
    """The key and the kind of device of each cell that the runs of a sweep were to measure; some come twice where plans overlap.

    A run that was merged from older ones states but the number of its cells: those are told that have a record.
    """
    sweeps = unite_sweeps(sources, kinds)
    yield from ((cell.key, cell.kind) for cell in visits_of({"operators": operators, "sweeps": sweeps}, run="").cells())
    for source, of in zip(sources, kinds, strict=True):
        if "sweeps" not in source.plan and isinstance(source.plan["cells"], list):
            for stated in source.plan["cells"]:
                yield from ((source.cell(stated, kind), kind) for kind in of) if of else ((stated["cell"], None),)
        elif "sweeps" not in source.plan:
            yield from ((key, None) for key in source.places)


def _check_trainings(sources: Sequence[Source]) -> None:
    """InputError where models of the runs are no equals: trained on other data, by another recipe, or matched or searched for apart."""
    first = sources[0]
    for source in sources:
        names = list(TRAINING)
        names += ["baseline"] if first.plan.get("match") else []  # models are made to cost what the baseline's does
        differing = [name for name in names if first.plan.get(name) != source.plan.get(name)]
        if not differing and first.plan.get("search") and first.plan["seeds"][:1] != source.plan["seeds"][:1]:
            differing = ["the seed of the search, which is the first in --seeds"]
        if differing:
            one, other = (str(each.path) for each in (first, source))
            raise InputError(
                f"{one!r} and {other!r} hold trainings of another kind (they differ in {', '.join(differing)}): one run has one plan for "
                f"all; show them side by side: lisabench report {one} {other}"
            )
