"""Galerkin attention: linear attention without a softmax, its keys and values normalised.

    y_i = q_i . sum_j norm(k_j)^T norm(v_j) / N      norm: a LayerNorm over the channels of each head

Source: Cao, Choose a Transformer: Fourier or Galerkin, NeurIPS 2021, the Galerkin type; code:
scaomath/galerkin-transformer. Where this differs: the heads share the weights of their norms, and positions are not appended to the channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisabench.contract import Cost, MultiHeadMixer, Operator, Workload, in_float32, projection_flops


class Galerkin(MultiHeadMixer):
    """Multi-head Galerkin attention: (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int], *, eps: float = 1e-5) -> None:
        super().__init__(dim, num_heads, grid)
        if not eps > 0:
            raise ValueError(f"eps got {eps}; valid: a number above 0")
        self.key_norm = nn.LayerNorm(self.key_dim, eps=eps)
        self.value_norm = nn.LayerNorm(self.key_dim, eps=eps)

    @in_float32
    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        key, value = _normalised(key, self.key_norm), _normalised(value, self.value_norm)
        return query @ (key.transpose(-1, -2) @ value / value.shape[-2])


def _normalised(tensor: Tensor, norm: nn.LayerNorm) -> Tensor:
    """What `norm` gives, its weights in the tensor's dtype: a module in half precision meets float32 here."""
    return F.layer_norm(tensor, norm.normalized_shape, norm.weight.to(tensor.dtype), norm.bias.to(tensor.dtype), norm.eps)


def dense_reference(module: Galerkin, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    """With all N x N products of queries and keys."""

    def normalised(tensor: Tensor, norm: nn.LayerNorm) -> Tensor:
        centred = tensor - tensor.mean(-1, keepdim=True)
        return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + norm.eps) * norm.weight + norm.bias

    products = query[:, :, rows] @ normalised(key, module.key_norm).transpose(-1, -2)
    return products @ normalised(value, module.value_norm) / value.shape[-2]


def cost(workload: Workload, *, eps: float) -> Cost:
    numbers = workload.batch * workload.tokens * workload.dim
    wide = max(4, workload.item_bytes)
    return Cost(
        mix_flops=4.0 * numbers * workload.head_dim,
        projection_flops=projection_flops(workload),
        transient_bytes=3.0 * numbers * wide,
        saved_bytes=3.0 * numbers * wide,
        traffic_bytes=4.0 * numbers * workload.item_bytes,
    )


OPERATOR = Operator(
    name="galerkin",
    title="Galerkin attention",
    module=Galerkin,
    source="Cao, NeurIPS 2021, the Galerkin type",
    formula="y = Q (norm(K)^T norm(V)) / N, norm over the channels of each head",
    time_order="N C d",
    memory_order="N C",
    family="kernel",
    symmetries=lambda **options: frozenset({"permutation"}),
    cost=cost,
    reference=dense_reference,
)
