"""A run on disk: plan.json, environment.json and journal.jsonl, a record a line, synced as it comes.

The journal is only appended to. A last line that a crash tore is dropped when the run is opened again. A cell that was
skipped for want of budget may get a second record when the run is resumed: the last record of a cell counts.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lisabench.errors import InputError, RunError
from lisabench.files import write_whole
from lisabench.records import SCHEMA as SCHEMA
from lisabench.records import Record as Record
from lisabench.records import parse, scan, unreadable

JOURNAL, PLAN, ENVIRONMENT, LOCK = "journal.jsonl", "plan.json", "environment.json", ".lock"
FREE_BYTES_NEEDED = 16 * 2**20
BUDGET = "budget"


def blank_record(fields: dict[str, Any], *, kind: str = "scale") -> Record:
    """A record with every field, its figures absent."""
    return {
        "schema": SCHEMA,
        "kind": kind,
        **fields,
        **({"host": None, "device_kind": None, "device_id": None} if kind == "scale" else {}),
        "status": "skipped",
        "reason": None,
        "latency_s": None,
        "latency_kinds_s": None,
        "ratio": None,
        "memory_bytes": None,
        "flops": None,
        "roofline": None,
        "energy_j": None,
        "relative_error": None,
        "backend": None,
        "dispatch": None,
        "conditions": None,
        "absent": {},
        "environment": None,
        "started_at": now(),
    }


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def is_settled(record: Mapping[str, Any]) -> bool:
    """Whether a resumed run leaves the cell alone: all but those skipped for want of budget."""
    return not (record["status"] == "skipped" and str(record["reason"]).startswith(BUDGET))


def read_records(run: Path, *, trimmed: Callable[[Record], Record] = lambda record: record) -> list[Record]:
    """The records of a run, the last of each cell, in the order in which the cells were first met; a torn last line is left out.

    `trimmed` takes from each record, as it is read, what is not needed; see `records.without_samples`.

    Raises:
        InputError: there is no run, or its journal holds something else than records.
    """
    if not is_run(run):
        raise _no_run(run)
    return _latest(parse(run / JOURNAL, trimmed)[0])


def read_plan(run: Path) -> dict[str, Any]:
    """plan.json of a run."""
    if not is_run(run):
        raise _no_run(run)
    plan = _read_json(run / PLAN)
    if not {"kind", "operators", "cells"} <= set(plan):
        raise RunError(f"{str(run / PLAN)!r} is damaged (it states no kind, operators or cells); restore it from a copy")
    return plan


def read_environments(run: Path) -> dict[str, Any]:
    """environment.json of a run: hash -> environment."""
    return _read_json(run / ENVIRONMENT) if (run / ENVIRONMENT).exists() else {}


def is_run(run: Path) -> bool:
    """Whether a run was begun in this folder."""
    try:
        return (run / PLAN).is_file() or (run / JOURNAL).is_file()
    except OSError:  # a name that is too long, a folder that may not be searched
        return False


def _no_run(run: Path) -> InputError:
    return InputError(f"{str(run)!r} is no run: it has no {PLAN}; give a folder that `lisabench scale` or `train-small` wrote")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_read(path))
    except ValueError as error:
        raise RunError(f"{str(path)!r} is damaged ({error}); restore it from a copy") from error
    if not isinstance(found, dict):
        raise RunError(f"{str(path)!r} is damaged (it holds no JSON object); restore it from a copy")
    return found


def _read(path: Path) -> bytes:
    """The file's content."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{str(path)!r} is not there; give a folder that `lisabench scale` or `train-small` wrote") from None
    except OSError as error:
        raise unreadable(path, error) from error


def _latest(records: Iterable[Record]) -> list[Record]:
    found: dict[str, Record] = {}
    for record in records:
        found[record["cell"]] = record
    return list(found.values())


@dataclass
class Journal:
    """A run that is open for writing; close it, or use it in a `with` block.

    `records`: all of them, old and new; None where those on disk were handed on as they were read.
    """

    run: Path
    records: list[Record] | None
    dropped_torn_line: bool
    environments: dict[str, Any]
    _file: Any
    _lock: Any

    @classmethod
    def create(cls, run: Path, plan: dict[str, Any]) -> Journal:
        """Makes a new run. InputError where one stands already, RunError where it cannot be written."""
        if is_run(run):
            raise InputError(f"{str(run)!r} holds a run already; go on with it by --resume, or give another --out")
        new = False
        try:
            new = not run.exists()
            if not new and (not run.is_dir() or any(entry.name != LOCK for entry in run.iterdir())):
                raise InputError(f"{str(run)!r} exists and is no run; give a new or an empty folder with --out")
            run.mkdir(parents=True, exist_ok=True)
            free = os.statvfs(run).f_bavail * os.statvfs(run).f_frsize
            if free < FREE_BYTES_NEEDED:
                raise RunError(
                    f"{str(run)!r} is on a disk with {free // 2**20} MiB free; a run needs {FREE_BYTES_NEEDED // 2**20} MiB: make room or give another --out"
                )
            lock = _locked(run)
            write_json(run / PLAN, plan)
            file = open(run / JOURNAL, "xb", buffering=0)  # noqa: SIM115  # stays open for the run
        except OSError as error:
            _take_back(run, new=new)
            raise _unwritable(run, error) from error
        except RunError:
            _take_back(run, new=new)
            raise
        return cls(run=run, records=[], dropped_torn_line=False, environments={}, _file=file, _lock=lock)

    @classmethod
    def resume(cls, run: Path, *, taken: Callable[[Record], None] | None = None) -> Journal:
        """Opens a run to go on with it; drops a torn last line. `taken` is handed the head of each record, of which none is kept."""
        if not is_run(run):
            raise _no_run(run)
        try:
            lock = _locked(run)
            records, good = parse(run / JOURNAL) if taken is None else (None, scan(run / JOURNAL, taken, heads=True))
            environments = read_environments(run)
            file = open(run / JOURNAL, "r+b" if (run / JOURNAL).exists() else "wb", buffering=0)  # noqa: SIM115
            size = file.seek(0, os.SEEK_END)
            file.truncate(good)
            file.seek(good)
        except OSError as error:
            raise _unwritable(run, error) from error
        return cls(run=run, records=records, dropped_torn_line=good < size, environments=environments, _file=file, _lock=lock)

    @property
    def settled(self) -> dict[str, Record]:
        """Cell -> record for the cells that need no more measuring."""
        return {record["cell"]: record for record in _latest(self.records or ()) if is_settled(record)}

    def append(self, record: Record) -> None:
        """Writes a record and waits until the disk has it."""
        line = json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        end = self._file.tell()
        try:
            while line:  # unbuffered, so that a full disk is met here; a write may take a part
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._cut(end)
            raise _unwritable(self.run, error) from error
        if self.records is not None:
            self.records.append(record)

    def add_environment(self, key: str, environment: dict[str, Any]) -> None:
        """Keeps an environment under its hash."""
        # Load and the like are those of the first time; peaks may come to be known later.
        told = self.environments.get(key, environment) | {name: environment[name] for name in ("peaks",) if name in environment}
        if self.environments.get(key) != told:
            self.environments = self.environments | {key: told}
            write_json(self.run / ENVIRONMENT, self.environments)

    def close(self) -> None:
        self._file.close()
        self._lock.release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _cut(self, end: int) -> None:
        # A line that did not fit is taken away again, so that the journal holds whole records only; should that fail
        # too, the next opening drops the torn line.
        try:
            os.ftruncate(self._file.fileno(), end)
        except OSError:
            return


def _take_back(run: Path, *, new: bool) -> None:
    """Removes what `create` made before it failed; a folder that stood before stays."""
    if not new:
        return
    for name in (JOURNAL, PLAN, LOCK):
        with contextlib.suppress(OSError):
            (run / name).unlink()
    with contextlib.suppress(OSError):
        run.rmdir()


def _locked(run: Path) -> Any:
    from filelock import FileLock, Timeout

    lock = FileLock(run / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"{str(run)!r} is locked: another lisabench is writing it; wait for that one or give another --out") from None
    return lock


def _unwritable(run: Path, error: OSError) -> RunError:
    return RunError(
        f"{str(run)!r} cannot be written ({error.strerror or error}); make room or give another --out; what was recorded is kept"
    )


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file whole or not at all."""
    write_whole(path, (json.dumps(value, indent=1) + "\n").encode())
