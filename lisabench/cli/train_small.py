"""`lisabench train-small`: accuracy points of a small vision transformer with each operator."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from lisabench.cli.options import check_threads, default_run, positive, resolve_device, tell_left_out
from lisabench.errors import InputError

EPOCHS, SEEDS, BASELINE, DATA, DEVICE = 20, "3", "softmax", "digits", "auto"
MOST_SEEDS, LARGEST_SEED = 1000, 2**63 - 1


def train_small(
    op: Annotated[
        list[str] | None, typer.Option(help="Operator, comma list, `all`, or your own FILE.py:CLASS; repeatable. [default: lisa]")
    ] = None,
    op_option: Annotated[list[str] | None, typer.Option(help="[OP.]NAME=VALUE, for every operator that has it; repeatable.")] = None,
    baseline: Annotated[str | None, typer.Option(help=f"The operator to compare with. [default: {BASELINE}]")] = None,
    no_baseline: Annotated[bool, typer.Option("--no-baseline", help="Train the named operators alone.")] = False,
    data: Annotated[str | None, typer.Option(help=f"The image set. [default: {DATA}]")] = None,
    epochs: Annotated[int | None, typer.Option(help=f"Passes over the training images. [default: {EPOCHS}]")] = None,
    seeds: Annotated[
        str | None, typer.Option(help=f"How many seeds (3 means 0,1,2), or a list 0,4,7 (7, for one). [default: {SEEDS}]")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(help="Seconds for all of it, 0 for no limit; what does not fit is left for --resume. [default: no limit]"),
    ] = None,
    device: Annotated[str | None, typer.Option(help=f"auto, cpu, cuda or cuda:1. [default: {DEVICE}]")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads. [default: torch's choice]")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder. [default: a new one under reports/]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out: train only what is missing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print records as JSON lines, nothing else, on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no messages; results only.")] = False,
) -> None:
    """Train a small ViT with each operator and say what accuracy it reaches."""
    if budget is not None:
        positive(budget, "--budget", zero=True)
    check_threads(threads)
    if epochs is not None and epochs < 1:
        raise InputError(f"--epochs got {epochs}; valid: a whole number of 1 or more")
    if baseline is not None and no_baseline:
        raise InputError("--baseline and --no-baseline were given together; leave one of them out")
    chosen_seeds = _seeds(SEEDS if seeds is None else seeds)
    if resume and out is None:
        raise InputError("--resume needs --out RUN: the run to go on with")
    asked = any(value is not None for value in (op, op_option, baseline, data, epochs, seeds, device, threads)) or no_baseline
    if resume and not asked:
        plan = _plan_on_disk(out)  # type: ignore[arg-type]
    else:
        from lisabench.train import data as image_sets

        image_sets.find(DATA if data is None else data)
        compared = None if no_baseline else baseline or BASELINE
        plan = {
            "schema": 1,
            "kind": "accuracy",
            "command": ["lisabench", *sys.argv[1:]],
            "baseline": compared,
            "data": data or DATA,
            "epochs": EPOCHS if epochs is None else epochs,
            "seeds": chosen_seeds,
            "device": resolve_device(device or DEVICE),
            "threads": threads,
        } | _operators(op or ["lisa"], compared, op_option or [])
        if not quiet:
            tell_left_out(op or [])
    from lisabench.train.engine import check_models, planned_points

    points = planned_points(plan)
    plan["cells"] = [point.record_fields() for point in points]
    if resume and asked:
        _same_plan(plan, out)  # type: ignore[arg-type]
    check_models(points)
    from lisabench.cli.training import run_and_show

    run_and_show(
        plan,
        points,
        out=out or default_run("train-small", "-".join(plan["operators"])),
        resume=resume,
        budget=budget or None,
        as_json=as_json,
        quiet=quiet,
    )


def _seeds(text: str) -> list[int]:
    """A count or a comma list as seeds, each once."""
    parts = text.removesuffix(",").split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise InputError(f"--seeds got {text!r}; valid: a count such as 3, or a list of whole numbers such as 0,1,2 (7, for one)")
    found = [int(part) for part in parts]
    if "," not in text:
        if not 1 <= found[0] <= MOST_SEEDS:
            raise InputError(f"--seeds got {text}; valid: a count from 1 to {MOST_SEEDS}, or a list such as 0,1,2 (7, for one)")
        return list(range(found[0]))
    if max(found) > LARGEST_SEED:
        raise InputError(f"--seeds got {max(found)}; valid: seeds from 0 to {LARGEST_SEED}")
    return list(dict.fromkeys(found))


def _operators(op: list[str], baseline: str | None, assignments: list[str]) -> dict[str, Any]:
    """What plan.json says of the operators, of their model and of how it is trained."""
    from lisabench import __version__, registry
    from lisabench.sweep import resolve_operators
    from lisabench.train.loop import Recipe
    from lisabench.train.vit import MICRO

    operators = {}
    for name, options in resolve_operators(op, baseline, assignments):
        defaults = registry.load(name).resolve({})
        given = {key: value for key, value in options.items() if value != defaults[key]}
        operators[name] = {"options": options, "given": given, "origin": registry.load(name).origin, "digest": registry.digest(name)}
    return {"lisabench": __version__, "model": asdict(MICRO), "recipe": asdict(Recipe()), "operators": operators}


def _plan_on_disk(run: Path) -> dict[str, Any]:
    """The plan of an accuracy run that is there; InputError when it is another or an operator of the user's has changed since."""
    from lisabench import registry
    from lisabench.journal import read_plan
    from lisabench.train import data as image_sets

    plan = read_plan(run)
    if plan.get("kind") != "accuracy":
        raise InputError(
            f"{str(run)!r} holds no run of train-small but one of kind {plan.get('kind')!r}; go on with it by the command that began it"
        )
    for name, stated in plan["operators"].items():
        registry.check_name(name)
        if registry.digest(name) != stated["digest"]:
            raise InputError(f"the file of operator {name} has changed since {str(run)!r} was begun; start a new run with another --out")
    image_sets.find(plan["data"])
    resolve_device(plan["device"])
    return plan


def _same_plan(plan: dict[str, Any], run: Path) -> None:
    """InputError when the run on disk is of another plan than the one asked for."""
    there = _plan_on_disk(run)
    names = ("operators", "data", "epochs", "seeds", "device", "threads", "model", "recipe")
    differing = [name for name in names if json.loads(json.dumps(plan[name])) != there[name]]
    if differing:
        raise InputError(
            f"{str(run)!r} holds another plan (it differs in {', '.join(differing)}); `--resume --out {run}` alone goes on with it as it was planned"
        )
