"""The real program and processes of our own, run from outside as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lisabench.errors import LisaBenchError
from lisabench.journal import Record, read_environments, read_plan, read_records
from lisabench.plans import visits_of
from lisabench.run.local import WORKER_ENVIRONMENT

TOP = Path(__file__).resolve().parents[2]


class TrialError(LisaBenchError):
    """A trial could not be held; the text says which command failed and how."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all trials share. `folder`: a temporary one that the caller removes; `threads` None: torch's choice."""

    device: str
    threads: int | None
    quick: bool
    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        """The environment of the processes: measured peaks stay in the temporary folder, and no GPU figure changes hands with them."""
        return {**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache")}


@dataclass(frozen=True, kw_only=True)
class Swept:
    """A sweep of the real program: its records by cell, its environment and its seconds."""

    records: Mapping[str, Record]
    environment: Mapping[str, Any]
    seconds: float

    @property
    def ok(self) -> dict[str, Record]:
        return {cell: record for cell, record in self.records.items() if record["status"] == "ok"}


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def sweep(setup: Setup, name: str, *arguments: str) -> Swept:
    """Runs `lisabench scale` with these arguments, without a budget, into the temporary folder. Raises TrialError where it fails.

    The process is killed when this one is interrupted, and its worker with it.
    """
    say(f"{name}: lisabench scale {' '.join(arguments)}")
    out = setup.folder / name.replace(" ", "-")
    threads = ["--threads", str(setup.threads)] if setup.threads else []
    command = [
        sys.executable,
        "-P",
        "-m",
        "lisabench",
        "scale",
        *arguments,
        "--budget",
        "0",
        "--device",
        setup.device,
        *threads,
        "--out",
        str(out),
        "--quiet",
    ]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=setup.variables, cwd=setup.folder, check=False)
    seconds = time.perf_counter() - started
    try:
        planned = {cell.key for cell in visits_of(read_plan(out), run=out).cells()}
        records = {record["cell"]: record for record in read_records(out)}
    except LisaBenchError:
        planned, records = {"none"}, {}
    if done.returncode:
        how = f"lisabench scale {' '.join(arguments)} ended with {done.returncode}: {_last_line(done.stderr)}"
        if planned - set(records):
            raise TrialError(how)
        say(f"every cell is measured, but {how}")  # it failed at drawing them, which no figure here depends on
    return Swept(records=records, environment=next(iter(read_environments(out).values()), {}), seconds=seconds)


def child(setup: Setup, module: str, settings: Mapping[str, Any]) -> Any:
    """What a module of this package prints as JSON, run in a process with the environment of lisabench's own worker."""
    told = json.dumps({"device": setup.device, "threads": setup.threads} | dict(settings))
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.trials.{module}", told],
        stdout=subprocess.PIPE,
        text=True,
        cwd=TOP,
        env=setup.variables | WORKER_ENVIRONMENT,
        check=False,
    )
    if done.returncode:
        raise TrialError(f"benchmarks.trials.{module} ended with {done.returncode}; what it said stands above")
    return json.loads(done.stdout)


def label(record: Record) -> dict[str, Any]:
    """What names a cell in a report, without the folder of a user's file."""
    return {"op": str(record["op"]).rpartition(":")[2], "tokens": record["tokens"], "mode": record["mode"]}


def warnings_of(record: Record) -> list[str]:
    """The kinds of a record's warnings: the word before the colon."""
    return [str(warning).partition(":")[0] for warning in record["latency_s"]["warnings"]]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["without a word"])[-1]
