"""Resident memory of this process as Linux counts it: it holds what torch's own accounts do not see.

A 5 written to /proc/self/clear_refs sets the peak (VmHWM in /proc/self/status) back to what is resident now. Not used:
ru_maxrss, which a child inherits from its parent and nothing sets back.
Linux counts in shares, one a processor, and reads without adding up what each has not handed in: the figures are off by
up to 32 pages (twice the processors, where that is more) for each processor that took part.
Source: Linux, Documentation/filesystems/proc.rst; lib/percpu_counter.c (compute_batch_value).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

PROBE_BLOCKS, PROBE_BLOCK_BYTES = 64, 2**20
PROBE_WITHIN = 0.02


def peak_resident(call: Callable[[], Any]) -> int | str:
    """Bytes that the whole process holds at the peak of one call; a text says why there is no figure, and then nothing was run.

    In it are the interpreter, the libraries and whatever else stands. Where malloc keeps freed memory, as in the process
    that times, it is what the process occupies by then, and not what this call needs.
    """
    before = _reset()
    if isinstance(before, str):
        return before
    result = call()
    peak = _status("VmHWM")
    del result
    return peak


def resident_growth(call: Callable[[], Any]) -> int | str:
    """Bytes by which one call raises the peak of resident memory over what stood before, its result among them; or why not.

    It is what the call needs only where malloc gives freed memory back at once. That is tried first, twice, with tensors
    of known sizes. Run `call` once before: first calls also load code, start threads and fill what is kept.
    """
    for _ in range(2):
        grown = _growth(_probe)
        if isinstance(grown, str):
            return grown
        known = PROBE_BLOCKS * PROBE_BLOCK_BYTES
        if abs(grown - known) > PROBE_WITHIN * known:
            return f"tensors of {known} bytes raised the resident memory by {grown}: malloc keeps what is freed, or the system counts otherwise"
    return _growth(call)


def _probe() -> list[torch.Tensor]:
    """Tensors of a known size in all, filled by this thread alone: the shares of the other processors stay as they are."""
    blocks = [torch.empty(PROBE_BLOCK_BYTES, dtype=torch.uint8) for _ in range(PROBE_BLOCKS)]
    for block in blocks:
        block.numpy().fill(1)
    return blocks


def _growth(call: Callable[[], Any]) -> int | str:
    """Bytes of the call's peak over what was resident when it began."""
    before = _reset()
    if isinstance(before, str):
        return before
    result = call()
    growth = _status("VmHWM") - before
    del result
    return growth


def _reset() -> int | str:
    """Sets the peak back; the bytes that are resident then, or why this system does not allow it."""
    try:
        with open("/proc/self/clear_refs", "w") as control:
            control.write("5")
        return _status("VmHWM")
    except (OSError, LookupError) as error:
        return f"the system does not let a process set back its peak of resident memory ({type(error).__name__})"


def _status(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    with open("/proc/self/status") as status:
        for line in status:
            name, _, value = line.partition(":")
            if name == field:
                return 1024 * int(value.split()[0])
    raise LookupError(field)
