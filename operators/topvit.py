"""TopViT: relu kernel attention times a table of relative positions, by 2-D FFTs.

    w_ij = ((relu(q_i / sqrt d) + e) . (relu(k_j) + e)) |T[D(i,j)]| + e^2        y_i = sum_j w_ij v_j / sum_j w_ij

The published code writes the N x N weights; the paper's point, that a block-Toeplitz mask multiplies a kernel of features by
FFTs, is here the code. e is 1e-3 instead of the code's 1e-8 (and e^2 instead of its second 1e-8): beside features of about 1 an FFT in
float32 has no digits for 1e-8, and where relu leaves nothing of the keys that the table lets a token see, the quotient would be
one of rounding errors: few channels and a table of few neighbours are enough. The table starts at 1, as published, and holds the
(2H-1)(2W-1) offsets that a pair of tokens can have; the code's table of 2H x 2W has a row and a column that are never read.
There is no class token, for which the code's mask is 1.

Source: Choromanski et al., From block-Toeplitz matrices to differential equations on graphs, ICML 2022 (arXiv 2107.07999),
sec. 3.2; code: google-research/google-research, topological_transformer/images/attention.py.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lisabench.contract import Cost, MultiHeadMixer, Operator, Workload, checked_grid, in_float32, projection_flops
from lisabench.operators._relative_kernel import (
    dense_relative_kernel_attention,
    relative_kernel_attention,
    relative_kernel_bytes,
    relative_kernel_flops,
    relative_kernel_saved_bytes,
)
from lisabench.operators._relative_position import table_shape, widened

FLOOR = 1e-3


class TopViT(MultiHeadMixer):
    """Multi-head attention of TopViT: (B, N, C) -> (B, N, C). A head has key_dim features."""

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int], *, key_dim: int | None = None) -> None:
        super().__init__(dim, num_heads, grid, key_dim=key_dim)
        self.table = nn.Parameter(torch.ones(num_heads, *table_shape(self.grid)))

    def widen(self, grid: tuple[int, int]) -> None:
        """Goes over to another grid with tokens as far apart: offsets that were never seen take the factor of the nearest that was."""
        new = checked_grid(grid)
        self.table = widened(self.table, self.grid, new, beyond="nearest")
        self.grid = new

    @in_float32
    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query = torch.relu(query / math.sqrt(query.shape[-1])) + FLOOR
        return relative_kernel_attention(query, torch.relu(key) + FLOOR, value, self.table.to(value.dtype).abs(), self.grid, eps=FLOOR**2)


def dense_reference(module: TopViT, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    of_query = (query[:, :, rows] * query.shape[-1] ** -0.5).clamp_min(0) + FLOOR
    return dense_relative_kernel_attention(of_query, key.clamp_min(0) + FLOOR, value, module.table.abs(), module.grid, rows, eps=FLOOR**2)


def cost(workload: Workload, *, key_dim: int | None) -> Cost:
    d_k, d_v = workload.head_dim if key_dim is None else key_dim, workload.head_dim
    per_token = workload.batch * workload.heads * workload.tokens
    wide = max(4, workload.item_bytes)
    forward, backward = relative_kernel_flops(workload, d_k, d_v)
    height, width = table_shape(workload.grid)
    table_numbers = workload.heads * height * width
    return Cost(
        mix_flops=forward,
        mix_backward_flops=backward,
        projection_flops=projection_flops(workload, d_k),
        transient_bytes=per_token * 2.0 * d_k * wide + relative_kernel_bytes(workload, d_k, d_v),
        saved_bytes=per_token * 2.0 * d_k * wide + relative_kernel_saved_bytes(workload, d_k, d_v),
        traffic_bytes=(per_token * 2.0 * (d_k + d_v) + table_numbers) * workload.item_bytes,
    )


OPERATOR = Operator(
    name="topvit",
    title="TopViT, relu kernel attention with a block-Toeplitz mask",
    module=TopViT,
    source="Choromanski et al., ICML 2022, arXiv 2107.07999; google-research/topological_transformer",
    formula="y = A V / A 1, A_ij = (relu(q_i / sqrt d) + e) . (relu(k_j) + e) |T[D(i,j)]| + e^2, e = 1e-3",
    time_order="N log N d C",
    memory_order="N C",
    family="structure-aware",
    grid_parameters="(2H-1)(2W-1) h",
    cost=cost,
    reference=dense_reference,
)
