"""NPRF: normalised kernel attention with positive random features and a relative position bias, by 2-D FFTs.

    phi(x) = m^-1/2 exp(w x^ - 1/2),   x^ = x / |x|,   rows of w (m x d) drawn from N(0, I)
    y_i    = phi(q_i) sum_j e^{b[D(i,j)]} phi(k_j)^T v_j / phi(q_i) . sum_j e^{b[D(i,j)]} phi(k_j)

The bias stands in the exponent, as in softmax attention with relative positions, which this estimates for unit queries and
keys. On a unit sphere phi has a floor and a ceiling, so that neither it nor the FFTs need a stabilising maximum; the tables are
exponentiated after their maximum, which cancels in the quotient. The published algorithm is 1-D, for sequences: on a flattened
image the end of a row neighbours the start of the next. Here the offset is that on the grid.

Where a head's bias is far below its maximum at every offset that a token has, float32 loses digits of that token's sums
(`_relative_kernel.py`), about a factor e of error for each 1 that one offset stands above all others. m is a setting of ours;
the bias starts at 0.

Source: Luo et al., Stable, Fast and Accurate: Kernelized Attention with Relative Positional Encoding, NeurIPS 2021
(arXiv 2106.12566), algorithm 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisabench.contract import Cost, MultiHeadMixer, Operator, Workload, checked_grid, in_float32, projection_flops
from lisabench.operators._relative_kernel import (
    dense_relative_kernel_attention,
    relative_kernel_attention,
    relative_kernel_bytes,
    relative_kernel_flops,
    relative_kernel_saved_bytes,
)
from lisabench.operators._relative_position import table_shape, widened


class NPRF(MultiHeadMixer):
    """Multi-head NPRF attention with a 2-D bias: (B, N, C) -> (B, N, C). `features` is m, a head."""

    weights: Tensor

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int], *, features: int = 32, key_dim: int | None = None) -> None:
        super().__init__(dim, num_heads, grid, key_dim=key_dim)
        if features < 1:
            raise ValueError(f"features got {features}; valid: 1 or more")
        self.register_buffer("weights", torch.randn(features, self.key_dim))
        self.bias = nn.Parameter(torch.zeros(num_heads, *table_shape(self.grid)))

    def widen(self, grid: tuple[int, int]) -> None:
        """Goes over to another grid with tokens as far apart: offsets that were never seen take the bias of the nearest that was."""
        new = checked_grid(grid)
        self.bias = widened(self.bias, self.grid, new, beyond="nearest")
        self.grid = new

    @in_float32
    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        bias = self.bias.to(value.dtype)
        table = torch.exp(bias - bias.detach().amax(dim=(-2, -1), keepdim=True))
        return relative_kernel_attention(self.feature_map(query), self.feature_map(key), value, table, self.grid)

    def feature_map(self, x: Tensor) -> Tensor:
        """(B, h, N, d) -> (B, h, N, m), all positive."""
        return torch.exp(F.normalize(x, dim=-1) @ self.weights.to(x.dtype).T - (1 + math.log(len(self.weights))) / 2)


def dense_reference(module: NPRF, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    """The kernel phi(q_i) . phi(k_j) e^b written out; what is the same for all tokens cancels in the quotient."""
    of_query, of_key = (
        torch.exp(torch.einsum("bhnd,md->bhnm", x / x.pow(2).sum(-1, keepdim=True).sqrt().clamp_min(1e-12), module.weights))
        for x in (query[:, :, rows], key)
    )
    return dense_relative_kernel_attention(of_query, of_key, value, module.bias.exp(), module.grid, rows)


def cost(workload: Workload, *, features: int, key_dim: int | None) -> Cost:
    d_k, d_v = workload.head_dim if key_dim is None else key_dim, workload.head_dim
    per_token = workload.batch * workload.heads * workload.tokens
    wide = max(4, workload.item_bytes)
    feature_products = 4.0 * per_token * d_k * features
    forward, backward = relative_kernel_flops(workload, features, d_v)
    height, width = table_shape(workload.grid)
    table_numbers = workload.heads * height * width
    return Cost(
        mix_flops=feature_products + forward,
        mix_backward_flops=feature_products + backward,  # the random weights take no gradient
        projection_flops=projection_flops(workload, d_k),
        transient_bytes=per_token * 2.0 * features * wide + relative_kernel_bytes(workload, features, d_v),
        # Of queries and keys their norms and, in half precision, their copies in float32.
        saved_bytes=per_token * 2.0 * (1 + (d_k if workload.item_bytes < 4 else 0)) * wide
        + relative_kernel_saved_bytes(workload, features, d_v),
        traffic_bytes=(per_token * 2.0 * (d_k + d_v) + table_numbers) * workload.item_bytes,
    )


OPERATOR = Operator(
    name="nprf",
    title="NPRF, kernel attention with a relative position bias",
    module=NPRF,
    source="Luo et al., NeurIPS 2021, arXiv 2106.12566, algorithm 1",
    formula="y_i = phi(q_i) sum_j e^b[D] phi(k_j)^T v_j / phi(q_i) . sum_j e^b[D] phi(k_j), phi(x) = m^-1/2 exp(w x/|x| - 1/2)",
    time_order="N log N m C",
    memory_order="N C",
    family="structure-aware",
    grid_parameters="(2H-1)(2W-1) h",
    cost=cost,
    reference=dense_reference,
)
