"""How far an output is from the float64 reference: ||out - reference|| / ||reference||, over a sample of the tokens."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# What rounding explains, by the dtype that was asked for; more is a wrong result. Half precision: inputs, and outputs,
# are rounded to 2^-11 and 2^-8; float32: sums over thousands of tokens and FFTs stay within some hundreds of 2^-24.
TOLERANCES = {"fp64": 1e-10, "fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}
CHECKED_PAIRS = 2**18


def checked_rows(tokens: int, *, device: str = "cpu") -> Tensor:
    """The tokens whose outputs are checked: all while N * N is small, else so many, evenly spread with both ends."""
    count = max(2, min(tokens, CHECKED_PAIRS // tokens))
    spread: Tensor = torch.linspace(0, tokens - 1, count, dtype=torch.float64).round().long().unique()
    return spread.to(device)


def relative_error(expected: Callable[[Any, Tensor, list[int]], Tensor], module: nn.Module, output: Tensor) -> float:
    """Relative error of `output` (B, ..., N, channels) against `expected(module in float64, rows, samples)`.

    Held against each other are the first and the last sample of the batch at the tokens of `checked_rows`. Output that
    is not finite has the error infinity.
    """
    picked = sorted({0, output.shape[0] - 1})
    rows = checked_rows(output.shape[-2], device=str(output.device))
    with torch.no_grad():
        want = expected(copy.deepcopy(module).double().eval(), rows, picked)
        got = output.detach()[picked].double().index_select(-2, rows)
        if not torch.isfinite(got).all():
            return float("inf")
        return float(torch.linalg.vector_norm(got - want) / torch.linalg.vector_norm(want).clamp_min(torch.finfo(torch.float64).tiny))
