"""`lisabench scale`: the sweep, from axes on the command line to a run with its table and figures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lisabench.cli.fleets import fleet_device, open_fleet
from lisabench.cli.options import check_threads, default_run, positive, resolve_device, tell_left_out
from lisabench.errors import InputError, unknown

if TYPE_CHECKING:
    from lisabench.sweep import Sweep

DEFAULT_TOKENS, PATCH, BASELINE = "256..16384", 16, "softmax"
MOST = 10**9
BUDGETS = {"cpu": 60.0, "cuda": 180.0}
CELL_TIMEOUT = 60.0
ENGINES = ("local", "ray")
FLEET = "Beyond one device"


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
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; on a cluster the cores of a worker. [default: torch's choice, a node's cores]")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="local, or ray: over all devices of a Ray cluster, or of this machine.", rich_help_panel=FLEET)
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="The Ray cluster, auto or HOST:PORT. [default: RAY_ADDRESS, else one on this machine]", rich_help_panel=FLEET),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="Measure on devices of this name alone; repeatable. [default: all, each the whole plan]", rich_help_panel=FLEET),
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="i/n: the i-th of n parts of the plan, for `lisabench merge` to join.", rich_help_panel=FLEET)
    ] = None,
    history: Annotated[
        list[Path] | None,
        typer.Option(help="Earlier runs that --dry-run reckons hours by; repeatable.", show_default=False, rich_help_panel=FLEET),
    ] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Time torch.compile's version.")] = False,
    budget: Annotated[
        float | None,
        typer.Option(help="Seconds for the sweep, 0 for no limit. [default: 60 on a CPU, 180 on a GPU, none with --engine ray]"),
    ] = None,
    cell_timeout: Annotated[float, typer.Option(help="Seconds after which a cell is killed.")] = CELL_TIMEOUT,
    cell_seconds: Annotated[float, typer.Option(help="Seconds of sampling a cell at most (12 samples at least).")] = 1.0,
    cross_check: Annotated[bool, typer.Option("--cross-check", help="Measure a CPU cell's memory again in a fresh process.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of weights, inputs and order.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The run's folder. [default: a new one under reports/]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out: measure only what is missing.")] = False,
    mix: Annotated[bool, typer.Option("--mix", help="Go on with a run of another machine, or show one of several.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan with predicted FLOPs, memory and hours, run nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print records as JSON lines, nothing else, on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no messages; results only.")] = False,
) -> None:
    """Measure how latency, memory and FLOPs grow, beside a baseline."""
    for value, what, zero in ((budget, "--budget", True), (cell_timeout, "--cell-timeout", False), (cell_seconds, "--cell-seconds", False)):
        if value is not None:
            positive(value, what, zero=zero)
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
    if engine not in ENGINES:
        raise unknown("--engine", engine, ENGINES)
    for given, what in ((address, "--address"), (kind, "--kind")):
        if given and engine != "ray":
            raise InputError(f"{what} goes with --engine ray; give both, or neither")
    asked = any(value is not None for value in (tokens, resolution, preset, dim, heads, op_option, baseline, shard)) or (
        (batch, mode, dtype, scope, device, compiled, seed, no_baseline) != ("1", "forward", "fp32", "mixing", "auto", False, 0, False)
    )
    if engine == "local":
        check_threads(threads)
    from lisabench.cli.planning import check_same_plan, for_kinds, plan_of, plan_on_disk, with_threads
    from lisabench.plans import visits_of

    if resume and not op and not asked:
        plan = with_threads(plan_on_disk(out), threads, run=out)  # type: ignore[arg-type]
        if engine == "local":
            resolve_device(plan["device"])
    else:
        if not op:
            raise InputError(
                "--op names no operator, and axes were given with --resume; give it too, or --resume --out RUN alone"
                if resume
                else "--op names no operator; give --op NAME, such as --op lisa (see `lisabench ops`)"
            )
        shapes = _shapes(tokens, resolution, patch or PATCH, preset, dim, heads)
        compared = None if no_baseline else baseline or BASELINE
        on = resolve_device(device) if engine == "local" else fleet_device(device, address)
        sweep = _sweep((op, compared, op_option or []), shapes, batch, mode, dtype, scope, on, compiled, seed, _share(shard))
        if not quiet:
            tell_left_out(op)
        plan = plan_of(sweep, compared, threads, patch=patch or PATCH if resolution else None)
        if resume:
            check_same_plan(plan, out)  # type: ignore[arg-type]
            plan = plan_on_disk(out)  # type: ignore[arg-type]
    from lisabench.measure.latency import Limits

    limits = Limits(seconds=cell_seconds)
    if dry_run:
        from lisabench.cli.dry_run import print_plan

        print_plan(
            visits_of(plan, run=out),
            history=history or (),
            limits=limits,
            threads=plan["threads"],
            cell_timeout=cell_timeout,
            as_json=as_json,
        )
        return
    from lisabench.cli.console import lines, messages
    from lisabench.cli.session import run_and_render
    from lisabench.run.fleet import Settings

    chosen = (BUDGETS[plan["device"].partition(":")[0]] if engine == "local" else None) if budget is None else budget or None
    settings = Settings(
        budget=chosen,
        cell_timeout=cell_timeout,
        limits=limits,
        seed=plan["seed"],
        baseline=plan["baseline"],
        cross_check=cross_check,
        mix=mix,
    )
    out = out or default_run("scale", "-".join(plan["operators"]))
    with open_fleet(engine, plan, address=address, kinds=kind or ()) as fleet:
        if len(fleet.kinds) > 1 and not resume:
            plan = for_kinds(plan, fleet.kinds, run=out)
            if not quiet:
                lines(messages(), f"{len(fleet.kinds)} kinds of devices, of which each measures the whole plan: {'; '.join(fleet.kinds)}")
        run_and_render(plan, fleet, out=out, resume=resume, settings=settings, as_json=as_json, quiet=quiet)


def _share(shard: str | None) -> tuple[int, int]:
    """'2/8' as (2, 8)."""
    if shard is None:
        return 1, 1
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", shard)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"--shard got {shard!r}; valid: i/n with i from 1 to n, such as 2/8")
    return int(found[1]), int(found[2])


def _shapes(tokens: str | None, resolution: str | None, patch: int, preset: str | None, dim: int | None, heads: int | None) -> list[Any]:
    from lisabench.axes import grids, presets
    from lisabench.presets import Shape

    given = [name for name, value in (("--tokens", tokens), ("--resolution", resolution), ("--preset", preset)) if value is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} were given together; each sets the grid: give one of them")
    if preset is not None:
        if dim is not None or heads is not None:
            raise InputError("--preset sets --dim and --heads itself; leave them out, or give --tokens or --resolution in its place")
        return presets(preset)
    dim, heads = dim or 192, heads or 3
    return [Shape(grid=grid, dim=dim, heads=heads) for grid in grids(tokens or DEFAULT_TOKENS, resolution, patch)]


def _sweep(
    ops: Any,
    shapes: list[Any],
    batch: str,
    mode: str,
    dtype: str,
    scope: str,
    device: str,
    compiled: bool,
    seed: int,
    share: tuple[int, int],
) -> Sweep:
    from lisabench import registry
    from lisabench.axes import choices, numbers, resolve_operators
    from lisabench.sweep import Sweep, check
    from lisabench.workload import DTYPES, MODES, SCOPES

    axes: dict[str, Any] = {
        "batches": tuple(numbers(batch, "--batch")),
        "modes": tuple(choices(mode, "--mode", MODES)),
        "dtypes": tuple(choices(dtype, "--dtype", DTYPES)),
        "scope": _one_scope(choices(scope, "--scope", SCOPES)),
    }
    resolved = resolve_operators(*ops)
    digests = {name: registry.digest(name) for name, _ in resolved}
    sweep = Sweep(
        ops=tuple(resolved), shapes=tuple(shapes), device=device, compiled=compiled, seed=seed, digests=digests, share=share, **axes
    )
    check(sweep)
    return sweep


def _one_scope(scopes: list[str]) -> str:
    if len(scopes) > 1:
        raise InputError(f"--scope got {','.join(scopes)}; valid: one of them, as a run has one scope")
    return scopes[0]
