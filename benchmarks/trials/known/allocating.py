"""Operators that allocate known amounts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FIRST_BYTES, SECOND_BYTES = 48 * 2**20, 64 * 2**20


class Allocates(nn.Module):
    """Two blocks, one after the other, and the output beside the second: the peak is that of the second, not the sum."""

    def forward(self, x: Tensor) -> Tensor:
        first = x.new_ones(FIRST_BYTES // 4)
        del first
        second = x.new_ones(SECOND_BYTES // 4)
        out = x.clone()
        del second
        return out


class Exponential(nn.Module):
    """Its derivative is its output, which is all that it keeps for the backward."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(x)
