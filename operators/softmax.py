"""Softmax attention through torch's scaled_dot_product_attention, the baseline of every comparison.

    y_i = sum_j softmax_j(q_i . k_j / sqrt d) v_j

Which kernel torch picks (flash, efficient, cudnn or math) depends on device, dtype and shape: it is recorded with
each figure, because their memory differs by an order of N.

Source: Vaswani et al., Attention Is All You Need, NeurIPS 2017, eq. 1; kernels: torch.nn.functional.scaled_dot_product_attention.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lisabench.contract import Cost, MultiHeadMixer, Operator, Workload, projection_flops
from lisabench.operators._sdpa import kernel_that_ran


class Softmax(MultiHeadMixer):
    """Multi-head softmax attention: (B, N, C) -> (B, N, C)."""

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value)


def dense_reference(module: Softmax, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    scores = query[:, :, rows] @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return torch.softmax(scores, dim=-1) @ value


def cost(workload: Workload, *, key_dim: int | None) -> Cost:
    """Two products forward; flash kernels compute the scores once more in backward: five there.

    With a key_dim of its own the CPU's SDPA has the explicit kernel only: N x N weights, in float32 at least, and no recomputation.
    """
    d_k, d_v = workload.head_dim if key_dim is None else key_dim, workload.head_dim
    planes, tokens = workload.batch * workload.heads, workload.tokens
    square = 2.0 * planes * tokens**2
    explicit = workload.device == "cpu" and d_k != d_v
    weights = planes * tokens**2 * max(4.0, workload.item_bytes) if explicit else 0.0
    return Cost(
        mix_flops=square * (d_k + d_v),
        mix_backward_flops=square * (2 * d_k + 2 * d_v if explicit else 3 * d_k + 2 * d_v),
        projection_flops=projection_flops(workload, d_k),
        transient_bytes=2 * weights + planes * tokens * (d_v * workload.item_bytes + 4.0),
        saved_bytes=weights + planes * tokens * (d_v * workload.item_bytes + 4.0),
        traffic_bytes=planes * tokens * 2.0 * (d_k + d_v) * workload.item_bytes,
    )


OPERATOR = Operator(
    name="softmax",
    title="Softmax attention (torch SDPA)",
    module=Softmax,
    source="Vaswani et al., NeurIPS 2017, eq. 1; torch scaled_dot_product_attention",
    formula="y = softmax(Q K^T / sqrt d) V",
    time_order="N^2 C",
    memory_order="N C",
    family="quadratic",
    symmetries=lambda **options: frozenset({"permutation"}),
    cost=cost,
    reference=dense_reference,
    backend=kernel_that_ran,
)
