"""A small vision transformer whose token mixer is any operator: the whole model.

    tokens = linear(patches) + learned absolute positions
    block:   x <- x + operator(norm(x));   x <- x + MLP(norm(x))      (pre-norm)
    logits = linear(mean over tokens of norm(x))

Source: Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021, eqs. 1 to 4. Where we differ: the mean over tokens
in place of a class token (appendix D.3 there finds them equal), because a class token has no place on the grid that
structure-aware operators need; and no dropout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lisabench.contract import Grid, Operator, Workload


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of a model: channels, blocks, heads, and the MLP's width as a multiple of the channels."""

    dim: int
    depth: int
    heads: int
    mlp_ratio: int


MICRO = Size(dim=48, depth=3, heads=4, mlp_ratio=2)


class Block(nn.Module):
    """Operator and MLP, each behind a norm and beside a residual: (B, N, C) -> (B, N, C)."""

    def __init__(self, mixer: nn.Module, size: Size) -> None:
        super().__init__()
        hidden = size.mlp_ratio * size.dim
        self.mixer_norm = nn.LayerNorm(size.dim)
        self.mixer = mixer
        self.mlp_norm = nn.LayerNorm(size.dim)
        self.mlp = nn.Sequential(nn.Linear(size.dim, hidden), nn.GELU(), nn.Linear(hidden, size.dim))

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mixer(self.mixer_norm(x))
        if mixed.shape != x.shape:  # the sum below would broadcast in silence
            raise ValueError(f"the operator gave shape {tuple(mixed.shape)}; valid: that of its input, {tuple(x.shape)}")
        x = x + mixed
        mlp: Tensor = self.mlp(self.mlp_norm(x))
        return x + mlp


class ViT(nn.Module):
    """Images (B, channels, height, width) -> logits (B, classes); height and width are the grid's times `patch`."""

    def __init__(
        self, operator: Operator, options: Mapping[str, Any], *, size: Size, grid: Grid, patch: int, channels: int, classes: int
    ) -> None:
        super().__init__()
        self.grid, self.patch = grid, patch
        self.embedding = nn.Linear(channels * patch * patch, size.dim)
        self.positions = nn.Parameter(0.02 * torch.randn(1, grid.tokens, size.dim))
        workload = layer_workload(size, grid)
        self.blocks = nn.ModuleList(Block(operator.build(workload, options), size) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.dim)
        self.head = nn.Linear(size.dim, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.embedding(self.patches(images)) + self.positions  # (B, N, C)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x).mean(dim=1))
        return logits

    def patches(self, images: Tensor) -> Tensor:
        """(B, channels, height, width) -> (B, N, channels * patch * patch), row by row as the grid counts its tokens."""
        x: Tensor = images.unflatten(3, (self.grid.width, self.patch)).unflatten(2, (self.grid.height, self.patch))
        x = x.permute(0, 2, 4, 1, 3, 5)  # (B, channels, H, p, W, p) -> (B, H, W, channels, p, p)
        return x.flatten(3).flatten(1, 2)


def layer_workload(size: Size, grid: Grid) -> Workload:
    """What the operator of one block is given to do for one image."""
    return Workload(scope="layer", grid=grid, dim=size.dim, heads=size.heads)


def operator_flops(operator: Operator, options: Mapping[str, Any], *, size: Size, grid: Grid) -> float | None:
    """Analytic forward FLOPs an image of the operators with their projections, over all blocks.

    Embedding, MLPs and head are left out: they are the same whatever the operator. None where the operator states no cost.
    """
    if operator.cost is None:
        return None
    return size.depth * operator.cost(layer_workload(size, grid), **options).flops("layer", "forward")


def parameter_count(model: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
