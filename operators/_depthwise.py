"""Depthwise convolution of tokens that stand on a grid: each channel with a k x k filter of its own, zeros beyond the rim."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisabench.contract import Grid, Workload
from lisabench.operators._relative_position import neighbours


class DepthwiseConvolution(nn.Module):
    """(B, N, C) -> (B, N, C) on a grid H x W, N = H * W; `kernel_size` k is odd, so that each token is the centre of its window."""

    def __init__(self, channels: int, kernel_size: int, grid: Grid, *, bias: bool = True) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size got {kernel_size}; valid: an odd number of 1 or more")
        self.grid = grid
        convolution = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=bias)
        self.weight, self.bias = convolution.weight, convolution.bias  # (C, 1, k, k), (C)

    def forward(self, x: Tensor) -> Tensor:
        image = x.transpose(-1, -2).unflatten(-1, self.grid)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        out = F.conv2d(image, self.weight.to(x.dtype), bias, padding=self.weight.shape[-1] // 2, groups=len(self.weight))
        return out.flatten(-2).transpose(-1, -2)


def dense_depthwise(convolution: DepthwiseConvolution, x: Tensor, rows: Tensor) -> Tensor:
    """The convolution at the tokens in `rows`, as a sum over the tokens around each: (B, rows, C). For references."""
    around, inside = neighbours(convolution.grid, rows, convolution.weight.shape[-1])
    out = torch.einsum("brmc,cm,rm->brc", x[:, around], convolution.weight.flatten(1), inside.to(x))
    return out if convolution.bias is None else out + convolution.bias


def depthwise_flops(workload: Workload, channels: int, kernel_size: int) -> float:
    """FLOPs of one forward; those beyond the rim are counted as the others, as all counters do."""
    return 2.0 * workload.batch * workload.tokens * channels * kernel_size**2
