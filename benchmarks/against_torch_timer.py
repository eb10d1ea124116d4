"""The same calls timed by lisabench and by torch.utils.benchmark, in turns in one run.

    python benchmarks/against_torch_timer.py

Prints both medians for ten calls and the median of their ratios over five turns each; the target is within 5% in the median
over the ten.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.benchmark import Timer

from lisabench.contract import Grid, Workload
from lisabench.measure.latency import Limits, measure_latency
from lisabench.registry import load, names

TURNS = 5


def calls() -> dict[str, Callable[[], Any]]:
    """Ten calls from microseconds to tens of milliseconds: every operator at 1,024 tokens, and plain torch."""
    found: dict[str, Callable[[], Any]] = {}
    workload = Workload(grid=Grid(32, 32))
    for name in ("lisa", "linear", "performer", "softmax", "softmax_dense"):
        assert name in names()
        operator = load(name)
        module: Any = operator.build(workload, operator.resolve({})).eval()
        prepared = module.prepare(torch.randn(1, workload.tokens, workload.dim))
        found[f"{name}, 1,024 tokens"] = lambda module=module, prepared=prepared: module.mix(*prepared)
    a, b = torch.randn(2, 512, 512)
    image, kernel = torch.randn(1, 64, 56, 56), torch.randn(64, 64, 3, 3)
    return found | {
        "add, 512 x 512": lambda: a + b,
        "product, 512 x 512": lambda: a @ b,
        "softmax over rows, 512 x 512": lambda: torch.softmax(a, dim=-1),
        "rfft2, 512 x 512": lambda: torch.fft.rfft2(a),
        "convolution 3 x 3, 64 channels": lambda: F.conv2d(image, kernel, padding=1),
    }


def main() -> None:
    torch.manual_seed(0)
    ratios = []
    print(f"threads {torch.get_num_threads()}\n{'call':<32} {'lisabench':>12} {'torch':>12} {'ratio':>7}")
    with torch.no_grad():
        for name, call in calls().items():
            turns = []
            for _ in range(TURNS):
                ours = measure_latency(call, limits=Limits(seconds=0.5)).median
                timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
                theirs = timer.blocked_autorange(min_run_time=0.5).median
                turns.append((ours / theirs, ours, theirs))
            ratio, ours, theirs = (statistics.median(column) for column in zip(*turns, strict=True))
            ratios.append(ratio)
            print(f"{name:<32} {1e6 * ours:9.1f} µs {1e6 * theirs:9.1f} µs {ratio:7.3f}", flush=True)
    off = statistics.median(abs(ratio - 1) for ratio in ratios)
    print(f"median over the ten: off by {100 * off:.1f}% (target: 5%); ratios {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
