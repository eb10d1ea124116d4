"""Focused linear attention (FLatten): features sharpened by a power that keeps their length, and a convolution of the values.

    phi(x) = |u| u^p / |u^p|,   u = (relu(x) + eps) / softplus(s)        p the focusing factor, s learned a channel
    y_i    = phi(q_i) (sum_j phi(k_j)^T v_j) / (phi(q_i) . sum_j phi(k_j) + N eps) + DWC(v)_i

DWC is a depthwise k x k convolution whose filters the heads share: it gives back the rank that N x N weights of rank d lack.

s, eps and where they stand are those of the published code. It takes both lengths |.| over all channels and splits the heads
after that, so that the features of one head depend on the others; here they are those of a head. In float16 its powers of
small features underflow and 0/0 follows; here the power is of u/|u|, in float32. It also adds to the keys a learned table of
N x C, which ties the module to one size of image, and guesses the grid as a square where it works in windows: both left out.

Source: Han et al., FLatten Transformer: Vision Transformer using Focused Linear Attention, ICCV 2023; code:
LeapLabTHU/FLatten-Transformer (FocusedLinearAttention).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisabench.contract import Cost, MultiHeadMixer, Operator, Workload, in_float32, projection_flops
from lisabench.operators._depthwise import DepthwiseConvolution, dense_depthwise, depthwise_flops
from lisabench.operators._kernel_attention import (
    dense_kernel_attention,
    kernel_attention,
    kernel_attention_bytes,
    kernel_attention_flops,
)

EPS = 1e-6  # that of the published code, which adds it to the mean over keys, not to their sum


class Focused(MultiHeadMixer):
    """Multi-head focused linear attention: (B, N, C) -> (B, N, C). `focusing` is p, `kernel_size` the convolution's k."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        grid: tuple[int, int],
        *,
        focusing: float = 3.0,
        kernel_size: int = 5,
        key_dim: int | None = None,
    ) -> None:
        super().__init__(dim, num_heads, grid, key_dim=key_dim)
        if not focusing >= 1:
            raise ValueError(f"focusing got {focusing}; valid: 1 or more")
        self.focusing = focusing
        self.scale = nn.Parameter(torch.zeros(num_heads, 1, self.key_dim))
        self.convolution = DepthwiseConvolution(dim // num_heads, kernel_size, self.grid)

    @in_float32
    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        attended = kernel_attention(self.feature_map(query), self.feature_map(key), value, eps=EPS * self.grid.tokens)
        local: Tensor = self.convolution(value.flatten(0, 1)).view_as(attended)
        return attended + local

    def feature_map(self, x: Tensor) -> Tensor:
        """(B, h, N, d) -> (B, h, N, d), all positive."""
        x = (F.relu(x) + EPS) / F.softplus(self.scale.to(x.dtype))
        length = x.norm(dim=-1, keepdim=True)
        powers: Tensor = (x / length) ** self.focusing
        return powers * (length / powers.norm(dim=-1, keepdim=True))


def dense_reference(module: Focused, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    """The kernel written out, on the plain powers, and the convolution as a sum over tokens, head by head."""
    scale = torch.log1p(module.scale.exp())
    of_query, of_key = ((x.clamp(min=0) + EPS) / scale for x in (query[:, :, rows], key))
    of_query, of_key = (
        x**module.focusing * (x.square().sum(-1) / (x ** (2 * module.focusing)).sum(-1)).sqrt()[..., None] for x in (of_query, of_key)
    )
    local = [dense_depthwise(module.convolution, head, rows) for head in value.unbind(1)]
    return dense_kernel_attention(of_query, of_key, value, eps=EPS * key.shape[-2]) + torch.stack(local, dim=1)


def cost(workload: Workload, *, focusing: float, kernel_size: int, key_dim: int | None) -> Cost:
    d_k, d_v = workload.head_dim if key_dim is None else key_dim, workload.head_dim
    per_token = workload.batch * workload.heads * workload.tokens
    transient, saved = kernel_attention_bytes(workload, d_k, d_v)
    wide, widened = max(4, workload.item_bytes), 4.0 * (workload.item_bytes < 4)  # half precision: the inputs once more, in float32
    return Cost(
        mix_flops=kernel_attention_flops(workload, d_k, d_v) + depthwise_flops(workload, workload.dim, kernel_size),
        projection_flops=projection_flops(workload, d_k),
        transient_bytes=max(transient, 4.0 * per_token * max(d_k, d_v) * wide) + per_token * (2 * d_k + d_v) * widened,
        saved_bytes=saved + per_token * (10.0 * d_k + d_v) * wide,  # five steps of each feature map, and the convolution's image
        traffic_bytes=per_token * 2.0 * (d_k + d_v) * workload.item_bytes,
    )


OPERATOR = Operator(
    name="focused",
    title="Focused linear attention (FLatten)",
    module=Focused,
    source="Han et al., ICCV 2023",
    formula="y = phi(Q) (phi(K)^T V) / phi(Q) sum phi(K) + DWC(V), phi(x) = |u| u^p / |u^p|, u = relu(x) / softplus(s)",
    time_order="N C (d + k^2)",
    memory_order="N C",
    family="kernel",
    cost=cost,
    reference=dense_reference,
)
