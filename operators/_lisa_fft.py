"""LiSA's engine `fft`: correlates on the grid by FFTs (`_grid_fft.py`); nothing of size N x N, log-linear in N.

Key and value are transformed once, and one inverse transform a pattern follows, so that no more than one pattern's plane is held at a time. In
the backward each pattern's weighted plane is transformed and the products with the tables' spectra are summed before one inverse
transform; products with the value's spectrum, summed over the channels, are the spectra of the tables' gradients.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lisabench.contract import Cost, Grid, Workload, fft_flops, projection_flops
from lisabench.operators._grid_fft import (
    correlate,
    planes_at_a_time,
    spectrum_bytes,
    spectrum_product_flops,
    table_of_spectra,
    table_spectra,
    transform,
    transform_back,
    transform_flops,
    transform_shape,
)
from lisabench.operators._lisa_engine import Engine


def _seen(query: Tensor, key: Tensor, spectra: Tensor, grid: Grid, boundary: str) -> Tensor:
    shape = transform_shape(grid, boundary)
    parts = []
    for samples, heads in _chunks(query, grid, shape):
        q, k = (_planes(t[samples, heads], grid) for t in (query, key))
        spectrum = transform(k, shape)
        seen = [(q * correlate(spectrum, table, grid, shape)).sum(-1) for table in spectra[heads].unbind(1)]
        parts.append(torch.stack(seen, dim=2).flatten(3))
    return _joined(parts, query)


def _painted(seen: Tensor, value: Tensor, spectra: Tensor, grid: Grid, boundary: str) -> Tensor:
    shape = transform_shape(grid, boundary)
    parts = []
    for samples, heads in _chunks(value, grid, shape):
        v, weights = _planes(value[samples, heads], grid), seen[samples, heads].unflatten(-1, grid).unsqueeze(-1)
        spectrum, y = transform(v, shape), torch.zeros_like(v)
        for r, table in enumerate(spectra[heads].unbind(1)):
            y = torch.addcmul(y, weights[:, :, r], correlate(spectrum, table, grid, shape))
        parts.append(y.flatten(2, 3))
    return _joined(parts, value)


def _gradients(
    seen: Tensor, x: Tensor, value: Tensor, spectra: Tensor, grid: Grid, boundary: str, painted: bool
) -> tuple[Tensor, Tensor, Tensor]:
    shape = transform_shape(grid, boundary)
    of_tables, firsts, parts = torch.zeros_like(spectra[..., 0]), [], []
    for samples, heads in _chunks(value, grid, shape):
        planes, weights = _planes(x[samples, heads], grid), seen[samples, heads].unflatten(-1, grid).unsqueeze(-1)
        spectrum = transform(_planes(value[samples, heads], grid), shape)
        of_value, of_x, dots = torch.zeros_like(spectrum), torch.zeros_like(planes), []
        for r, table in enumerate(spectra[heads].unbind(1)):
            correlated = correlate(spectrum, table, grid, shape)
            if painted:
                dots.append((planes * correlated).sum(-1))
            else:
                of_x.addcmul_(weights[:, :, r], correlated)
            del correlated
            weighted = transform(weights[:, :, r] * planes, shape).conj_physical_()
            of_tables[heads, r] += (weighted * spectrum).sum((0, -1))
            of_value += (weighted * table).conj_physical_()
        firsts.append((torch.stack(dots, dim=2) if painted else of_x).flatten(3 if painted else 2, 4 if painted else 3))
        parts.append(transform_back(of_value, grid, shape).flatten(2, 3))
    return _joined(firsts, value), _joined(parts, value), table_of_spectra(of_tables, grid, boundary)


FFT = Engine(table_spectra, _seen, _painted, _gradients)


def _chunks(x: Tensor, grid: Grid, shape: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Samples and heads of which CHUNK_BYTES hold the spectra, all heads of some samples first."""
    batch, heads = x.shape[:2]
    planes = planes_at_a_time(shape, x.shape[-1], x.element_size(), x.device.type)
    samples, heads_each = max(1, planes // heads), min(planes, heads)
    for sample in range(0, batch, samples):
        for head in range(0, heads, heads_each):
            yield slice(sample, sample + samples), slice(head, head + heads_each)


def _planes(x: Tensor, grid: Grid) -> Tensor:
    return x.unflatten(2, grid)


def _joined(parts: list[Tensor], like: Tensor) -> Tensor:
    """Parts of `_chunks` of `like`, (samples, heads, ...), put together."""
    if len(parts) == 1:
        return parts[0]
    heads_each = parts[0].shape[1]
    across = -(-like.shape[1] // heads_each)
    return torch.cat([torch.cat(parts[first : first + across], dim=1) for first in range(0, len(parts), across)])


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
    plane_bytes = spectrum_bytes((height, width), max(d_k, d_v), item)
    at_once = min(planes, planes_at_a_time((height, width), max(d_k, d_v), item, device))
    return Cost(
        mix_flops=(1 + patterns) * one_way + patterns * product + (spectra if trained else 0.0),
        mix_backward_flops=(2 + 2 * patterns) * one_way + 3 * patterns * product + 2 * spectra,
        projection_flops=projection_flops(workload, d_k),
        transient_bytes=4.0 * at_once * plane_bytes + planes * tokens * (patterns + d_v) * item * (2 if at_once < planes else 1),
        saved_bytes=planes * tokens * patterns * item,
        traffic_bytes=traffic,
    )
