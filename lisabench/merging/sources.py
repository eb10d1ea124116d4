"""Runs that are to be merged, as they lie on disk: only read, a line at a time, whether or not they are still being written."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from lisabench.errors import InputError
from lisabench.journal import JOURNAL, LOCK, is_settled, read_environments, read_plan
from lisabench.provenance import device_kind
from lisabench.records import Record, scan, unreadable
from lisabench.results import COMMANDS
from lisabench.sweep import Cell

# The hash of a record's environment and the kind of device that it states; both may be absent.
Where = tuple[str | None, str | None]
MOST_OPEN = 100  # journals at a time: a process may open but so many files


class Place(NamedTuple):
    """Where a record stands and what decides whether it counts. The records stay on disk: a run may have a million.

    `run`: the number of its source. `start`: the byte at which its line begins. `as_it_is`: the line is taken over byte for byte.
    """

    run: int
    start: int
    settled: bool
    where: Where
    as_it_is: bool = True


@dataclass(kw_only=True)
class Source:
    """A run to merge. `renamed`: what its operators are called in the merged run, where that is something else.

    `places`: by their cells, the last record of each. `measured_in`: where all records were measured, `finished_in` those with figures.
    """

    path: Path
    number: int
    plan: dict[str, Any]
    being_written: bool
    renamed: Mapping[str, str] = field(default_factory=dict)
    environments: dict[str, Any] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    measured_in: dict[Where, Where] = field(default_factory=dict)
    finished_in: dict[Where, None] = field(default_factory=dict)
    torn: bool = False

    def read(self) -> None:
        """Finds the places of the records; then the environments, so that there is one for each record of a run that goes on.

        Raises:
            InputError: the journal cannot be read. RunError: it is damaged.
        """
        journal, start = self.path / JOURNAL, 0
        with _opened(journal if journal.exists() else Path(os.devnull)) as lines:

            def take(record: Record) -> None:
                nonlocal start
                where = record["environment"], record.get("device_kind")
                where = self.measured_in.setdefault(where, where)
                if record["status"] == "ok":
                    self.finished_in[where] = None
                self.places[record["cell"]] = Place(self.number, start, is_settled(record), where, record["op"] not in self.renamed)
                start += len(lines.readline())  # the line that `scan` has just read

            whole = scan(journal, take)
            self.torn = not self.being_written and os.fstat(lines.fileno()).st_size > whole
        self.environments = read_environments(self.path)

    def kind_at(self, where: Where) -> str | None:
        """The kind of device; None where neither the record nor its environment tells."""
        environment, told = where
        known = self.environments.get(environment or "")
        return told or (device_kind(known) if known else None)

    @property
    def planned_kinds(self) -> tuple[str, ...]:
        """The kinds of devices that the plan names, where it is for several."""
        return tuple(dict.fromkeys(kind for axes in self.plan.get("sweeps", ()) for kind in axes["kinds"]))

    def kinds(self) -> tuple[str, ...]:
        """The kinds of devices that the run is of: planned, or measured on, or else those of the machine that it was begun on."""
        measured = [kind for where in self.measured_in if (kind := self.kind_at(where))]
        found = dict.fromkeys([*self.planned_kinds, *measured])
        return tuple(found or dict.fromkeys(device_kind(environment) for environment in self.environments.values()))

    def digest(self, op: str) -> str | None:
        """The content hash of a user's own operator, by its name in this run."""
        found: str | None = self.plan["operators"].get(op, {}).get("digest")
        return found

    def cell(self, record: Record, kind: str | None) -> str:
        """The key of the record's cell on a kind of device."""
        return Cell.from_record(record, digest=self.digest(record["op"]), kind=kind).key

    def kind_of(self, record: Record, kinds: Sequence[str]) -> str:
        """Which of the run's kinds of devices a record was measured on; of a cell that never ran, which it was meant for."""
        told = self.kind_at((record["environment"], record.get("device_kind")))
        return told or next((kind for kind in kinds if self.cell(record, kind) == record["cell"]), kinds[0])

    def stated(self, record: Record) -> Record:
        """What a record says, whichever run it is in: without the cell's key and the kind of device, which belong to that."""
        found = {name: value for name, value in record.items() if name not in ("cell", "device_kind")}
        return found | {"op": self.renamed.get(record["op"], record["op"])}


class Lines:
    """The lines of the sources' journals, by their places."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._files: dict[int, BinaryIO] = {}

    def at(self, place: Place) -> bytes:
        if place.run not in self._files:
            if len(self._files) == MOST_OPEN:
                self._close()
            self._files[place.run] = _opened(self._sources[place.run].path / JOURNAL)
        file = self._files[place.run]
        try:
            file.seek(place.start)
            return file.readline()
        except OSError as error:
            raise unreadable(self._sources[place.run].path / JOURNAL, error) from error

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()


def opened(paths: Sequence[Path]) -> list[Source]:
    """The runs with their plans, their journals not read yet.

    Raises:
        InputError: one is no run, or they are of several commands.
    """
    sources = [
        Source(path=path, number=number, plan=read_plan(path), being_written=is_being_written(path)) for number, path in enumerate(paths)
    ]
    first = sources[0]
    for source in sources:
        if source.plan["kind"] not in COMMANDS:
            raise InputError(f"{str(source.path)!r} is of kind {source.plan['kind']!r}; valid: runs of `lisabench scale` or `train-small`")
        if source.plan["kind"] != first.plan["kind"]:
            one, other = (f"{str(each.path)!r} was written by `lisabench {COMMANDS[each.plan['kind']]}`" for each in (first, source))
            raise InputError(f"{one} and {other}; give runs of one of them (`lisabench report` shows both kinds together)")
    return sources


def is_being_written(run: Path) -> bool:
    """Whether a lisabench that runs holds the run's lock; asked without making or changing a file."""
    try:
        lock = os.open(run / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(lock)
    return False


def kinds_apart(sources: Sequence[Source]) -> list[tuple[str, ...]]:
    """The kinds of devices of each run, where together they are several; else nothing for each, as cells then have no kind.

    Raises:
        InputError: they are several, and one of the runs does not tell what it is of.
    """
    kinds = [source.kinds() for source in sources]
    if len({kind for of in kinds for kind in of}) < 2:
        return [() for _ in sources]
    by_device: dict[str, set[str]] = {}
    for source, of in zip(sources, kinds, strict=True):
        by_device.setdefault(source.plan.get("device") or "", set()).update(of)
    found = []
    for source, of in zip(sources, kinds, strict=True):
        alike = by_device[source.plan.get("device") or ""]
        if not of and len(alike) != 1:
            raise InputError(
                f"{str(source.path)!r} holds nothing that says what device it was for, and the others are of several kinds; "
                f"leave it out, or go on with it first: lisabench scale --resume --out {source.path}"
            )
        found.append(of or tuple(alike))
    return found


def rekeyed(source: Source, kinds: Sequence[str], lines: Lines) -> dict[str, Place]:
    """The places by the cells' keys in a run whose cells have a kind, where `kinds` are this source's; in one without, where it has none."""
    if not kinds and not source.planned_kinds:
        return source.places
    found = {}
    for place in source.places.values():
        record = orjson.loads(lines.at(place))
        kind = source.kind_of(record, kinds) if kinds else None
        key = source.cell(record, kind)
        kept = key == record["cell"] and kind in (None, record.get("device_kind"))
        found[key] = place._replace(as_it_is=place.as_it_is and kept)
    return found


def _opened(path: Path) -> BinaryIO:
    try:
        return open(path, "rb", buffering=2**16)
    except OSError as error:
        raise unreadable(path, error) from error
