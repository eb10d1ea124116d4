"""Pooling: each token becomes the mean of its neighbourhood, less itself.

    y_i = mean_{j in k x k around i} x_j - x_i

There is nothing to learn. Beyond the rim there are no tokens: the mean is over those that exist. Sums are not FLOPs by
the convention of this package, so that it counts 0.

Source: Yu et al., MetaFormer Is Actually What You Need for Vision, CVPR 2022, algorithm 1; code: sail-sg/poolformer (Pooling).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisabench.contract import Cost, Operator, Workload, checked_grid


class Pool(nn.Module):
    """(B, N, C) -> (B, N, C). `kernel_size` k is odd, so that each token is the centre of its neighbourhood."""

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int], *, kernel_size: int = 3) -> None:
        super().__init__()
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size got {kernel_size}; valid: an odd number of 3 or more")
        self.grid = checked_grid(grid)
        self.kernel_size = kernel_size

    def mix(self, x: Tensor) -> Tensor:
        image = x.transpose(-1, -2).unflatten(-1, self.grid)  # (B, C, H, W)
        means = F.avg_pool2d(image, self.kernel_size, stride=1, padding=self.kernel_size // 2, count_include_pad=False)
        return means.flatten(-2).transpose(-1, -2) - x


def dense_reference(module: Pool, x: Tensor, *, rows: Tensor) -> Tensor:
    """The N x N matrix of means, less the identity."""
    width, reach = module.grid.width, module.kernel_size // 2
    tokens = torch.arange(module.grid.tokens, device=x.device)
    dy, dx = tokens // width - (rows // width)[:, None], tokens % width - (rows % width)[:, None]
    near = ((dy.abs() <= reach) & (dx.abs() <= reach)).to(x.dtype)
    return (near / near.sum(dim=-1, keepdim=True)) @ x - x[:, rows]


def cost(workload: Workload, *, kernel_size: int) -> Cost:
    plane = 1.0 * workload.batch * workload.tokens * workload.dim * workload.item_bytes
    return Cost(mix_flops=0.0, transient_bytes=2 * plane, saved_bytes=0.0, traffic_bytes=2 * plane)


OPERATOR = Operator(
    name="pool",
    title="Pooling (PoolFormer)",
    module=Pool,
    source="Yu et al., CVPR 2022, algorithm 1",
    formula="y = avg_pool_k(x) - x, over the tokens that exist",
    time_order="N C k^2",
    memory_order="N C",
    family="local and control",
    cost=cost,
    reference=dense_reference,
)
