"""Softmax attention with its N x N weights written out: what papers plot as "quadratic".

    A = softmax(Q K^T / sqrt d)        y = A V

The same values as `softmax`; the difference is memory: two N x N arrays a head stand at the peak.

Source: Vaswani et al., Attention Is All You Need, NeurIPS 2017, eq. 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lisabench.contract import Cost, MultiHeadMixer, Operator, Workload, projection_flops


class SoftmaxDense(MultiHeadMixer):
    """Multi-head softmax attention, explicit: (B, N, C) -> (B, N, C)."""

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
        return torch.softmax(scores, dim=-1) @ value


def dense_reference(module: SoftmaxDense, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    weights = torch.exp(query[:, :, rows] @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]))
    return (weights / weights.sum(dim=-1, keepdim=True)) @ value


def cost(workload: Workload, *, key_dim: int | None) -> Cost:
    d_k, d_v = workload.head_dim if key_dim is None else key_dim, workload.head_dim
    planes, tokens, item = workload.batch * workload.heads, workload.tokens, workload.item_bytes
    return Cost(
        mix_flops=2.0 * planes * tokens**2 * (d_k + d_v),
        projection_flops=projection_flops(workload, d_k),
        transient_bytes=planes * tokens * (2.0 * tokens + d_v) * item,
        saved_bytes=planes * tokens * (tokens + d_k) * item,
        traffic_bytes=planes * tokens * 2.0 * (d_k + d_v) * item,
    )


OPERATOR = Operator(
    name="softmax_dense",
    title="Softmax attention, N x N written out",
    module=SoftmaxDense,
    source="Vaswani et al., NeurIPS 2017, eq. 1",
    formula="y = softmax(Q K^T / sqrt d) V, the weights in memory",
    time_order="N^2 C",
    memory_order="N^2 h",
    family="quadratic",
    symmetries=lambda **options: frozenset({"permutation"}),
    cost=cost,
    reference=dense_reference,
)
