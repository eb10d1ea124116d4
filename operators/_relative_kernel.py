"""Attention with a kernel of feature maps times a table of relative positions, by FFTs on the grid: log-linear in the tokens.

    w_ij = (phi(q_i) . phi(k_j)) T[pos(j) - pos(i)] + eps       y_i = sum_j w_ij v_j / sum_j w_ij

A feature f of the kernel is a correlation with T, so that nothing of size N x N is needed:

    sum_j w_ij v_j = sum_f phi(q_i)_f (T (*) (phi(k)_f v))_i + eps sum_j v_j

and the same with 1 for v below: a column of ones goes along with the values. The m (d + 1) planes of N numbers are never held
at once: a loop takes some features of some heads and samples at a time, and the backward computes its correlations anew, as
flash kernels do, instead of keeping them. Memory is that of the inputs, forward and backward.

An FFT's rounding error is the same at every token, relative to the largest: float32 keeps about six digits of the tokens whose
sum is near the largest possible one, and fewer where the table is far below its peak at every offset that a token has, or where
a feature is far below its own mean around a token. Feature maps must therefore have a floor that float32 resolves.

Source: Luo et al., Stable, Fast and Accurate, NeurIPS 2021, algorithm 1; Choromanski et al., From block-Toeplitz matrices to
differential equations on graphs, ICML 2022, sec. 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lisabench.contract import Grid, Workload, fft_flops
from lisabench.operators._grid_fft import (
    correlate,
    planes_at_a_time,
    spectrum_bytes,
    spectrum_product_flops,
    table_spectra,
    transform,
    transform_flops,
    transform_shape,
)
from lisabench.operators._relative_position import offset_index


def relative_kernel_attention(query: Tensor, key: Tensor, value: Tensor, table: Tensor, grid: Grid, *, eps: float = 0.0) -> Tensor:
    """(B, h, N, d) from features (B, h, N, m), value (B, h, N, d) and table (h, 2H-1, 2W-1), none but value negative.

    All in one dtype, float32 or float64. `eps` is added to every weight, for kernels that can be zero at all tokens.
    """
    with_ones = torch.cat([value, torch.ones_like(value[..., :1])], dim=-1)
    if torch.is_grad_enabled():
        sums: Tensor = _WeightedCorrelations.apply(query, key, with_ones, table, grid)
    else:  # what traces a forward sees plain operators
        sums = _weighted_correlations(query, key, with_ones, table, grid)
    if eps:
        sums = sums + eps * with_ones.sum(dim=-2, keepdim=True)
    return sums[..., :-1] / sums[..., -1:]


def dense_relative_kernel_attention(
    query: Tensor, key: Tensor, value: Tensor, table: Tensor, grid: Grid, rows: Tensor, *, eps: float = 0.0
) -> Tensor:
    """The same with the N x N kernel written out, for the tokens in `rows`, whose features `query` holds. For references."""
    weights = query @ key.transpose(-1, -2) * table.flatten(1)[:, offset_index(grid, rows)] + eps
    return weights @ value / weights.sum(dim=-1, keepdim=True)


def _weighted_correlations(query: Tensor, key: Tensor, value: Tensor, table: Tensor, grid: Grid) -> Tensor:
    """sum_f query_f (T (*) (key_f value)), (B, h, N, c)."""
    shape, spectra = transform_shape(grid), table_spectra(table, grid)
    query, key, value = (t.unflatten(2, grid) for t in (query, key, value))  # (B, h, H, W, ...)
    out = torch.zeros_like(value)
    for planes, heads, features in _blocks(query, value, shape):
        key_times_value = _outer(key[planes][..., features], value[planes])
        seen = correlate(transform(key_times_value, shape), spectra[heads], grid, shape).unflatten(-1, (-1, value.shape[-1]))
        out[planes] += (query[planes][..., features].unsqueeze(-1) * seen).sum(dim=-2)
    return out.flatten(2, 3)


class _WeightedCorrelations(torch.autograd.Function):
    """`_weighted_correlations` that keeps its inputs only. The adjoint of a correlation with T is the convolution with T."""

    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor, table: Tensor, grid: Grid) -> Tensor:
        return _weighted_correlations(query, key, value, table, grid)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.grid = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        grid, table = ctx.grid, ctx.saved_tensors[3]
        shape, spectra = transform_shape(grid), table_spectra(table, grid)
        query, key, value, gradient = (t.unflatten(2, grid) for t in (*ctx.saved_tensors[:3], gradient))
        of_query, of_key, of_value = torch.empty_like(query), torch.empty_like(key), torch.zeros_like(value)
        of_spectra, adjoint = torch.zeros_like(spectra), torch.conj_physical(spectra)
        for planes, heads, features in _blocks(query, value, shape):
            q, k, v, g = query[planes][..., features], key[planes][..., features], value[planes], gradient[planes]
            from_keys, from_queries = transform(_outer(k, v), shape), transform(_outer(q, g), shape)
            of_spectra[heads] += (from_queries.conj() * from_keys).sum(dim=(0, -1)).unsqueeze(-1)
            seen = correlate(from_keys, spectra[heads], grid, shape).unflatten(-1, (-1, v.shape[-1]))
            of_query[planes][..., features] = (seen * g.unsqueeze(-2)).sum(dim=-1)
            seen = correlate(from_queries, adjoint[heads], grid, shape).unflatten(-1, (-1, v.shape[-1]))
            of_key[planes][..., features] = (seen * v.unsqueeze(-2)).sum(dim=-1)
            of_value[planes] += (seen * k.unsqueeze(-1)).sum(dim=-2)
        of_offsets = torch.fft.irfft2(of_spectra.squeeze(-1), s=shape)  # the offset D stands at D mod L
        of_table = of_offsets.roll((grid.height - 1, grid.width - 1), dims=(-2, -1))[..., : table.shape[-2], : table.shape[-1]]
        return of_query.flatten(2, 3), of_key.flatten(2, 3), of_value.flatten(2, 3), of_table, None


def _outer(features: Tensor, value: Tensor) -> Tensor:
    """Every feature times every channel: (..., f) and (..., c) to (..., f*c)."""
    return (features.unsqueeze(-1) * value.unsqueeze(-2)).flatten(-2)


def _blocks(query: Tensor, value: Tensor, shape: tuple[int, int]) -> Iterator[tuple[tuple[slice, slice], slice, slice]]:
    """Slices of samples and heads, of heads, and of features, whose spectra are held at once."""
    batch, heads, features = *query.shape[:2], query.shape[-1]
    samples_each, heads_each, features_each = _block_shape(
        batch, heads, features, shape, value.shape[-1], value.element_size(), value.device.type
    )
    for sample in range(0, batch, samples_each):
        for head in range(0, heads, heads_each):
            some_heads = slice(head, head + heads_each)
            for feature in range(0, features, features_each):
                yield (slice(sample, sample + samples_each), some_heads), some_heads, slice(feature, feature + features_each)


def _block_shape(
    batch: int, heads: int, features: int, shape: tuple[int, int], channels: int, item_bytes: int, device_type: str
) -> tuple[int, int, int]:
    """Samples, heads and features at a time, where a plane is one feature's products with all values of a head.

    Samples and heads fill the bound on spectra first. On a CPU that is all: more features at a time were no faster at 14 x 14 to
    64 x 64 tokens. A GPU needs them where the grid is small.
    """
    room = planes_at_a_time(shape, channels, item_bytes, device_type)
    samples_each, heads_each = min(batch, max(1, room // heads)), min(heads, room)
    features_each = 1 if device_type == "cpu" else min(features, max(1, room // (samples_each * heads_each)))
    return samples_each, heads_each, features_each


# --- what it costs -----------------------------------------------------------------------------------------------------


def relative_kernel_flops(workload: Workload, features: int, value_dim: int) -> tuple[float, float]:
    """FLOPs of `relative_kernel_attention`, forward and backward.

    A product of feature and channel takes a transform there and one back and a product of spectra. The backward takes these
    again, the same for the adjoint, and a third product for the table; weighted sums over features are pointwise work.
    """
    grid, shape = workload.grid, transform_shape(workload.grid)
    planes = workload.batch * workload.heads * features * (value_dim + 1)
    there_and_back, product = 2 * planes * transform_flops(grid, shape), planes * spectrum_product_flops(shape)
    of_tables = workload.heads * fft_flops(shape[0] * shape[1], real=True)
    return there_and_back + product + of_tables, 2 * there_and_back + 3 * product + 2 * of_tables


def relative_kernel_bytes(workload: Workload, features: int, value_dim: int) -> float:
    """Bytes that a forward holds at its peak beside its inputs: sums, values with ones, a block's spectra."""
    shape, item = transform_shape(workload.grid), max(4, workload.item_bytes)
    device_type = workload.device.partition(":")[0]
    at_once = math.prod(_block_shape(workload.batch, workload.heads, features, shape, value_dim + 1, item, device_type))
    # A spectrum, its product with the table's, and the transform of that, for which the FFT takes a copy.
    block = 4.0 * at_once * spectrum_bytes(shape, value_dim + 1, item)
    return block + 2.0 * workload.batch * workload.heads * workload.tokens * (value_dim + 1) * item


def relative_kernel_saved_bytes(workload: Workload, features: int, value_dim: int) -> float:
    """Bytes that a forward keeps: the features of queries and keys, the values with ones, the sums."""
    per_token = 2 * features + 2 * (value_dim + 1)
    return float(workload.batch * workload.heads * workload.tokens * per_token * max(4, workload.item_bytes))
