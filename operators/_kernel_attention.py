"""Attention with a kernel that is a product of feature maps, phi(q_i) . phi(k_j): linear in the number of tokens.

    y_i = phi(q_i) (sum_j phi(k_j)^T v_j) / (phi(q_i) . sum_j phi(k_j) + eps)

Source: Katharopoulos et al., Transformers are RNNs, ICML 2020, eq. 5 and 6.
"""

from __future__ import annotations

from torch import Tensor

from lisabench.contract import Workload


def kernel_attention(query: Tensor, key: Tensor, value: Tensor, *, eps: float = 0.0) -> Tensor:
    """(B, h, N, d_v) from features (B, h, N, m), which are not negative, and value (B, h, N, d_v); in their dtype, float32 or more.

    `eps` is added to the normaliser, for features that can all be zero.
    """
    context = key.transpose(-1, -2) @ value  # (B, h, m, d_v)
    normaliser = query @ key.sum(dim=-2).unsqueeze(-1)  # (B, h, N, 1)
    return query @ context / (normaliser + eps if eps else normaliser)


def dense_kernel_attention(query: Tensor, key: Tensor, value: Tensor, *, eps: float = 0.0) -> Tensor:
    """The same with the N x N kernel written out; `query` may hold the features of some tokens only. For references."""
    kernel = query @ key.transpose(-1, -2)
    return kernel @ value / (kernel.sum(dim=-1, keepdim=True) + eps)


def kernel_attention_flops(workload: Workload, features: int, value_dim: int) -> float:
    """FLOPs of `kernel_attention`, forward."""
    return 2.0 * workload.batch * workload.heads * workload.tokens * features * (2 * value_dim + 1)


def kernel_attention_bytes(workload: Workload, features: int, value_dim: int) -> tuple[float, float]:
    """What `kernel_attention` holds at the peak of a forward, its features included, and what it keeps for backward.

    Heads as MultiHeadMixer splits them are views; over several samples a product of matrices copies them, the query in both of its
    products.
    """
    planes = workload.batch * workload.heads
    copies = workload.batch > 1
    transient = 2 * features + value_dim + max(value_dim, features * copies)
    saved = 2 * features + (features + value_dim) * copies + value_dim + 1
    context = planes * features * value_dim
    wide = max(4, workload.item_bytes)
    return (planes * workload.tokens * transient + context) * wide, (planes * workload.tokens * saved + context) * wide
