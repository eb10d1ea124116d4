"""`lisabench env`: the machine and the libraries that figures are measured with, and the peaks they are compared with."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer

from lisabench import units
from lisabench.cli.options import check_threads, resolve_device

# Which group an entry of the environment is shown in; `gpu` and others that are not named here belong to the device.
GROUPS = {
    "device": (),
    "cpu": ("cpu", "load_average"),
    "memory": ("memory_bytes", "memory_limit_bytes", "memory_available_bytes", "transparent_hugepages"),
    "settings": ("settings",),
    "libraries": ("libraries",),
    "system": ("host", "system", "machine", "container", "python"),
    "code": ("lisabench", "git", "hash", "lisa_auto"),
}
HIDDEN = ("peaks", "absent", "git", "command")
UNITS = {"w": "W", "mhz": "MHz", "c": "°C", "s": "s"}
LABELS = {"device_name": "name", "memory_bytes": "total", "memory_limit_bytes": "limit", "memory_available_bytes": "available"}
NONE = dict.fromkeys(("cpu.quota", "memory_limit_bytes", "container", "gpu.mig_profile"), "none")
INDENT, NARROWEST = "  ", 10
COMMIT_DIGITS = 12


def env(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads. [default: torch's choice]")] = None,
    no_peaks: Annotated[bool, typer.Option("--no-peaks", help="Measure nothing; show the peaks that are known already.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the machine and the libraries, and measure the peaks (FLOP/s of large products, bytes/s of a copy) that rooflines use."""
    check_threads(threads)
    from lisabench.cli.console import results
    from lisabench.measure.kept_peaks import NAMES, PEAK_DTYPES, keep, kept
    from lisabench.registry import PACKAGE
    from lisabench.run.local import Worker

    with Worker(device=resolve_device(device), threads=threads) as worker:
        worker.ready()
        found = worker.environment | {"hash": worker.environment_hash}
        peaks = kept(found) if no_peaks else keep(found, worker.peaks(PEAK_DTYPES))
    absent = {f"peaks.{name}": _why(name, found["device"], skipped=no_peaks) for name in NAMES if name not in peaks}
    found["absent"] = dict(found.get("absent") or {}) | absent
    found["peaks"] = {name: peaks.get(name) for name in NAMES}
    found["lisa_auto"] = import_module(f"{PACKAGE}._lisa_choice").chosen_by(found["device"], found["cpu"].get("threads"))
    if as_json:
        print(json.dumps(found))
        return
    console = results()
    print("\n".join(layout(found, width=console.width if console.is_terminal else None)))


def layout(found: Mapping[str, Any], *, width: int | None) -> Iterator[str]:
    """The environment in groups of lines `  name  value`, broken at `width` columns; with None a line an entry."""
    reasons = found.get("absent") or {}
    homes = {name: group for group, names in GROUPS.items() for name in names}
    groups: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
    entries = dict(_entries({name: value for name, value in found.items() if name not in HIDDEN}))
    for path, value in (entries | {path: None for path in reasons if path not in entries and not path.startswith("peaks.")}).items():
        group = homes.get(path.partition(".")[0], "device")
        groups[group].append((_label(path), _words(path, value, reasons)))
    if found.get("git"):
        changed = ", with changes since" if found["git"].get("dirty") else ""
        groups["code"].insert(0, ("git commit", f"{str(found['git'].get('commit'))[:COMMIT_DIGITS]}{changed}"))
    groups["peaks"] = list(_peaks(found.get("peaks") or {}, reasons))
    for group, lines in groups.items():
        if lines:
            yield from _group(group, lines, width)


def _group(name: str, lines: list[tuple[str, str]], width: int | None) -> Iterator[str]:
    yield name
    longest = max(len(label) for label, _ in lines)
    column = min(longest, max(8, (width or 10_000) // 2 - 4))
    hanging = INDENT + " " * (column + 2)
    for label, value in lines:
        if width is None:
            yield f"{INDENT}{label:<{column}}  {value}"
            continue
        if len(label) > column:  # a long name has a line of its own
            yield f"{INDENT}{label}"[:width]
            label = ""
        room = max(NARROWEST, width - len(hanging))
        first, *rest = textwrap.wrap(value, room) or [""]
        yield f"{INDENT}{label:<{column}}  {first}"
        yield from (f"{hanging}{line}" for line in rest)


def _entries(found: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from _entries(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _label(path: str) -> str:
    """'gpu.power_limit_w' -> 'power limit'; names of variables and libraries stay as they are."""
    if path in LABELS:
        return LABELS[path]
    first, _, rest = path.partition(".")
    if first == "libraries" or rest.startswith("variables."):
        return rest.removeprefix("variables.")
    name = rest if rest and first in ("cpu", "gpu", "settings") else path
    words, _, unit = name.rpartition("_")
    return (words if unit in (*UNITS, "bytes") and words else name).replace("_", " ").replace(".", " ")


def _words(path: str, value: Any, reasons: Mapping[str, str]) -> str:
    unit = path.rpartition("_")[2]
    if value is None:
        return f"absent: {reasons[path]}" if path in reasons else NONE.get(path, "absent")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return _ranges(value) if all(isinstance(item, int) for item in value) else " ".join(f"{item:.2f}" for item in value)
    if isinstance(value, (int, float)) and unit == "bytes":
        return units.size_in_bytes(value)
    if isinstance(value, (int, float)) and unit in UNITS:
        return f"{value:,g} {UNITS[unit]}"
    return str(value)


def _ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] -> '0-2, 5'."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _peaks(peaks: Mapping[str, float | None], reasons: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in peaks.items():
        dtype = name.removeprefix("flops_per_s_")
        label, unit = ("copy", "B/s, read and written") if name == "bytes_per_s" else (f"{dtype} product", "FLOP/s")
        yield label, f"absent: {reasons[f'peaks.{name}']}" if value is None else f"{units.flops(value)}{unit}"


def _why(name: str, device: str, *, skipped: bool) -> str:
    if name == "flops_per_s_tf32" and device == "cpu":
        return "a format of GPUs"
    return "not measured (--no-peaks)" if skipped else "this device has no products of it"
