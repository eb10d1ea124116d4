"""Hydra attention: linear attention with as many heads as channels, so that both sums become pointwise.

    y_i = q^_i * sum_j k^_j * v_j        q^, k^ at unit length over the channels of a token

The kernel is cosine similarity and has no normaliser over tokens: the sum grows with N, and is carried in float32. Public code
divides by a norm that can be 0 and gives NaN for a token of zeros; here such a token gives 0 and has no gradient.

Source: Bolya et al., Hydra Attention: Efficient Attention with Many Heads, ECCV Workshops 2022; code:
robflynnyh/hydra-linear-attention, after the paper's listing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lisabench.contract import Cost, MultiHeadMixer, Operator, Workload, in_float32, projection_flops

EPS = 1e-12  # shorter tokens count as zeros


class Hydra(MultiHeadMixer):
    """Hydra attention: (B, N, C) -> (B, N, C). A head a channel, whatever the workload's heads: the tensors are (B, 1, N, C)."""

    def __init__(self, dim: int, grid: tuple[int, int]) -> None:
        super().__init__(dim, 1, grid)

    @in_float32
    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        # The lengths of the keys weigh the sum over tokens: a product with one row, and no normalised copy of the keys.
        context = inverse_length(key).transpose(-1, -2) @ (key * value)  # (B, 1, 1, C)
        return query * inverse_length(query) * context


def inverse_length(x: Tensor) -> Tensor:
    """(B, 1, N, 1) from (B, 1, N, C); 0 for a token of zeros."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return (length > EPS) / length.clamp(min=EPS)


def dense_reference(module: Hydra, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    """The attention of each head, rows x N, written out."""
    query, key = (t / t.square().sum(dim=-1, keepdim=True).sqrt() for t in (query[:, :, rows], key))
    heads = [
        q.unsqueeze(-1) * k.unsqueeze(-2) @ v.unsqueeze(-1) for q, k, v in zip(*(t.unbind(-1) for t in (query, key, value)), strict=True)
    ]
    return torch.cat(heads, dim=-1)


def cost(workload: Workload) -> Cost:
    """The sum over tokens is a product; lengths and the two products by channel are pointwise work."""
    numbers, wide = workload.batch * workload.tokens * workload.dim, max(4, workload.item_bytes)
    widened = 3.0 * numbers * wide if workload.item_bytes < 4 else 0.0  # copies in float32
    return Cost(
        mix_flops=2.0 * numbers,
        projection_flops=projection_flops(workload, workload.head_dim),
        transient_bytes=2.0 * numbers * wide + widened,
        saved_bytes=2.0 * numbers * wide + widened,
        traffic_bytes=4.0 * numbers * workload.item_bytes,
    )


OPERATOR = Operator(
    name="hydra",
    title="Hydra attention",
    module=Hydra,
    source="Bolya et al., ECCV Workshops 2022",
    formula="y_i = q^_i * sum_j k^_j * v_j, q^ and k^ at unit length",
    time_order="N C",
    memory_order="N C",
    family="channel",
    symmetries=lambda **options: frozenset({"permutation"}),
    cost=cost,
    reference=dense_reference,
)
