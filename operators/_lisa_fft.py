"""LiSA's engine `fft`: correlates on the grid by FFTs; nothing of size N x N, log-linear in N.

Key and value are transformed once, and one inverse transform a pattern follows, so that no more than one pattern's planes are held at a time. In
the backward each pattern's weighted planes are transformed, and the products with the tables' spectra are summed before one inverse
transform; products with the value's spectrum, summed over the channels, are the spectra of the tables' gradients.

A channel is a plane, and every transform runs along the last axis: libraries are up to three times as fast there as with the channels innermost, as
the tokens lie. So rows and columns change places between the two transforms of a plane; zero rows and cropped ones are left out on the way.
As few planes are in work at a time as stay in a core's cache.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lisabench.contract import Cost, Grid, Workload, fft_flops, projection_flops
from lisabench.operators._grid_fft import (
    spectrum_bytes,
    spectrum_product_flops,
    table_of_spectra,
    table_spectra,
    transform_flops,
    transform_shape,
)
from lisabench.operators._lisa_engine import Engine, budget

# Bytes of spectra held at once. A GPU's launches cost more than its memory.
CHUNK_BYTES = {"cpu": 2**20, "threads": 2**23, "gpu": 2**29}


def upright_spectra(table: Tensor, grid: Grid, boundary: str) -> Tensor:
    """Conjugate spectra of tables (h, R, ...): (h, R, 1, Lw // 2 + 1, Lh)."""
    return table_spectra(table, grid, boundary).squeeze(-1).transpose(-1, -2).contiguous().unsqueeze(2)


def _seen(query: Tensor, key: Tensor, spectra: Tensor, grid: Grid, boundary: str) -> Tensor:
    shape = transform_shape(grid, boundary)
    seen = query.new_zeros(*query.shape[:2], spectra.shape[1], grid.tokens)
    for samples, heads, channels in _chunks(query, shape):
        q, k = (_planes(t[samples, heads, :, channels], grid) for t in (query, key))
        spectrum = _transform(k, shape)
        dots = [(q * _corner(spectrum * table, grid, shape)).sum(2) for table in spectra[heads].unbind(1)]
        seen[samples, heads] += torch.stack(dots, dim=2).flatten(3)
    return seen


def _painted(seen: Tensor, value: Tensor, spectra: Tensor, grid: Grid, boundary: str) -> Tensor:
    shape = transform_shape(grid, boundary)
    y = torch.empty_like(value)
    for samples, heads, channels in _chunks(value, shape):
        v, weights = _planes(value[samples, heads, :, channels], grid), _weights(seen[samples, heads], grid)
        spectrum, total = _transform(v, shape), torch.zeros_like(v)
        for r, table in enumerate(spectra[heads].unbind(1)):
            total = torch.addcmul(total, weights[:, :, r], _corner(spectrum * table, grid, shape))
        y[samples, heads, :, channels] = _tokens(total)
    return y


def _gradients(
    seen: Tensor, x: Tensor, value: Tensor, spectra: Tensor, grid: Grid, boundary: str, painted: bool
) -> tuple[Tensor, Tensor, Tensor]:
    shape = transform_shape(grid, boundary)
    first = torch.zeros_like(seen) if painted else torch.empty_like(x)
    of_value, of_tables = torch.empty_like(value), torch.zeros_like(spectra[:, :, 0])
    for samples, heads, channels in _chunks(value, shape):
        q, v = (_planes(t[samples, heads, :, channels], grid) for t in (x, value))
        weights, spectrum = _weights(seen[samples, heads], grid), _transform(v, shape)
        of_spectrum, of_q = torch.zeros_like(spectrum), torch.zeros_like(q)
        for r, table in enumerate(spectra[heads].unbind(1)):
            correlated = _corner(spectrum * table, grid, shape)
            if painted:
                first[samples, heads, r] += (q * correlated).sum(2).flatten(2)
            else:
                of_q.addcmul_(weights[:, :, r], correlated)
            del correlated
            weighted = _transform(weights[:, :, r] * q, shape).conj_physical_()
            of_tables[heads, r] += (weighted * spectrum).sum((0, 2))
            of_spectrum += (weighted * table).conj_physical_()
        if not painted:
            first[samples, heads, :, channels] = _tokens(of_q)
        of_value[samples, heads, :, channels] = _tokens(_corner(of_spectrum, grid, shape))
    return first, of_value, table_of_spectra(of_tables.transpose(-1, -2), grid, boundary)


FFT = Engine(upright_spectra, _seen, _painted, _gradients)


def _transform(planes: Tensor, shape: tuple[int, int]) -> Tensor:
    """(..., H, W) -> (..., Lw // 2 + 1, Lh)."""
    return torch.fft.fft(torch.fft.rfft(planes, n=shape[1]).transpose(-1, -2).contiguous(), n=shape[0])


def _corner(spectrum: Tensor, grid: Grid, shape: tuple[int, int]) -> Tensor:
    """The first H x W corner of what has this spectrum: (..., H, W)."""
    spectrum = torch.fft.ifft(spectrum)[..., : grid.height].transpose(-1, -2).contiguous()
    return torch.fft.irfft(spectrum, n=shape[1])[..., : grid.width]


def _planes(x: Tensor, grid: Grid) -> Tensor:
    """(B, h, N, d) -> (B, h, d, H, W)."""
    return x.transpose(-1, -2).contiguous().unflatten(-1, grid)


def _tokens(planes: Tensor) -> Tensor:
    return planes.flatten(3).transpose(-1, -2)


def _weights(seen: Tensor, grid: Grid) -> Tensor:
    """(B, h, R, N) -> (B, h, R, 1, H, W)."""
    return seen.unflatten(-1, grid).unsqueeze(3)


def _chunks(x: Tensor, shape: tuple[int, int]) -> Iterator[tuple[slice, slice, slice]]:
    """Samples, heads and channels whose planes are in work at a time."""
    sizes = (*x.shape[:2], x.shape[-1])
    steps = chunk_of(sizes, shape, x.element_size(), x.device.type)
    samples, heads, channels = ([slice(at, at + step) for at in range(0, size, step)] for size, step in zip(sizes, steps, strict=True))
    return ((b, h, c) for b in samples for h in heads for c in channels)


def chunk_of(sizes: tuple[int, int, int], shape: tuple[int, int], item_bytes: int, device_type: str) -> tuple[int, int, int]:
    """How many samples, heads and channels CHUNK_BYTES hold the spectra of, at least one plane; compiled, all: loops would be unrolled."""
    samples, heads, channels = sizes
    if torch.compiler.is_compiling():
        return sizes
    planes = max(1, budget(CHUNK_BYTES, device_type) // spectrum_bytes(shape, 1, item_bytes))
    return min(samples, max(1, planes // (heads * channels))), min(heads, max(1, planes // channels)), min(channels, planes)


def fft_cost(workload: Workload, patterns: int, d_k: int, boundary: str, traffic: float) -> Cost:
    """FLOPs and bytes; back, the transforms of the forward are made again and as many for their gradients."""
    grid, item = workload.grid, max(4, workload.item_bytes)
    d_v, planes, tokens = workload.head_dim, workload.batch * workload.heads, workload.tokens
    tables, device, trained = 2 * workload.heads * patterns, workload.device.partition(":")[0], workload.mode == "train"
    height, width = transform_shape(grid, boundary)
    one_way = planes * (d_k + d_v) * transform_flops(grid, (height, width))
    product = planes * (d_k + d_v) * spectrum_product_flops((height, width))
    # In evaluation the tables' spectra are at hand; in training they are made at every step.
    spectra = tables * fft_flops(height * width, real=True)
    samples, heads, channels = chunk_of((workload.batch, workload.heads, max(d_k, d_v)), (height, width), item, device)
    chunk = samples * heads * channels * spectrum_bytes((height, width), 1, item)
    return Cost(
        mix_flops=(1 + patterns) * one_way + patterns * product + (spectra if trained else 0.0),
        mix_backward_flops=(2 + 2 * patterns) * one_way + 3 * patterns * product + 2 * spectra,
        projection_flops=projection_flops(workload, d_k),
        # The chunk's spectra and planes, s and y, and what half precision is copied to.
        transient_bytes=4.0 * chunk
        + 4.0 * samples * heads * channels * tokens * item
        + planes * tokens * (patterns + d_v + (2 * d_k + d_v if workload.item_bytes < item else 0)) * item,
        saved_bytes=planes * tokens * patterns * item,
        traffic_bytes=traffic,
    )
