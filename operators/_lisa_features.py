"""What LiSA's engines do at a shape, in numbers that their times are sums of (`_lisa_choice.py`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from lisabench.contract import Grid, fft_flops
from lisabench.operators._grid_fft import spectrum_bytes, transform_flops, transform_shape
from lisabench.operators._lisa_dense import rows_of_a_tile
from lisabench.operators._lisa_fft import chunk_of
from lisabench.operators._lisa_mixed import matrix_bytes_at_once, samples_at_a_time

MOST_MATRIX_BYTES = 2**30  # matrices beyond this are not made, however fast they would be
CACHED_BYTES = 2**20  # what a core's cache holds of a tile's kernel, or of its weights; beyond, a byte costs more


class Shape(NamedTuple):
    """What the time of a call depends on. `item_bytes`: of the dtype that is computed in."""

    grid: Grid
    boundary: str
    batch: int
    heads: int
    patterns: int
    key_dim: int
    value_dim: int
    item_bytes: int

    @property
    def planes(self) -> int:
        return self.batch * self.heads

    @property
    def channels(self) -> int:
        return self.key_dim + self.value_dim


def features(engine: str, shape: Shape, mode: str, device: str) -> dict[str, float]:
    """What an engine does at this shape, by name: counts, FLOPs and bytes of a forward, of which a backward has multiples.

    What it makes of the tables is named table_...: 0 where that is kept. An engine that is not known here gets calls, bytes, and FLOPs that
    grow as N log N and N^2.
    """
    kept = mode == "kept"
    counted = FEATURES.get(engine, _of_any)(shape, device, kept)
    return {name: 0.0 if kept and name.startswith("table") else float(amount) for name, amount in counted.items()}


def matrix_bytes(engine: str, shape: Shape, device: str) -> float:
    """Bytes of the matrices that an engine holds whole: tiles of `dense` and their weights, waves of `mixed`, whose angles are in float64."""
    if engine == "dense":
        tile = _tile(shape, device, kept=False)
        return 2.0 * tile.kernel_bytes + 3.0 * tile.weight_bytes
    return (4.0 * shape.item_bytes + 4 * 8) * max(shape.grid) ** 2 if engine == "mixed" else 0.0


class _Tile(NamedTuple):
    """What `dense` makes at once: how many times, the N x N kernel's part, and the weights of one table."""

    number: int
    kernel_bytes: int
    weight_bytes: int


def _tile(shape: Shape, device: str, *, kept: bool) -> _Tile:
    height, width = max(shape.grid), min(shape.grid)
    rows = rows_of_a_tile(shape.grid, shape.heads, shape.patterns, shape.item_bytes, device, kept=kept)
    weights = shape.heads * rows * width**2 * shape.patterns * (2 * height - rows)
    return _Tile(height // rows, shape.planes * rows * width * shape.grid.tokens * shape.item_bytes, weights * shape.item_bytes)


def _of_dense(shape: Shape, device: str, kept: bool) -> dict[str, float]:
    square, tile = shape.grid.tokens**2, _tile(shape, device, kept=kept)
    read = shape.heads * shape.patterns * square * shape.item_bytes
    return {
        "calls": 1.0,
        "tiles": tile.number,
        "samples": tile.number * shape.batch,
        "queries": shape.heads * shape.grid.tokens,
        "flops": 2 * shape.planes * square * shape.channels,
        "weighting_flops": 2 * shape.planes * square * shape.patterns,
        "kernel_bytes": shape.planes * square * shape.item_bytes,
        "far_kernel_bytes": tile.number * max(0, tile.kernel_bytes - CACHED_BYTES),
        "weight_bytes": read,
        "far_weight_bytes": read * max(0.0, 1 - CACHED_BYTES / tile.weight_bytes),
        "table_bytes": tile.weight_bytes,
    }


def _of_mixed(shape: Shape, device: str, kept: bool) -> dict[str, float]:
    grid, item, patterns = shape.grid, shape.item_bytes, shape.patterns
    long, short = max(grid), min(grid)
    length = long if shape.boundary == "periodic" else 2 * long - 1
    frequencies = length // 2 + 1
    samples = samples_at_a_time(grid, patterns, max(shape.key_dim, shape.value_dim), item, device)
    parts = shape.heads * math.ceil(shape.batch / samples)
    matrices = 4 * patterns * short**2 * item  # of one frequency
    columns = shape.planes * shape.channels
    return {
        "calls": 1.0,
        "parts": parts,
        "blocks": parts * math.ceil(frequencies * matrices / max(matrices, matrix_bytes_at_once(device))),
        "products": parts * frequencies,
        "wave_numbers": frequencies * long,
        "wave_flops": 4 * (1 + patterns) * frequencies * long * short * columns,
        "matrix_flops": 8 * patterns * frequencies * short**2 * columns,
        "matrix_bytes": 2 * parts * frequencies * matrices,
        "plane_bytes": columns * patterns * grid.tokens * item,
        "table_flops": 8 * shape.heads * patterns * (2 * short - 1) * length * frequencies,
        "table_numbers": length * frequencies,
    }


def _of_fft(shape: Shape, device: str, kept: bool) -> dict[str, float]:
    grid, item = shape.grid, shape.item_bytes
    sides = transform_shape(grid, shape.boundary)
    sizes = shape.batch, shape.heads, max(shape.key_dim, shape.value_dim)
    chunks = math.prod(math.ceil(size / step) for size, step in zip(sizes, chunk_of(sizes, sides, item, device), strict=True))
    columns = shape.planes * shape.channels
    return {
        "calls": 1.0,
        "chunks": chunks * shape.patterns,
        "flops": columns * (1 + shape.patterns) * transform_flops(grid, sides),
        "spectrum_bytes": columns * (1 + shape.patterns) * spectrum_bytes(sides, 1, item),
        "plane_bytes": columns * shape.patterns * grid.tokens * item,
        "table_flops": 2 * shape.heads * shape.patterns * fft_flops(sides[0] * sides[1], real=True),
    }


def _of_any(shape: Shape, device: str, kept: bool) -> dict[str, float]:
    tokens, columns = shape.grid.tokens, shape.planes * shape.channels * shape.patterns
    return {
        "calls": 1.0,
        "bytes": columns * tokens * shape.item_bytes,
        "log_flops": columns * tokens * math.log2(tokens),
        "square_flops": columns * tokens**2,
    }


FEATURES: dict[str, Callable[[Shape, str, bool], dict[str, float]]] = {
    "dense": _of_dense,
    "mixed": _of_mixed,
    "fft": _of_fft,
    "triton": _of_mixed,
}
