"""Performer: softmax attention estimated with positive orthogonal random features (FAVOR+).

    phi(x) = m^-1/2 [exp(w x^ - |x^|^2 / 2 - max) + eps],   x^ = x / d^(1/4),   w (m x d) in orthogonal blocks
    y_i    = phi(q_i) (sum_j phi(k_j)^T v_j) / phi(q_i) . sum_j phi(k_j)

The stabilising maximum is taken per token for queries and per head and sample for keys: it cancels in the quotient (up
to eps), and no sample sees another one of its batch. It is that of the whole exponent: public code takes that of w x^
alone, which leaves exp(-|x^|^2 / 2) to be drowned by eps, so that long tokens all give the mean of the values. The
features, their exponentials and the sums over tokens are float32 also for half-precision input: xformers' favor.py (removed
since) has neither the maximum nor eps, so that in float16 the features of long tokens are all 0, and 0/0 follows.

Rows of w have the norms of Gaussian rows and uniform directions, or the estimate would not be unbiased. Public code takes Q of
a QR decomposition as it comes, without the signs of R: there w_11 is negative in each block, with a mean of -0.8.

Source: Choromanski et al., Rethinking Attention with Performers, ICLR 2021, lemma 1; code: google-research/performer
(fast_attention), lucidrains/performer-pytorch; uniform rotations: Mezzadri, How to generate random matrices from the classical
compact groups, Notices of the AMS 2007.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lisabench.contract import Cost, MultiHeadMixer, Operator, Workload, in_float32, projection_flops
from lisabench.operators._kernel_attention import (
    dense_kernel_attention,
    kernel_attention,
    kernel_attention_bytes,
    kernel_attention_flops,
)

EPS = 1e-4  # that of performer-pytorch


class Performer(MultiHeadMixer):
    """Multi-head FAVOR+ attention: (B, N, C) -> (B, N, C). `features` is m a head; None is d ln d, the default of performer-pytorch."""

    weights: Tensor

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int], *, features: int | None = None, key_dim: int | None = None) -> None:
        super().__init__(dim, num_heads, grid, key_dim=key_dim)
        features = default_features(self.key_dim) if features is None else features
        if features < 1:
            raise ValueError(f"features must be 1 or more, got {features}")
        self.register_buffer("weights", orthogonal_features(features, self.key_dim))

    @in_float32
    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return kernel_attention(self.feature_map(query, keys=False), self.feature_map(key, keys=True), value)

    def feature_map(self, x: Tensor, *, keys: bool) -> Tensor:
        """(B, h, N, d) -> (B, h, N, m), all positive."""
        x = x * x.shape[-1] ** -0.25
        exponent = x @ self.weights.to(x.dtype).T - x.square().sum(dim=-1, keepdim=True) / 2
        stabiliser = exponent.amax(dim=(-2, -1) if keys else -1, keepdim=True)
        return (torch.exp(exponent - stabiliser) + EPS) / math.sqrt(len(self.weights))


def default_features(key_dim: int) -> int:
    """m = d ln d, at least 1."""
    return max(1, int(key_dim * math.log(key_dim)))


def orthogonal_features(features: int, key_dim: int) -> Tensor:
    """(m, d): rows orthogonal in blocks of d, with the norms of Gaussian rows."""
    blocks = [uniform_rotation(key_dim) for _ in range(math.ceil(features / key_dim))]
    return torch.cat(blocks)[:features] * torch.randn(features, key_dim).norm(dim=-1, keepdim=True)


def uniform_rotation(side: int) -> Tensor:
    """An orthogonal matrix, all equally likely: QR with a positive diagonal of R, which is unique."""
    orthogonal, triangular = torch.linalg.qr(torch.randn(side, side))
    return orthogonal * triangular.diagonal().sign()


def dense_reference(module: Performer, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    """The kernel phi(q_i) . phi(k_j) written out, feature by feature, and normalised over j."""
    scale = query.shape[-1] ** -0.25
    exponents = [
        torch.einsum("bhnd,md->bhnm", scale * x, module.weights) - (scale * x).pow(2).sum(-1)[..., None] / 2
        for x in (query[:, :, rows], key)
    ]
    of_query = torch.exp(exponents[0] - exponents[0].max(dim=-1, keepdim=True).values) + EPS
    of_key = torch.exp(exponents[1] - exponents[1].flatten(2).max(dim=-1).values[..., None, None]) + EPS
    return dense_kernel_attention(of_query, of_key, value)  # m^-1/2 cancels in the quotient


def cost(workload: Workload, *, features: int | None, key_dim: int | None) -> Cost:
    d_k, d_v = workload.head_dim if key_dim is None else key_dim, workload.head_dim
    m = default_features(d_k) if features is None else features
    per_token = workload.batch * workload.heads * workload.tokens
    transient, saved = kernel_attention_bytes(workload, m, d_v)
    wide, widened = max(4, workload.item_bytes), 4.0 * (workload.item_bytes < 4)  # half precision: the inputs once more, in float32
    feature_products, mixing = 4.0 * per_token * d_k * m, kernel_attention_flops(workload, m, d_v)
    return Cost(
        mix_flops=feature_products + mixing,
        mix_backward_flops=feature_products + 2 * mixing,  # the random weights take no gradient
        projection_flops=projection_flops(workload, d_k),
        transient_bytes=max(transient, per_token * (4.0 * m + d_k) * wide) + per_token * (2 * d_k + d_v) * widened,
        saved_bytes=saved + per_token * ((4.0 * m + 2 * d_k) * wide + d_v * widened),  # scaled inputs, exponents, exponentials
        traffic_bytes=per_token * 2.0 * (d_k + d_v) * workload.item_bytes,
    )


OPERATOR = Operator(
    name="performer",
    title="Performer (FAVOR+)",
    module=Performer,
    source="Choromanski et al., ICLR 2021",
    formula="y = phi(Q) (phi(K)^T V) / phi(Q) sum phi(K), phi(x) = m^-1/2 [exp(w x^ - |x^|^2/2 - max) + eps]",
    time_order="N C m",
    memory_order="N h m",
    family="kernel",
    symmetries=lambda **options: frozenset({"permutation"}),
    cost=cost,
    reference=dense_reference,
)
