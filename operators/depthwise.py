"""Depthwise convolution: each channel filtered on the grid by k x k weights of its own, 7 x 7 as in ConvNeXt.

    y_i = sum_{|D| <= k // 2} w[D] x_{i + D} + b, per channel, zeros beyond the rim

The convolution of a ConvNeXt block and no more: its normalisation and its two linear layers belong to the block, as the
MLP of a transformer does. The rim is computed as the rest is, and counted so.

Source: Liu et al., A ConvNet for the 2020s, CVPR 2022, sec. 2.5; code: facebookresearch/ConvNeXt (Block.dwconv).
"""

from __future__ import annotations

from torch import Tensor, nn

from lisabench.contract import Cost, Operator, Workload, checked_grid
from lisabench.operators._depthwise import DepthwiseConvolution, dense_depthwise, depthwise_flops


class Depthwise(nn.Module):
    """(B, N, C) -> (B, N, C). `kernel_size` k is odd."""

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int], *, kernel_size: int = 7) -> None:
        super().__init__()
        self.convolution = DepthwiseConvolution(dim, kernel_size, checked_grid(grid))
        nn.init.trunc_normal_(self.convolution.weight, std=0.02)
        if self.convolution.bias is not None:
            nn.init.zeros_(self.convolution.bias)

    def mix(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.convolution(x)
        return mixed


def dense_reference(module: Depthwise, x: Tensor, *, rows: Tensor) -> Tensor:
    return dense_depthwise(module.convolution, x, rows)


def cost(workload: Workload, *, kernel_size: int) -> Cost:
    plane = 1.0 * workload.batch * workload.tokens * workload.dim * workload.item_bytes
    return Cost(
        mix_flops=depthwise_flops(workload, workload.dim, kernel_size),
        # In training a CPU's library takes input and output once more, in its own order.
        transient_bytes=(3 if workload.mode == "train" else 1) * plane,
        saved_bytes=0.0,
        traffic_bytes=2 * plane + workload.dim * (kernel_size**2 + 1.0) * workload.item_bytes,
    )


OPERATOR = Operator(
    name="depthwise",
    title="Depthwise convolution, 7 x 7 (ConvNeXt)",
    module=Depthwise,
    source="Liu et al., CVPR 2022, sec. 2.5",
    formula="y_i = sum_D w[D] x_{i + D} + b, per channel, D in k x k",
    time_order="N C k^2",
    memory_order="N C",
    family="local and control",
    cost=cost,
    reference=dense_reference,
)
