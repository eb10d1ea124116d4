"""What `make gpu` leaves in its folder beside the runs: parts.json and README.md, true after every part."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

NEWLINE = "\n"


class State:
    """parts.json and README.md of the folder; what an earlier call did is kept."""

    def __init__(self, out: Path, machine: dict[str, Any], table: Mapping[str, str]) -> None:
        """`table`: every part's name and what it is for, in order."""
        self.out, self.machine, self.table = out, machine, table
        self.parts: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(OSError, ValueError):
            self.parts = json.loads((out / "parts.json").read_text())

    def note(self, part: str, ended: str, *, limit: float, words: Sequence[str] = (), seconds: float | None = None) -> None:
        """Writes down how a part stands, at once."""
        self.parts[part] = {
            "ended": ended,
            "seconds": None if seconds is None else round(seconds, 1),
            "limit_seconds": round(max(0.0, limit), 1),
            "command": shlex.join(["python", *words]) if words else None,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        _write(self.out / "parts.json", json.dumps(self.parts, indent=1) + "\n")
        _write(self.out / "README.md", readme(self.machine, self.table, self.parts))


def _write(path: Path, text: str) -> None:
    (unfinished := path.with_name(f".{path.name}.new")).write_text(text)
    unfinished.replace(path)


def readme(machine: dict[str, Any], table: Mapping[str, str], parts: dict[str, dict[str, Any]]) -> str:
    """What ran, how it ended, and the exact commands."""
    rows, commands = [], []
    for name, words in table.items():
        noted = parts.get(name, {"ended": "not run"})
        seconds, limit = ("" if (value := noted.get(figure)) is None else f"{value:.0f}" for figure in ("seconds", "limit_seconds"))
        commands += [noted["command"]] if noted.get("command") else []
        rows.append(f"| {name} | {words} | {noted['ended']} | {seconds} | {limit} |")
    return f"""# {machine["name"]}

Written by `make gpu` with Python {machine["python"]}, torch {machine["torch"]}, CUDA {machine["cuda"]}.
Each part is a process of its own; what it printed stands in `NAME.log`.

| part | what | ended | seconds | limit, s |
|---|---|---|---|---|
{NEWLINE.join(rows)}

The commands, from the repository's root and with it at the end of PYTHONPATH, PYTHONSAFEPATH=1; OUT is this folder:

```
{NEWLINE.join(commands)}
```

`tokens`, `train`, `batch`, `resolution` and `train-small` are runs of lisabench, each with its journal, its environment and
its figures: `lisabench report OUT/tokens` draws one again. The sweeps together cover tokens, resolution, batch, dtype
and direction for every operator; what a sweep's budget did not allow stands in its journal as skipped.
"""
