"""One run of several that were measured apart: shards of a sweep on machines without a common cluster above all.

Of each run the last record of a cell counts. Equal records are one; a settled one takes the place of one that was skipped for
want of budget; two settled ones that differ are a conflict, of which nothing is averaged and none is chosen unasked. The runs
are only read, line by line, and the new one is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from lisabench.errors import InputError, RunError, unknown
from lisabench.journal import ENVIRONMENT, JOURNAL, PLAN
from lisabench.merging.join import CONFLICTS, REFUSE, Joined, join
from lisabench.merging.plan import Plan, merged_plan, planned_cells, unite_operators
from lisabench.merging.sources import Lines, Place, Source, kinds_apart, opened, rekeyed
from lisabench.provenance import Difference, mixed, once, refusal

# What of a training stands beside the journal, a file a cell.
BESIDE = (("patterns", ".npz"), ("weights", ".pt"))
MOST_RUNS = 3  # that are named in a line


@dataclass(kw_only=True)
class Merged:
    """What was merged. `kinds`: of devices, where there are several. `differing`: in what the environments differ, with `mix`.

    `cells`: how many are planned. `missing`: how many of them no run has settled, by the kind of device (None where there is one).
    """

    out: Path
    plan: Plan
    kinds: tuple[str, ...]
    differing: list[Difference]
    joined: Joined
    cells: int = 0
    missing: Counter[str | None] = field(default_factory=Counter)

    @property
    def can_go_on(self) -> bool:
        """Whether the plan states what is to be measured, and not only how much."""
        return self.plan["kind"] == "accuracy" or "sweeps" in self.plan


def merge(paths: Sequence[Path], out: Path, *, command: Sequence[str], conflicts: str = REFUSE, mix: bool = False) -> Merged:
    """Writes the run `out` of those at `paths`; in a conflict the record of the first or the last of them counts, where that is asked for.

    Raises:
        InputError: `out` is there, or the runs do not belong together: other commands, operators, environments, conflicts.
        RunError: a run is damaged, or `out` cannot be written; nothing is left of it then.
    """
    if conflicts not in CONFLICTS:
        raise unknown("--conflicts", conflicts, CONFLICTS)
    if not _is_free(out):
        raise InputError(f"{str(out)!r} is there already; give a new folder with --out")
    sources = opened(paths)
    operators = unite_operators(sources)
    with Lines(sources) as lines, _uncollected():
        for source in sources:
            source.read()
        is_sweep = sources[0].plan["kind"] == "scale"
        kinds = kinds_apart(sources) if is_sweep else [() for _ in sources]
        environments = _environments(sources)
        differing = _differing(sources, environments)
        if differing and not mix:
            named = ", ".join(repr(str(path)) for path in paths[:MOST_RUNS]) + (" and others" if len(paths) > MOST_RUNS else "")
            because = "their times do not belong in one run"
            raise InputError(refusal(f"the machines of {named}", differing, because=because, then="merges them"))
        plan = merged_plan(sources, operators, kinds, command=command)
        if is_sweep:
            for source, of in zip(sources, kinds, strict=True):
                source.places = rekeyed(source, of, lines)
        joined = join(sources, lines, conflicts)
        if joined.conflicting and conflicts == REFUSE:
            raise InputError(f"{joined}; say by --conflicts first or last whose record counts, or leave a run out")
        if joined.conflicting:
            plan["conflicts"] = [*plan.get("conflicts", ()), {"kept": conflicts, "cells": joined.conflicting}]
        all_kinds = tuple(dict.fromkeys(kind for of in kinds for kind in of))
        merged = Merged(out=out, plan=plan, kinds=all_kinds, differing=differing, joined=joined)
        if is_sweep:
            _count_cells(merged, planned_cells(sources, operators, kinds))
        else:
            _count_trainings(merged, lines)
        with _new_folder(out) as folder:
            _write_json(folder / PLAN, plan)
            _write_json(folder / ENVIRONMENT, environments)
            _write_journal(folder / JOURNAL, sources, kinds, joined.index, lines)
            if not is_sweep:
                _copy_beside(folder, sources, joined.index)
    return merged


def _environments(sources: Sequence[Source]) -> dict[str, Any]:
    """Hash -> environment; what of one changes from minute to minute is the first run's, of peaks each is the larger."""
    found: dict[str, Any] = {}
    for source in sources:
        for key, environment in source.environments.items():
            known = found.setdefault(key, environment)
            peaks = [each.get("peaks") or {} for each in (known, environment)]
            if any(peaks):
                larger = {name: max(each[name] for each in peaks if name in each) for name in {**peaks[0], **peaks[1]}}
                found[key] = known | {"peaks": larger}
    return found


def _differing(sources: Sequence[Source], environments: Mapping[str, Any]) -> list[Difference]:
    """In what that matters the environments of finished records differ: those of a sweep on devices of one kind, all of trainings."""
    used: dict[str | None, list[str | None]] = {}
    for source in sources:
        for where in source.finished_in:
            used.setdefault(source.kind_at(where) if source.plan["kind"] == "scale" else None, []).append(where[0])
    return once(difference for hashes in used.values() for difference in mixed(environments, hashes))


def _count_cells(merged: Merged, planned: Iterator[tuple[str, str | None]]) -> None:
    """Sets how many cells the merged run has planned and misses."""
    seen = set[str]()
    for key, kind in planned:
        if key not in seen:
            place = merged.joined.index.get(key)
            seen.add(key)
            if place is None or not place.settled:
                merged.missing[kind] += 1
    merged.cells = len(seen)
    merged.plan["cells"] = merged.cells


def _count_trainings(merged: Merged, lines: Lines) -> None:
    """The same for trainings, which are told by operator and seed: a search finds their recipe, and with it their cell, only when run."""

    def told(stated: Mapping[str, Any], seed: int) -> str:
        return json.dumps([stated["op"], stated["options"], seed], sort_keys=True)

    settled = (orjson.loads(lines.at(place)) for place in merged.joined.index.values() if place.settled)
    done = {told(record, record["seed"]) for record in settled if record["kind"] == "accuracy"}
    cells, operators = merged.plan["cells"], merged.plan["operators"]
    merged.cells = len(cells)
    merged.missing[None] += sum(told(operators[cell["key"]], cell["seed"]) not in done for cell in cells)


def _is_free(path: Path) -> bool:
    """Whether nothing is there, or an empty folder."""
    try:
        return not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir()))
    except OSError:  # it may not be looked into
        return False


@contextlib.contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """A hidden folder to fill, which takes the name `path` in one step; of one that did not come to that nothing is left."""
    path = Path(os.path.abspath(path))
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.merging")
    above: list[Path] = []
    try:
        above += [folder for folder in unfinished.parents if not folder.exists()]
        unfinished.mkdir(parents=True)
        yield unfinished
        unfinished.rename(path)
    except OSError as error:
        raise RunError(
            f"{str(path)!r} cannot be written ({error.strerror or error}); make room or give another --out; nothing is left of it"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        for folder in above:
            with contextlib.suppress(OSError):  # it holds the new run
                folder.rmdir()


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    with open(path, "x") as file:
        json.dump(value, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def _write_journal(path: Path, sources: Sequence[Source], kinds: Sequence[Sequence[str]], index: Mapping[str, Place], lines: Lines) -> None:
    """The lines that count, run by run in their order there."""
    with open(path, "xb", buffering=2**20) as file:
        for source, of in zip(sources, kinds, strict=True):
            for key, place in source.places.items():
                if index[key] is place:
                    line = lines.at(place)
                    file.write(line if place.as_it_is else _rewritten(line, key, source, of))
        file.flush()
        os.fsync(file.fileno())


def _rewritten(line: bytes, key: str, source: Source, kinds: Sequence[str]) -> bytes:
    record = orjson.loads(line)
    kind = {"device_kind": source.kind_of(record, kinds)} if kinds else {}
    return orjson.dumps(record | {"cell": key, "op": source.renamed.get(record["op"], record["op"])} | kind) + b"\n"


def _copy_beside(folder: Path, sources: Sequence[Source], index: Mapping[str, Place]) -> None:
    """What the trainings that count left beside the journal."""
    for key, place in index.items():
        for name, suffix in BESIDE:
            file = sources[place.run].path / name / f"{key}{suffix}"
            if file.is_file():
                (folder / name).mkdir(exist_ok=True)
                shutil.copyfile(file, folder / name / file.name)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for garbage, which would look at a million places again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
