"""The process that holds a device and measures cells, one after the other; started by `lisabench.run.local`.

Messages go over a socket as JSON: tasks in, progress and results out. The worker ends when its parent is gone, however
that died: the kernel is asked to kill it then, and a thread watches the socket for where the kernel cannot.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

PR_SET_PDEATHSIG = 1
PROGRESS_EVERY = 0.5


def main() -> None:
    """Entry point of `python -m lisabench.run.worker FD LIFELINE_FD SETTINGS`."""
    channel, lifeline, settings = Connection(int(sys.argv[1])), int(sys.argv[2]), json.loads(sys.argv[3])
    _die_with(settings["parent"], lifeline)
    try:
        _serve(channel, settings)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _die_with(parent: int, lifeline: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)

    def watch() -> None:
        os.read(lifeline, 1)  # returns when the parent's end is closed, which its death does
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _serve(channel: Connection, settings: dict[str, Any]) -> None:
    import torch

    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    if settings["device"].startswith("cuda"):
        torch.cuda.set_device(settings["device"])  # kernels that go to the current device go to this one
    from lisabench.measure.environment import environment, environment_hash

    found = environment(settings["device"])
    _send(channel, event="ready", environment=found, hash=environment_hash(found))
    while True:
        task = json.loads(channel.recv_bytes())
        result = _peaks(settings["device"]) if task["do"] == "peaks" else _measure(task, channel)
        # After a CUDA error other than memory the process can compute nothing more: it asks to be replaced.
        _send(channel, event="result", result=result, spent=result.get("status") == "error" and "CUDA" in str(result["reason"]))


def _send(channel: Connection, **message: Any) -> None:
    channel.send_bytes(json.dumps(message).encode())


def _peaks(device: str) -> dict[str, float]:
    from lisabench.measure.peaks import measure_peaks

    return measure_peaks(device)


def _measure(task: dict[str, Any], channel: Connection) -> dict[str, Any]:
    """What a record says of this cell: its status, and its figures or the reason why there are none."""
    from lisabench.errors import LisaBenchError
    from lisabench.measure.latency import Limits
    from lisabench.run.cell import TooLargeError, WrongResultError, measure_cell, out_of_memory
    from lisabench.sweep import Cell
    from lisabench.workload import Workload

    cell = Cell(op=task["op"], options=task["options"], workload=Workload.from_record(task), digest=task["digest"])
    told = 0.0

    def progress(phase: str, seconds: float | None) -> None:
        nonlocal told
        if phase != "timing" or time.monotonic() - told > PROGRESS_EVERY:
            told = time.monotonic()
            _send(channel, event="progress", phase=phase, seconds=seconds)

    try:
        return {"status": "ok"} | measure_cell(cell, limits=Limits(**task["limits"]), seed=task["seed"], progress=progress)
    except WrongResultError as error:
        return {"status": "wrong", "reason": str(error)}
    except TooLargeError as error:
        return {"status": "oom", "reason": str(error)}
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except LisaBenchError as error:
        return {"status": "error", "reason": str(error)}
    except Exception as error:  # whatever a user's operator raises is a record
        if out_of_memory(error):
            return {"status": "oom", "reason": _first_line(error)}
        return {"status": "error", "reason": f"{type(error).__name__}: {_first_line(error)}"}
    finally:
        _give_back(task["device"])


def _give_back(device: str) -> None:
    """Returns memory that the allocators keep, so that the next cell finds it free."""
    import torch

    gc.collect()  # a traceback may hold tensors in a cycle
    if device.startswith("cuda"):
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()
    elif hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


if __name__ == "__main__":
    main()
