"""One matrix product of known size, with its cost stated."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lisabench.contract import Cost, Operator, Workload


class Product(nn.Module):
    """(B, N, C) times (C, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def cost(workload: Workload) -> Cost:
    rows = workload.batch * workload.tokens
    out = 4.0 * rows * workload.dim
    weight = 4.0 * workload.dim**2
    return Cost(mix_flops=2.0 * rows * workload.dim**2, transient_bytes=out, saved_bytes=0.0, traffic_bytes=2 * out + weight)


OPERATOR = Operator(
    name="product",
    title="A matrix product",
    module=Product,
    source="",
    formula="x W",
    time_order="N",
    memory_order="N",
    cost=cost,
)
