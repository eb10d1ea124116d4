"""The report of the trials: from figures to Markdown, and its place in the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.trials import agreement, interference, repeatability, truth
from benchmarks.trials.figures import Target, table
from lisabench import units
from lisabench.errors import InputError

PARTS: dict[str, Any] = {
    "agreement": agreement,
    "repeatability": repeatability,
    "truth": truth,
    "interference": interference,
}
TITLES = {
    "agreement": "Agreement with an independent timer",
    "repeatability": "Repeatability",
    "truth": "Truth",
    "interference": "Interference",
}
BEGIN, END = "<!-- trust:begin -->", "<!-- trust:end -->"


def verdicts(parts: Mapping[str, Any]) -> list[Target]:
    """Every target of the parts that were measured, in their order."""
    return [target for name in PARTS if name in parts for target in PARTS[name].targets(parts[name])]


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown, every figure from its JSON; headings from the third level on."""
    parts = report["parts"]
    found = verdicts(parts)
    missed = sum(target.met is False for target in found)
    judged = sum(target.met is not None for target in found)
    left = [name for name in PARTS if name not in parts and name not in report["failed"]]
    partial = [f"A part of the report: {', '.join(left)} {'was' if len(left) == 1 else 'were'} not measured."] if left else []
    sections = [_origin(report), *partial, f"{judged - missed} of {judged} targets met.", _targets(found)]
    for name in PARTS:
        if name in parts:
            sections += [f"### {TITLES[name]}", PARTS[name].markdown(parts[name])]
        elif name in report["failed"]:
            sections += [f"### {TITLES[name]}", f"This trial failed: {report['failed'][name]}"]
    return "\n\n".join(sections) + "\n"


def _targets(found: list[Target]) -> str:
    return table(["figure", "target", "result", "verdict"], [[t.what, t.target, t.result, t.verdict] for t in found])


def _origin(report: Mapping[str, Any]) -> str:
    quick = " Quick: few sizes, few turns, short sampling; not the report to cite." if report["quick"] else ""
    return origin(report["environment"], report["command"], seconds=report["seconds"]) + quick


def origin(machine: Mapping[str, Any], command: str, *, seconds: float | None = None) -> str:
    """By which command figures were printed, on which machine and with what, in a sentence."""
    cpu, load, git = machine.get("cpu") or {}, machine.get("load_average"), machine.get("git") or {}
    commit = f", commit {str(git['commit'])[:12]}{' with changes' if git.get('dirty') else ''}" if git.get("commit") else ""
    words = [
        f"Printed by `{command}` on {machine.get('device_name')}, {cpu.get('threads')} threads",
        f"torch {(machine.get('libraries') or {}).get('torch')}, lisabench {machine.get('lisabench')}{commit}",
        f"load average {load[0]:.2f} at the start" if load else "",
        f"in {units.duration(seconds)}" if seconds is not None else "",
    ]
    return ", ".join(filter(None, words)) + "."


def into_docs(text: str, tables: str) -> str:
    """`text` with what stands between the markers replaced by `tables`. InputError where the markers are not there, once each, in order."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise InputError(f"the document holds no one pair of markers {BEGIN} and {END}; put them where the tables belong")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{tables.strip()}\n\n{END}{rest.split(END)[1]}"


def in_docs(text: str) -> str:
    """What stands between the markers of a document."""
    return text.split(BEGIN)[1].split(END)[0].strip()
