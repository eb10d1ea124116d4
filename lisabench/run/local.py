"""Starts, asks and kills one worker process on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import psutil

from lisabench.errors import LisaBenchError
from lisabench.sweep import Cell

START_SECONDS = 120.0
LAST_BYTES = 4096
# Set before torch is imported, and told of in every environment.
# OpenMP: threads that spin beside a busy neighbour snap times to whole scheduler slices.
# malloc: glibc maps and unmaps each tensor over 32 MiB, and the page faults take as long as the arithmetic of a large softmax,
# with a kink in every curve. Kept memory is what a GPU's caching allocator does anyway.
WORKER_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_THRESHOLD_": str(2**40),
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "PYTHONUNBUFFERED": "1",
}
Progress = Callable[[str, float | None], None]


class WorkerFailedError(LisaBenchError):
    """The worker could not be started."""

    exit_code = 3


class Worker:
    """One worker process, started at the first use and again after it was killed or died."""

    def __init__(self, *, device: str, threads: int | None, command: list[str] | None = None, cores: Collection[int] | None = None) -> None:
        """`command`: the command line that this is done for, told in the environment. `cores`: those that it keeps to."""
        self.device, self.threads, self.command, self.cores = device, threads, command, cores
        self.environment: dict[str, Any] = {}
        self.environment_hash = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Connection | None = None
        self._lifeline: int | None = None
        self._output: Any = None

    def start(self) -> None:
        """Starts the process without waiting for it."""
        if self._process is not None:
            return
        ours, theirs = Pipe()
        lifeline_theirs, self._lifeline = os.pipe()
        stated = {"device": self.device, "threads": self.threads, "command": self.command, "cores": sorted(self.cores or ())}
        settings = json.dumps(stated | {"parent": os.getpid()})
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # what an operator prints; its last line tells of a crash
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "lisabench.run.worker", str(theirs.fileno()), str(lifeline_theirs), settings],
            pass_fds=(theirs.fileno(), lifeline_theirs),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends the worker
            env={**os.environ, **WORKER_ENVIRONMENT},
        )
        theirs.close()
        os.close(lifeline_theirs)
        self._channel = ours

    def ready(self) -> None:
        """Starts the process where needed and waits until it can measure."""
        self.start()
        if self.environment_hash:
            return
        message = self._receive(time.monotonic() + START_SECONDS)
        if message is None or message.get("event") != "ready":
            hangs = self._process is not None and self._process.poll() is None
            how = f"it was not ready within {START_SECONDS:.0f} s" if hangs else self._death()
            self.kill()
            raise WorkerFailedError(f"the measuring process failed at its start ({how}); try `python -c 'import torch'`")
        self.environment, self.environment_hash = message["environment"], message["hash"]

    def request(
        self, do: str, cell: Cell, *, limits: dict[str, float], seed: int, timeout: float, progress: Progress, **more: Any
    ) -> dict[str, Any]:
        """Has a cell opened, sampled or accounted for. A hung worker is killed at `timeout` seconds, a dead one told of: a status."""
        task = {"op": cell.op, "options": cell.options, "digest": cell.digest, "limits": limits, "seed": seed}
        return self._ask({"do": do} | task | more | cell.workload.record_fields(), timeout=timeout, progress=progress)

    def sentinel(self) -> float | None:
        """Seconds of a fixed product on the device; None where the process died meanwhile."""
        seconds: float | None = self._ask({"do": "sentinel"}, timeout=START_SECONDS, progress=lambda *_: None).get("seconds")
        return seconds

    def close_cells(self) -> None:
        """Drops every cell that is still open; nothing to do where no process runs."""
        if self.environment_hash:
            self._ask({"do": "close"}, timeout=START_SECONDS, progress=lambda *_: None)

    def peaks(self, dtypes: Sequence[str]) -> dict[str, float]:
        """The device's measured peaks: FLOP/s of a large product for each dtype, bytes/s of a copy; none where they cannot be had."""
        result = self._ask({"do": "peaks", "dtypes": list(dtypes)}, timeout=START_SECONDS, progress=lambda *_: None)
        return {} if "reason" in result else result

    def _ask(self, task: dict[str, Any], *, timeout: float, progress: Progress) -> dict[str, Any]:
        if self._process is not None and self._process.poll() is not None:  # it died idle: what is asked now is not to blame
            self.kill()
        self.ready()
        assert self._channel is not None
        deadline = time.monotonic() + timeout
        self._output.seek(0)  # the offset is one for both processes: the worker writes from the start again
        self._output.truncate()
        try:
            self._channel.send_bytes(json.dumps(task).encode())
            while message := self._receive(deadline):
                if message["event"] == "result":
                    result: dict[str, Any] = message["result"]
                    if message["spent"]:
                        self.kill()
                    return result
                progress(message["phase"], message["seconds"])
        except OSError:
            pass  # the process is gone: told below
        if time.monotonic() >= deadline and self._process is not None and self._process.poll() is None:
            self.kill()
            return {
                "status": "timeout",
                "reason": f"over the time limit of {timeout:.3g} s; a larger --cell-timeout, in a new run, lets it go on",
            }
        reason = self._death()
        # The system's or a neighbour's doing, as far as one can tell: elsewhere the cell may come through.
        return {"status": "crash", "reason": reason} | ({"killed": True} if "killed by SIGKILL" in reason else {})

    def kill(self) -> None:
        """Ends the process and its children at once; the next use starts a new one."""
        if self._process is None:
            return
        for child in _children(self._process.pid):  # an operator's own, in whatever session
            with contextlib.suppress(psutil.Error):
                child.kill()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._process = None
        self.environment_hash = ""
        if self._channel is not None:
            self._channel.close()
        if self._lifeline is not None:
            os.close(self._lifeline)
        self._output.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _receive(self, deadline: float) -> dict[str, Any] | None:
        """The next message; None at the deadline or when the process is gone."""
        assert self._channel is not None
        try:
            if not self._channel.poll(max(0.0, deadline - time.monotonic())):
                return None
            message: dict[str, Any] = json.loads(self._channel.recv_bytes())
            return message
        except (EOFError, OSError):
            return None

    def _death(self) -> str:
        """How the process ended, and the last line that it printed; clears it away."""
        assert self._process is not None
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        self._output.seek(max(0, self._output.seek(0, os.SEEK_END) - LAST_BYTES))
        printed = self._output.read().decode(errors="replace").strip().splitlines()
        self.kill()
        if code is None:
            how = "the process closed its channel"
        elif code < 0:
            name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
            how = f"the process was killed by {name}" + (", perhaps by the system for want of memory" if name == "SIGKILL" else "")
        else:
            how = f"the process ended with exit code {code}"
        return f"{how}; it last printed: {printed[-1][:200]}" if printed else how


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
