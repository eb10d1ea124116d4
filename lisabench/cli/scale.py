"""`lisabench scale`: the sweep, from axes on the command line to a run with its table and figures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lisabench.cli.options import check_threads, default_run, positive, resolve_device, tell_left_out
from lisabench.errors import InputError

if TYPE_CHECKING:
    from lisabench.sweep import Cell, Sweep

DEFAULT_TOKENS, PATCH, BASELINE = "256..16384", 16, "softmax"
MOST = 10**9
BUDGETS = {"cpu": 60.0, "cuda": 180.0}
CELL_TIMEOUT = 60.0


def scale(
    op: Annotated[list[str] | None, typer.Option(help="Operator, comma list, `all`, or your own FILE.py:CLASS; repeatable.")] = None,
    tokens: Annotated[str | None, typer.Option(help=f"Token counts, a,b,c or a doubling range a..b. [default: {DEFAULT_TOKENS}]")] = None,
    resolution: Annotated[
        str | None, typer.Option(help="Image resolutions in place of tokens: 224,384x640 (height x width) or 224..896.")
    ] = None,
    patch: Annotated[int | None, typer.Option(help="Patch size that turns a resolution into tokens. [default: 16]")] = None,
    preset: Annotated[
        str | None, typer.Option(help="Shapes of known models: deit-t, deit-s, deit-b, vit-l, sam-b, dit-xl-2, swin-t.")
    ] = None,
    batch: Annotated[str, typer.Option(help="Batch sizes, a,b,c or a..b.")] = "1",
    mode: Annotated[str, typer.Option(help="A comma list of forward, train (forward and backward).")] = "forward",
    dtype: Annotated[str, typer.Option(help="fp32, bf16, fp16, fp64; a comma list.")] = "fp32",
    scope: Annotated[str, typer.Option(help="mixing (the operator alone) or layer (with its projections).")] = "mixing",
    dim: Annotated[int | None, typer.Option(help="Channels. [default: 192]")] = None,
    heads: Annotated[int | None, typer.Option(help="Heads. [default: 3]")] = None,
    op_option: Annotated[list[str] | None, typer.Option(help="[OP.]NAME=VALUE, for every operator that has it; repeatable.")] = None,
    baseline: Annotated[str | None, typer.Option(help="The operator that ratios are taken to. [default: softmax]")] = None,
    no_baseline: Annotated[bool, typer.Option("--no-baseline", help="Run the named operators alone.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads. [default: torch's choice]")] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Time torch.compile's version.")] = False,
    budget: Annotated[
        float | None, typer.Option(help="Seconds for the sweep, 0 for no limit. [default: 60 on a CPU, 180 on a GPU]")
    ] = None,
    cell_timeout: Annotated[float, typer.Option(help="Seconds after which a cell is killed.")] = CELL_TIMEOUT,
    cell_seconds: Annotated[float, typer.Option(help="Seconds of sampling a cell at most (12 samples at least).")] = 1.0,
    cross_check: Annotated[bool, typer.Option("--cross-check", help="Measure a CPU cell's memory again in a fresh process.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of weights, inputs and order.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The run's folder. [default: a new one under reports/]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out: measure only what is missing.")] = False,
    mix: Annotated[bool, typer.Option("--mix", help="Go on with a run of another machine, or show one of several.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan with predicted FLOPs and memory, run nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print records as JSON lines, nothing else, on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no messages; results only.")] = False,
) -> None:
    """Measure how latency, memory and FLOPs grow, beside a baseline."""
    for value, what, zero in ((budget, "--budget", True), (cell_timeout, "--cell-timeout", False), (cell_seconds, "--cell-seconds", False)):
        if value is not None:
            positive(value, what, zero=zero)
    check_threads(threads)
    for count, what in ((dim, "--dim"), (heads, "--heads"), (patch, "--patch")):
        if count is not None and not 1 <= count <= MOST:
            raise InputError(f"{what} got {count}; valid: a whole number of 1 to {MOST:,}")
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed got {seed}; valid: a whole number from 0, below 2^63")
    if no_baseline and baseline is not None:
        raise InputError("--baseline and --no-baseline were given together; leave one of them out")
    if patch is not None and resolution is None:
        raise InputError("--patch goes with --resolution; without it the tokens are given as they are")
    if resume and out is None:
        raise InputError("--resume needs --out RUN: the run to go on with")
    asked = any(value is not None for value in (tokens, resolution, preset, dim, heads, op_option, baseline, threads)) or (
        (batch, mode, dtype, scope, device, compiled, seed, no_baseline) != ("1", "forward", "fp32", "mixing", "auto", False, 0, False)
    )
    if resume and not op and not asked:
        plan, cells = _plan_on_disk(out)  # type: ignore[arg-type]
    else:
        if not op:
            raise InputError(
                "--op names no operator, and axes were given with --resume; give it too, or --resume --out RUN alone"
                if resume
                else "--op names no operator; give --op NAME, such as --op lisa (see `lisabench ops`)"
            )
        shapes = _shapes(tokens, resolution, patch or PATCH, preset, dim, heads)
        compared = None if no_baseline else baseline or BASELINE
        sweep = _sweep((op, compared, op_option or []), shapes, batch, mode, dtype, scope, resolve_device(device), compiled, seed)
        if not quiet:
            tell_left_out(op)
        plan, cells = _plan(sweep, compared, threads, patch=patch or PATCH if resolution else None)
    if resume:
        _same_plan(plan, out)  # type: ignore[arg-type]
    if dry_run:
        _print_plan(cells, as_json=as_json)
        return
    from lisabench.cli.session import Limits, run_and_render

    chosen = BUDGETS[plan["device"].partition(":")[0]] if budget is None else budget or None
    out = out or default_run("scale", "-".join(plan["operators"]))
    run_and_render(
        plan,
        cells,
        out=out,
        resume=resume,
        limits=Limits(budget=chosen, cell_timeout=cell_timeout, cell_seconds=cell_seconds),
        cross_check=cross_check,
        mix=mix,
        as_json=as_json,
        quiet=quiet,
    )


def _shapes(tokens: str | None, resolution: str | None, patch: int, preset: str | None, dim: int | None, heads: int | None) -> list[Any]:
    from lisabench.presets import Shape
    from lisabench.sweep import grids, presets

    given = [name for name, value in (("--tokens", tokens), ("--resolution", resolution), ("--preset", preset)) if value is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} were given together; each sets the grid: give one of them")
    if preset is not None:
        if dim is not None or heads is not None:
            raise InputError("--preset sets --dim and --heads itself; leave them out, or give --tokens or --resolution in its place")
        return presets(preset)
    dim, heads = dim or 192, heads or 3
    return [Shape(grid=grid, dim=dim, heads=heads) for grid in grids(tokens or DEFAULT_TOKENS, resolution, patch)]


def _sweep(ops: Any, shapes: list[Any], batch: str, mode: str, dtype: str, scope: str, device: str, compiled: bool, seed: int) -> Sweep:
    from lisabench import registry
    from lisabench.sweep import Sweep, choices, numbers, resolve_operators
    from lisabench.workload import DTYPES, MODES, SCOPES

    axes: dict[str, Any] = {
        "batches": tuple(numbers(batch, "--batch")),
        "modes": tuple(choices(mode, "--mode", MODES)),
        "dtypes": tuple(choices(dtype, "--dtype", DTYPES)),
        "scope": _one_scope(choices(scope, "--scope", SCOPES)),
    }
    resolved = resolve_operators(*ops)
    digests = {name: registry.digest(name) for name, _ in resolved}
    return Sweep(ops=tuple(resolved), shapes=tuple(shapes), device=device, compiled=compiled, seed=seed, digests=digests, **axes)


def _one_scope(scopes: list[str]) -> str:
    if len(scopes) > 1:
        raise InputError(f"--scope got {','.join(scopes)}; valid: one of them, as a run has one scope")
    return scopes[0]


def _plan(sweep: Sweep, baseline: str | None, threads: int | None, *, patch: int | None) -> tuple[dict[str, Any], list[Cell]]:
    """plan.json of a sweep, and its cells, all checked; `patch` is what made tokens of resolutions."""
    from lisabench import __version__, registry
    from lisabench.sweep import check

    cells = check(sweep)
    operators = {}
    for name, options in sweep.ops:
        operator = registry.load(name)
        defaults = operator.resolve({})
        given = {key: value for key, value in options.items() if value != defaults[key]}
        stated = {"options": options, "given": given, "origin": operator.origin, "digest": sweep.digests.get(name)}
        more = {"family": operator.family, "caveat": operator.caveat}
        operators[name] = stated | {key: text for key, text in more.items() if text}
    plan = {
        "schema": 1,
        "kind": "scale",
        "lisabench": __version__,
        "command": ["lisabench", *sys.argv[1:]],
        "baseline": baseline,
        "device": sweep.device,
        "threads": threads,
        "seed": sweep.seed,
        **({"patch": patch} if patch else {}),
        "operators": operators,
        "cells": [cell.record_fields() | {"predicted_flops": cell.flops, "predicted_bytes": cell.bytes_needed} for cell in cells],
    }
    return plan, cells


def _plan_on_disk(run: Path) -> tuple[dict[str, Any], list[Cell]]:
    """The plan of a run that is there, and its cells; InputError when an operator of the user's has changed since."""
    from lisabench import registry
    from lisabench.journal import read_plan
    from lisabench.sweep import Cell
    from lisabench.workload import Workload

    plan = read_plan(run)
    if plan["kind"] != "scale":
        raise InputError(f"{str(run)!r} is no run of `lisabench scale`; go on with it by: lisabench train-small --resume --out {run}")
    resolve_device(plan["device"])
    for name, stated in plan["operators"].items():
        registry.check_name(name)
        if registry.digest(name) != stated["digest"]:
            raise InputError(f"the file of operator {name} has changed since {str(run)!r} was begun; start a new run with another --out")
    cells = [
        Cell(op=c["op"], options=c["options"], workload=Workload.from_record(c), digest=plan["operators"][c["op"]]["digest"])
        for c in plan["cells"]
    ]
    return plan, cells


def _same_plan(plan: dict[str, Any], run: Path) -> None:
    """InputError when the run on disk is of another sweep than the one asked for."""
    from lisabench.journal import read_plan

    there = read_plan(run)
    asked, planned = ({cell["cell"] for cell in p["cells"]} for p in (plan, there))
    differing = [name for name in ("device", "threads", "seed", "baseline") if plan[name] != there.get(name)]
    if asked != planned:
        differing.append(f"cells ({len(asked - planned)} new, {len(planned - asked)} left out)")
    if differing:
        raise InputError(
            f"{str(run)!r} holds another sweep (it differs in {', '.join(differing)}); `--resume --out {run}` alone goes on with it as it was planned"
        )


def _print_plan(cells: list[Cell], *, as_json: bool) -> None:
    import json

    if as_json:
        for cell in cells:
            print(json.dumps(cell.record_fields() | {"predicted_flops": cell.flops, "predicted_bytes": cell.bytes_needed}))
        return
    from lisabench.cli.console import fitting, results
    from lisabench.render.terminal import plan_table

    rows = [cell.record_fields() | {"predicted_flops": cell.flops, "predicted_bytes": cell.bytes_needed} for cell in cells]
    console = results()
    console.print(fitting(console, lambda omitted: plan_table(rows, omitted=omitted), ("grid", "FLOP", "memory"), whole="--json"))
