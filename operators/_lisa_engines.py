"""How LiSA is computed: the engines behind `lisa_attention`, which validates and chooses.

Engines, which give the same values to rounding:
  dense  writes the N x N kernel: products of size N x N, fastest for few tokens.
  fft    correlates on the grid by FFTs (`_grid_fft.py`); nothing of size N x N.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lisabench.contract import Grid
from lisabench.operators._grid_fft import correlate, planes_at_a_time, transform, transform_shape
from lisabench.operators._relative_position import pairwise


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


def dense(
    query: Tensor, key: Tensor, value: Tensor, kernel_patterns: Tensor, context_patterns: Tensor, grid: Grid, boundary: str
) -> Tensor:
    kernel_weights, context_weights = (pairwise(table, grid, boundary) for table in (kernel_patterns, context_patterns))
    seen = torch.einsum("bhij,hrij->bhri", query @ key.transpose(-1, -2), kernel_weights)
    if seen.shape[2] == 1:  # one pattern: no sum, so that no counter takes it for a product of matrices
        return seen[:, :, 0, :, None] * context_weights[:, 0] @ value
    return torch.einsum("bhri,hrij->bhij", seen, context_weights) @ value
