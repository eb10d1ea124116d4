"""Window attention (Swin): softmax attention within w x w windows of the grid, with relative position biases.

    y_i = sum_j softmax_j(q_i . k_j / sqrt d + B[pos(j) - pos(i)]) v_j,  j in the window of i

`shift` moves the windows by w // 2 in both axes, by rolling the grid as published; tokens that only the roll brought
together do not see each other. Swin alternates layers without and with it. Where the windows do not divide the grid, the
last ones are filled up, and what fills them is masked: in the published code for such grids it is zeros before the
projections, so that their keys and values, which are the biases, take part. Along a side that is no longer than w the window is
the side, and does not shift. Masked scores are -inf, where the published code subtracts 100, which leaves a little.

The weights are written out, as published: M = w^2 is small, and a float bias takes torch's scaled_dot_product_attention off
the flash kernels of a GPU and, where it is trained, of a CPU.

Source: Liu et al., Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, ICCV 2021, eq. 4 and fig. 4;
code: microsoft/Swin-Transformer, and SwinTransformer/Swin-Transformer-Object-Detection for grids that windows do not divide.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisabench.contract import Cost, Grid, MultiHeadMixer, Operator, Workload, projection_flops
from lisabench.operators._relative_position import pairwise, table_shape


class Window(MultiHeadMixer):
    """Multi-head attention in windows of side `window`, no longer than the grid's: (B, N, C) -> (B, N, C).

    `table` holds (2w-1)^2 biases a head. `apart` (windows, M, M) is true for the pairs of a window that do not see each
    other; None where all do.
    """

    apart: Tensor | None

    def __init__(
        self, dim: int, num_heads: int, grid: tuple[int, int], *, window: int = 7, shift: bool = False, key_dim: int | None = None
    ) -> None:
        super().__init__(dim, num_heads, grid, key_dim=key_dim)
        self.window = window_of(self.grid, window)
        self.count = windows_along(self.grid, self.window)
        self.filled = Grid(self.count.height * self.window.height, self.count.width * self.window.width)
        self.shift = Grid(*(side // 2 if shift and side < whole else 0 for side, whole in zip(self.window, self.grid, strict=True)))
        self.table = nn.Parameter(nn.init.trunc_normal_(torch.empty(num_heads, *table_shape(self.window)), std=0.02))
        whole = self.filled == self.grid and not any(self.shift)
        self.register_buffer("apart", None if whole else self.kept_apart(), persistent=False)

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.to_tokens(self.attend(*(self.to_windows(x) for x in (query, key, value))))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention within each window: (B, h, windows, M, d) -> (B, h, windows, M, d)."""
        scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
        scores += pairwise(self.table, self.window).unsqueeze(1).to(scores.dtype)
        if self.apart is not None:
            scores.masked_fill_(self.apart, -math.inf)
        return torch.softmax(scores, dim=-1) @ value

    def to_windows(self, x: Tensor) -> Tensor:
        """(B, h, N, d) -> (B, h, windows, M, d)."""
        image = x.unflatten(2, self.grid)
        if self.filled != self.grid:
            image = F.pad(image, (0, 0, 0, self.filled.width - self.grid.width, 0, self.filled.height - self.grid.height))
        return self.cut(image)

    def cut(self, image: Tensor) -> Tensor:
        """The filled grid rolled and cut: (B, h, H, W, d) -> (B, h, windows, M, d)."""
        if any(self.shift):
            image = image.roll((-self.shift.height, -self.shift.width), dims=(2, 3))
        split = image.unflatten(3, (self.count.width, self.window.width)).unflatten(2, (self.count.height, self.window.height))
        return split.transpose(3, 4).flatten(4, 5).flatten(2, 3)

    def to_tokens(self, y: Tensor) -> Tensor:
        """(B, h, windows, M, d) -> (B, h, N, d): back to where `to_windows` took them from."""
        split = y.unflatten(3, self.window).unflatten(2, self.count)
        image = split.transpose(3, 4).flatten(4, 5).flatten(2, 3)
        if any(self.shift):
            image = image.roll(tuple(self.shift), dims=(2, 3))
        return image[:, :, : self.grid.height, : self.grid.width].flatten(2, 3)

    def kept_apart(self) -> Tensor:
        """Pairs of tokens with what fills a window, and those that the roll brought together from two ends of the grid.

        What fills sees itself, so that no row is masked as a whole.
        """
        rows, columns = torch.arange(self.filled.height)[:, None], torch.arange(self.filled.width)
        origin = 2 * (rows < self.shift.height) + (columns < self.shift.width)
        origin = origin.masked_fill((rows >= self.grid.height) | (columns >= self.grid.width), -1)
        cut = self.cut(origin[None, None, :, :, None])[0, 0]  # (windows, M, 1)
        return cut != cut.transpose(-1, -2)


def window_of(grid: Grid, window: int) -> Grid:
    """The window's height and width on this grid."""
    if window < 1:
        raise ValueError(f"window got {window}; valid: 1 or more")
    return Grid(min(window, grid.height), min(window, grid.width))


def windows_along(grid: Grid, window: Grid) -> Grid:
    """How many windows cover the grid, down and across."""
    return Grid(-(-grid.height // window.height), -(-grid.width // window.width))


def dense_reference(module: Window, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    """Attention over all N tokens; those whose window, counted from the shifted origin, is another one are left out."""
    (height, width), (down, across) = module.window, module.shift
    tokens = torch.arange(module.grid.tokens, device=query.device)
    y, x = tokens // module.grid.width, tokens % module.grid.width
    same = [((at - start) // side)[rows, None] == (at - start) // side for at, start, side in ((y, down, height), (x, across, width))]
    dy, dx = (y - y[rows, None]).clamp(1 - height, height - 1), (x - x[rows, None]).clamp(1 - width, width - 1)
    scores = query[:, :, rows] @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    scores = scores + module.table[:, dy + height - 1, dx + width - 1]
    return torch.softmax(scores.where(same[0] & same[1], -math.inf), dim=-1) @ value


def cost(workload: Workload, *, window: int, shift: bool, key_dim: int | None) -> Cost:
    """Windows that are filled up cost as the others do."""
    d_k, d_v = workload.head_dim if key_dim is None else key_dim, workload.head_dim
    side = window_of(workload.grid, window)
    filled = 1.0 * workload.batch * workload.heads * windows_along(workload.grid, side).tokens * side.tokens
    per_token = workload.batch * workload.heads * workload.tokens
    return Cost(
        mix_flops=2 * filled * side.tokens * (d_k + d_v),
        projection_flops=projection_flops(workload, d_k),
        transient_bytes=filled * 2 * (side.tokens + d_k + d_v) * workload.item_bytes,
        saved_bytes=filled * (side.tokens + 2 * d_k + d_v) * workload.item_bytes,
        traffic_bytes=per_token * 2.0 * (d_k + d_v) * workload.item_bytes,
    )


OPERATOR = Operator(
    name="window",
    title="Window attention (Swin)",
    module=Window,
    source="Liu et al., ICCV 2021, eq. 4 and fig. 4",
    formula="y = softmax(Q K^T / sqrt d + B) V within windows of w x w, shifted by w // 2 on request",
    time_order="N C w^2",
    memory_order="N h w^2",
    family="local and control",
    cost=cost,
    reference=dense_reference,
)
