"""The proof that the figures are right: prints and stores a report with every target beside its result.

    python benchmarks/trust.py [--part agreement,repeatability,truth,interference] [--device cpu|cuda] [--threads N] [--quick]
                               [--out reports/trust-cpu] [--docs]

Run it on a machine that does nothing else. It writes OUT/report.json and OUT/report.md;
--docs puts the tables into docs/measurement.md too. --render makes Markdown of a stored report again and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # run as a file, python looks beside it alone

from benchmarks.trials.program import TOP, Setup, TrialError, child, say
from benchmarks.trials.report import PARTS, into_docs, markdown, verdicts
from lisabench.errors import InputError, LisaBenchError, unknown
from lisabench.files import write_whole

DOCS = TOP / "docs" / "measurement.md"
STOPPED = 130


def main() -> int:
    asked = _asked()
    signal.signal(signal.SIGTERM, _interrupt)  # ends like Ctrl-C, which removes what was started and written
    try:
        names = _parts(asked.part)
        out = Path(asked.out or f"reports/trust-{asked.device.partition(':')[0]}{'-quick' if asked.quick else ''}")
        report = _stored(out) if asked.render else _measured(names, asked, out)
        if asked.docs:
            _check_whole(report)
        tables = markdown(report)
        write_whole(out / "report.md", tables.encode())
        if asked.docs:
            write_whole(DOCS, into_docs(DOCS.read_text(), tables).encode())
    except LisaBenchError as error:
        say(f"Error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say("stopped; nothing was stored")
        return STOPPED
    print(tables)
    return 1 if report["failed"] else 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python benchmarks/trust.py", description="Whether lisabench's figures are right.")
    parser.add_argument("--part", default=",".join(PARTS), help="a comma list of %(default)s")
    parser.add_argument("--device", default="cpu", help="cpu or cuda[:i]")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's choice by default")
    parser.add_argument("--quick", action="store_true", help="few sizes and short sampling: a minute or two, not to be cited")
    parser.add_argument("--out", help="folder of the report; reports/trust-DEVICE by default")
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/measurement.md too")
    parser.add_argument("--render", action="store_true", help="make Markdown of the stored report again, measure nothing")
    return parser.parse_args()


def _parts(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in PARTS:
            raise unknown("part", name, PARTS)
    return [name for name in PARTS if name in names]


def _measured(names: list[str], asked: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Holds the trials and stores their figures; one that fails is told of and leaves the others standing."""
    started = time.perf_counter()
    report: dict[str, Any] = {
        "command": " ".join(["python benchmarks/trust.py", *sys.argv[1:]]),
        "quick": asked.quick,
        "parts": {},
        "failed": {},
    }
    with tempfile.TemporaryDirectory(prefix="lisabench-trust-") as folder:
        setup = Setup(device=asked.device, threads=asked.threads, quick=asked.quick, folder=Path(folder))
        report["environment"] = child(setup, "environment", {})
        for name in names:
            try:
                report["parts"][name] = PARTS[name].measure(setup)
            except TrialError as error:
                report["failed"][name] = str(error).replace(folder, "FOLDER")
                say(f"{name} failed: {error}")
                continue
            for target in PARTS[name].targets(report["parts"][name]):
                say(f"{name}: {target.what}: {target.result} ({target.target}: {target.verdict})")
    report["seconds"] = time.perf_counter() - started
    report["targets"] = [target.record() for target in verdicts(report["parts"])]
    write_whole(out / "report.json", f"{json.dumps(report, indent=1)}\n".encode())
    return report


def _stored(out: Path) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads((out / "report.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{str(out / 'report.json')!r} cannot be read ({error}); measure first, without --render") from error
    return report


def _check_whole(report: dict[str, Any]) -> None:
    """The documentation shows the whole report of a CPU or nothing."""
    if report["quick"] or set(report["parts"]) != set(PARTS) or not str(report["environment"]["device"]).startswith("cpu"):
        raise InputError("--docs got a report that is quick, partial or not of a CPU; give --docs with all parts, without --quick")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
