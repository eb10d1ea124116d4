"""LiSA's engine `dense`: writes the N x N kernel. Products of size N x N are fastest for few tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from lisabench.contract import Cost, Grid, Workload, projection_flops


def dense(query: Tensor, key: Tensor, value: Tensor, kernel_weights: Tensor, context_weights: Tensor, grid: Grid, boundary: str) -> Tensor:
    """LiSA from weights (h, R, N, N), as `_relative_position.pairwise` makes them of its tables."""
    seen = torch.einsum("bhij,hrij->bhri", query @ key.transpose(-1, -2), kernel_weights)
    if seen.shape[2] == 1:  # one pattern: no sum, so that no counter takes it for a product of matrices
        return seen[:, :, 0, :, None] * context_weights[:, 0] @ value
    return torch.einsum("bhri,hrij->bhij", seen, context_weights) @ value


def dense_cost(workload: Workload, patterns: int, d_k: int, boundary: str, traffic: float) -> Cost:
    """Four products of size N x N."""
    item, d_v = max(4, workload.item_bytes), workload.head_dim
    planes, tokens = workload.batch * workload.heads, workload.tokens
    square = planes * tokens**2
    weights = 2 * workload.heads * patterns * tokens**2
    weighted = 2 * patterns if patterns > 1 else 1  # one pattern is painted back pointwise, without a sum
    return Cost(
        mix_flops=2.0 * square * (d_k + d_v + weighted),
        projection_flops=projection_flops(workload, d_k),
        transient_bytes=(1.5 * weights + 2.0 * square) * item,
        saved_bytes=(weights + 2.0 * square) * item,
        traffic_bytes=traffic,
    )
