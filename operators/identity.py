"""Identity: each token as it came. What any mixing of tokens must beat, and what it must be worth in a trained model.

    y = x

Its latency is that of a call which does nothing: the floor below every other figure. The output is the input, not a
copy of it: nothing is allocated, moved or computed.

Source: Yu et al., MetaFormer Is Actually What You Need for Vision, CVPR 2022, table 5 (identity mapping as the token mixer).
"""

from __future__ import annotations

from torch import Tensor, nn

from lisabench.contract import Cost, Operator, Workload, checked_grid


class Identity(nn.Module):
    """No mixing: (B, N, C) -> (B, N, C), the same tensor."""

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = checked_grid(grid)

    def mix(self, x: Tensor) -> Tensor:
        return x


def dense_reference(module: Identity, x: Tensor, *, rows: Tensor) -> Tensor:
    return x[:, rows]


def cost(workload: Workload) -> Cost:
    return Cost(mix_flops=0.0, transient_bytes=0.0, saved_bytes=0.0, traffic_bytes=0.0)


OPERATOR = Operator(
    name="identity",
    title="Identity (no mixing)",
    module=Identity,
    source="Yu et al., CVPR 2022, table 5",
    formula="y = x",
    time_order="1",
    memory_order="1",
    family="local and control",
    symmetries=lambda **options: frozenset({"permutation", "translation"}),
    cost=cost,
    reference=dense_reference,
)
