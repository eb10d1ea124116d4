"""Which record of a cell counts where several runs have one, and what is said of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from lisabench import units
from lisabench.merging.sources import Lines, Place, Source
from lisabench.records import Record
from lisabench.workload import Workload

REFUSE, KEEP_FIRST, KEEP_LAST = CONFLICTS = ("refuse", "first", "last")
MOST_NAMED, MOST_KEPT = 3, 100  # conflicts that are told, and that are at hand


@dataclass(kw_only=True)
class Tally:
    """What became of a run's records, one a cell.

    `taken`, or the same as one that was taken before (`equal`), or skipped where another run knows what came of the cell
    (`replaced`), or set aside in a conflict (`overruled`). `torn`: its last line was cut off and is left out.
    """

    run: Path
    records: int
    taken: int
    equal: int = 0
    replaced: int = 0
    overruled: int = 0
    torn: bool
    being_written: bool


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """Two settled records of one cell, of two runs, that differ; and the hosts that they were measured on."""

    runs: tuple[Path, Path]
    records: tuple[Record, Record]
    hosts: tuple[str, str]

    def __str__(self) -> str:
        first = self.records[0]
        if first["kind"] == "scale":
            cell = f"{first['op']} at {Workload.from_record(first).describe()}, {first['mode']}, {first['dtype']}"
        else:
            cell = f"{first['op']}, seed {first.get('seed')}"
        of = zip(self.records, self.runs, self.hosts, strict=True)
        return f"{cell}: " + " and ".join(f"{figure(record)} in {str(run)!r} on {host}" for record, run, host in of)


@dataclass(kw_only=True)
class Joined:
    """`index`: by cell, the place that counts. `conflicts`: the first of so many as `conflicting` says."""

    index: dict[str, Place]
    runs: list[Tally]
    conflicts: list[Conflict] = field(default_factory=list)
    conflicting: int = 0

    def __str__(self) -> str:
        """How many conflicts there are, and the first of them."""
        count, named = self.conflicting, "; ".join(map(str, self.conflicts[:MOST_NAMED]))
        more = f"; and {count - MOST_NAMED:,} more" if count > MOST_NAMED else ""
        return f"{count:,} cell{'s have' if count > 1 else ' has'} different records in two runs: {named}{more}"


def figure(record: Record) -> str:
    """A record's own figure in words, or how its cell ended."""
    if record["status"] != "ok":
        return str(record["status"])
    return units.seconds(record["latency_s"]["median"]) if record["kind"] == "scale" else f"{100 * record['top1']:.2f}% top-1"


def join(sources: Sequence[Source], lines: Lines, conflicts: str) -> Joined:
    """Goes through the places of all sources, in their order; in a conflict the last one's is chosen if `conflicts` says so."""
    return _Join(sources, lines, conflicts).joined


class _Join:
    def __init__(self, sources: Sequence[Source], lines: Lines, conflicts: str) -> None:
        self.sources, self.lines, self.keeps_last = sources, lines, conflicts == KEEP_LAST
        index: dict[str, Place] = {}
        runs = [Tally(run=of.path, records=len(of.places), taken=0, torn=of.torn, being_written=of.being_written) for of in sources]
        self.joined = Joined(index=index, runs=runs)
        self._in_conflict: set[str] = set()
        for source in sources:
            for key, place in source.places.items():
                known = index.setdefault(key, place)
                if known is not place:
                    index[key] = self._chosen(key, known, place)
        for tally in runs:
            tally.taken = tally.records - tally.equal - tally.replaced - tally.overruled

    def _chosen(self, key: str, known: Place, new: Place) -> Place:
        """Which of two places counts; the tally of the other one's run says why it does not."""
        if known.settled != new.settled:
            chosen, other = (known, new) if known.settled else (new, known)
            self._tally(other).replaced += 1
            return chosen
        if not known.settled or self._agree(known, new):
            self._tally(new).equal += 1
            return known
        if key not in self._in_conflict:
            self._in_conflict.add(key)
            self.joined.conflicting += 1
            if len(self.joined.conflicts) < MOST_KEPT:
                self.joined.conflicts.append(self._conflict(known, new))
        chosen, other = (new, known) if self.keeps_last else (known, new)
        self._tally(other).overruled += 1
        return chosen

    def _agree(self, one: Place, other: Place) -> bool:
        """Whether two records say the same: in all, or of cells that did not finish in how that was, whoever found it and when."""
        lines = [self.lines.at(place) for place in (one, other)]
        if lines[0] == lines[1]:
            return True
        first, second = (self.sources[place.run].stated(orjson.loads(line)) for place, line in zip((one, other), lines, strict=True))
        unfinished = "ok" not in (first["status"], second["status"])
        return first == second or (unfinished and (first["status"], first["reason"]) == (second["status"], second["reason"]))

    def _conflict(self, one: Place, other: Place) -> Conflict:
        sources = self.sources[one.run], self.sources[other.run]
        records = orjson.loads(self.lines.at(one)), orjson.loads(self.lines.at(other))
        hosts = [_host(source, record) for source, record in zip(sources, records, strict=True)]
        return Conflict(runs=(sources[0].path, sources[1].path), records=records, hosts=(hosts[0], hosts[1]))

    def _tally(self, place: Place) -> Tally:
        return self.joined.runs[place.run]


def _host(source: Source, record: Record) -> str:
    environment = source.environments.get(record["environment"] or "", {})
    return str(record.get("host") or environment.get("host") or "an unknown host")
