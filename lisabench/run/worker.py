"""The process that holds a device and measures cells; started by `lisabench.run.local`.

Messages go over a socket as JSON: requests in, progress and results out. A cell is opened, sampled in rounds among the others
of its workload, and accounted for; a request to sample a cell that is not open (any more) opens it. The worker ends when its
parent is gone, however that died: the kernel is asked to kill it then, and a thread watches the socket for where the kernel
cannot.
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
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lisabench.run.cell import Bench
    from lisabench.sweep import Cell

PR_SET_PDEATHSIG = 1
PROGRESS_EVERY = 0.5
# Benches of a workload stay built between their rounds while they hold less than this share of the memory; larger ones are
# built anew for every round, so that no cell runs out of memory for the sake of another.
HELD_SHARE = 0.1
RECOMPILES = 256  # of one forward that many operators share: torch's own limit of 8 would fall back to eager in silence


def main() -> None:
    """Entry point of `python -m lisabench.run.worker FD LIFELINE_FD SETTINGS`."""
    channel, lifeline, settings = Connection(int(sys.argv[1])), int(sys.argv[2]), json.loads(sys.argv[3])
    die_with(settings["parent"], lifeline)
    if settings["cores"]:
        os.sched_setaffinity(0, settings["cores"])  # before torch starts threads, which then keep to them too
    try:
        _serve(channel, settings)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def die_with(parent: int, lifeline: int) -> None:
    """Ends this process when its parent is gone: `lifeline` is a pipe whose other end only the parent holds."""
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

    found = environment(settings["device"], command=settings["command"])
    _send(channel, event="ready", environment=found, hash=environment_hash(found))
    bay = _Bay(settings["device"], channel)
    gc.collect()
    gc.freeze()  # what the imports made is not looked through again between rounds
    while True:
        result = bay.answer(json.loads(channel.recv_bytes()))
        _send(channel, event="result", result=result, spent=_is_spent(result))


def _is_spent(result: dict[str, Any]) -> bool:
    """Whether the process asks to be replaced: after a CUDA error other than memory, or a capture that failed, torch is not whole."""
    broken = result.get("status") == "error" and any(word in str(result["reason"]) for word in ("CUDA", "cuFFT", "cuDNN"))
    return broken or "latency_kinds_s.graph" in result.get("absent", {})


def _send(channel: Connection, **message: Any) -> None:
    channel.send_bytes(json.dumps(message).encode())


class _Bay:
    """The cells that are open, and what is done with them."""

    def __init__(self, device: str, channel: Connection) -> None:
        from lisabench.run.station import Station

        self.device, self.channel = device, channel
        self.station = Station(device=device)
        self.benches: dict[str, Bench] = {}
        self.told = 0.0

    def answer(self, task: dict[str, Any]) -> dict[str, Any]:
        """The result of a request; what goes wrong with a cell is a status with its reason."""
        if task["do"] == "close":
            self._close()
            return {}
        if task["do"] in ("sentinel", "peaks"):
            return self._of_the_machine(task)
        return self._guarded(task)

    def _of_the_machine(self, task: dict[str, Any]) -> dict[str, Any]:
        """A figure of the device itself; one that cannot be had costs no cell."""
        from lisabench.measure.peaks import measure_peaks

        try:
            if task["do"] == "sentinel":
                return {"seconds": self.station.sentinel()}
            return measure_peaks(self.device, dtypes=tuple(task["dtypes"]))
        except Exception as error:  # no memory, most likely: others use the device too
            return {"reason": _first_line(error)}
        finally:
            if task["do"] == "peaks":
                self._give_back()

    def _guarded(self, task: dict[str, Any]) -> dict[str, Any]:
        from lisabench.errors import LisaBenchError
        from lisabench.run.cell import TooLargeError, WrongResultError, out_of_memory

        cell = _cell(task)
        do = {"open": self._open, "sample": self._sample, "account": self._account}[task["do"]]
        try:
            return {"status": "ok"} | do(cell, task)
        except WrongResultError as error:
            failed = {"status": "wrong", "reason": str(error)}
        except TooLargeError as error:
            failed = {"status": "oom", "reason": str(error)}
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except LisaBenchError as error:
            failed = {"status": "error", "reason": str(error)}
        except Exception as error:  # whatever a user's operator raises is a record
            if out_of_memory(error):
                failed = {"status": "oom", "reason": _first_line(error)}
            else:
                failed = {"status": "error", "reason": f"{type(error).__name__}: {_first_line(error)}"}
        self.benches.pop(cell.key, None)
        if failed["status"] == "oom" and self.benches:  # alone it may fit: the others are built anew when they are wanted
            self._close()
            return self._guarded(task)
        self._give_back()
        return failed

    def _open(self, cell: Cell, task: dict[str, Any]) -> dict[str, Any]:
        bench = self._bench(cell, task)
        told = {"call_seconds": bench.call_seconds, "kind": bench.sampler.kind, "relative_error": bench.error, "absent": bench.absent}
        self._hold(cell.key)
        return told

    def _sample(self, cell: Cell, task: dict[str, Any]) -> dict[str, Any]:
        bench = self._bench(cell, task)
        self._progress("timing", bench.call_seconds)
        before = self.station.state()
        samples, seconds, load = bench.sample(task["seconds"])
        states = [asdict(state) for state in (before, self.station.state()) if state]
        self._hold(cell.key)
        return {"samples": samples, "seconds": seconds, "load": load.record(), "states": states}

    def _account(self, cell: Cell, task: dict[str, Any]) -> dict[str, Any]:
        from lisabench.run.account import account

        bench = self._bench(cell, task)
        self._progress("counting", bench.call_seconds)
        try:
            return account(bench, self.station)
        finally:
            del self.benches[cell.key], bench
            self._give_back()

    def _bench(self, cell: Cell, task: dict[str, Any]) -> Bench:
        """The cell, built and warmed up."""
        from lisabench.measure.latency import Limits
        from lisabench.run.cell import Bench

        if cell.key not in self.benches:
            if cell.workload.compiled:
                self._compiler()
            limits = Limits(**task["limits"])
            self.benches[cell.key] = Bench(cell, limits=limits, seed=task["seed"], check=task["do"] == "open", progress=self._progress)
            gc.collect()  # it stays off while samples are taken
        return self.benches[cell.key]

    def _compiler(self) -> None:
        import torch

        if not self.benches:
            torch._dynamo.reset()  # else the second size of a curve is compiled for all sizes, and the first is not
        torch._dynamo.config.recompile_limit = RECOMPILES

    def _hold(self, key: str) -> None:
        """Drops a bench again where those that are open take much of the memory."""
        from lisabench.measure.environment import available_memory
        from lisabench.measure.memory import bytes_of, kept_bytes

        whole = available_memory() if self.device == "cpu" else _gpu_memory(self.device)
        benches = self.benches.values()
        held = bytes_of(tensor for bench in benches for tensor in bench.standing) + sum(kept_bytes(b.subject.module) for b in benches)
        if held > HELD_SHARE * whole:
            del self.benches[key]
            self._give_back()

    def _close(self) -> None:
        self.benches.clear()
        self._give_back()

    def _give_back(self) -> None:
        """Returns memory that the allocators keep, so that the next cell finds it free."""
        import torch

        gc.collect()  # a traceback may hold tensors in a cycle
        if self.device.startswith("cuda"):
            with contextlib.suppress(RuntimeError):
                torch.cuda.empty_cache()
        elif hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)

    def _progress(self, phase: str, seconds: float | None) -> None:
        if phase != "timing" or time.monotonic() - self.told > PROGRESS_EVERY:
            self.told = time.monotonic()
            _send(self.channel, event="progress", phase=phase, seconds=seconds)


def _cell(task: dict[str, Any]) -> Cell:
    from lisabench.sweep import Cell
    from lisabench.workload import Workload

    return Cell(op=task["op"], options=task["options"], workload=Workload.from_record(task), digest=task["digest"])


def _gpu_memory(device: str) -> int:
    import torch

    return int(torch.cuda.get_device_properties(device).total_memory)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


if __name__ == "__main__":
    main()
