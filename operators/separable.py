"""MobileViTv2's separable self-attention: one score a token, one context vector for all.

    y_i = relu(v_i) * sum_j softmax_j(q_j) k_j        q one number a token; k, v of C channels

There are no heads. The softmax is over the whole grid: MobileViTv2 takes it apart for each of the 2 x 2 places within a patch, which a
grid whose sides are odd has no use for. The scores and the weighted sum are float32.

Source: Mehta and Rastegari, Separable Self-attention for Mobile Vision Transformers, TMLR 2023; code:
apple/ml-cvnets (LinearSelfAttention).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisabench.contract import Cost, Operator, Workload, in_float32


class Separable(nn.Module):
    """Separable self-attention: (B, N, C) -> (B, N, C). mix takes query (B, N, 1), key and value (B, N, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim must be 1 or more, got {dim}")
        self.query, self.key, self.value, self.out = nn.Linear(dim, 1), nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)

    def prepare(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.query(x), self.key(x), self.value(x)

    @in_float32
    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        context = torch.softmax(query, dim=1).transpose(1, 2) @ key  # (B, 1, C)
        return F.relu(value) * context

    def finish(self, y: Tensor) -> Tensor:
        merged: Tensor = self.out(y)
        return merged


def dense_reference(module: Separable, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    """The softmax as a quotient of sums over tokens; the scores are at most some 30 here, and exp holds 700 in float64."""
    weights = query.exp()
    context = (weights * key).sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True)
    chosen = value[:, rows]
    return torch.where(chosen > 0, chosen, 0) * context


def cost(workload: Workload) -> Cost:
    numbers, wide = workload.batch * workload.tokens * workload.dim, max(4, workload.item_bytes)
    scores = workload.batch * workload.tokens
    widened = 2.0 * numbers * wide if workload.item_bytes < 4 else 0.0  # copies in float32
    return Cost(
        mix_flops=2.0 * numbers,
        projection_flops=2.0 * numbers * (3 * workload.dim + 1),
        transient_bytes=2.0 * numbers * wide + widened,
        saved_bytes=(numbers + scores) * wide + widened / 2,  # relu keeps its result
        traffic_bytes=(3.0 * numbers + scores) * workload.item_bytes,
    )


OPERATOR = Operator(
    name="separable",
    title="Separable self-attention (MobileViTv2)",
    module=Separable,
    source="Mehta and Rastegari, TMLR 2023",
    formula="y_i = relu(v_i) * sum_j softmax_j(q_j) k_j",
    time_order="N C",
    memory_order="N C",
    family="channel",
    symmetries=lambda **options: frozenset({"permutation"}),
    cost=cost,
    reference=dense_reference,
)
