"""Landmarks: a few tokens that stand for all, means over the cells of a coarser grid.

The coarse grid has the aspect of the fine one. On a grid of one row these are the segment means of the 1-D papers.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from lisabench.contract import Grid


@lru_cache
def landmark_grid(grid: Grid, landmarks: int) -> Grid:
    """The coarse grid of at most so many cells, no side longer than the fine one's, with many cells that are nearly square."""
    if landmarks < 1:
        raise ValueError(f"landmarks must be 1 or more, got {landmarks}")
    candidates = [Grid(height, min(grid.width, landmarks // height)) for height in range(1, min(grid.height, landmarks) + 1)]

    def worth(coarse: Grid) -> float:
        oblong = (grid.height / coarse.height) / (grid.width / coarse.width)
        return coarse.tokens / max(oblong, 1 / oblong)

    return max(candidates, key=worth)


def pool(x: Tensor, grid: Grid, coarse: Grid) -> Tensor:
    """(..., N, d) -> (..., L, d): means over the coarse cells, which overlap by a row or column where they do not divide the grid."""
    planes = x.transpose(-1, -2).unflatten(-1, grid).flatten(0, -4)  # (B', d, H, W)
    means = F.adaptive_avg_pool2d(planes, (coarse.height, coarse.width))
    return means.flatten(-2).transpose(-1, -2).unflatten(0, x.shape[:-2])


def dense_pool(x: Tensor, grid: Grid, coarse: Grid) -> Tensor:
    """The same by a matrix of means, (L, N). For references."""

    def axis(fine: int, few: int) -> Tensor:
        matrix = torch.zeros(few, fine, dtype=x.dtype, device=x.device)
        for cell in range(few):
            first, last = cell * fine // few, -(-(cell + 1) * fine // few)
            matrix[cell, first:last] = 1 / (last - first)
        return matrix

    return torch.kron(axis(grid.height, coarse.height), axis(grid.width, coarse.width)) @ x
