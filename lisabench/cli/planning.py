"""plan.json of a sweep: written for a new run, read again for one that is gone on with."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lisabench.errors import InputError

if TYPE_CHECKING:
    from lisabench.sweep import Sweep

# What of a plan must be the same where axes are given beside --resume; the axes themselves are told one by one.
FIXED = ("device", "threads", "seed", "baseline")


def plan_of(sweep: Sweep, baseline: str | None, threads: int | None, *, patch: int | None) -> dict[str, Any]:
    """plan.json of a sweep that was checked; `patch` is what made tokens of resolutions."""
    from lisabench import __version__, registry
    from lisabench.plans import stated

    operators = {}
    for name, options in sweep.ops:
        operator = registry.load(name)
        defaults = operator.resolve({})
        given = {key: value for key, value in options.items() if value != defaults[key]}
        known = {"options": options, "given": given, "origin": operator.origin, "digest": sweep.digests.get(name)}
        more = {"family": operator.family, "caveat": operator.caveat}
        operators[name] = known | {key: text for key, text in more.items() if text}
    return {
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
        "sweeps": [stated(sweep)],
        "cells": sweep.count,
    }


def for_kinds(plan: dict[str, Any], kinds: tuple[str, ...], *, run: object) -> dict[str, Any]:
    """The same plan, measured whole on each of these kinds of devices."""
    from lisabench.plans import stated, sweeps_of

    sweeps = [replace(sweep, kinds=kinds) for sweep in sweeps_of(plan, run=run)]
    return plan | {"sweeps": [stated(sweep) for sweep in sweeps], "cells": sum(sweep.count for sweep in sweeps)}


def plan_on_disk(run: Path) -> dict[str, Any]:
    """The plan of a run that is there; InputError when an operator of the user's has changed since."""
    from lisabench import registry
    from lisabench.journal import read_plan
    from lisabench.plans import sweeps_of

    plan = read_plan(run)
    if plan["kind"] != "scale":
        raise InputError(f"{str(run)!r} is no run of `lisabench scale`; go on with it by: lisabench train-small --resume --out {run}")
    sweeps_of(plan, run=run)
    for name, known in plan["operators"].items():
        registry.check_name(name)
        if registry.digest(name) != known["digest"]:
            raise InputError(f"the file of operator {name} has changed since {str(run)!r} was begun; start a new run with another --out")
    return plan


def with_threads(plan: dict[str, Any], threads: int | None, *, run: Path) -> dict[str, Any]:
    """The plan with this number of threads, where it states none, as one that was merged of runs on several kinds of devices."""
    if threads is None or threads == plan["threads"]:
        return plan
    if plan["threads"] is not None:
        raise InputError(f"--threads got {threads}, and {str(run)!r} was begun with {plan['threads']}; leave it out, or start a new run")
    return plan | {"threads": threads}


def check_same_plan(plan: dict[str, Any], run: Path) -> None:
    """InputError when the run on disk is of another sweep than the one asked for."""
    there = plan_on_disk(run)
    differing = [name for name in FIXED if plan[name] != there.get(name)]
    asked, planned = _axes(plan), _axes(there)
    if asked != planned:
        names = asked[0] if len(planned) == 1 else ("sweeps",)
        differing += [name for name in names if name not in differing and (name == "sweeps" or asked[0][name] != planned[0][name])]
    if differing:
        raise InputError(
            f"{str(run)!r} holds another sweep (it differs in {', '.join(differing)}); `--resume --out {run}` alone goes on with it as it was planned"
        )


def _axes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """The axes of a plan's sweeps with the operators' options; without the kinds of devices, which the fleet tells and not who asks."""
    import json

    options = {op: known["options"] for op, known in plan["operators"].items()}
    sweeps = json.loads(json.dumps(plan["sweeps"], default=str))
    return [axes | {"options": {op: options[op] for op in axes["ops"]}, "kinds": None} for axes in sweeps]
