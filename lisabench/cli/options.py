"""What several commands take: devices, threads and where to write."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from lisabench.errors import InputError, UnavailableError

LONGEST_SECONDS = 1_000_000
THREADS_A_CORE = 4


def check_threads(threads: int | None) -> None:
    """InputError for a number of threads that no machine like this one runs."""
    most = THREADS_A_CORE * (os.cpu_count() or 1)
    if threads is not None and not 1 <= threads <= most:
        raise InputError(f"--threads got {threads}; valid: 1 to {most} on this machine")


def resolve_device(text: str) -> str:
    """'auto', 'cpu', 'cuda' or 'cuda:1' as torch's name of the device; UnavailableError where it is not there."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise InputError(f"--device got {text!r}; valid: auto, cpu, cuda, cuda:0, cuda:1, ...")
    if text == "cpu":
        return text
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "auto":
        return "cuda:0" if count else "cpu"
    index = int(text.partition(":")[2] or 0)
    if index >= count:
        there = f"cuda:0 to cuda:{count - 1}" if count else "no CUDA device that this torch can use"
        raise UnavailableError(f"--device {text} is not there: this machine has {there}; use --device cpu or auto")
    return f"cuda:{index}"


def tell_left_out(ops: Sequence[str]) -> None:
    """Says on stderr which operators "all" leaves out, and why; the others go on."""
    from lisabench.axes import left_out
    from lisabench.cli.console import lines, messages

    lines(messages(), *(f"left out: {why}" for why in left_out(ops)))


def default_run(command: str, what: str) -> Path:
    """A new folder under reports/ that names the command, what it ran and the time."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", what).strip("-")[:40].strip("-")
    stem = f"{command}-{words}-{datetime.now():%Y%m%d-%H%M%S}"
    path, number = Path("reports") / stem, 2
    while path.exists():
        path, number = Path("reports") / f"{stem}-{number}", number + 1
    return path


def positive(value: float, what: str, *, zero: bool = False) -> None:
    """InputError for a number that is no time or count."""
    if not (value > 0 or (zero and value == 0)) or value > LONGEST_SECONDS:
        raise InputError(
            f"{what} got {value:g}; valid: a number above 0, up to {LONGEST_SECONDS:,}" + (", or 0 for no limit" if zero else "")
        )
