"""EfficientViT's multi-scale linear attention (LiteMLA): relu linear attention, on tokens and on local mixtures of them.

    (q', k', v') = for each head and each of its three, A DWC(.)        DWC depthwise k x k, A a d x d matrix (1 x 1, grouped)
    y = [att(q, k, v), att(q', k', v')],   att_i = relu(q_i) (sum_j relu(k_j)^T v_j) / (relu(q_i) . sum_j relu(k_j) + eps)

The second scale is h further heads: `out` takes 2 C channels to C. The published backbones have one such scale, 5 x 5, but
3 x 3 in the two largest of EfficientViT-SAM.

The published code has eps = 1e-15. At a query that is negative throughout, gradients of 1e15 arise on the way, more than float16
holds; some of its versions carry the sums over tokens in float16, where they overflow (the first ones, and that of May 2024), and
the first ones the quotient too, where such an eps is 0. Here all is float32 also for half-precision input, and eps is 1e-6.

At N <= d the code turns to the N x N form without a word: the same values at another cost; here the sums are linear at every N.
Left out is the batch normalisation behind `out`, which in training couples the samples of a batch. The projections have a
bias, as all operators' here; DWC and A have none, as published.

Source: Cai et al., EfficientViT: Multi-Scale Linear Attention for High-Resolution Dense Prediction, ICCV 2023; code:
mit-han-lab/efficientvit (LiteMLA).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisabench.contract import Cost, MultiHeadMixer, Operator, Workload, in_float32
from lisabench.operators._depthwise import DepthwiseConvolution, depthwise_flops
from lisabench.operators._kernel_attention import (
    dense_kernel_attention,
    kernel_attention,
    kernel_attention_bytes,
    kernel_attention_flops,
)

EPS = 1e-6
SCALES = 2  # the tokens themselves, and their aggregates


class EfficientViT(MultiHeadMixer):
    """Multi-scale relu linear attention: (B, N, C) -> (B, N, C); mix gives (B, 2h, N, d). `kernel_size` is that of the second scale."""

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int], *, kernel_size: int = 5) -> None:
        super().__init__(dim, num_heads, grid)
        self.out = nn.Linear(SCALES * dim, dim)
        self.convolution = DepthwiseConvolution(3 * dim, kernel_size, self.grid, bias=False)
        bound = self.key_dim**-0.5  # that of a convolution over d channels
        self.mixing = nn.Parameter(torch.empty(3 * num_heads, self.key_dim, self.key_dim).uniform_(-bound, bound))

    @in_float32
    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scales = (query, key, value), self.aggregate(query, key, value)
        return torch.cat([kernel_attention(F.relu(q), F.relu(k), v, eps=EPS) for q, k, v in scales], dim=1)

    def aggregate(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Query, key and value of the second scale, (B, h, N, d) each."""
        channels = [x.transpose(1, 2).flatten(-2) for x in (query, key, value)]  # (B, N, C) each
        near = self.convolution(torch.cat(channels, dim=-1)).unflatten(-1, (3 * self.num_heads, -1))
        return torch.einsum("bngd,gde->bgne", near, self.mixing.to(near.dtype)).chunk(3, dim=1)


def dense_reference(module: EfficientViT, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    """Both kernels written out; the convolution as a sum of k x k shifted grids."""
    height, width = module.grid
    kernel_size, heads = module.convolution.weight.shape[-1], query.shape[1]
    attended = [dense_kernel_attention(F.relu(query[:, :, rows]), F.relu(key), value, eps=EPS)]
    second = []
    for index, x in enumerate((query, key, value)):
        of_head = slice(index * heads, (index + 1) * heads)
        filters = module.convolution.weight.unflatten(0, (3 * heads, -1))[of_head, :, 0]  # (h, d, k, k)
        image = F.pad(x.unflatten(2, module.grid), (0, 0) + 4 * (kernel_size // 2,))
        near = sum(
            filters[:, None, None, :, dy, dx] * image[:, :, dy : dy + height, dx : dx + width]
            for dy in range(kernel_size)
            for dx in range(kernel_size)
        )
        second.append(near.flatten(2, 3) @ module.mixing[of_head])
    attended.append(dense_kernel_attention(F.relu(second[0][:, :, rows]), F.relu(second[1]), second[2], eps=EPS))
    return torch.cat(attended, dim=1)


def cost(workload: Workload, *, kernel_size: int) -> Cost:
    d, per_token = workload.head_dim, workload.batch * workload.tokens * workload.dim
    transient, saved = kernel_attention_bytes(workload, d, d)
    wide, widened = max(4, workload.item_bytes), 4.0 * (workload.item_bytes < 4)  # half precision: the inputs once more, in float32
    aggregation = depthwise_flops(workload, 3 * workload.dim, kernel_size) + 6.0 * per_token * d
    return Cost(
        mix_flops=SCALES * kernel_attention_flops(workload, d, d) + aggregation,
        projection_flops=2.0 * per_token * (3 + SCALES) * workload.dim,
        transient_bytes=transient + per_token * (4 * wide + 3 * widened),  # the second scale and the first one's result stand by
        saved_bytes=SCALES * saved + per_token * 10 * wide,  # before and after the convolution 3 each, and 4 features
        traffic_bytes=per_token * (3.0 + SCALES) * workload.item_bytes,
    )


OPERATOR = Operator(
    name="efficientvit",
    title="EfficientViT's multi-scale linear attention",
    module=EfficientViT,
    source="Cai et al., ICCV 2023",
    formula="y = [att(q, k, v), att(q', k', v')], att = relu(Q) (relu(K)^T V) / relu(Q) sum relu(K), x' = A DWC(x)",
    time_order="N C (d + k^2)",
    memory_order="N C",
    family="kernel",
    cost=cost,
    reference=dense_reference,
)
