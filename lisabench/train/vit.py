"""A small vision transformer whose token mixer is any operator: the whole model.

    tokens = linear(patches) + learned absolute positions (or without)
    block:   x <- x + operator(norm(x));   x <- x + MLP(norm(x))      (pre-norm; in training each sum may be left out for a sample)
    logits = linear(mean over tokens of norm(x))

Source: Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021, eqs. 1 to 4; the sizes tiny and small, and stochastic depth:
Touvron et al., Training data-efficient image transformers (DeiT), ICML 2021, tables 1 and 9. Where we differ: the mean over tokens
in place of a class token (appendix D.3 of the first finds them equal), because a class token has no place on the grid that
structure-aware operators need; and no dropout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisabench.contract import Grid, Operator, Workload


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of a model: channels, blocks, heads, and the MLP's width as a multiple of the channels."""

    dim: int
    depth: int
    heads: int
    mlp_ratio: int


MICRO = Size(dim=48, depth=3, heads=4, mlp_ratio=2)
SIZES = {"micro": MICRO, "tiny": Size(dim=192, depth=12, heads=3, mlp_ratio=4), "small": Size(dim=384, depth=12, heads=6, mlp_ratio=4)}


class Block(nn.Module):
    """Operator and MLP, each behind a norm and beside a residual: (B, N, C) -> (B, N, C)."""

    def __init__(self, mixer: nn.Module, dim: int, hidden: int) -> None:
        super().__init__()
        self.mixer_norm = nn.LayerNorm(dim)
        self.mixer = mixer
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor, share: Tensor | None = None) -> Tensor:
        """`share`: (2, B), what the operator's and the MLP's branch of each sample are multiplied by; None for 1."""
        mixed = self.mixer(self.mixer_norm(x))
        if mixed.shape != x.shape:  # the sum below would broadcast in silence
            raise ValueError(f"the operator gave shape {tuple(mixed.shape)}; valid: that of its input, {tuple(x.shape)}")
        x = x + (mixed if share is None else mixed * share[0, :, None, None])
        mlp: Tensor = self.mlp(self.mlp_norm(x))
        return x + (mlp if share is None else mlp * share[1, :, None, None])


class ViT(nn.Module):
    """Images (B, channels, height, width) -> logits (B, classes); height and width are the grid's times `patch`.

    `positions`: the deviation that learned absolute positions start with; None for a model without them.
    """

    def __init__(
        self,
        operator: Operator,
        options: Mapping[str, Any],
        *,
        size: Size,
        grid: Grid,
        patch: int,
        channels: int,
        classes: int,
        positions: float | None,
        mlp_hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.operator, self.options = operator, dict(options)
        self.size, self.grid, self.patch = size, grid, patch
        hidden = size.mlp_ratio * size.dim if mlp_hidden is None else mlp_hidden
        self.embedding = nn.Linear(channels * patch * patch, size.dim)
        self.positions = None if positions is None else nn.Parameter(positions * torch.randn(1, grid.tokens, size.dim))
        workload = layer_workload(size, grid)
        self.blocks = nn.ModuleList(Block(operator.build(workload, options), size.dim, hidden) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.dim)
        self.head = nn.Linear(size.dim, classes)

    def forward(self, images: Tensor, shares: Tensor | None = None) -> Tensor:
        """`shares`: (depth, 2, B), see `branch_shares`; None for all branches whole."""
        x = self.tokens(images)
        for index, block in enumerate(self.blocks):
            x = block(x, None if shares is None else shares[index])
        logits: Tensor = self.head(self.norm(x).mean(dim=1))
        return logits

    @property
    def layers(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    def tokens(self, images: Tensor) -> Tensor:
        """What the first block is given: (B, N, C)."""
        x: Tensor = self.embedding(self.patches(images))
        return x if self.positions is None else x + self.positions

    def patches(self, images: Tensor) -> Tensor:
        """(B, channels, height, width) -> (B, N, channels * patch * patch), row by row as the grid counts its tokens."""
        x: Tensor = images.unflatten(3, (self.grid.width, self.patch)).unflatten(2, (self.grid.height, self.patch))
        x = x.permute(0, 2, 4, 1, 3, 5)  # (B, channels, H, p, W, p) -> (B, H, W, channels, p, p)
        return x.flatten(3).flatten(1, 2)

    def at_grid(self, grid: Grid) -> ViT:
        """A copy for images of more tokens, of which each shows as much as before: a wider view.

        Learned positions are interpolated bilinearly. An operator that has parameters of the grid's size needs a method
        `widen(grid)`; others are built anew for the grid and take their parameters along.

        Raises:
            ValueError: the operator's parameters depend on the grid and it has no such method.
        """
        copy = deepcopy(self)
        copy.grid = grid
        if self.positions is not None:
            table = self.positions.detach().unflatten(1, tuple(self.grid)).permute(0, 3, 1, 2)  # (1, C, H, W)
            copy.positions = nn.Parameter(F.interpolate(table, tuple(grid), mode="bilinear").flatten(2).transpose(1, 2))
        for block in copy.layers:
            block.mixer = _at_grid(block.mixer, self, grid)
        return copy


def _at_grid(mixer: nn.Module, model: ViT, grid: Grid) -> nn.Module:
    widen: Callable[[Grid], None] | None = getattr(mixer, "widen", None)
    if widen is not None:
        widen(grid)
        return mixer
    state = mixer.state_dict()
    new = model.operator.build(layer_workload(model.size, grid), model.options).to(next(iter(state.values()), torch.empty(0)).device)
    shapes = {name: value.shape for name, value in new.state_dict().items()}
    if any(shapes.get(name) != parameter.shape for name, parameter in mixer.named_parameters()):
        raise ValueError(f"the parameters of {model.operator.name} are those of a {model.grid} grid")
    new.load_state_dict({name: value for name, value in state.items() if shapes.get(name) == value.shape}, strict=False)
    return new


def branch_shares(size: Size, drop_path: float, samples: int, generator: torch.Generator) -> Tensor:
    """Stochastic depth: (depth, 2, samples), 0 where a sample goes without a branch and 1 / (1 - rate) where it does not.

    The rate grows linearly over the blocks, from 0 to `drop_path`.
    """
    kept = 1 - drop_path * torch.arange(size.depth) / max(1, size.depth - 1)
    kept = kept[:, None, None]
    return (torch.rand(size.depth, 2, samples, generator=generator) < kept) / kept


def layer_workload(size: Size, grid: Grid) -> Workload:
    """What the operator of one block is given to do for one image."""
    return Workload(scope="layer", grid=grid, dim=size.dim, heads=size.heads)


def operator_flops(model: ViT) -> float | None:
    """Analytic forward FLOPs an image of the operators with their projections, over all blocks; None where the operator states no cost."""
    if model.operator.cost is None:
        return None
    return model.size.depth * model.operator.cost(layer_workload(model.size, model.grid), **model.options).flops("layer", "forward")


def other_flops(model: ViT) -> float:
    """Forward FLOPs an image of embedding, MLPs and head."""
    linears = [layer for block in model.layers for layer in block.mlp if isinstance(layer, nn.Linear)]
    return 2.0 * model.grid.tokens * sum(layer.weight.numel() for layer in [model.embedding, *linears]) + 2.0 * model.head.weight.numel()


def parameter_count(model: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
