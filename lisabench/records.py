"""A journal's lines as records: read one by one, since a large run has gigabytes of them."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import orjson

from lisabench.errors import InputError, RunError

Record = dict[str, Any]
SCHEMA = 1
# Words that thousands of records share: kept once.
REPEATED = (
    "kind",
    "op",
    "scope",
    "mode",
    "dtype",
    "device",
    "host",
    "device_kind",
    "device_id",
    "status",
    "reason",
    "backend",
    "environment",
    "data",
)
# Parts that most records have in common: kept once, for a large run would hold a quarter more without.
SHARED = ("options", "dispatch", "absent")
# How the journal writes the first figures of a record.
_LATENCY = b',"latency_s":'
_MEDIAN, _ANALYTIC = b',"latency_s":{"median":', b',"flops":{"analytic":'
REQUIRED = {"schema", "kind", "cell", "op", "status", "reason", "environment"}


def unreadable(path: Path, error: OSError) -> InputError:
    """What is said of a file that may not be read."""
    return InputError(f"{str(path)!r} cannot be read ({error.strerror}); give a run that can")


def parse(path: Path, trimmed: Callable[[Record], Record] = lambda record: record) -> tuple[list[Record], int]:
    """The records of a journal, and the length of the whole lines that hold them.

    `trimmed` takes from each record, as it is read, what is not needed. Records have equal parts in common: what changes one copies it.
    See `scan` for the rest.
    """
    records = list[Record]()
    shared: dict[bytes, Any] = {}
    return records, scan(path, lambda record: records.append(trimmed(_compact(record, shared))))


def scan(path: Path, taken: Callable[[Record], None], *, heads: bool = False) -> int:
    """Hands each record of a journal to `taken`, with `heads` its head alone (see `head`); the length of the whole lines.

    A journal that is not there yet is empty: the run was stopped before its first cell. A torn last line is left out.

    Raises:
        InputError: it cannot be read, or is of another schema. RunError: it is damaged.
    """
    good, read = 0, head if heads else orjson.loads
    required = REQUIRED - {"environment"} if heads else REQUIRED
    torn: tuple[int, ValueError] | None = None
    collecting = gc.isenabled()
    gc.disable()  # it would look at all records again and again, none of which is garbage
    try:
        with open(path, "rb", buffering=2**20) as file:
            for number, line in enumerate(file, 1):
                if torn:  # what is behind it shows that no crash cut it off
                    raise RunError(f"{path} line {torn[0]} is damaged ({torn[1]}); restore the file from a copy or cut it there") from torn[
                        1
                    ]
                try:
                    record = read(line)
                except ValueError as error:
                    torn = number, error
                    continue
                if not line.endswith(b"\n"):
                    break  # its writing was cut off, even if it happens to read well
                taken(_checked(record, path, number, required))
                good += len(line)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise unreadable(path, error) from error
    finally:
        if collecting:
            gc.enable()
    return good


def head(line: bytes) -> Record:
    """A record up to its latency, of which the median stays, and its analytic FLOPs: what a run is gone on with, read in a fifth of
    the time. ValueError where the line is no record."""
    cut = line.find(_LATENCY)
    if cut < 0 or not line.endswith(b"}\n"):
        whole: Record = orjson.loads(line)
        return whole
    try:
        found: Record = orjson.loads(line[:cut] + b"}")
    except ValueError:  # the words stood elsewhere
        found = orjson.loads(line)
        return found
    found["latency_s"] = {"median": median} if (median := _number(line, _MEDIAN, cut)) is not None else None
    found["flops"] = {"analytic": flops} if (flops := _number(line, _ANALYTIC, cut)) is not None else None
    return found


def _number(line: bytes, words: bytes, begin: int) -> float | None:
    """The number that stands behind these words; None where there is none."""
    place = line.find(words, begin)
    if place < 0:
        return None
    place += len(words)
    try:
        return float(line[place : line.find(b",", place)])
    except ValueError:
        return None


def _checked(record: Any, path: Path, number: int, required: Set[str]) -> Record:
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        schema = record.get("schema") if isinstance(record, dict) else None
        raise InputError(f"{path} line {number} has schema {schema!r}; this lisabench reads {SCHEMA}")
    if not required <= record.keys():
        missing = required - record.keys()
        raise RunError(
            f"{path} line {number} is damaged (it lacks {', '.join(sorted(missing))}); restore the file from a copy or cut it there"
        )
    found: Record = record
    return found


def _compact(record: Record, shared: dict[bytes, Any]) -> Record:
    """The same record, with words and parts that others have too in common with them."""
    for name in REPEATED:
        if isinstance(value := record.get(name), str):
            record[name] = sys.intern(value)
    for name in SHARED:
        if (value := record.get(name)) is not None:
            record[name] = shared.setdefault(orjson.dumps(value), value)
    return record


def without_samples(record: Record) -> Record:
    """The record itself, rid of its latency's raw samples where the medians of their rounds are there."""
    latency = record.get("latency_s")
    if latency and latency.get("rounds"):
        latency.pop("samples", None)
    return record


def independent_samples(latency: Mapping[str, Any]) -> Sequence[float]:
    """The medians of a latency's rounds, in seconds; its raw samples where it has no rounds.

    The rounds' medians are independent of each other, where the samples of one round are not.
    """
    found: Sequence[float] = latency.get("rounds") or latency["samples"]
    return found
