"""The C library's memory as a worker has it by its environment (`run/local.py`), for a process that measures by itself."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Has glibc map no tensor by itself and give no memory back, so that times hold no page faults; False where there is no glibc.

    Source: mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
