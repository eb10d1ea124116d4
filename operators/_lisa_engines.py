"""How LiSA is computed: the engines behind `lisa_attention`, which validates and chooses.

Engines, which give the same values to rounding:
  dense  writes the N x N kernel: products of size N x N, fastest for few tokens.
  fft    correlates on the grid by FFTs; nothing of size N x N. The tables stand with offset D at index D mod L, so that
         the wanted part of a correlation is its first H x W corner; a circular length L >= 2H-1 suffices, because what
         wraps around falls outside that corner. Rows and columns are transformed one after the other, so that neither
         the zero rows of the padded input nor the cropped rows of the output are ever transformed along the width.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from lisabench.contract import Grid


def table_shape(grid: Grid, boundary: str) -> tuple[int, int]:
    return grid if boundary == "periodic" else (2 * grid.height - 1, 2 * grid.width - 1)


# Bytes of spectra held at once. Past 32 MiB glibc maps the memory of every temporary anew, and the page faults cost as much
# as the transforms; down to 4 MiB less memory costs no time (benchmarks/lisa_engines.py). A GPU's allocator keeps its memory,
# and many small launches cost time there: the bound only limits the peak.
CHUNK_BYTES = {"cpu": 4 * 2**20, "gpu": 512 * 2**20}


# --- engine fft ------------------------------------------------------------------------------------------------------


def pattern_spectra(table: Tensor, grid: Grid, boundary: str) -> Tensor:
    """Conjugate spectra of the tables, (h, R, 1, Lh, Lw // 2 + 1) -> laid out for `by_fft` as (h, R, Lh, Lw // 2 + 1, 1)."""
    if boundary == "zero":
        height, width = transform_shape(grid, boundary)
        table = F.pad(table, (0, width - table.shape[-1], 0, height - table.shape[-2]))
        table = table.roll((1 - grid.height, 1 - grid.width), dims=(-2, -1))
    return torch.fft.rfft2(table).conj().unsqueeze(-1)


def by_fft(query: Tensor, key: Tensor, value: Tensor, kernel_spectra: Tensor, context_spectra: Tensor, grid: Grid, boundary: str) -> Tensor:
    """LiSA from the spectra of its tables, (B, h, N, d_v): as many samples and heads at a time as CHUNK_BYTES hold the spectra of."""
    shape = transform_shape(grid, boundary)
    batch, heads, _, channels = value.shape
    planes = planes_at_a_time(shape, max(channels, query.shape[-1]), query.element_size(), query.device.type)
    samples, heads_each = max(1, planes // heads), min(planes, heads)
    if samples >= batch and heads_each == heads:
        return _planes_by_fft(query, key, value, kernel_spectra, context_spectra, grid, shape)
    tables = list(zip(kernel_spectra.split(heads_each), context_spectra.split(heads_each), strict=True))
    parts = []
    for of_samples in zip(*(t.split(samples) for t in (query, key, value)), strict=True):
        of_heads = zip(*(t.split(heads_each, dim=1) for t in of_samples), strict=True)
        parts.append(torch.cat([_planes_by_fft(*t, *table, grid, shape) for t, table in zip(of_heads, tables, strict=True)], dim=1))
    return torch.cat(parts)


def spectrum_bytes(shape: tuple[int, int], channels: int, item_bytes: int) -> int:
    """Bytes of one head's spectrum, half of the plane."""
    return 2 * item_bytes * shape[0] * (shape[1] // 2 + 1) * channels


def planes_at_a_time(shape: tuple[int, int], channels: int, item_bytes: int, device_type: str) -> int:
    """How many heads of how many samples are transformed at once."""
    return max(1, CHUNK_BYTES["cpu" if device_type == "cpu" else "gpu"] // spectrum_bytes(shape, channels, item_bytes))


def _planes_by_fft(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_spectra: Tensor,
    context_spectra: Tensor,
    grid: Grid,
    shape: tuple[int, int],
) -> Tensor:
    query, key, value = (t.unflatten(2, grid) for t in (query, key, value))  # (B, h, H, W, d)
    patterns = range(kernel_spectra.shape[1])
    spectrum = _transform(key, shape)
    seen = [torch.einsum("bhyxd,bhyxd->bhyx", query, _correlate(spectrum, kernel_spectra[:, r], grid, shape)) for r in patterns]
    spectrum = _transform(value, shape)
    out = torch.zeros_like(value)
    for r in patterns:
        out = torch.addcmul(out, seen[r].unsqueeze(-1), _correlate(spectrum, context_spectra[:, r], grid, shape))
    return out.flatten(2, 3)


def _transform(x: Tensor, shape: tuple[int, int]) -> Tensor:
    """(B, h, H, W, d) -> its spectrum on the padded grid, (B, h, Lh, Lw // 2 + 1, d)."""
    return torch.fft.fft(torch.fft.rfft(x, n=shape[1], dim=-2), n=shape[0], dim=-3)


def _correlate(spectrum: Tensor, table_spectrum: Tensor, grid: Grid, shape: tuple[int, int]) -> Tensor:
    """Correlation of a transformed tensor with one pattern a head: (B, h, H, W, d)."""
    rows = torch.fft.ifft(spectrum * table_spectrum, dim=-3)[..., : grid.height, :, :]
    return torch.fft.irfft(rows, n=shape[1], dim=-2)[..., : grid.width, :]


def transform_shape(grid: Grid, boundary: str) -> tuple[int, int]:
    if boundary == "periodic":
        return (grid.height, grid.width)
    return (fast_length(2 * grid.height - 1), fast_length(2 * grid.width - 1))


@lru_cache
def fast_length(at_least: int) -> int:
    """The smallest 2^a 3^b 5^c 7^d that is no less: the lengths that FFT libraries have kernels for."""
    length = at_least
    while True:
        rest = length
        for factor in (2, 3, 5, 7):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1


# --- engine dense ----------------------------------------------------------------------------------------------------


def dense(
    query: Tensor, key: Tensor, value: Tensor, kernel_patterns: Tensor, context_patterns: Tensor, grid: Grid, boundary: str
) -> Tensor:
    kernel_weights, context_weights = (pairwise_weights(table, grid, boundary) for table in (kernel_patterns, context_patterns))
    seen = torch.einsum("bhij,hrij->bhri", query @ key.transpose(-1, -2), kernel_weights)
    return torch.einsum("bhri,hrij->bhij", seen, context_weights) @ value


def pairwise_weights(table: Tensor, grid: Grid, boundary: str) -> Tensor:
    """The weight of D(i, j) for every pair of tokens, (h, R, N, N): windows that slide over the table, several times faster than a gather."""
    height, width = grid
    if torch.compiler.is_compiling():  # the backward of unfold that torch 2.13 compiles for CPUs writes out of bounds
        return table.flatten(-2)[..., offset_index(grid, boundary, torch.arange(grid.tokens, device=table.device))]
    if boundary == "periodic":
        rows, columns = (torch.arange(1 - side, side, device=table.device) % side for side in grid)
        table = table[..., rows[:, None], columns]
    windows = table.unfold(-2, height, 1).unfold(-2, width, 1)  # (h, R, H - 1 - y_i, W - 1 - x_i, y_j, x_j)
    return windows.flip(2, 3).flatten(4, 5).flatten(2, 3)


def offset_index(grid: Grid, boundary: str, rows: Tensor) -> Tensor:
    """Where in a flattened table the weight of D(i, j) stands, for the tokens i in `rows` and every j: (rows, N)."""
    height, width = grid
    tokens = torch.arange(grid.tokens, device=rows.device)
    dy = tokens // width - (rows // width)[:, None]
    dx = tokens % width - (rows % width)[:, None]
    if boundary == "periodic":
        return (dy % height) * width + dx % width
    return (dy + height - 1) * (2 * width - 1) + dx + width - 1
