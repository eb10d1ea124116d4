"""Universal relative position attention: softmax attention whose weights are multiplied by a Toeplitz matrix.

    A = softmax(Q K^T / sqrt d + B[D])        y = (A * T[D]) V        D(i,j) = pos(j) - pos(i);  B, T: (h, 2H-1, 2W-1)

The rows of A sum to 1, so that equal tokens give equal outputs whatever B is; those of A * T need not, and with T the
operator tells positions apart without absolute ones. Explicit: no attention kernel multiplies after the softmax.

T starts at 1, so that training sets out from `softmax_rpe`. The published code, for text, draws both tables from N(0, 1) and
shares entries over buckets of distances, unless asked for ones in T and for an entry of every distance, and shares the tables
over the layers; here, every offset of the 2-D grid has its own entry.

Source: Luo et al., Your Transformer May Not be as Powerful as You Expect, NeurIPS 2022; code: lsj2408/URPE.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lisabench.contract import Cost, MultiHeadMixer, Operator, Workload, checked_grid, projection_flops
from lisabench.operators._relative_position import offset_index, pairwise, table_shape, widened


class URPE(MultiHeadMixer):
    """Multi-head URPE attention, explicit: (B, N, C) -> (B, N, C). `bias` starts as N(0, 0.02^2), `gain`, which is T, at 1."""

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int], *, key_dim: int | None = None) -> None:
        super().__init__(dim, num_heads, grid, key_dim=key_dim)
        shape = (num_heads, *table_shape(self.grid))
        self.bias = nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))
        self.gain = nn.Parameter(torch.ones(shape))

    def widen(self, grid: tuple[int, int]) -> None:
        """Goes over to another grid with tokens as far apart: offsets that were never seen take the bias and the factor of the nearest that was."""
        new = checked_grid(grid)
        self.bias = widened(self.bias, self.grid, new, beyond="nearest")
        self.gain = widened(self.gain, self.grid, new, beyond="nearest")
        self.grid = new

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        bias, gain = self.bias.to(value.dtype), self.gain.to(value.dtype)
        # The scores have no name and the gain is written last: no more than two N x N tensors of all samples stand at a time.
        weights = ((query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)).add_(pairwise(bias, self.grid)).softmax(dim=-1)
        return (weights.to(value.dtype) * pairwise(gain, self.grid)) @ value


def dense_reference(module: URPE, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    offsets = offset_index(module.grid, rows)
    weights = torch.exp(query[:, :, rows] @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])) * module.bias.exp().flatten(1)[:, offsets]
    return torch.einsum("bhij,hij,bhjd->bhid", weights, module.gain.flatten(1)[:, offsets], value) / weights.sum(dim=-1, keepdim=True)


def cost(workload: Workload, *, key_dim: int | None) -> Cost:
    d_k, d_v = workload.head_dim if key_dim is None else key_dim, workload.head_dim
    planes, tokens, item = workload.batch * workload.heads, workload.tokens, workload.item_bytes
    square, written = planes * tokens**2, workload.heads * tokens**2
    tables = 2 * workload.heads * math.prod(table_shape(workload.grid))
    return Cost(
        mix_flops=2.0 * square * (d_k + d_v),
        projection_flops=projection_flops(workload, d_k),
        transient_bytes=(2.0 * square + written + planes * tokens * d_k) * item,
        saved_bytes=(2.0 * square + written + planes * tokens * (2 * d_k + d_v)) * item,
        traffic_bytes=(planes * tokens * 2.0 * (d_k + d_v) + tables) * item,
    )


OPERATOR = Operator(
    name="urpe",
    title="URPE, softmax attention times a Toeplitz matrix",
    module=URPE,
    source="Luo et al., NeurIPS 2022; lsj2408/URPE",
    formula="y = (softmax(Q K^T / sqrt d + B[D]) * T[D]) V",
    time_order="N^2 C",
    memory_order="N^2 h",
    family="quadratic",
    grid_parameters="2 (2H-1)(2W-1) h",
    cost=cost,
    reference=dense_reference,
)
