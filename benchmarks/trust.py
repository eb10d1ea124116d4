"""The proof that the figures are right: prints and stores a report with every target beside its result.

    python benchmarks/trust.py [--part agreement,repeatability,truth,interference] [--device cpu|cuda] [--threads N] [--quick]
                               [--out reports/trust-cpu] [--docs]

Run it on a machine that does nothing else. It writes OUT/report.json, anew after each part, and OUT/report.md;
--docs puts the tables into docs/measurement.md too. --render makes Markdown of a stored report again and measures nothing.
OUT is reports/trust-DEVICE of this repository, with -quick and -partial where it is that. Exit codes: 0 only if every target
that was measured is met, 1 if one is missed or a part failed, 2 for wrong input.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # run as a file, python looks beside it alone

from benchmarks.trials.program import TOP, Setup, child, say
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
        out = Path(asked.out) if asked.out else _folder(names, asked)
        if asked.docs and not asked.render:
            _check_whole(quick=asked.quick, parts=names, device=asked.device)  # before the hour, not after it
        report = _stored(out) if asked.render else _measured(names, asked, out)
        if asked.docs:
            _check_whole(quick=report["quick"], parts=report["parts"], device=str(report["environment"]["device"]))
        tables = markdown(report)
        write_whole(out / "report.md", tables.encode())
        if asked.docs:
            write_whole(DOCS, into_docs(DOCS.read_text(), tables).encode())
    except LisaBenchError as error:
        say(f"Error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say("stopped; the parts that were measured to the end are stored")
        return STOPPED
    print(tables)
    missed = any(target.met is False for target in verdicts(report["parts"]))
    return 1 if report["failed"] or missed else 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python benchmarks/trust.py", description="Whether lisabench's figures are right.")
    parser.add_argument("--part", default=",".join(PARTS), help="a comma list of %(default)s")
    parser.add_argument("--device", default="cpu", help="cpu or cuda[:i]")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's choice by default")
    parser.add_argument("--quick", action="store_true", help="few sizes and short sampling: a minute or two, not to be cited")
    parser.add_argument("--out", help="folder of the report; reports/trust-DEVICE[-quick][-partial] by default")
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/measurement.md too")
    parser.add_argument("--render", action="store_true", help="make Markdown of the stored report again, measure nothing")
    return parser.parse_args()


def _parts(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in PARTS:
            raise unknown("part", name, PARTS)
    if not names:
        raise InputError(f"--part got {text!r}, which names no part; valid: {', '.join(PARTS)}; give one at least")
    return [name for name in PARTS if name in names]


def _folder(names: list[str], asked: argparse.Namespace) -> Path:
    """The folder of a report by default: one for each kind, so that none takes the place of a whole one."""
    kind = f"{'-quick' if asked.quick else ''}{'-partial' if len(names) < len(PARTS) else ''}"
    return TOP / "reports" / f"trust-{asked.device.partition(':')[0]}{kind}"


def _command(names: list[str], asked: argparse.Namespace) -> str:
    """The command that measures these figures again; where they are written to is no part of it."""
    words = ["python benchmarks/trust.py"]
    words += ["--part", ",".join(names)] if len(names) < len(PARTS) else []
    words += ["--device", asked.device] if asked.device != "cpu" else []
    words += ["--threads", str(asked.threads)] if asked.threads else []
    return " ".join([*words, *(["--quick"] if asked.quick else [])])


def _measured(names: list[str], asked: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Holds the trials and stores the figures after each; one that fails is told of and leaves the others standing."""
    started = time.perf_counter()
    report: dict[str, Any] = {
        "command": _command(names, asked),
        "quick": asked.quick,
        "parts": {},
        "failed": {},
    }
    with tempfile.TemporaryDirectory(prefix="lisabench-trust-") as folder:
        setup = Setup(device=asked.device, threads=asked.threads, quick=asked.quick, folder=Path(folder))
        report["environment"] = child(setup, "environment", {})
        for name in names:
            try:
                found = PARTS[name].measure(setup)
                judged = PARTS[name].targets(found)
            except Exception as error:  # whatever it is, the parts before it and after it stand
                report["failed"][name] = _words(error).replace(folder, "FOLDER")
                say(f"{name} failed: {report['failed'][name]}")
            else:
                report["parts"][name] = found
                for target in judged:
                    say(f"{name}: {target.what}: {target.result} ({target.target}: {target.verdict})")
            report["seconds"] = time.perf_counter() - started
            report["targets"] = [target.record() for target in verdicts(report["parts"])]
            write_whole(out / "report.json", f"{json.dumps(report, indent=1)}\n".encode())
    return report


def _words(error: Exception) -> str:
    """The first line of an error, with its kind where it was not raised on purpose."""
    text = (str(error).strip().splitlines() or ["without a word"])[0]
    return text if isinstance(error, LisaBenchError) else f"{type(error).__name__}: {text}"


def _stored(out: Path) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads((out / "report.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{str(out / 'report.json')!r} cannot be read ({error}); measure first, without --render") from error
    return report


def _check_whole(*, quick: bool, parts: Collection[str], device: str) -> None:
    """The documentation shows the whole report of a CPU or nothing."""
    if quick or set(parts) != set(PARTS) or not device.startswith("cpu"):
        raise InputError("--docs got a report that is quick, partial or not of a CPU; give --docs with all parts, without --quick")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
