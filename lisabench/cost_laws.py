"""Laws of what an operator costs: its formula is what counters count, and both grow as it says. See `laws` for what a law is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lisabench.contract import Grid, Growth, Operator, Workload, growth
from lisabench.law import LawBrokenError, NotApplicableError, prepared_by
from lisabench.measure.flops import AGREE_WITHIN, count_fvcore, count_torch
from lisabench.measure.memory import trace_call

DIM, HEADS = 24, 2
# FLOPs are a formula, and are asked where constants and borders no longer tell: 65,536 tokens and 16,777,216. Over these, N log N
# grows as N^1.07; products that grow as N beside its transforms take it to N^1.04 and no further.
FLOPS_SIDES, FLOPS_WITHIN = (2**8, 2**12), 0.03
# Memory is measured at doubled tokens: the step between two sizes over the step before is 2^p for m0 + c N^p, whatever stands in m0,
# such as the workspace of a kernel.
MEMORY_GRIDS, MEMORY_WITHIN = (Grid(32, 32), Grid(32, 64), Grid(64, 64)), 0.25


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
        x = torch.randn(workload.batch, workload.tokens, DIM).to(workload.device)
        prepared = (x,) if function is module else prepared_by(module, x)
        function(*prepared)  # an evaluation keeps what its first call makes
    return module, function, tuple(t.detach() for t in prepared)


def flops_grow_as_stated(operator: Operator, options: Mapping[str, Any], grid: Grid, *, device: str = "cpu") -> str:
    """The exponent of the analytic FLOPs of mix over the tokens is that of the stated order."""
    stated = _stated(operator, options, operator.time_order)
    if operator.cost is None:
        raise NotApplicableError("states no cost")
    flops = [operator.cost(_workload(operator, options, Grid(side, side), device), **options).mix_flops for side in FLOPS_SIDES]
    low, high = (side**2 for side in FLOPS_SIDES)
    found = 0.0 if flops[0] == flops[1] else math.log(flops[1] / flops[0]) / math.log(high / low)
    return _agree("FLOPs", found, _exponent(stated, low, high), stated, FLOPS_WITHIN)


def memory_grows_as_stated(operator: Operator, options: Mapping[str, Any], grid: Grid, *, device: str = "cpu") -> str:
    """The exponent of the transient memory that a forward of mix is measured to take is that of the stated order."""
    stated = _stated(operator, options, operator.memory_order)
    taken: list[float] = []
    for fine in MEMORY_GRIDS:
        workload = _workload(operator, options, fine, device)
        _, function, prepared = _built(operator, options, workload)
        with torch.no_grad():
            taken.append(trace_call(partial(function, *prepared), device=device).transient_bytes)
    first, second = taken[1] - taken[0], taken[2] - taken[1]
    if (first > 0) is not (second > 0):
        raise LawBrokenError(f"memory went from {taken[0]:,.0f} to {taken[1]:,.0f} and {taken[2]:,.0f} bytes while tokens doubled")
    found = math.log2(second / first) if first > 0 else 0.0
    wanted = 0 if stated.power == 0 else _exponent(stated, MEMORY_GRIDS[1].tokens, MEMORY_GRIDS[2].tokens)
    return _agree("memory", found, wanted, stated, MEMORY_WITHIN)


def _stated(operator: Operator, options: Mapping[str, Any], order: str) -> Growth:
    """What an order says of the growth with N; an option, such as another engine, may change it."""
    if dict(options) != operator.resolve({}):
        raise NotApplicableError("orders are stated for the default options")
    stated = growth(order)
    if stated is None:
        raise NotApplicableError("states no order")
    return stated


def _workload(operator: Operator, options: Mapping[str, Any], grid: Grid, device: str, *, mode: str = "forward") -> Workload:
    workload = Workload(grid=grid, dim=DIM, heads=HEADS, mode=mode, device=device)
    refusal = operator.refuses(workload, **options)
    if refusal:
        raise NotApplicableError(f"refused: {refusal}")
    return workload


def _exponent(order: Growth, low: int, high: int) -> float:
    """The exponent that the order has between two counts of tokens."""
    return order.power + (math.log(math.log(high) / math.log(low)) / math.log(high / low) if order.log else 0)


def _agree(what: str, found: float, wanted: float, stated: Growth, within: float) -> str:
    if not abs(found - wanted) <= within:
        raise LawBrokenError(f"{what} grow as N^{found:.2f}; {stated} would be N^{wanted:.2f}")
    return f"N^{found:.2f}, stated {stated}"
