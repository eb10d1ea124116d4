"""The operating system's word on what a cell's call needs on a CPU, from a fresh process: the cross-check of `transient`.

It counts pages, so that it sees what libraries allocate outside torch's allocator, which the profiler's figure does not
hold. The process that times is no place for it: its malloc keeps what is freed.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import IO, Any

from lisabench.run.local import WORKER_ENVIRONMENT
from lisabench.run.worker import die_with
from lisabench.sweep import Cell
from lisabench.workload import Workload

# malloc: every block over 64 KiB is a mapping of its own, which freeing returns to the system at once.
# MKL: its buffers come and go with each product; else they are kept after the first call and the second one shows none.
ENVIRONMENT = WORKER_ENVIRONMENT | {
    "MALLOC_MMAP_THRESHOLD_": str(2**16),
    "MALLOC_TRIM_THRESHOLD_": str(2**16),
    "MKL_DISABLE_FAST_MM": "1",
}
PR_SET_THP_DISABLE = 41
LAST_BYTES = 4096


def transient_resident(cell: Cell, *, seed: int, threads: int | None, timeout: float) -> int | str:
    """Bytes by which one call of the cell raises the resident memory of a process of its own; a text says why there is no figure.

    To compare with the profiler's transient bytes. The start of the process is part of `timeout`, in seconds.
    """
    if cell.workload.device != "cpu":
        return "pages are counted on a CPU; a GPU's memory is not made of them"
    if sys.platform != "linux":
        return f"resident memory is read from Linux's /proc; this is {sys.platform}"
    task = {"op": cell.op, "options": cell.options, "digest": cell.digest} | cell.workload.record_fields()
    settings = json.dumps(task | {"seed": seed, "threads": threads, "parent": os.getpid()})
    ours, theirs = Pipe(duplex=False)
    lifeline_theirs, lifeline = os.pipe()
    with tempfile.TemporaryFile() as printed, ours:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "lisabench.run.resident", str(theirs.fileno()), str(lifeline_theirs), settings],
            pass_fds=(theirs.fileno(), lifeline_theirs),
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends the process
            env={**os.environ, **ENVIRONMENT},
        )
        theirs.close()
        os.close(lifeline_theirs)
        try:
            return _answer(ours, process, printed, timeout)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(lifeline)


def _answer(channel: Connection, process: subprocess.Popen[bytes], printed: IO[bytes], timeout: float) -> int | str:
    """What the process sends, or how it ended without a word."""
    if not channel.poll(timeout):
        return f"the cross-check took over {timeout:.3g} s"
    try:
        figure: int | str = json.loads(channel.recv_bytes())
        return figure
    except (EOFError, OSError):
        pass  # its end is closed: it has died, or is about to
    try:
        code = process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return "the process of the cross-check closed its channel"
    printed.seek(max(0, printed.seek(0, os.SEEK_END) - LAST_BYTES))
    lines = printed.read().decode(errors="replace").strip().splitlines()
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    why = ", perhaps by the system for want of memory" if code == -signal.SIGKILL else ""
    return f"the process of the cross-check {how}{why}" + (f"; it last printed: {lines[-1][:200]}" if lines else "")


def main() -> None:
    """Entry point of `python -m lisabench.run.resident FD LIFELINE_FD SETTINGS`."""
    channel, lifeline, task = Connection(int(sys.argv[1])), int(sys.argv[2]), json.loads(sys.argv[3])
    die_with(task["parent"], lifeline)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        channel.send_bytes(json.dumps(_measured(task)).encode())


def _measured(task: dict[str, Any]) -> int | str:
    """The figure, or the reason why there is none: whatever a user's operator raises is one."""
    # A huge page is resident whole, however little of it is touched.
    ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
    try:
        return _growth(task)
    except Exception as error:
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def _growth(task: dict[str, Any]) -> int | str:
    import torch

    from lisabench.measure.resident import resident_growth
    from lisabench.run.cell import build

    if task["threads"]:
        torch.set_num_threads(task["threads"])
    cell = Cell(op=task["op"], options=task["options"], workload=Workload.from_record(task), digest=task["digest"])
    subject = build(cell, task["seed"])
    function = torch.compile(subject.function, dynamic=False) if cell.workload.compiled else subject.function
    with subject.gradients():
        call = subject.call(function)
        call()  # loads code, starts threads, fills what the operator keeps
        gc.collect()
        return resident_growth(call)


if __name__ == "__main__":
    main()
