"""LiSA's engine `dense`: every pair of tokens, as softmax attention has them, a tile of queries at a time; N^2 operations, the fastest for few tokens.

A tile is T rows of the grid. Its products with all keys are two matrix products, q k^T before and kappa v after. Between them, each query needs the
weights of its offsets: s sums its products with the weights P, and s with the weights G makes kappa, in both a small product a query.
Weights of pairs (R, N, N) are never written out, for they repeat: two queries one above the other have the same, a row of the grid further. So the
weights of one tile, with rows for the offsets of all tiles, are enough; each tile reads a window of them. They are (h, T, W, R, (2H-T) W), small
enough for the caches when T is 1, and with T = H just the weights of pairs, which spares a small grid the loop.

The longer side is the one that tiles divide: the tokens of a grid that is wider than high are transposed first.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from lisabench.contract import Cost, Grid, Workload, projection_flops
from lisabench.operators._lisa_engine import Engine, budget
from lisabench.operators._relative_position import wrapped

# Bytes of a table's weights, where they are made for one call and where they are kept for many; a GPU's launches cost more than its memory.
WEIGHT_BYTES = {"cpu": (2**20, 2**21), "threads": (2**22, 2**22), "gpu": (2**26, 2**26)}


def tile_windows(table: Tensor, grid: Grid, boundary: str, *, kept: bool = False) -> Tensor:
    """Of tables (h, R, ...) the weights of a tile: (h, T, W, R, (2H-T) W), W the shorter side; entry [h, t, x, r, m W + x'] is the weight at
    offset (m - (H - T) - t, x' - x)."""
    if grid.width > grid.height:
        table, grid = table.transpose(-1, -2), Grid(grid.width, grid.height)
    height, width = grid
    if boundary == "periodic":
        for axis in (-2, -1):
            table = torch.cat((table.narrow(axis, 1, table.shape[axis] - 1), table), axis)
    heads, patterns = table.shape[:2]
    rows = rows_of_a_tile(grid, heads, patterns, table.element_size(), table.device.type, kept=kept)
    if torch.compiler.is_compiling():  # the backward of unfold that torch 2.13 compiles for CPUs writes out of bounds
        place = torch.arange(2 * height - rows, device=table.device) + torch.arange(rows - 1, -1, -1, device=table.device)[:, None]
        column = torch.arange(width, device=table.device) + torch.arange(width - 1, -1, -1, device=table.device)[:, None]
        of_pairs = table[:, :, place[:, None, :, None], column[None, :, None, :]]  # (h, R, T, W, 2H-T, W)
        return of_pairs.movedim(1, 3).flatten(-2)
    bands = table.unfold(-2, 2 * height - rows, 1).flip(2).unfold(3, width, 1)  # (h, R, T, W - 1 - x, 2H-T, W)
    turned = torch.arange(width - 1, -1, -1, device=table.device)
    return bands.movedim(1, 3).index_select(2, turned).flatten(-2)


def _table_of(of_windows: Tensor, grid: Grid, boundary: str) -> Tensor:
    """The transpose of `tile_windows`."""
    height, width = max(grid), min(grid)
    of_pairs = of_windows.unflatten(-1, (-1, width)).movedim(3, 1)  # (h, R, T, W, 2H-T, W)
    table = _overlaid(_overlaid(of_pairs, 3, 5), 2, 3)  # (h, R, 2H-1, 2W-1)
    if boundary == "periodic":
        table = wrapped(wrapped(table, height, -2), width, -1)
    return table.transpose(-1, -2) if grid.width > grid.height else table


def _overlaid(windows: Tensor, number: int, size: int) -> Tensor:
    """The transpose of windows along an axis, their number reversed: of each place the sum over those that hold it."""
    parts, places = windows.unbind(number), windows.shape[size] - 1 + windows.shape[number]
    shape = list(parts[0].shape)
    shape[size - 1] = places
    table = windows.new_zeros(shape)
    for first, part in enumerate(reversed(parts)):
        table.narrow(size - 1, first, part.shape[size - 1]).add_(part)
    return table


def rows_of_a_tile(grid: Grid, heads: int, patterns: int, item_bytes: int, device_type: str, *, kept: bool) -> int:
    """The most rows that divide the longer side and whose weights WEIGHT_BYTES hold; compiled, all of them: a loop would be unrolled."""
    height, width = max(grid), min(grid)
    if torch.compiler.is_compiling():
        return height
    most = budget(WEIGHT_BYTES, device_type)[kept]
    a_row = heads * width**2 * patterns * item_bytes
    return max((rows for rows in range(1, height + 1) if height % rows == 0 and rows * (2 * height - rows) * a_row <= most), default=1)


def _seen(query: Tensor, key: Tensor, windows: Tensor, grid: Grid, boundary: str) -> Tensor:
    query, key = (_upright(t, grid) for t in (query, key))
    parts = [_seen_of(_products(query[:, :, tile], key), window, windows) for tile, window in _tiles(windows, grid)]
    return _back(torch.cat(parts, 2), grid).transpose(-1, -2)


def _painted(seen: Tensor, value: Tensor, windows: Tensor, grid: Grid, boundary: str) -> Tensor:
    weights, value = (_upright(t, grid) for t in (seen.transpose(-1, -2), value))
    parts = [_times(torch.bmm(_by_query(weights[:, :, tile]), window), value) for tile, window in _tiles(windows, grid)]
    return _back(torch.cat(parts, 2), grid)


def _gradients(
    seen: Tensor, x: Tensor, value: Tensor, windows: Tensor, grid: Grid, boundary: str, painted: bool
) -> tuple[Tensor, Tensor, Tensor]:
    weights, x, value = (_upright(t, grid) for t in (seen.transpose(-1, -2), x, value))
    parts, of_value, of_windows = [], torch.zeros_like(value), torch.zeros_like(windows)
    for (tile, window), (_, of_window) in zip(_tiles(windows, grid), _tiles(of_windows, grid), strict=True):
        of_tile, s = x[:, :, tile], _by_query(weights[:, :, tile])
        kernel, products = torch.bmm(s, window), _products(of_tile, value)
        parts.append(_seen_of(products, window, windows) if painted else _times(kernel, value))
        for of_sample, part, queries in zip(of_value, _by_sample(kernel, value), of_tile, strict=True):
            torch.baddbmm(of_sample, part.transpose(1, 2), queries, out=of_sample)
        of_window += torch.bmm(s.transpose(1, 2), products)  # baddbmm into a window goes matrix by matrix
    first = _back(torch.cat(parts, 2), grid)
    return first.transpose(-1, -2) if painted else first, _back(of_value, grid), _table_of(of_windows, grid, boundary)


DENSE = Engine(tile_windows, _seen, _painted, _gradients, kept=partial(tile_windows, kept=True))


def _tiles(windows: Tensor, grid: Grid) -> Iterator[tuple[slice, Tensor]]:
    """Of each tile its tokens, and what it reads of the windows: (h T W, R, N)."""
    height, width = max(grid), min(grid)
    rows, of_queries = windows.shape[1], windows.flatten(0, 2)
    for row in range(0, height, rows):
        first = (height - rows - row) * width
        yield slice(row * width, (row + rows) * width), of_queries[..., first : first + height * width]


def _products(queries: Tensor, keys: Tensor) -> Tensor:
    """(B, h, T W, d) with all (B, h, N, d) -> (h T W, B, N)."""
    return _by_query(torch.bmm(queries.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2)).unflatten(0, keys.shape[:2]))


def _seen_of(products: Tensor, window: Tensor, windows: Tensor) -> Tensor:
    """(h T W, B, N) with (h T W, R, N) -> (B, h, T W, R)."""
    return torch.bmm(products, window.transpose(1, 2)).unflatten(0, (len(windows), -1)).permute(2, 0, 1, 3)


def _by_query(x: Tensor) -> Tensor:
    """(B, h, T W, n) -> (h T W, B, n), as a product for each query takes it."""
    return x.flatten(1, 2).transpose(0, 1)


def _times(kernel: Tensor, value: Tensor) -> Tensor:
    """(h T W, B, N) with (B, h, N, d) -> (B, h, T W, d), without a copy of the kernel."""
    return torch.stack([torch.bmm(part, of_sample) for part, of_sample in zip(_by_sample(kernel, value), value, strict=True)])


def _by_sample(kernel: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    """(h T W, B, N) -> B of (h, T W, N)."""
    return kernel.unflatten(0, (value.shape[1], -1)).unbind(2)


def _upright(x: Tensor, grid: Grid) -> Tensor:
    """(B, h, N, d) with its tokens row by row along the longer side."""
    return x.unflatten(2, grid).transpose(2, 3).flatten(2, 3) if grid.width > grid.height else x


def _back(x: Tensor, grid: Grid) -> Tensor:
    return x.unflatten(2, (grid.width, grid.height)).transpose(2, 3).flatten(2, 3) if grid.width > grid.height else x


def dense_cost(workload: Workload, patterns: int, d_k: int, boundary: str, traffic: float) -> Cost:
    """Two products of size N x N a channel of key and value, two a pattern; in the backward those that gradients need again, and theirs."""
    item, d_v, tokens = max(4, workload.item_bytes), workload.head_dim, workload.tokens
    planes, square = workload.batch * workload.heads, workload.batch * workload.heads * workload.tokens**2
    height, width = max(workload.grid), min(workload.grid)
    rows = rows_of_a_tile(workload.grid, workload.heads, patterns, item, workload.device.partition(":")[0], kept=workload.mode != "train")
    weights = 2 * workload.heads * rows * width**2 * patterns * (2 * height - rows)
    return Cost(
        mix_flops=square * (2.0 * (d_k + d_v) + 4 * patterns),
        mix_backward_flops=square * (6.0 * d_k + 4.0 * d_v + 10 * patterns),
        projection_flops=projection_flops(workload, d_k),
        transient_bytes=(weights + 2.0 * planes * rows * width * tokens + planes * tokens * (2 * d_v + patterns)) * item,
        saved_bytes=planes * tokens * patterns * item,
        traffic_bytes=traffic,
    )
