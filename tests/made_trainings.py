"""Made-up runs of trainings, as they lie on a disk: accuracy grows over the epochs, costs grow with the operator's place."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lisabench import contract
from lisabench.journal import blank_record
from lisabench.results import Run, read_run
from lisabench.workload import Workload, most_square

ABLATION = (
    "lisa", "lisa (patterns=1)", "lisa (patterns=2)", "lisa (patterns=8)", "lisa (key_dim=16)", "lisa (key_dim=8)",
    "lisa (boundary=periodic)", "lisa (norm=False)", "softmax", "linear", "performer", "nprf", "gfnet",
)  # fmt: skip
FAMILY = {"lisa": 1, "softmax": 0, "linear": 2, "performer": 2, "nprf": 1, "gfnet": 4, "identity": 6, "fnet": 4, "xcit": 5, "linformer": 3}
THIS_MACHINE = {"device": "cpu", "device_name": "AMD EPYC", "cpu": {"threads": 2}}


def stated(key: str) -> dict[str, Any]:
    """An operator of a plan, from the name that figures show."""
    op, _, options = key.removesuffix(")").partition(" (")
    given = dict(part.split("=") for part in options.split(", ")) if options else {}
    family = contract.FAMILIES[FAMILY[op] if op in FAMILY else len(op) % 7]
    known = {"op": op, "options": {"patterns": "4"} | given if op == "lisa" else given, "given": given, "family": family}
    return known | {"origin": "built in", "digest": None, "caveat": "a reconstruction" if op == "lisa" else ""}


def finished(top1: float, *, place: int = 0, epochs: int = 30, seed: int = 0, chance: float = 0.1) -> dict[str, Any]:
    """The figures of a training that came to its end at this accuracy."""
    generator = np.random.default_rng([place, seed])
    share = 1 - np.exp(-np.arange(1, epochs + 1) / epochs * 5)
    share = share / share[-1]
    noise = 0.02 * generator.standard_normal(epochs) * (1 - share)
    curve = [
        {
            "epoch": epoch + 1,
            "loss": 0.6 + 1.7 * (1 - part) + 0.02 * place,
            "top1": chance + (top1 - chance) * (part + wobble),
            "images_per_s": 4e3,
        }
        for epoch, (part, wobble) in enumerate(zip(share.tolist(), noise.tolist(), strict=True))
    ]
    latency = 2e-3 * (1 + 0.3 * place) * (1 + 0.02 * seed)
    return {
        "status": "ok",
        "parameters": 60_000 + 2500 * ((7 * place) % 11),
        "flops": {"analytic": 1e6 * (1 + 0.4 * ((5 * place) % 13)), "operator": 4e5},
        "top1": top1,
        "chance": chance,
        "test_images": 360,
        "loss": curve[-1]["loss"],
        "curve": curve,
        "throughput_images_per_s": 4000.0 / (1 + place),
        "seconds": 20.0 + place,
        "latency_s": {"median": latency, "ci_low": 0.97 * latency, "ci_high": 1.05 * latency},
        "latency_batch": 64,
        "memory_bytes": {"transient": 2**20 * (1 + ((3 * place) % 7)), "parameters": 240_000},
        "kernel_similarity": {"heads": 0.5 + 0.01 * place, "all": 0.4, "images": 32} if place < 9 else None,
    }


def write_run(
    path: Path,
    accuracies: Mapping[str, Sequence[float | str]],
    *,
    data: str = "digits",
    baseline: str | None = "softmax",
    epochs: int = 30,
    environment: Mapping[str, Any] = THIS_MACHINE,
    elsewhere: Mapping[str, float] | None = None,
    search: int = 0,
    warnings: Sequence[str] = (),
    **plan: Any,
) -> Run:
    """A run whose operators have these test accuracies, a seed each; a word in place of one is the status of a training that failed."""
    operators = {key: stated(key) for key in accuracies}
    seeds = list(range(max((len(values) for values in accuracies.values()), default=0)))
    recipe = {"batch": 32, "learning_rate": 3e-3, "weight_decay": 0.05}
    told = {"schema": 1, "kind": "accuracy", "command": ["lisabench"], "baseline": baseline, "data": data, "epochs": epochs, "seeds": seeds}
    told |= {
        "device": "cpu",
        "dtype": "fp32",
        "recipe": recipe,
        "search": search,
        "match": None,
        "operators": operators,
        "cells": [],
    } | plan
    lines = []
    for place, (key, values) in enumerate(accuracies.items()):
        for seed, top1 in enumerate(values):
            shared = {"schema": 1, "kind": "accuracy", "op": operators[key]["op"], "options": operators[key]["options"], "data": data}
            shared |= {
                "cell": hashlib.sha256(f"{path}{key}{seed}".encode()).hexdigest()[:16],
                "seed": seed,
                "epochs": epochs,
                "reason": None,
            }
            shared |= {
                "model": {"mlp_hidden": 96},
                "tokens": 16,
                "recipe": recipe,
                "searched": search,
                "device": "cpu",
                "environment": environment["device_name"],
                "absent": {},
            }
            if isinstance(top1, str):
                lines.append(shared | {"status": top1, "reason": "loss is not finite", "top1": None, "flops": None})
            else:
                larger = {size: share * top1 for size, share in elsewhere.items()} if elsewhere else None
                lines.append(shared | finished(top1, place=place, epochs=epochs, seed=seed) | {"elsewhere": larger})
                lines[-1]["latency_s"]["warnings"] = list(warnings)
    path.mkdir(parents=True)
    (path / "plan.json").write_text(json.dumps(told))
    (path / "environment.json").write_text(json.dumps({environment["device_name"]: environment}))
    (path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_run(path, kind="accuracy")


def write_sweep(
    path: Path, reach: Mapping[str, Sequence[int]], *, environment: Mapping[str, Any] = THIS_MACHINE, modes: Sequence[str] = ("forward",)
) -> Run:
    """A sweep whose operators have finished at these token counts; a latency is a nanosecond a token and operator."""
    operators = {key: stated(key) for key in reach}
    plan = {"schema": 1, "kind": "scale", "baseline": None, "operators": {one["op"]: one for one in operators.values()}, "cells": []}
    lines = []
    for (place, (key, sizes)), mode in itertools.product(enumerate(reach.items(), 1), modes):
        for tokens in sizes:
            workload = Workload(grid=most_square(tokens), mode=mode)
            told = {
                "cell": f"{key}{mode}{tokens}",
                "op": operators[key]["op"],
                "options": operators[key]["options"],
            } | workload.record_fields()
            latency = place * tokens * 1e-9 * (3 if mode == "train" else 1)
            kept = {"median": latency, "ci_low": 0.9 * latency, "ci_high": 1.1 * latency, "warnings": [], "samples": [latency] * 9}
            memory = {"transient": 1000 * tokens}
            lines.append(
                blank_record(told)
                | {"status": "ok", "latency_s": kept, "memory_bytes": memory, "flops": {"analytic": 1e3 * tokens, "torch": None}}
                | {"environment": environment["device_name"]}
            )
    path.mkdir(parents=True)
    (path / "plan.json").write_text(json.dumps(plan))
    (path / "environment.json").write_text(json.dumps({environment["device_name"]: environment}))
    (path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_run(path)


def accuracies(keys: Sequence[str], *, top: float = 0.985, spread: float = 0.04, seeds: int = 3, start: int = 0) -> dict[str, list[float]]:
    """Accuracies for each key: spread below the top, with a little noise over the seeds."""
    generator = np.random.default_rng([len(keys), start])
    means = top - spread * generator.random(len(keys)) ** 2
    return {
        key: [min(1.0, float(round(360 * (mean + 0.004 * generator.standard_normal())) / 360)) for _ in range(seeds)]
        for key, mean in zip(keys, means, strict=True)
    }
