"""Which engine LiSA's "auto" takes: the one whose predicted time is the least.

An engine's seconds are a sum of its `_lisa_features` (calls, FLOPs and bytes of its stages, counted from the shape), each times a coefficient
of 0 or more. The coefficients are measured, by `lisabench tune`: the user's own table holds where it was made on this processor or GPU by
this torch, else the one in `_lisa_costs.json` (`lisabench tune --out operators/_lisa_costs.json`). A device that nobody has measured gets
`dense` up to RULE_TOKENS tokens and `fft` beyond. With LISABENCH_TUNED=0 the user's table is not read, so that a run can be repeated.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lisabench.contract import Grid
from lisabench.operators._lisa_features import MOST_MATRIX_BYTES, Shape, features, matrix_bytes

SCHEMA = 1
BUILT_IN = Path(__file__).with_name("_lisa_costs.json")
MODES = ("kept", "forward", "train")
"""What is timed: a forward with the tables' spectra or weights at hand, one that makes them, and one that makes them with its backward."""
RULE_TOKENS = 400

Coefficients = Mapping[str, Mapping[str, Mapping[str, float]]]
"""By mode, engine and feature: seconds a unit."""


class Table(NamedTuple):
    """Measured coefficients, and where they are from. `machine` is the processor's or the GPU's name."""

    device: str
    threads: int
    machine: str
    torch: str
    date: str
    coefficients: Coefficients

    @property
    def kind(self) -> str:
        """What one table is for: "cpu, one thread", "cpu, several threads", "cuda"."""
        return kind(self.device, self.threads)


def choose(shape: Shape, *, device: str, trained: bool, prepared: bool, engines: tuple[str, ...] | None = None) -> str:
    """The engine with the least predicted time on "cpu" or "cuda" (an index is ignored), with as many threads as torch has now.

    `trained`: gradients are wanted. `prepared`: the tables' spectra or weights are at hand, as in evaluation; else they are made in the call.
    `engines`: those that can be taken, `dense` and `fft` among them; None is all that were measured.
    """
    return _chosen(shape, *_key(device), "train" if trained else "kept" if prepared else "forward", engines)


def predicted(shape: Shape, *, device: str, trained: bool, prepared: bool) -> dict[str, float]:
    """Seconds by engine, without those that are not to be taken at this size; empty where the device has no table."""
    return _predicted(shape, *_key(device), "train" if trained else "kept" if prepared else "forward")


def chosen_by(device: str, threads: int | None = None) -> str:
    """What the choice on this device goes by, in words; with so many threads, or as many as torch has now."""
    where, found = device.partition(":")[0], in_force(device, threads)
    if found is None:
        return f"no table: dense up to {RULE_TOKENS} tokens, else fft"
    table, own = found
    several = f", {table.threads} thread{'s' if table.threads > 1 else ''}" if where == "cpu" else ""
    return f"{'tuned' if own else 'built-in table of'} {table.date}, {table.machine}{several}, torch {table.torch}"


def in_force(device: str, threads: int | None = None) -> tuple[Table, bool] | None:
    """The table that holds on this device with so many threads, or as many as torch has now, and whether it is the user's own."""
    return _in_force(*_key(device, threads))


def seconds_by(coefficients: Coefficients, shape: Shape, mode: str, device: str) -> dict[str, float]:
    """Seconds by engine after these coefficients, without those that are not to be taken at this size."""
    engines = coefficients.get(mode, {})
    return {
        engine: sum(weights[name] * amount for name, amount in features(engine, shape, mode, device).items())
        for engine, weights in engines.items()
        if matrix_bytes(engine, shape, device) <= MOST_MATRIX_BYTES
    }


def kind(device: str, threads: int) -> str:
    """The class of machines that a table holds for, in words."""
    return device if device != "cpu" else f"cpu, {'several threads' if threads > 1 else 'one thread'}"


def forget() -> None:
    """Reads the tables anew at the next choice."""
    for cached in (_chosen, _in_force, machine):
        cached.cache_clear()


@lru_cache(maxsize=4096)
def _chosen(shape: Shape, device: str, several: bool, mode: str, engines: tuple[str, ...] | None) -> str:
    seconds = {engine: s for engine, s in _predicted(shape, device, several, mode).items() if engines is None or engine in engines}
    if seconds:
        return min(seconds, key=seconds.__getitem__)
    return "dense" if shape.grid.tokens <= RULE_TOKENS and matrix_bytes("dense", shape, device) <= MOST_MATRIX_BYTES else "fft"


def _predicted(shape: Shape, device: str, several: bool, mode: str) -> dict[str, float]:
    found = _in_force(device, several)
    return seconds_by(found[0].coefficients, shape, mode, device) if found else {}


def _key(device: str, threads: int | None = None) -> tuple[str, bool]:
    where = device.partition(":")[0]
    return where, where == "cpu" and (torch.get_num_threads() if threads is None else threads) > 1


# --- tables ----------------------------------------------------------------------------------------------------------


def kept_at() -> Path | None:
    """Where the user's tables stand; None for a user without a home. The variable is as XDG says: a relative path is ignored."""
    stated = os.environ.get("XDG_CACHE_HOME", "")
    try:
        cache = Path(stated) if os.path.isabs(stated) else Path.home() / ".cache"
    except RuntimeError:
        return None
    return cache / "lisabench" / "lisa_engines.json"


def read(path: Path | None) -> list[Table]:
    """The sound tables of a file; none of one that is not there, is damaged, or was written for other features."""
    try:
        found = json.loads(path.read_bytes()) if path is not None else {}
    except (OSError, ValueError, RecursionError):
        return []
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or not isinstance(found.get("tables"), list):
        return []
    return [table for entry in found["tables"] if (table := _sound(entry)) is not None]


def written(tables: list[Table]) -> bytes:
    """The content of a file that `read` takes."""
    return f"{json.dumps({'schema': SCHEMA, 'tables': [table._asdict() for table in tables]}, indent=1)}\n".encode()


@lru_cache
def machine(device: str) -> str:
    """The name of the processor, or of the current GPU; "" where none is there."""
    if device == "cuda":
        return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


@lru_cache
def _in_force(device: str, several: bool) -> tuple[Table, bool] | None:
    """The table that holds here, and whether it is the user's own."""
    wanted = kind(device, 1 + several)
    if os.environ.get("LISABENCH_TUNED") != "0":
        for table in read(kept_at()):
            if (table.kind, table.machine, table.torch) == (wanted, machine(device), torch.__version__):
                return table, True
    return next(((table, False) for table in read(BUILT_IN) if table.kind == wanted), None)


def _sound(entry: Any) -> Table | None:
    """The table that an entry of a file is, or None: whoever reads one computes with every number in it."""
    try:
        table = Table(**entry)
        texts = table.device, table.machine, table.torch, table.date
        known = all(
            weights.keys() == features(engine, _ANY, mode, table.device).keys() and all(map(_is_coefficient, weights.values()))
            for mode, engines in table.coefficients.items()
            for engine, weights in engines.items()
        )
        whole = set(table.coefficients) == set(MODES) and all(table.coefficients.values())
    except (TypeError, AttributeError):
        return None
    return table if known and whole and all(isinstance(text, str) for text in texts) and type(table.threads) is int else None


def _is_coefficient(value: Any) -> bool:
    return isinstance(value, float) and 0 <= value < math.inf


_ANY = Shape(Grid(2, 3), "zero", 1, 1, 1, 1, 1, 4)
