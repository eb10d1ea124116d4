"""LiSA's engine `mixed` fused for NVIDIA GPUs, in Triton: the same products, their pointwise parts in the same kernels.

Three kernels each for s and y (`_lisa_triton_kernels.py`):

1. forth: the DFT along the longer side, read from the tokens as they lie and rounded on the way; a product of our own and not torch's, which would
   copy them first and has no say in the rounding.
2. along: the products with the Toeplitz matrices. Of these a tile is read straight from the spectra of the tables, which lie once for each
   place of a 16-byte load, so that every row begins on one; the matrices are never written.
3. back: the inverse DFT. What it gives meets the query, or s, in registers: of s only (B, h, R, N) is written, of y only the sum over the patterns.

What kernel 2 gives kernel 3, 2 R N numbers a channel, does pass through memory: a tile of one needs all frequencies, of the other all rows.

FLOPs are those of `mixed`, forward (`mixed_cost`). As operations of torch, `lisabench::lisa_seen` and `lisabench::lisa_painted`, they stay
whole under torch.compile; they have no gradients.
"""

from __future__ import annotations

import os
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lisabench.contract import Grid
from lisabench.operators._lisa_engine import Engine
from lisabench.operators._lisa_mixed import MIXED, mixed_spectra, product_flops, samples_at_a_time, waves
from lisabench.operators._lisa_triton_tiles import Tile, back_tile, block, depth_of, tile_of, up_to

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
PRECISIONS = ("ieee", "tf32", "bf16")
KEPT_BYTES = 2**24  # of a matrix of waves; larger ones are made anew


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why these kernels do not run on this device in this dtype, in a line, or None."""
    if dtype not in DTYPES:
        return f"Triton kernels compute in float32 at most, not in {str(dtype).removeprefix('torch.')}"
    if os.environ.get("TRITON_INTERPRET") != "1":
        if device.type != "cuda" or torch.version.hip:
            return f"Triton kernels need an NVIDIA GPU (CUDA), not {device.type if device.type != 'cuda' else 'ROCm'}"
        capability = torch.cuda.get_device_capability(device)
        if capability < (8, 0):
            return f"Triton kernels need compute capability 8.0; {torch.cuda.get_device_name(device)} has {'.'.join(map(str, capability))}"
    try:
        import_module("triton")
    except ImportError:
        return "Triton is not installed: pip install 'lisabench[triton]'"
    _count_flops()
    return None


# What torch.compiler.assume_constant_result does; that itself imports the compiler, and the compiler Triton.
why_not._dynamo_marked_constant = True  # type: ignore[attr-defined]


def seen(query: Tensor, key: Tensor, spectra: Tensor, grid: Grid, boundary: str, precision: str | None = None) -> Tensor:
    """s[i,r] = q_i . (P_r (*) k)_i: (B, h, R, N), float32.

    query, key: (B, h, N, d_k), any strides. spectra: the kernel patterns' `mixed_spectra`. precision: that of the operands of the products, the sums are
    float32: "ieee", "tf32" or "bf16"; None is bf16 for float16 and bfloat16 and for float32 what torch's products have at the time.

    Raises:
        ValueError: another dtype or precision.
    """
    s: Tensor = _seen(query, key, spectra, grid.height, grid.width, boundary, precision)
    return s


def painted(seen: Tensor, value: Tensor, spectra: Tensor, grid: Grid, boundary: str, precision: str | None = None) -> Tensor:
    """y_i = sum_r s[i,r] (G_r (*) v)_i: (B, h, N, d_v), the dtype of value; s is `seen`, the rest as there."""
    y: Tensor = _painted(seen, value, spectra, grid.height, grid.width, boundary, precision)
    return y


def _prepared(table: Tensor, grid: Grid, boundary: str) -> Tensor:
    return mixed_spectra(table.float(), grid, boundary)


def _plainly_seen(query: Tensor, key: Tensor, spectra: Tensor, grid: Grid, boundary: str) -> Tensor:
    return MIXED.seen(query.float(), key.float(), spectra, grid, boundary)


def _plainly_painted(seen: Tensor, value: Tensor, spectra: Tensor, grid: Grid, boundary: str) -> Tensor:
    return MIXED.painted(seen, value.float(), spectra, grid, boundary).to(value.dtype)


def _gradients(
    seen: Tensor, x: Tensor, value: Tensor, spectra: Tensor, grid: Grid, boundary: str, painted: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return MIXED.gradients(seen, x.float(), value.float(), spectra, grid, boundary, painted)


PLAIN = Engine(_prepared, _plainly_seen, _plainly_painted, _gradients)
TRITON = PLAIN._replace(seen=seen, painted=painted, takes_half=True, plain=PLAIN)


# --- as operations of torch ----------------------------------------------------------------------------------------------


@torch.library.custom_op("lisabench::lisa_seen", mutates_args=())
def _seen(query: Tensor, key: Tensor, spectra: Tensor, height: int, width: int, boundary: str, precision: str | None = None) -> Tensor:
    sizes = _sizes(key, spectra, Grid(height, width), precision)
    forth, back = _waves(sizes, boundary, key.device)
    tables = _tables(spectra, sizes)
    out = key.new_empty((*key.shape[:2], sizes.patterns, key.shape[2]), dtype=torch.float32)
    for some in _samples(key, sizes):
        q, spectrum = query[some], _spectrum(key[some], tables, forth, sizes)
        tile, number, places, block_d = _back_tile(q, sizes, q.shape[1] * sizes.patterns)
        given = spectrum, back, q, out[some], *sizes.of(q), sizes.rows, *sizes.apart, *q.stride()
        often = back.shape[1], -(-q.shape[-1] // block_d)
        blocks = number, sizes.patterns, q.shape[1]
        _launch("seen", tile, blocks, q, *given, *often, sizes.precision, tile.m, places, block_d, tile.k)
    return out


@_seen.register_fake
def _(query: Tensor, key: Tensor, spectra: Tensor, height: int, width: int, boundary: str, precision: str | None = None) -> Tensor:
    return key.new_empty((*key.shape[:2], spectra.shape[3], key.shape[2]), dtype=torch.float32)


@torch.library.custom_op("lisabench::lisa_painted", mutates_args=())
def _painted(seen: Tensor, value: Tensor, spectra: Tensor, height: int, width: int, boundary: str, precision: str | None = None) -> Tensor:
    sizes = _sizes(value, spectra, Grid(height, width), precision)
    forth, back = _waves(sizes, boundary, value.device)
    tables = _tables(spectra, sizes)
    seen, out = seen.float().contiguous(), value.new_empty(value.shape)
    for some in _samples(value, sizes):
        v, spectrum = value[some], _spectrum(value[some], tables, forth, sizes)
        tile, number, places, block_d = _back_tile(v, sizes, v.shape[1])
        given = spectrum, back, seen[some], out[some], *sizes.of(v), sizes.rows, *sizes.apart
        often = back.shape[1], sizes.patterns
        blocks = number, -(-v.shape[-1] // block_d), v.shape[1]
        _launch("painted", tile, blocks, v, *given, *often, sizes.precision, tile.m, places, block_d, tile.k)
    return out


@_painted.register_fake
def _(seen: Tensor, value: Tensor, spectra: Tensor, height: int, width: int, boundary: str, precision: str | None = None) -> Tensor:
    return value.new_empty(value.shape)


@lru_cache
def _count_flops() -> None:
    """Tells torch's counter what these operations cost, of which it sees nothing. Not on import: the counter imports Triton."""
    from torch.utils.flop_counter import register_flop_formula

    @register_flop_formula([torch.ops.lisabench.lisa_seen, torch.ops.lisabench.lisa_painted])
    def _(_: Any, x: Any, spectra: Any, height: int, width: int, boundary: str, *__: Any, **___: Any) -> float:
        batch, heads, _tokens, channels = x
        return float(batch * heads * channels * sum(product_flops(Grid(height, width), boundary, spectra[3])))


def _spectrum(x: Tensor, tables: Tensor, forth: Tensor, sizes: _Sizes) -> Tensor:
    """The spectra of the correlations of x, (b, h, N, d), with all tables: (h, frequencies, 2, R, S, b, d)."""
    batch, heads, _, channels = x.shape
    frequencies, columns = sizes.rows // 2, sizes.short * batch * channels
    of_x = tables.new_empty((heads, sizes.rows, columns))
    tile = tile_of(sizes.rows, columns, sizes.long, heads, sizes.precision, x.device)
    strides = x.stride(0), x.stride(1), *(step * x.stride(2) for step in sizes.apart), x.stride(3)
    given = x, forth, of_x, *sizes.of(x), sizes.rows, *strides, forth.shape[1]
    _launch("forth", tile, (tile.number(sizes.rows, columns), heads), x, *given, sizes.precision, *tile.blocks)

    out = tables.new_empty((heads, sizes.rows, sizes.patterns, columns))
    rows, columns = 2 * sizes.patterns * sizes.short, batch * channels
    tile = tile_of(rows, columns, sizes.short, heads * frequencies, sizes.precision, x.device)
    given = of_x, tables, out, sizes.short, columns, sizes.patterns, tables.shape[-1], tables.shape[-2], -(-sizes.short // tile.k)
    _launch("along", tile, (tile.number(rows, columns), frequencies, heads), x, *given, sizes.precision, *tile.blocks)
    return out


def _back_tile(x: Tensor, sizes: _Sizes, times: int) -> tuple[Tile, int, int, int]:
    return back_tile(sizes.long, sizes.short * len(x), x.shape[-1], sizes.rows, times, sizes.precision, x.device)


def _launch(name: str, tile: Tile, blocks: tuple[int, ...], like: Tensor, *given: Any) -> None:
    kernels = import_module("lisabench.operators._lisa_triton_kernels")
    with torch.cuda.device_of(like):
        getattr(kernels, name)[blocks](*given, num_warps=tile.warps, num_stages=tile.stages)


# --- sizes and operands --------------------------------------------------------------------------------------------------


class _Sizes(NamedTuple):
    long: int
    short: int
    apart: tuple[int, int]
    """How many tokens apart neighbours along each side stand."""
    rows: int
    """Of the waves: real and imaginary part of each frequency."""
    patterns: int
    precision: str

    def of(self, x: Tensor) -> tuple[int, ...]:
        return self.long, self.short, len(x), x.shape[-1]


def _sizes(x: Tensor, spectra: Tensor, grid: Grid, precision: str | None) -> _Sizes:
    _count_flops()
    if x.dtype not in DTYPES:
        raise ValueError(f"Triton kernels got {x.dtype}; valid: {', '.join(map(str, DTYPES))}")
    if precision is None:
        wanted = torch.backends.cuda.matmul.fp32_precision
        precision = "bf16" if x.dtype != torch.float32 else "tf32" if wanted == "tf32" else "ieee"
    if precision not in PRECISIONS:
        raise ValueError(f"precision got {precision!r}; valid: {', '.join(PRECISIONS)}")
    apart = (grid.width, 1) if grid.height > grid.width else (1, grid.width)
    return _Sizes(max(grid), min(grid), apart, 2 * spectra.shape[1], spectra.shape[3], precision)


def _samples(x: Tensor, sizes: _Sizes) -> list[slice]:
    """As many samples at a time as SPECTRA_BYTES hold the spectra of, of all heads."""
    grid, item = Grid(sizes.long, sizes.short), 2 if sizes.precision == "bf16" else 4
    each = samples_at_a_time(grid, sizes.patterns, x.shape[1] * x.shape[-1], item, "gpu")
    return [slice(first, first + each) for first in range(0, len(x), each)]


def _tables(spectra: Tensor, sizes: _Sizes) -> Tensor:
    """(h, f, 3, R, copies, width): -imaginary, real and imaginary parts; copy c begins at offset c, and a load may begin at every `copies`-th."""
    real, imaginary = spectra.float().unbind(2)
    parts = _rounded(torch.stack((-imaginary, real, imaginary), dim=2), sizes.precision)
    copies = 16 // parts.element_size()
    # Past the last offset stand zeros up to where a whole tile reaches, and on to where each copy begins on 16 numbers.
    width = up_to(sizes.short - 1 + up_to(sizes.short, depth_of(sizes.short, sizes.precision)), 16)
    return F.pad(parts, (0, width + copies - 1 - parts.shape[-1])).unfold(-1, width, 1).contiguous()


def _waves(sizes: _Sizes, boundary: str, device: torch.device) -> tuple[Tensor, Tensor]:
    make = _kept_waves if 4 * sizes.rows * sizes.long <= KEPT_BYTES else _kept_waves.__wrapped__
    return make(sizes.long, boundary, sizes.precision, device)


@lru_cache(maxsize=16)
def _kept_waves(long: int, boundary: str, precision: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """The DFT and its inverse as matrices (2 f, L) and (L, 2 f), with zeros up to whole tiles."""

    def operand(matrix: Tensor) -> Tensor:
        height, width = matrix.shape
        below, beside = up_to(height, block(height, precision)) - height, up_to(width, depth_of(width, precision)) - width
        return _rounded(F.pad(matrix, (0, beside, 0, below)), precision).to(device)

    forth, back = waves(long, boundary, torch.empty(0))
    return operand(forth), operand(back)


def _rounded(x: Tensor, precision: str) -> Tensor:
    """Float32 as operands, see the kernels."""
    if precision == "bf16":
        return x.bfloat16()
    if precision == "ieee":
        return x
    return torch.where(x.isnan(), x, ((x.view(torch.int32) + 2**12) & -(2**13)).view(torch.float32))
