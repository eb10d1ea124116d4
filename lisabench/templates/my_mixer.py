"""What MyMixer computes, in one line.

    y_i = softmax(q_i) . sum_j softmax_j(k_j)^T v_j      (an example: linear in the number of tokens)

Source: where the formula stands: paper, equation, code. The example: Shen et al., Efficient Attention, WACV 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lisabench.contract import Cost, MultiHeadMixer, Operator, Workload, in_float32, projection_flops


# MultiHeadMixer brings `prepare` (query, key and value as (B, h, N, d), by linear layers) and `finish` (an output layer);
# override either, or write a plain nn.Module with your own. `lisabench scale` times `mix` alone, or with --scope layer all.
class MyMixer(MultiHeadMixer):
    """What stands here is shown by `lisabench ops`: (B, N, C) -> (B, N, C)."""

    # Keyword-only arguments with plain defaults become `--op-option NAME=VALUE`. The grid is (height, width): never guess it.
    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int], *, temperature: float = 1.0) -> None:
        super().__init__(dim, num_heads, grid)
        if not temperature > 0:
            raise ValueError(f"temperature got {temperature}; valid: a number above 0")
        self.temperature = temperature

    @in_float32  # sums over many tokens overflow float16, and in bfloat16 lose their small terms
    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        context = torch.softmax(key / self.temperature, dim=-2).transpose(-1, -2) @ value  # (B, h, d, d)
        return torch.softmax(query / self.temperature, dim=-1) @ context


# In float64, and so plain that it is obviously right, by another way than `mix`: here with all N x N weights.
# `rows` are the tokens whose outputs are wanted.
def dense_reference(module: MyMixer, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    over_channels, over_tokens = torch.softmax(query / module.temperature, dim=-1), torch.softmax(key / module.temperature, dim=-2)
    return (over_channels[:, :, rows] @ over_tokens.transpose(-1, -2)) @ value


# FLOPs and bytes of one call; it takes every option by its name. A multiply-add is 2 FLOPs; softmax and the like are not
# counted. `lisabench verify --flops` holds the figures to two counters. Backward is twice the forward unless you say.
def cost(workload: Workload, *, temperature: float) -> Cost:
    d = workload.head_dim
    numbers = workload.batch * workload.heads * workload.tokens * d  # in one of query, key, value
    wide = max(4, workload.item_bytes)  # mix works in float32 at least
    return Cost(
        mix_flops=4.0 * numbers * d,  # two products of N x d x d
        projection_flops=projection_flops(workload),
        transient_bytes=3.0 * numbers * wide,  # the most that mix holds at once: two softmaxes and its output
        saved_bytes=3.0 * numbers * wide,  # what it keeps for backward, beside its inputs
        traffic_bytes=4.0 * numbers * workload.item_bytes,  # three inputs read and one output written
    )


OPERATOR = Operator(
    name="my_mixer",
    title="MyMixer, an operator to start from",
    module=MyMixer,
    source="paper, equation, code",
    formula="y = softmax(Q) (softmax(K)^T V), the first over channels, the second over tokens",
    time_order="N C d",  # how FLOPs and memory of mix grow with N tokens, C channels, d channels a head, h heads
    memory_order="N C",
    family="kernel",  # what it is listed under; any word of your own will do
    # What the whole layer commutes with: "permutation" of the tokens, cyclic "translation" on the grid, or nothing.
    symmetries=lambda **options: frozenset({"permutation"}),
    cost=cost,
    reference=dense_reference,
)
