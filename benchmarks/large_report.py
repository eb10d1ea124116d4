"""How long `report` and `compare` take on runs of 100,000 records, and what memory they need.

    python benchmarks/large_report.py                  two made runs, both commands
    python benchmarks/large_report.py --records 20000

The records are those of a run in reports/, repeated over other batches, dtypes, modes, scopes and dims with times that grow alike: as many
as a study of thirty operators has. Each command is a process of its own; its peak is that of its resident memory and its children's,
looked at twice a second, pages that they share counted once.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

SOURCE = Path(__file__).parent.parent / "reports/reference-operators-cpu"
MODES, DTYPES, SCOPES, BATCHES, DIMS = ("forward", "train"), ("fp32", "bf16", "fp16"), ("mixing", "layer"), range(1, 9), range(64, 1088, 64)


def make_run(path: Path, records: int, *, noise: float = 0.0, seed: int = 0, source: Path = SOURCE) -> Path:
    """A run of so many records in a new folder; `noise` moves each cell's times by a factor of about 1 + noise."""
    templates = [json.loads(line) for line in (source / "journal.jsonl").read_text().splitlines()]
    generator = random.Random(seed)
    path.mkdir(parents=True)
    cells = []
    with open(path / "journal.jsonl", "w") as journal:
        for number, (axes, template) in enumerate(itertools.product(_axes(), templates)):
            if number == records:
                break
            record = _like(template, axes, number, factor=generator.gauss(1, noise) * axes["batch"] * axes["dim"] / 192)
            journal.write(json.dumps(record, separators=(",", ":")) + "\n")
            cells.append(record["cell"])
    plan = json.loads((source / "plan.json").read_text())
    (path / "plan.json").write_text(json.dumps(plan | {"cells": cells}))
    (path / "environment.json").write_bytes((source / "environment.json").read_bytes())
    return path


def _axes() -> list[dict[str, Any]]:
    product = itertools.product(DIMS, BATCHES, SCOPES, MODES, DTYPES)
    return [{"dim": dim, "batch": batch, "scope": scope, "mode": mode, "dtype": dtype} for dim, batch, scope, mode, dtype in product]


def _like(template: dict[str, Any], axes: dict[str, Any], number: int, *, factor: float) -> dict[str, Any]:
    record = copy.deepcopy(template) | axes | {"cell": f"{number:016x}", "heads": axes["dim"] // 64}
    if record["latency_s"]:
        told = record["latency_s"]
        for name in ("median", "ci_low", "ci_high", "p05", "p95"):
            told[name] *= factor
        for name in ("samples", "rounds"):
            told[name] = [factor * value for value in told.get(name) or []]
    return record


def measured(*words: str) -> tuple[float, float, int]:
    """Seconds, peak of memory in GiB and exit code of a lisabench command."""
    began, peak = time.perf_counter(), 0
    process = psutil.Popen([sys.executable, "-m", "lisabench", *words], stdout=subprocess.DEVNULL)
    while True:
        try:
            code = process.wait(timeout=0.5)
            return time.perf_counter() - began, peak / 2**30, code
        except psutil.TimeoutExpired:
            peak = max(peak, sum(map(_held, [process, *process.children(recursive=True)])))


def _held(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.NoSuchProcess):
        found: int = process.memory_full_info().pss
        return found
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = make_run(Path(folder) / "base", asked.records)
        new = make_run(Path(folder) / "new", asked.records, noise=0.02, seed=1)
        size = (base / "journal.jsonl").stat().st_size / 2**20
        print(f"{asked.records:,} records, a journal of {size:,.0f} MiB")
        for words in (("report", str(base), "--quiet"), ("compare", str(base), str(new))):
            seconds, peak, code = measured(*words)
            print(f"{words[0]:8} {seconds:6.1f} s   {peak:5.2f} GiB   exit code {code}")


if __name__ == "__main__":
    main()
