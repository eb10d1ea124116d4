"""Tables of relative positions on a grid: their shape, and the entry for a pair of tokens.

A table has (..., 2H-1, 2W-1) entries, the one for offset (dy, dx) = pos(j) - pos(i) at [dy + H-1, dx + W-1]. With the boundary
"periodic" offsets are taken modulo (H, W), the table is (..., H, W), and the entry stands at [dy mod H, dx mod W].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisabench.contract import Grid


def table_shape(grid: Grid, boundary: str = "zero") -> tuple[int, int]:
    """Height and width of a table: an entry for every offset that two tokens of the grid can have."""
    return grid if boundary == "periodic" else (2 * grid.height - 1, 2 * grid.width - 1)


def offset_index(grid: Grid, rows: Tensor, boundary: str = "zero") -> Tensor:
    """Where in a flattened table the entry of (i, j) stands, for the tokens i in `rows` and every j: (rows, N)."""
    height, width = grid
    tokens = torch.arange(grid.tokens, device=rows.device)
    dy = tokens // width - (rows // width)[:, None]
    dx = tokens % width - (rows % width)[:, None]
    if boundary == "periodic":
        return (dy % height) * width + dx % width
    return (dy + height - 1) * (2 * width - 1) + dx + width - 1


def widened(table: Tensor, old: Grid, new: Grid, boundary: str = "zero", *, beyond: str = "zero") -> nn.Parameter:
    """The table for another grid whose tokens are as far apart as on the old one: an offset keeps its entry.

    An offset that the old grid does not have takes 0, or with `beyond` "nearest" the entry of the nearest one that it has.
    """
    places, known = [], []
    for before, after in zip(old, new, strict=True):
        if boundary == "periodic":
            offset = (torch.arange(after) + after // 2) % after - after // 2  # of the shorter way round
            inside = (offset >= -(before // 2)) & (offset < before - before // 2)
            places.append(offset % before)
        else:
            offset = torch.arange(1 - after, after)
            inside = offset.abs() < before
            places.append(offset.clamp(1 - before, before - 1) + before - 1)
        known.append(inside | (beyond == "nearest"))
    rows, columns = (place.to(table.device) for place in places)
    seen = (known[0][:, None] & known[1]).to(table.device)
    return nn.Parameter(table.detach()[..., rows[:, None], columns] * seen, requires_grad=table.requires_grad)


def pairwise(table: Tensor, grid: Grid, boundary: str = "zero") -> Tensor:
    """The entry of every pair of tokens, (..., N, N): windows that slide over the table, several times faster than a gather.

    Rows are windowed first and turned round while they are few: the N x N entries are written once.
    """
    height, width = grid
    if torch.compiler.is_compiling():  # the backward of unfold that torch 2.13 compiles for CPUs writes out of bounds
        return table.flatten(-2)[..., offset_index(grid, torch.arange(grid.tokens, device=table.device), boundary)]
    if boundary == "periodic":
        rows, columns = (torch.arange(1 - side, side, device=table.device) % side for side in grid)
        table = table[..., rows[:, None], columns]
    bands = table.unfold(-2, height, 1).flip(-3).transpose(-1, -2)  # (..., y_i, y_j, 2W-1)
    windows = bands.unfold(-1, width, 1).transpose(-2, -3)  # (..., y_i, W - 1 - x_i, y_j, x_j)
    turned = windows.index_select(-3, torch.arange(width - 1, -1, -1, device=table.device))
    return turned.flatten(-2).flatten(-3, -2)


def slid(windows: Tensor) -> Tensor:
    """The transpose of `unfold(-1, S, 1)`: (..., n, S) -> (..., n + S - 1), of each place the sum over the windows that hold it."""
    number, size = windows.shape[-2:]
    # Rows that are one longer than the result stand each a place further right when they are read as rows of its length.
    skewed = F.pad(windows, (0, number)).flatten(-2)[..., : number * (number + size - 1)]
    return skewed.unflatten(-1, (number, number + size - 1)).sum(-2)


def wrapped(table: Tensor, side: int, axis: int) -> Tensor:
    """The sum of the offsets 1 - side .. side - 1 along an axis that are equal modulo `side`, 0 first."""
    below, rest = table.split((side - 1, side), axis)
    return torch.cat((rest.narrow(axis, 0, 1), rest.narrow(axis, 1, side - 1) + below), axis)


def neighbours(grid: Grid, rows: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """The tokens in the window x window places around each token in `rows`, (rows, window^2), and which of the places lie on the grid.

    A place beyond the rim holds token 0. For references.
    """
    reach = window // 2
    places = torch.arange(window**2, device=rows.device)
    y = (rows // grid.width)[:, None] + places // window - reach
    x = (rows % grid.width)[:, None] + places % window - reach
    inside = (y >= 0) & (y < grid.height) & (x >= 0) & (x < grid.width)
    return torch.where(inside, y * grid.width + x, 0), inside
