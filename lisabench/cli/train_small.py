"""`lisabench train-small`: accuracy points of a small vision transformer with each operator."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lisabench.cli.options import check_threads, default_run, positive, resolve_device, tell_left_out
from lisabench.errors import InputError, unknown

SEEDS, BASELINE, DATA, DEVICE, SIZE = "3", "softmax", "digits", "auto", "micro"
MOST_SEEDS, LARGEST_SEED, MOST_TRIALS = 1000, 2**63 - 1, 100
DTYPES = ("fp32", "bf16", "fp16")
RECIPE, MODEL = "Recipe", "Model and data"


def train_small(
    op: Annotated[
        list[str] | None, typer.Option(help="Operator, comma list, `all`, or your own FILE.py:CLASS; repeatable. [default: lisa]")
    ] = None,
    op_option: Annotated[list[str] | None, typer.Option(help="[OP.]NAME=VALUE, for every operator that has it; repeatable.")] = None,
    vary: Annotated[
        list[str] | None, typer.Option(help="[OP.]NAME=VALUE,VALUE: the operator with each of these, too (an ablation); repeatable.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help=f"The operator to compare with. [default: {BASELINE}]")] = None,
    no_baseline: Annotated[bool, typer.Option("--no-baseline", help="Train the named operators alone.")] = False,
    seeds: Annotated[
        str | None, typer.Option(help=f"How many seeds (3 means 0,1,2), or a list 0,4,7 (7, for one). [default: {SEEDS}]")
    ] = None,
    search: Annotated[
        int | None,
        typer.Option(
            help="Trials of learning rate and weight decay for each operator, on held-out training images. [default: 0, no search]"
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help=f"digits, structures-..., a folder of images by class, Parquet, or hub:NAME. [default: {DATA}]", rich_help_panel=MODEL
        ),
    ] = None,
    patch: Annotated[int | None, typer.Option(help="Pixels a side of a token. [default: by the data]", rich_help_panel=MODEL)] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Pixels a side that images from a disk or the hub are brought to.", rich_help_panel=MODEL)
    ] = None,
    size: Annotated[str | None, typer.Option(help=f"micro, tiny or small (DeiT's). [default: {SIZE}]", rich_help_panel=MODEL)] = None,
    no_positions: Annotated[
        bool,
        typer.Option(
            "--no-positions", help="No learned absolute positions: for operators with a sense of their own.", rich_help_panel=MODEL
        ),
    ] = False,
    match: Annotated[
        str | None,
        typer.Option(help="parameters or flops: MLPs as wide as makes each model cost what the baseline's does.", rich_help_panel=MODEL),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training images. [default: by the data]", rich_help_panel=RECIPE)
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step, over all processes. [default: 64]", rich_help_panel=RECIPE)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="AdamW's, at its peak. [default: 0.003]", rich_help_panel=RECIPE)] = None,
    weight_decay: Annotated[float | None, typer.Option(help="AdamW's. [default: 0.05]", rich_help_panel=RECIPE)] = None,
    drop_path: Annotated[float | None, typer.Option(help="Stochastic depth's largest rate. [default: 0]", rich_help_panel=RECIPE)] = None,
    ema: Annotated[
        float | None, typer.Option(help="Decay of averaged weights, such as 0.999. [default: 0, none]", rich_help_panel=RECIPE)
    ] = None,
    augment: Annotated[
        str | None, typer.Option(help="none, shift, shift-flip or crop-flip. [default: by the data]", rich_help_panel=RECIPE)
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="fp32, or mixed precision in bf16 or fp16. [default: bf16 on a GPU, fp32 on a CPU]", rich_help_panel=RECIPE),
    ] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Train the model compiled by torch.compile.")] = False,
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
    asked = {
        name: value
        for name, value in locals().items()
        if name not in ("budget", "out", "resume", "as_json", "quiet") and value is not None and value is not False
    }
    if budget is not None:
        positive(budget, "--budget", zero=True)
    _check(asked)
    if resume and out is None:
        raise InputError("--resume needs --out RUN: the run to go on with")
    from lisabench.cli.training import plan_together, run_and_show

    def planned(stored: dict[str, Any] | None) -> dict[str, Any]:
        """What is asked for; where a run is gone on with, that is what `stored` says."""
        from lisabench.train.plan import check, points_of

        if stored is not None and not asked:
            plan = _still_valid(stored, out)
        else:
            plan = _plan(asked)
            if not quiet:
                tell_left_out(op or [])
        check(plan)
        plan["cells"] = [{"key": key, "seed": point.seed} for key, point in points_of(plan)]
        if stored is not None and asked:
            _same_plan(plan, _still_valid(stored, out), out)
        return plan

    plan, resume = plan_together(planned, out=out, resume=resume)
    folder = out or default_run("train-small", "-".join(plan["operators"]))
    run_and_show(plan, out=folder, resume=resume, budget=budget or None, as_json=as_json, quiet=quiet)


def _check(asked: dict[str, Any]) -> None:
    """InputError for a number that is none, or two options that exclude each other."""
    check_threads(asked.get("threads"))
    limits = {"epochs": (1, 100_000), "batch": (1, 1_000_000), "patch": (1, 4096), "image_size": (1, 4096), "search": (0, MOST_TRIALS)}
    for name, (least, most) in limits.items():
        if name in asked and not least <= asked[name] <= most:
            raise InputError(f"--{name.replace('_', '-')} got {asked[name]}; valid: a whole number from {least} to {most:,}")
    shares = {"drop_path": "below 1", "ema": "below 1", "weight_decay": "of 0 or more", "learning_rate": "above 0"}
    for name, words in shares.items():
        value = asked.get(name)
        if value is None:
            continue
        if not (0 <= value < (1 if "below" in words else 1e9)) or (name == "learning_rate" and value == 0):
            raise InputError(
                f"--{name.replace('_', '-')} got {value:g}; valid: a number {'from 0 and ' if 'below' in words else ''}{words}"
            )
    if "baseline" in asked and "no_baseline" in asked:
        raise InputError("--baseline and --no-baseline were given together; leave one of them out")


def _plan(asked: dict[str, Any]) -> dict[str, Any]:
    """The plan that was asked for, with everything that was left to lisabench."""
    from lisabench.axes import resolve_operators
    from lisabench.train import catalogue
    from lisabench.train.augment import KINDS
    from lisabench.train.match import MATCHES
    from lisabench.train.plan import head, match, stated_model, stated_operators, stated_recipe, varied
    from lisabench.train.team import started_by_torchrun
    from lisabench.train.vit import SIZES

    for name, valid in (("size", SIZES), ("match", MATCHES), ("augment", KINDS), ("dtype", DTYPES)):
        if name in asked and asked[name] not in valid:
            raise unknown(f"--{name}", asked[name], valid)
    baseline = None if "no_baseline" in asked else asked.get("baseline", BASELINE)
    ops = asked.get("op", ["lisa"])
    resolved = resolve_operators(ops, baseline, asked.get("op_option", []))
    named = [op for op, _ in resolve_operators(ops, None, [])]
    operators = stated_operators(varied(resolved, named, asked.get("vary", [])))
    images = catalogue.find(asked.get("data", DATA), patch=asked.get("patch"), image_size=asked.get("image_size"))
    device = resolve_device(asked.get("device", DEVICE))
    if started_by_torchrun() and device.startswith("cuda"):
        if ":" in asked.get("device", ""):
            raise InputError(f"--device got {asked['device']}; with torchrun each process takes a GPU of its own: give --device cuda")
        device = "cuda"
    plan = head(
        command=["lisabench", *sys.argv[1:]],
        baseline=next((key for key, stated in operators.items() if stated["op"] == baseline), None),
        data=images.name,
        patch=asked.get("patch"),
        image_size=asked.get("image_size"),
        data_digest=images.digest,
        epochs=asked.get("epochs", images.epochs),
        seeds=_seeds(asked.get("seeds", SEEDS)),
        search=asked.get("search", 0),
        match=asked.get("match"),
        dtype=asked.get("dtype", "fp32" if device == "cpu" else "bf16"),
        compiled="compiled" in asked,
        device=device,
        threads=asked.get("threads"),
        model=stated_model(asked.get("size", SIZE), positions="no_positions" not in asked),
        recipe=stated_recipe(images, asked),
        operators=operators,
    )
    match(plan)
    return plan


def _seeds(text: str) -> list[int]:
    """A count or a comma list as seeds, each once."""
    parts = text.removesuffix(",").split(",")
    if not all(part.strip().isdecimal() and len(part) < 20 for part in parts):
        raise InputError(f"--seeds got {text!r}; valid: a count such as 3, or a list of whole numbers such as 0,1,2 (7, for one)")
    found = [int(part) for part in parts]
    if "," not in text:
        if not 1 <= found[0] <= MOST_SEEDS:
            raise InputError(f"--seeds got {text}; valid: a count from 1 to {MOST_SEEDS}, or a list such as 0,1,2 (7, for one)")
        return list(range(found[0]))
    if max(found) > LARGEST_SEED:
        raise InputError(f"--seeds got {max(found)}; valid: seeds from 0 to {LARGEST_SEED}")
    return list(dict.fromkeys(found))


def _still_valid(plan: dict[str, Any], run: Path | None) -> dict[str, Any]:
    """The plan of a run; InputError when it is none of trainings, or operators or images of the user's have changed since."""
    from lisabench import registry
    from lisabench.train import catalogue

    if plan.get("kind") != "accuracy":
        raise InputError(
            f"{str(run)!r} holds no run of train-small but one of kind {plan.get('kind')!r}; go on with it by the command that began it"
        )
    if "match" not in plan:
        raise InputError(f"{str(run)!r} was begun by an older lisabench, whose models were others; start a new run with another --out")
    for stated in plan["operators"].values():
        registry.check_name(stated["op"])
        if registry.digest(stated["op"]) != stated["digest"]:
            raise InputError(
                f"the file of operator {stated['op']} has changed since {str(run)!r} was begun; start a new run with another --out"
            )
    images = catalogue.find(plan["data"], patch=plan["patch"], image_size=plan["image_size"])
    if images.digest != plan["data_digest"]:
        raise InputError(f"the images of {plan['data']} have changed since {str(run)!r} was begun; start a new run with another --out")
    resolve_device(plan["device"])
    return plan


def _same_plan(plan: dict[str, Any], there: dict[str, Any], run: Path | None) -> None:
    """InputError when the run on disk is of another plan than the one asked for."""
    differing = [
        name for name in plan if name not in ("command", "lisabench", "cells") and json.loads(json.dumps(plan[name])) != there[name]
    ]
    if differing:
        raise InputError(
            f"{str(run)!r} holds another plan (it differs in {', '.join(differing)}); `--resume --out {run}` alone goes on with it as it was planned"
        )
