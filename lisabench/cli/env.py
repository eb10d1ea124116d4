"""`lisabench env`: the machine and the libraries that figures are measured with."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from lisabench.cli.options import resolve_device


def env(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads. [default: torch's choice]", min=1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the machine, the libraries and the measured peaks (FLOP/s of a large product, bytes/s of a copy)."""
    from lisabench import units
    from lisabench.run.local import Worker

    with Worker(device=resolve_device(device), threads=threads) as worker:
        worker.ready()
        peaks = worker.peaks()
        found = worker.environment | {"hash": worker.environment_hash, "peaks": peaks}
    if as_json:
        print(json.dumps(found))
        return
    for name, value in _lines(found):
        print(f"{name:<32} {value}")
    print(f"{'peak, fp32 product':<32} {units.flops(peaks['flops_per_s_fp32'])}FLOP/s")
    print(f"{'peak, copy (read and write)':<32} {units.flops(peaks['bytes_per_s'])}B/s")


def _lines(found: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    lines: list[tuple[str, Any]] = []
    for name, value in found.items():
        if name == "peaks":
            continue
        if isinstance(value, dict):
            lines += _lines(value, f"{prefix}{name}.")
        else:
            lines.append((f"{prefix}{name}", "absent" if value is None else value))
    return lines
