"""What the models of a run cost: latency and memory of a forward pass, all of them measured side by side before any is trained."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lisabench import registry
from lisabench.measure.latency import Limits, Rounds, no_collection, sample_round
from lisabench.measure.memory import bytes_of, trace_call
from lisabench.measure.samplers import Sampler, sampler_for
from lisabench.train.data import Split
from lisabench.train.loop import DTYPES, runnable
from lisabench.train.point import Point

BATCH = 32
LIMITS = Limits(seconds=1.0)
Figures = dict[str, Any]


def model_costs(points: Mapping[str, Point], split: Split, device: str) -> dict[str, Figures]:
    """Fields of a record by key: `latency_s` and `memory_bytes` of one forward in evaluation of `latency_batch` test images, and the
    `backend`, the implementation of the operator that ran.

    The models take turns in rounds, in random order. Where one fails, `absent` says why, and the others go on.
    """
    found: dict[str, Figures] = {}
    samplers: dict[str, Sampler] = {}
    for key, point in points.items():
        try:
            call, parameters = _forward(point, split, device)
            call()  # a first call allocates what is kept, and compiles
            trace = trace_call(call, device=device)
            memory = {"transient": trace.transient_bytes, "parameters": parameters}
            samplers[key] = sampler_for(call, device)
            samplers[key].warm_up(seconds=LIMITS.warmup_seconds, calls=LIMITS.warmup_calls)
            found[key] = {"latency_batch": BATCH, "memory_bytes": memory, "backend": registry.load(point.op).backend(trace.ran)}
        except Exception as error:  # an operator may be the user's own; its training says the same
            found[key] = _absent(error)
    for key, latency in _latencies(samplers).items():
        found[key] = found[key] | latency if "latency_s" in latency else latency
    return found


def _latencies(samplers: Mapping[str, Sampler]) -> dict[str, Figures]:
    rounds = {key: Rounds(LIMITS, kind=sampler.kind) for key, sampler in samplers.items()}
    failed: dict[str, Figures] = {}
    turns = random.Random(0)
    with no_collection():
        while waiting := [key for key, one in rounds.items() if key not in failed and not one.stopped_by()]:
            for key in turns.sample(waiting, len(waiting)):
                try:
                    samplers[key].warm_again()
                    rounds[key].add(*sample_round(samplers[key], rounds[key].slice_seconds()))
                except Exception as error:
                    failed[key] = _absent(error)
    return failed | {key: {"latency_s": one.latency().record()} for key, one in rounds.items() if key not in failed}


def _forward(point: Point, split: Split, device: str) -> tuple[Callable[[], Tensor], int]:
    """The call that is measured, and the bytes of the model's parameters."""
    torch.manual_seed(point.seed)
    model = point.model().to(device).eval()
    size = bytes_of(model.parameters())
    run = runnable(model, compiled=point.compiled)
    some = split.test.images[torch.arange(BATCH) % len(split.test)].to(device)
    images = split.standardised(some)

    def call() -> Tensor:
        with torch.no_grad(), torch.autocast(device.partition(":")[0], DTYPES[point.dtype], enabled=point.dtype != "fp32"):
            logits: Tensor = run(images)
            return logits

    return call, size


def _absent(error: Exception) -> Figures:
    reason = f"the model fails: {type(error).__name__}"
    return {"absent": {"latency_s": reason, "memory_bytes": reason}}
