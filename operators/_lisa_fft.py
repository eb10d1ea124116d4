"""LiSA's engine `fft`: correlates on the grid by FFTs (`_grid_fft.py`); nothing of size N x N, log-linear in N."""

from __future__ import annotations

import torch
from torch import Tensor

from lisabench.contract import Cost, Grid, Workload, fft_flops, projection_flops
from lisabench.operators._grid_fft import (
    correlate,
    planes_at_a_time,
    spectrum_bytes,
    spectrum_product_flops,
    transform,
    transform_flops,
    transform_shape,
)


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
    for q, k, v in zip(*(t.split(samples) for t in (query, key, value)), strict=True):
        of_heads = zip(*(t.split(heads_each, dim=1) for t in (q, k, v)), tables, strict=True)
        parts.append(torch.cat([_planes_by_fft(q, k, v, kernel, context, grid, shape) for q, k, v, (kernel, context) in of_heads], dim=1))
    return torch.cat(parts)


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
    spectrum = transform(key, shape)
    seen = [torch.einsum("bhyxd,bhyxd->bhyx", query, correlate(spectrum, kernel_spectra[:, r], grid, shape)) for r in patterns]
    spectrum = transform(value, shape)
    out = torch.zeros_like(value)
    for r in patterns:
        out = torch.addcmul(out, seen[r].unsqueeze(-1), correlate(spectrum, context_spectra[:, r], grid, shape))
    return out.flatten(2, 3)


def fft_cost(workload: Workload, patterns: int, d_k: int, boundary: str, traffic: float) -> Cost:
    """FLOPs and bytes; the backward has full complex transforms where the forward has real ones."""
    grid, item = workload.grid, max(4, workload.item_bytes)
    d_v, planes, tokens = workload.head_dim, workload.batch * workload.heads, workload.tokens
    tables, device, trained = 2 * workload.heads * patterns, workload.device.partition(":")[0], workload.mode == "train"
    height, width = transform_shape(grid, boundary)
    one_way = transform_flops(grid, (height, width))
    table_way = fft_flops(height * width, real=True)
    channels = patterns * (d_k + d_v)
    products = planes * channels * spectrum_product_flops((height, width))
    sums = 2.0 * planes * patterns * d_k * tokens  # q . (P_r (*) k); the weighted sum over patterns is pointwise
    # In evaluation the tables' spectra are at hand; in training they are made at every step.
    spectra = tables * table_way if trained else 0.0
    plane_bytes = spectrum_bytes((height, width), max(d_k, d_v), item)
    at_once = min(planes, planes_at_a_time((height, width), max(d_k, d_v), item, device))
    return Cost(
        mix_flops=planes * (d_k + d_v + channels) * one_way + products + sums + spectra,
        mix_backward_flops=planes * (d_k + d_v) * (one_way + fft_flops(width, grid.height, real=True))
        + planes * channels * one_way
        + 2 * (products + sums)
        + tables * fft_flops(height * width, real=False),
        projection_flops=projection_flops(workload, d_k),
        transient_bytes=4.0 * at_once * plane_bytes + planes * tokens * (patterns + d_v) * item * (2 if at_once < planes else 1),
        # Correlations are kept with the columns that were cropped: their storage is one.
        saved_bytes=planes * (2.0 * plane_bytes + (grid.height * width * channels + tokens * patterns) * item),
        traffic_bytes=traffic,
    )
