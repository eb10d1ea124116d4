"""What was tried for LiSA's engines: each choice beside what it replaced or was not taken, in one run.

    python benchmarks/lisa_tried.py [--threads 2]

dim 192, heads 3, key_dim 64, 4 patterns, float32, zero boundary, batch 1; all ways of a line are timed in the same rounds, in random order.
Milliseconds are medians; the first way is what the engine does.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # run as a file, python looks beside it alone
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import torch
from torch import Tensor

from benchmarks.lisa_speed import ENGINES, HEADS, rounds, ways
from lisabench.contract import Grid
from lisabench.measure.allocator import keep_freed_memory
from lisabench.operators import _lisa_dense, _lisa_fft, _lisa_mixed
from lisabench.operators._grid_fft import correlate, table_spectra, transform, transform_shape
from lisabench.operators._relative_position import pairwise

PATTERNS, D = 4, 64
BYTES = (2**18, 2**20, 2**22, 2**24)


def drawn(grid: Grid) -> tuple[Tensor, ...]:
    """Query, key, value (1, h, N, d) and both tables."""
    tables = torch.randn(2, HEADS, PATTERNS, 2 * grid.height - 1, 2 * grid.width - 1)
    return *torch.randn(3, 1, grid.tokens, HEADS, D).transpose(2, 3), *tables


def weighting(side: int) -> dict[str, Callable[[], Any]]:
    """dense: the sums with the weights of pairs, as a small product a query, as one einsum, and pointwise."""
    grid = Grid(side, side)
    query, key, _, table, _ = drawn(grid)
    weights = pairwise(table, grid).contiguous()
    by_query = weights.transpose(1, 2).flatten(0, 1).contiguous()
    products = query @ key.transpose(-1, -2)
    return {
        "a product a query": lambda: torch.bmm(products.view(-1, 1, grid.tokens), by_query.transpose(1, 2)),
        "one einsum": lambda: torch.einsum("bhij,hrij->bhri", products, weights),
        "pointwise": lambda: (products.unsqueeze(2) * weights).sum(-1),
    }


def tiles(side: int) -> dict[str, Callable[[], Any]]:
    """dense: tiles of the rows that its budget gives, of one row, and all rows at once, which is the weights of all pairs; made anew each time."""
    grid = Grid(side, side)
    query, key, value, *tables = drawn(grid)

    def call(budget: int) -> Callable[[], Any]:
        def run() -> Tensor:
            before = _lisa_dense.WEIGHT_BYTES["cpu"], _lisa_dense.WEIGHT_BYTES["threads"]
            _lisa_dense.WEIGHT_BYTES["cpu"] = _lisa_dense.WEIGHT_BYTES["threads"] = (budget, budget)
            kernel, context = (_lisa_dense.tile_windows(table, grid, "zero") for table in tables)
            _lisa_dense.WEIGHT_BYTES["cpu"], _lisa_dense.WEIGHT_BYTES["threads"] = before
            return _lisa_dense.DENSE.run(query, key, value, kernel, context, grid, "zero")

        return run

    own = _lisa_dense.WEIGHT_BYTES["cpu" if torch.get_num_threads() == 1 else "threads"][0]
    return {"as it is": call(own), "one row": call(1), "all rows": call(2**40)}


def layout(side: int) -> dict[str, Callable[[], Any]]:
    """fft: a channel a plane and transforms along the last axis, and the channels innermost, as the tokens lie."""
    grid = Grid(side, side)
    query, key, value, *tables = drawn(grid)
    shape = transform_shape(grid)
    upright = tuple(_lisa_fft.upright_spectra(table, grid, "zero") for table in tables)
    innermost = tuple(table_spectra(table, grid) for table in tables)

    def with_channels_innermost() -> Tensor:
        outs = []
        for head in range(HEADS):  # a head at a time: both hold few spectra
            q, k, v = (t[:, head].unflatten(1, grid) for t in (query, key, value))
            spectrum, out = transform(k, shape), torch.zeros_like(v)
            seen = [(q * correlate(spectrum, innermost[0][head, r], grid, shape)).sum(-1, keepdim=True) for r in range(PATTERNS)]
            spectrum = transform(v, shape)
            for r in range(PATTERNS):
                out = torch.addcmul(out, seen[r], correlate(spectrum, innermost[1][head, r], grid, shape))
            outs.append(out.flatten(1, 2))
        return torch.stack(outs, dim=1)

    return {
        "a channel a plane": lambda: _lisa_fft.FFT.run(query, key, value, *upright, grid, "zero"),
        "channels innermost": with_channels_innermost,
    }


def budgets(module: Any, name: str, engine: str, side: int, *, train: bool) -> dict[str, Callable[[], Any]]:
    """An engine by how many bytes it works on at a time, its own number first."""
    calls, table = ways(Grid(side, side), 1, train=train), getattr(module, name)
    key = "cpu" if torch.get_num_threads() == 1 else "threads"
    own = table[key]

    def call(number: int) -> Callable[[], Any]:
        def run() -> Any:
            table[key] = number
            try:
                return calls[engine]()
            finally:
                table[key] = own

        return run

    return {f"{number / 2**20:g} MiB": call(number) for number in dict.fromkeys((own, *BYTES))}


def show(what: str, calls: dict[str, Callable[[], Any]]) -> None:
    with torch.set_grad_enabled("training" in what):
        times = {name: 1e3 * statistics.median(of) for name, of in rounds(calls).items()}
    print(f"{what:42}" + "   ".join(f"{name} {milliseconds:.3g}" for name, milliseconds in times.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    random.seed(0)
    keep_freed_memory()
    print(f"threads {asked.threads}; milliseconds")
    for side in (14, 20):
        show(f"dense, s from q k^T, {side} x {side}", weighting(side))
    for side in (14, 20, 32):
        show(f"dense, forward, new tables, {side} x {side}", tiles(side))
    for side in (32, 64, 128):
        show(f"fft, forward, {side} x {side}", layout(side))
    for side in (32, 64, 128):
        show(f"fft, forward, spectra at a time, {side} x {side}", budgets(_lisa_fft, "CHUNK_BYTES", "fft", side, train=False))
    for side in (32, 64):
        for train in (False, True):
            what = f"mixed, {'training' if train else 'forward'}, matrices at a time, {side} x {side}"
            show(what, budgets(_lisa_mixed, "MATRIX_BYTES", "mixed", side, train=train))
    for side in (14, 32, 64):
        calls = ways(Grid(side, side), 1, train=True)
        show(f"engines, training, {side} x {side}", {name: calls[name] for name in ENGINES if name in calls})


if __name__ == "__main__":
    main()
