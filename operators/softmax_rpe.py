"""Softmax attention with a learned bias for every relative position, through torch's scaled_dot_product_attention.

    y_i = sum_j softmax_j(q_i . k_j / sqrt d + B[D(i,j)]) v_j        D(i,j) = pos(j) - pos(i),  B: (h, 2H-1, 2W-1)

The bias is written out, N x N a head, at every call, as in published code, and given to SDPA as a mask of floats: no flash
kernel of a GPU takes one, and on a CPU it does only where the bias needs no gradient. What runs instead is recorded: on a
GPU "efficient", in training on a CPU "math", which writes the N x N weights of every sample too.

Source: Liu et al., Swin Transformer, ICCV 2021, eq. 4, over the whole grid as in BEiT; code: timm, layers/pos_embed_rel.py.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisabench.contract import Cost, MultiHeadMixer, Operator, Workload, checked_grid, projection_flops
from lisabench.operators._relative_position import offset_index, pairwise, table_shape, widened
from lisabench.operators._sdpa import kernel_that_ran


class SoftmaxRPE(MultiHeadMixer):
    """Multi-head softmax attention with a relative position bias: (B, N, C) -> (B, N, C). The table starts as N(0, 0.02^2)."""

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int], *, key_dim: int | None = None) -> None:
        super().__init__(dim, num_heads, grid, key_dim=key_dim)
        self.bias = nn.Parameter(nn.init.trunc_normal_(torch.empty(num_heads, *table_shape(self.grid)), std=0.02))

    def widen(self, grid: tuple[int, int]) -> None:
        """Goes over to another grid with tokens as far apart: offsets that were never seen take the bias of the nearest that was."""
        new = checked_grid(grid)
        self.bias = widened(self.bias, self.grid, new, beyond="nearest")
        self.grid = new

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        # The leading axis must be there: with a mask of three axes SDPA falls back to its explicit kernel everywhere.
        bias = pairwise(self.bias.to(query.dtype), self.grid).unsqueeze(0)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def dense_reference(module: SoftmaxRPE, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    bias = module.bias.flatten(1)[:, offset_index(module.grid, rows)]
    weights = torch.exp(query[:, :, rows] @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + bias)
    return (weights / weights.sum(dim=-1, keepdim=True)) @ value


def cost(workload: Workload, *, key_dim: int | None) -> Cost:
    """Two products forward; kernels that keep no weights compute the scores once more in backward: five there."""
    d_k, d_v = workload.head_dim if key_dim is None else key_dim, workload.head_dim
    planes, tokens, item = workload.batch * workload.heads, workload.tokens, workload.item_bytes
    wide = max(4, item)  # the explicit kernel works in float32
    square, written = planes * tokens**2, workload.heads * tokens**2 * item
    table = workload.heads * math.prod(table_shape(workload.grid))
    # With a key_dim of its own, or a bias that needs a gradient, the CPU's SDPA has the explicit kernel only.
    explicit = workload.device == "cpu" and (d_k != d_v or workload.mode == "train")
    result = planes * tokens * (d_v * item + 4.0)
    return Cost(
        mix_flops=2.0 * square * (d_k + d_v),
        mix_backward_flops=2.0 * square * (2 * d_k + 2 * d_v if explicit else 3 * d_k + 2 * d_v),
        projection_flops=projection_flops(workload, d_k),
        # Before B is written, windows over its rows: 2 / W of it.
        transient_bytes=written + max(2.0 * written / workload.grid.width, (2.0 * square * wide if explicit else 0.0) + result),
        saved_bytes=(square + planes * tokens * (2.0 * d_k + d_v)) * wide if explicit else written + result,
        traffic_bytes=(planes * tokens * 2.0 * (d_k + d_v) + table) * item,
    )


OPERATOR = Operator(
    name="softmax_rpe",
    title="Softmax attention with relative position bias (torch SDPA)",
    module=SoftmaxRPE,
    source="Liu et al., ICCV 2021, eq. 4; torch scaled_dot_product_attention",
    formula="y = softmax(Q K^T / sqrt d + B[D]) V",
    time_order="N^2 C",
    memory_order="N^2 h",
    family="quadratic",
    grid_parameters="(2H-1)(2W-1) h",
    cost=cost,
    reference=dense_reference,
    backend=kernel_that_ran,
)
