"""LiSA's engines side by side with softmax attention and with the ways in which a reader of its definition would write it.

    python benchmarks/lisa_speed.py                           one thread, forward, batch 1: some minutes
    python benchmarks/lisa_speed.py --mode forward,train --batch 1,8 --threads 2
    python benchmarks/lisa_speed.py --grids 14,64,16x128
    python benchmarks/lisa_speed.py --keep-memory             without the page faults of large tensors, which the plain way has the most of

The workload is dim 192, heads 3, key_dim 64, 4 patterns, float32, zero boundary, exact. All ways of one size are timed in the same rounds, in
random order; times are medians, ratios medians of those within rounds with 95% intervals. `share` is what the measured peaks allow for the
products and bytes of the engine that auto takes, over its time; `memory` what it holds beside inputs and output at the most.

- sdpa: softmax attention, torch's fastest kernel.
- plain: the definition with torch.fft, all patterns at once, the spectra of the tables at hand.
- einsum: the definition with N x N weights, these at hand.
- mixed, fft, dense, auto: `engine=` of the module; in evaluation it keeps the spectra of its tables.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import torch
from torch import Tensor
from torch.nn import functional as F

from lisabench.analysis.statistics import median_interval
from lisabench.contract import Grid, Workload
from lisabench.measure.allocator import keep_freed_memory
from lisabench.measure.memory import trace_call
from lisabench.measure.peaks import measure_peaks
from lisabench.operators._relative_position import pairwise
from lisabench.registry import load

DIM, HEADS = 192, 3
GRIDS = "14,16,28,32,48,64,96,128,16x64,32x128"
ENGINES = ("mixed", "fft", "dense", "auto")
ROUNDS, SECONDS = 7, 0.12  # a round of one way; at least one call
DENSE_UP_TO, EINSUM_UP_TO = 4096, 1152  # tokens
RIVALS = ("plain", "sdpa")

Call = Callable[[], Any]


def plain(query: Tensor, key: Tensor, value: Tensor, spectra: tuple[Tensor, Tensor], grid: Grid) -> Tensor:
    """(B, h, N, d): both correlations as circular ones of twice the sides."""
    size = 2 * grid.height, 2 * grid.width

    def correlated(x: Tensor, table: Tensor) -> Tensor:  # (B, h, R, H, W, d)
        planes = torch.fft.rfft2(x.unflatten(2, grid), s=size, dim=(2, 3)).unsqueeze(2)
        return torch.fft.irfft2(planes * table.unsqueeze(-1), s=size, dim=(3, 4))[:, :, :, : grid.height, : grid.width]

    seen = (query.unflatten(2, grid).unsqueeze(2) * correlated(key, spectra[0])).sum(-1, keepdim=True)
    return (seen * correlated(value, spectra[1])).sum(2).flatten(2, 3)


def plain_spectra(table: Tensor, grid: Grid) -> Tensor:
    """Offset D at index -D modulo twice the sides."""
    padded = F.pad(table.flip((-2, -1)), (0, 1, 0, 1)).roll((1 - grid.height, 1 - grid.width), dims=(-2, -1))
    return torch.fft.rfft2(padded)


def einsum(query: Tensor, key: Tensor, value: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
    """(B, h, N, d) from weights (h, R, N, N)."""
    seen = torch.einsum("bhid,bhjd,hrij->bhir", query, key, weights[0])
    return torch.einsum("bhir,hrij,bhjd->bhid", seen, weights[1], value)


def ways(grid: Grid, batch: int, *, train: bool) -> dict[str, Call]:
    """A call each; in training the gradients of tokens and tables are part of it."""
    workload = Workload(grid=grid, batch=batch, dim=DIM, heads=HEADS, mode="train" if train else "forward")
    calls: dict[str, Call] = {}
    torch.manual_seed(0)
    modules = {engine: load("lisa").build(workload, {"engine": engine}).train(train) for engine in ENGINES}
    first = modules["auto"]
    with torch.no_grad():
        tokens = tuple(part.clone() for part in first.prepare(torch.randn(batch, grid.tokens, DIM)))
    for engine, module in modules.items():
        if engine == "dense" and grid.tokens > DENSE_UP_TO:
            continue
        module.load_state_dict(first.state_dict())
        tables = module.kernel_patterns, module.context_patterns
        calls[engine] = _call(lambda *given, module=module: module.mix(*given), tokens, tables if train else (), train=train)
    calls["sdpa"] = _call(F.scaled_dot_product_attention, tokens, (), train=train)
    if not train:
        spectra = tuple(plain_spectra(table.detach(), grid) for table in tables)
        calls["plain"] = _call(lambda *given: plain(*given, spectra, grid), tokens, (), train=False)
        if grid.tokens <= EINSUM_UP_TO:
            weights = tuple(pairwise(table.detach(), grid).contiguous() for table in tables)
            calls["einsum"] = _call(lambda *given: einsum(*given, weights), tokens, (), train=False)
        return calls
    calls["plain"] = _call(
        lambda *given: plain(*given, tuple(plain_spectra(table, grid) for table in tables), grid), tokens, tables, train=True
    )
    return calls


def _call(run: Callable[..., Tensor], tokens: tuple[Tensor, ...], tables: tuple[Tensor, ...], *, train: bool) -> Call:
    if not train:
        return torch.no_grad()(lambda: run(*tokens))
    given = tuple(part.clone().requires_grad_() for part in tokens)
    return lambda: torch.autograd.grad(run(*given).sum(), (*given, *tables))


def rounds(calls: dict[str, Call]) -> dict[str, list[float]]:
    """Seconds a call of each way in each round."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(ROUNDS):
        for name in random.sample(list(calls), len(calls)):
            times: list[float] = []
            while not times or sum(times) < SECONDS:
                started = time.perf_counter()
                calls[name]()
                times.append(time.perf_counter() - started)
            found[name].append(statistics.median(times))
    return found


def ratio(times: dict[str, list[float]], name: str, to: str) -> str:
    """'2.51 (2.40 to 2.66)': how many times as long `name` takes as `to`."""
    ratios = [one / other for one, other in zip(times[name], times[to], strict=True)]
    low, high = median_interval(ratios)
    return f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})"


def agree(calls: dict[str, Call]) -> None:
    """All ways but softmax give the same values."""
    exact = calls["fft"]()
    for name in calls.keys() - {"sdpa"}:
        torch.testing.assert_close(calls[name](), exact, rtol=1e-3, atol=1e-3 * float(exact.abs().max()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grids", default=GRIDS)
    parser.add_argument("--batch", default="1")
    parser.add_argument("--mode", default="forward")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--keep-memory", action="store_true", help="no page faults: memory stays with the process, as in lisabench's workers"
    )
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.keep_memory:
        keep_freed_memory()
    random.seed(0)
    lisa = load("lisa")
    peaks = measure_peaks("cpu")
    flops_per_s, bytes_per_s = peaks["flops_per_s_fp32"], peaks["bytes_per_s"]
    print(
        f"threads {asked.threads}, memory {'kept' if asked.keep_memory else 'as usual'}; peaks {flops_per_s / 1e9:.0f} GFLOP/s, {bytes_per_s / 1e9:.1f} GB/s; milliseconds, then ratios"
    )
    names = (*ENGINES, "sdpa", "plain", "einsum")
    print(f"{'mode':8}{'batch':>5} {'grid':>7}" + "".join(f"{name:>9}" for name in names) + "".join(f"{name + ' / auto':>24}" for name in RIVALS)
          + f"{'auto / best':>13}{'share':>7}{'memory':>12}")  # fmt: skip
    for mode in asked.mode.split(","):
        for batch in map(int, asked.batch.split(",")):
            for text in asked.grids.split(","):
                sides = [int(side) for side in text.split("x")]
                grid = Grid(sides[0], sides[-1])
                calls = ways(grid, batch, train=mode == "train")
                if mode == "forward":
                    agree(calls)
                times = rounds(calls)
                medians = {name: statistics.median(of) for name, of in times.items()}
                best = min((name for name in ENGINES[:-1] if name in times), key=lambda name: medians[name])
                cost = lisa.cost(Workload(grid=grid, batch=batch, dim=DIM, heads=HEADS, mode=mode), **lisa.resolve({}))
                least = max(cost.flops("mixing", mode) / flops_per_s, cost.traffic_bytes / bytes_per_s)
                row = f"{mode:8}{batch:5} {text:>7}" + "".join(
                    f"{1e3 * medians[name]:9.2f}" if name in medians else f"{'':9}" for name in names
                )
                row += "".join(f"{ratio(times, name, 'auto'):>24}" for name in RIVALS)
                held = trace_call(calls["auto"]).transient_bytes / 2**20
                print(f"{row}{medians['auto'] / medians[best]:13.2f}{least / medians['auto']:7.0%}{held:8.1f} MiB", flush=True)


if __name__ == "__main__":
    main()
