"""Laws of what an operator costs: its formula is what counters count, and both grow as it says. See `laws` for what a law is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lisabench.contract import Grid, Growth, Operator, Workload, growth
from lisabench.law import LawBrokenError, NotApplicableError, prepared_by
from lisabench.measure.flops import AGREE_WITHIN, count_fvcore, count_torch
from lisabench.measure.memory import trace_call

DIM, HEADS = 24, 2
# FLOPs are a formula, and are asked at sizes where borders and constants no longer tell.
FLOPS_SIDES, FLOPS_WITHIN = (2**10, 2**12, 2**14), 0.01
# Memory is measured at three sizes: m0 + c N^p is solved for p, whatever stands in m0, such as the workspace of a kernel. Squares,
# for the number of landmarks depends on the aspect; multiples of 14, so that neither windows of 7 nor patches of 2 pad them; and
# large enough that the blocks of the CPU's flash kernel, whose workspace grows up to 512 keys, are full also with a quarter of the
# keys. One head of few channels: what is done head by head, or a few channels at a time, to bound memory has one size then.
MEMORY_GRIDS, MEMORY_DIM, MEMORY_HEADS, MEMORY_WITHIN = (Grid(56, 56), Grid(70, 70), Grid(84, 84)), 8, 1, 0.25


def flops_are_counted(operator: Operator, options: Mapping[str, Any], grid: Grid, *, device: str = "cpu") -> str:
    """The analytic FLOPs of mix, forward and with backward, are those that torch's counter sees, and forward those of fvcore."""
    if operator.cost is None:
        raise NotApplicableError("states no cost")
    for mode in ("forward", "train"):
        workload = _workload(operator, options, grid, device, mode=mode)
        stated = operator.cost(workload, **options)
        for counter, flops in _counted(operator, options, workload).items():
            analytic = stated.flops("mixing" if hasattr(operator.module, "mix") else "layer", mode)
            if abs(flops - analytic) > AGREE_WITHIN * analytic:
                raise LawBrokenError(f"{mode}: the formula gives {analytic:.4g} FLOPs, {counter} counts {flops:.4g}")
    return "forward by torch and fvcore, backward by torch"


def _counted(operator: Operator, options: Mapping[str, Any], workload: Workload) -> dict[str, float]:
    trains = workload.mode == "train"
    module, function, prepared = _built(operator, options, workload)
    with torch.set_grad_enabled(trains):
        if not trains:
            by_torch, _ = count_torch(lambda: function(*prepared))
            return {"torch": by_torch, "fvcore": count_fvcore(module, function, prepared)}
        leaves = tuple(t.requires_grad_(t.is_floating_point()) for t in prepared)
        return {"torch": count_torch(lambda: function(*leaves).sum().backward())[0]}


def _built(operator: Operator, options: Mapping[str, Any], workload: Workload) -> tuple[Any, Callable[..., Any], tuple[Tensor, ...]]:
    """The module, its mix (itself where it has none), and what that is given."""
    torch.manual_seed(0)
    module: Any = operator.build(workload, options).to(workload.device).train(workload.mode == "train")
    function = getattr(module, "mix", module)
    with torch.no_grad():
        x = torch.randn(workload.batch, workload.tokens, workload.dim).to(workload.device)
        prepared = (x,) if function is module else prepared_by(module, x)
        function(*prepared)  # an evaluation keeps what its first call makes
    return module, function, tuple(t.detach() for t in prepared)


def flops_grow_as_stated(operator: Operator, options: Mapping[str, Any], grid: Grid, *, device: str = "cpu") -> str:
    """The exponent of the analytic FLOPs of mix over the tokens is that of the stated order."""
    stated = _stated(operator, options, operator.time_order)
    if operator.cost is None:
        raise NotApplicableError("states no cost")
    flops = [operator.cost(_workload(operator, options, Grid(side, side), device), **options).mix_flops for side in FLOPS_SIDES]
    if not any(flops):
        raise NotApplicableError("has no FLOPs as they are counted here")
    found = math.log(flops[2] / flops[1]) / math.log(FLOPS_SIDES[2] / FLOPS_SIDES[1]) / 2
    # Over N^p the FLOPs are a line in log N, whatever is smaller beside it: level where the order has no logarithm, rising where it has.
    over_power = [count / side ** (2 * stated.power) for count, side in zip(flops, FLOPS_SIDES, strict=True)]
    first, second = ((after - before) / over_power[2] for before, after in pairwise(over_power))
    holds = second > FLOPS_WITHIN and abs(second - first) <= FLOPS_WITHIN if stated.log else abs(second) <= FLOPS_WITHIN
    if not holds:
        raise LawBrokenError(f"FLOPs grow as N^{found:.2f} up to {FLOPS_SIDES[2] ** 2:,} tokens, and not as {stated}")
    return f"N^{found:.2f}, stated {stated}"


def memory_grows_as_stated(operator: Operator, options: Mapping[str, Any], grid: Grid, *, device: str = "cpu") -> str:
    """The exponent of the transient memory that a forward of mix is measured to take is that of the stated order."""
    stated = _stated(operator, options, operator.memory_order)
    # Of engines that are chosen by shape that of the largest: no law joins what two of them take.
    options = operator.settled(_workload(operator, options, MEMORY_GRIDS[-1], device, dim=MEMORY_DIM, heads=MEMORY_HEADS), **options)
    taken: list[float] = []
    for fine in MEMORY_GRIDS:
        workload = _workload(operator, options, fine, device, dim=MEMORY_DIM, heads=MEMORY_HEADS)
        _, function, prepared = _built(operator, options, workload)
        with torch.no_grad():
            taken.append(trace_call(partial(function, *prepared), device=device).transient_bytes)
    first, second = taken[1] - taken[0], taken[2] - taken[1]
    if (first > 0) is not (second > 0):
        raise LawBrokenError(f"memory went from {taken[0]:,.0f} to {taken[1]:,.0f} and {taken[2]:,.0f} bytes as tokens grew")
    found = _power(second / first) if first > 0 else 0.0
    if not abs(found - stated.power) <= MEMORY_WITHIN:
        raise LawBrokenError(
            f"memory grows as N^{found:.2f} from {MEMORY_GRIDS[0].tokens:,} to {MEMORY_GRIDS[2].tokens:,} tokens, and not as {stated}"
        )
    return f"N^{found:.2f}, stated {stated}"


def _power(ratio: float) -> float:
    """The p at which N^p steps from the second of MEMORY_GRIDS to the third so many times as far as from the first to the second."""
    few, more, most = (grid.tokens for grid in MEMORY_GRIDS)
    low, high = 1e-3, 8.0
    for _ in range(50):
        p = (low + high) / 2
        low, high = (p, high) if most**p - more**p < ratio * (more**p - few**p) else (low, p)
    return low


def _stated(operator: Operator, options: Mapping[str, Any], order: str) -> Growth:
    """What an order says of the growth with N; an option, such as another engine, may change it."""
    if dict(options) != operator.resolve({}):
        raise NotApplicableError("orders are stated for the default options")
    stated = growth(order)
    if stated is None:
        raise NotApplicableError("states no order")
    return stated


def _workload(
    operator: Operator, options: Mapping[str, Any], grid: Grid, device: str, *, dim: int = DIM, heads: int = HEADS, mode: str = "forward"
) -> Workload:
    workload = Workload(grid=grid, dim=dim, heads=heads, mode=mode, device=device)
    refusal = operator.refuses(workload, **options)
    if refusal:
        raise NotApplicableError(f"refused: {refusal}")
    return workload
