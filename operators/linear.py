"""Linear attention with the feature map elu + 1.

    phi(x) = elu(x) + 1        y_i = phi(q_i) (sum_j phi(k_j)^T v_j) / (phi(q_i) . sum_j phi(k_j) + eps)

In floating point phi is 0 below -17 or so, hence eps.
The sums over tokens are carried in float32: in float16 the normaliser overflows from about a thousand tokens on (d = 64), which
is the fault of the reference code under mixed precision (its issue 32).

Source: Katharopoulos et al., Transformers are RNNs, ICML 2020; code: idiap/fast-transformers.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lisabench.contract import Cost, MultiHeadMixer, Operator, Workload, in_float32, projection_flops
from lisabench.operators._kernel_attention import (
    dense_kernel_attention,
    kernel_attention,
    kernel_attention_bytes,
    kernel_attention_flops,
)

EPS = 1e-6  # that of the published code


class Linear(MultiHeadMixer):
    """Multi-head linear attention: (B, N, C) -> (B, N, C)."""

    @in_float32
    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return kernel_attention(F.elu(query) + 1, F.elu(key) + 1, value, eps=EPS)


def dense_reference(module: Linear, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    return dense_kernel_attention(F.elu(query[:, :, rows]) + 1, F.elu(key) + 1, value, eps=EPS)


def cost(workload: Workload, *, key_dim: int | None) -> Cost:
    d_k, d_v = workload.head_dim if key_dim is None else key_dim, workload.head_dim
    per_token = workload.batch * workload.heads * workload.tokens
    transient, saved = kernel_attention_bytes(workload, d_k, d_v)
    widened = per_token * (2 * d_k + d_v) * 4.0 * (workload.item_bytes < 4)  # half precision: the inputs once more, in float32
    return Cost(
        mix_flops=kernel_attention_flops(workload, d_k, d_v),
        projection_flops=projection_flops(workload, d_k),
        transient_bytes=transient + widened,
        saved_bytes=saved + widened,
        traffic_bytes=per_token * 2.0 * (d_k + d_v) * workload.item_bytes,
    )


OPERATOR = Operator(
    name="linear",
    title="Linear attention, elu + 1",
    module=Linear,
    source="Katharopoulos et al., ICML 2020",
    formula="y = phi(Q) (phi(K)^T V) / phi(Q) sum phi(K), phi = elu + 1",
    time_order="N C d",
    memory_order="N C",
    family="kernel",
    symmetries=lambda **options: frozenset({"permutation"}),
    cost=cost,
    reference=dense_reference,
)
