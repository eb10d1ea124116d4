"""Correlation with a table of relative positions by FFTs on the grid: c_i = sum_j T[pos(j) - pos(i)] x_j, for every token i.

A table stands with offset D at index D mod L, so that the wanted part of a correlation is its first H x W corner; a circular
length L >= 2H-1 suffices, because what wraps around falls outside that corner. Rows and columns are transformed one after the
other, so that neither the zero rows of the padded input nor the cropped rows of the output are transformed along the width.

Everything is in the dtype of its input, which must be float32 or float64: torch has no bfloat16 FFT, and float16 only on CUDA
at powers of two.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from lisabench.contract import Grid, fft_flops

# Bytes of spectra held at once. Past 32 MiB glibc maps the memory of every temporary anew, and the page faults cost as much
# as the transforms; down to 4 MiB less memory costs no time. A GPU's allocator keeps its memory,
# and many small launches cost time there: the bound only limits the peak.
CHUNK_BYTES = {"cpu": 4 * 2**20, "gpu": 512 * 2**20}


def transform_shape(grid: Grid, boundary: str = "zero") -> tuple[int, int]:
    """The circular lengths (Lh, Lw) along height and width."""
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


def table_spectra(table: Tensor, grid: Grid, boundary: str = "zero") -> Tensor:
    """Conjugate spectra of tables (..., 2H-1, 2W-1) as `correlate` takes them: (..., Lh, Lw // 2 + 1, 1).

    They are the spectra of the mirrored tables: a lazy conjugate would be written out anew by every product with it.
    """
    mirrored = table.flip((-2, -1))
    if boundary == "zero":
        height, width = transform_shape(grid, boundary)
        padded = F.pad(mirrored, (0, width - table.shape[-1], 0, height - table.shape[-2]))
        mirrored = padded.roll((1 - grid.height, 1 - grid.width), dims=(-2, -1))
    else:
        mirrored = mirrored.roll((1, 1), dims=(-2, -1))
    return torch.fft.rfft2(mirrored).unsqueeze(-1)


def transform(x: Tensor, shape: tuple[int, int]) -> Tensor:
    """(..., H, W, d) -> its spectrum on the padded grid, (..., Lh, Lw // 2 + 1, d)."""
    return torch.fft.fft(torch.fft.rfft(x, n=shape[1], dim=-2), n=shape[0], dim=-3)


def correlate(spectrum: Tensor, table_spectrum: Tensor, grid: Grid, shape: tuple[int, int]) -> Tensor:
    """Correlation of a transformed tensor with tables that broadcast against it: (..., H, W, d)."""
    rows = torch.fft.ifft(spectrum * table_spectrum, dim=-3)[..., : grid.height, :, :]
    return torch.fft.irfft(rows, n=shape[1], dim=-2)[..., : grid.width, :]


def table_of_spectra(spectra: Tensor, grid: Grid, boundary: str = "zero") -> Tensor:
    """The tables (..., 2H-1, 2W-1) of spectra (..., Lh, Lw // 2 + 1) in which the weight of offset D stands at D mod L."""
    shape = transform_shape(grid, boundary)
    table = torch.fft.irfft2(spectra, s=shape)
    if boundary == "zero":
        table = table.roll((grid.height - 1, grid.width - 1), dims=(-2, -1))[..., : 2 * grid.height - 1, : 2 * grid.width - 1]
    return table


# --- what these cost ---------------------------------------------------------------------------------------------------


def transform_flops(grid: Grid, shape: tuple[int, int]) -> float:
    """FLOPs of `transform`, and of the two inverse transforms of `correlate`, a channel: the zero rows are skipped."""
    return fft_flops(shape[1], grid.height, real=True) + fft_flops(shape[0], shape[1] // 2 + 1, real=False)


def spectrum_product_flops(shape: tuple[int, int]) -> float:
    """FLOPs of the complex product in `correlate`, a channel."""
    return 6.0 * shape[0] * (shape[1] // 2 + 1)


def spectrum_bytes(shape: tuple[int, int], channels: int, item_bytes: int) -> int:
    """Bytes of a spectrum of so many channels: half of the plane, complex."""
    return 2 * item_bytes * shape[0] * (shape[1] // 2 + 1) * channels


def planes_at_a_time(shape: tuple[int, int], channels: int, item_bytes: int, device_type: str) -> int:
    """How many spectra of so many channels CHUNK_BYTES hold, at least one."""
    return max(1, CHUNK_BYTES["cpu" if device_type == "cpu" else "gpu"] // spectrum_bytes(shape, channels, item_bytes))
