"""Measured peaks, kept for the machine: $XDG_CACHE_HOME/lisabench/peaks.json, by default under ~/.cache.

An entry belongs to one fingerprint of what matters to times: another GPU, thread count or torch has its own. A peak is a
maximum, so the larger of two measurements stays. The file is a cache: what is unreadable there is measured again, and
what cannot be written is not kept; neither is an error. Of two programs that write at once the later one wins.

Source: XDG Base Directory Specification 0.8 (a relative path in the variable is to be ignored).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lisabench.errors import RunError
from lisabench.files import write_whole
from lisabench.provenance import Environment, fingerprint, what_matters

# In this order they are measured and shown; `tf32` is fp32 tensors in a GPU's shorter products.
PEAK_DTYPES = ("fp64", "fp32", "tf32", "bf16", "fp16")
NAMES = (*(f"flops_per_s_{dtype}" for dtype in PEAK_DTYPES), "bytes_per_s")


def kept(environment: Environment) -> dict[str, float]:
    """The peaks known of a machine like this one: some of `flops_per_s_DTYPE` and `bytes_per_s`, or none."""
    entry = _read().get(fingerprint(environment))
    return _sound(entry.get("peaks")) if isinstance(entry, dict) else {}


def keep(environment: Environment, peaks: Mapping[str, float]) -> dict[str, float]:
    """Adds measured peaks to the kept ones, of each the larger, and returns all of them, in the order of NAMES."""
    known, found = kept(environment), _sound(peaks)
    merged = {name: max(known.get(name, 0.0), found.get(name, 0.0)) for name in NAMES if name in known or name in found}
    if merged != known and (path := _path()) is not None:
        entry = {"environment": what_matters(environment), "peaks": merged}
        content = json.dumps(_read() | {fingerprint(environment): entry}, indent=1)
        with contextlib.suppress(RunError):
            write_whole(path, f"{content}\n".encode())
    return merged


def _path() -> Path | None:
    """Where the file stands; None for a user without a home."""
    stated = os.environ.get("XDG_CACHE_HOME", "")
    try:
        cache = Path(stated) if os.path.isabs(stated) else Path.home() / ".cache"
    except RuntimeError:
        return None
    return cache / "lisabench" / "peaks.json"


def _read() -> dict[str, Any]:
    path = _path()
    try:
        found = json.loads(path.read_bytes()) if path is not None else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _sound(peaks: Any) -> dict[str, float]:
    """Those entries that are peaks: known names with a positive, finite number."""
    if not isinstance(peaks, Mapping):
        return {}
    found = {}
    for name in NAMES:
        if isinstance(number := peaks.get(name), (int, float)) and not isinstance(number, bool):
            with contextlib.suppress(OverflowError):
                found[name] = float(number)
    return {name: number for name, number in found.items() if math.isfinite(number) and number > 0}
