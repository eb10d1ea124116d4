"""LiSA's engine `dense`: products of N x N matrices, the fastest for few tokens.

The tables are written out as weights of pairs, (h, R, N, N) (`_relative_position.pairwise`). With the plain kernel q k^T, s is its sum
with the weights P over the keys, and s with the weights G makes the transformed kernel, which meets the values as any attention does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lisabench.contract import Cost, Grid, Workload, projection_flops
from lisabench.operators._lisa_engine import Engine
from lisabench.operators._relative_position import pairwise, pairwise_transposed


def _seen(query: Tensor, key: Tensor, weights: Tensor, grid: Grid, boundary: str) -> Tensor:
    return torch.einsum("bhij,hrij->bhri", query @ key.transpose(-1, -2), weights)


def _painted(seen: Tensor, value: Tensor, weights: Tensor, grid: Grid, boundary: str) -> Tensor:
    return _kernel(seen, weights) @ value


def _kernel(seen: Tensor, weights: Tensor) -> Tensor:
    if seen.shape[2] == 1:  # one pattern: no sum, so that no counter takes it for a product of matrices
        return seen[:, :, 0, :, None] * weights[:, 0]
    return torch.einsum("bhri,hrij->bhij", seen, weights)


def _transposed(seen: Tensor, x: Tensor, value: Tensor, weights: Tensor, grid: Grid, boundary: str) -> tuple[Tensor, Tensor]:
    of_value = _kernel(seen, weights).transpose(-1, -2) @ x
    products = x @ value.transpose(-1, -2)
    one = len(seen) == 1  # no sum, see above
    of_weights = seen[0].unsqueeze(-1) * products[0].unsqueeze(1) if one else torch.einsum("bhri,bhij->hrij", seen, products)
    return of_value, pairwise_transposed(of_weights, grid, boundary)


DENSE = Engine(pairwise, _seen, _painted, _transposed)


def dense_cost(workload: Workload, patterns: int, d_k: int, boundary: str, traffic: float) -> Cost:
    """Four products of size N x N forward; back the two of each correlation are made again, and as many for its gradients."""
    item, d_v = max(4, workload.item_bytes), workload.head_dim
    planes, tokens = workload.batch * workload.heads, workload.tokens
    square = planes * tokens**2
    weights = 2 * workload.heads * patterns * tokens**2
    painted = 2 * patterns if patterns > 1 else 0  # one pattern is painted back pointwise, without a sum
    of_weights = 2 * patterns if workload.batch > 1 else 0
    return Cost(
        mix_flops=square * (2.0 * (d_k + d_v) + 2 * patterns + painted),
        mix_backward_flops=square * (6.0 * (d_k + d_v) + 2 * patterns + 3 * painted + 2 * of_weights),
        projection_flops=projection_flops(workload, d_k),
        transient_bytes=(1.5 * weights + 2.0 * square) * item,
        saved_bytes=planes * tokens * patterns * item,
        traffic_bytes=traffic,
    )
