"""cosFormer: linear attention whose kernel falls off with the distance of two tokens as a cosine does.

    w_ij = relu(q_i) . relu(k_j) cos(pi/2 (r_i - r_j)/H) cos(pi/2 (c_i - c_j)/W)   for tokens in rows r and columns c
    y_i  = sum_j w_ij v_j / (sum_j w_ij + eps)

cos(a - b) = cos a cos b + sin a sin b: one distance makes 2 d features out of d, the product of two makes 4 d. Both angles
stay under pi/2, so that no weight is negative. A side of one token has no distances and takes no features: on a grid 1 x N
this is the paper's formula with M = N.

The paper and its code know sequences alone: cos(pi/2 (i - j)/M). On an image read row by row, that makes neighbours of the
end of a row and the beginning of the next, and strangers of two tokens that touch in a column; it is `distance="raster"`.
The product of rows and columns is ours. eps is added to the normaliser, where the code takes it for the least that it may be.

Source: Qin et al., cosFormer: Rethinking Softmax in Attention, ICLR 2022; code: OpenNLPLab/cosFormer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lisabench.contract import Cost, Grid, MultiHeadMixer, Operator, Workload, in_float32, projection_flops
from lisabench.operators._kernel_attention import kernel_attention, kernel_attention_bytes, kernel_attention_flops

DISTANCES = ("grid", "raster")
EPS = 1e-6  # that of the published code


class Cosformer(MultiHeadMixer):
    """Multi-head cosFormer attention: (B, N, C) -> (B, N, C). `distance` is taken on the grid, or on the raster as on one row."""

    waves: Tensor

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int], *, distance: str = "grid", key_dim: int | None = None) -> None:
        super().__init__(dim, num_heads, grid, key_dim=key_dim)
        if distance not in DISTANCES:
            raise ValueError(f"distance got {distance!r}; valid: {', '.join(DISTANCES)}")
        self.distance_grid = distance_grid(self.grid, distance)
        rows, columns = map(quarter_wave, self.distance_grid)
        waves = (rows[:, None, :, None] * columns[:, None, :]).flatten(2).flatten(0, 1)  # (N, waves)
        # In float64, to be exact in whatever dtype the module is cast to; it follows from the grid and is no state.
        self.register_buffer("waves", waves, persistent=False)

    @in_float32
    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return kernel_attention(self.feature_map(query), self.feature_map(key), value, eps=EPS)

    def feature_map(self, x: Tensor) -> Tensor:
        """(B, h, N, d) -> (B, h, N, waves * d), none negative."""
        return (self.waves.to(x.dtype)[:, :, None] * F.relu(x)[..., None, :]).flatten(-2)


def distance_grid(grid: Grid, distance: str) -> Grid:
    """The grid on which distances are taken."""
    return grid if distance == "grid" else Grid(1, grid.tokens)


def quarter_wave(side: int) -> Tensor:
    """Cosine and sine of pi/2 i/side, (side, 2); on a side of one token its cosine alone, which is 1."""
    angles = math.pi / 2 * torch.arange(side, dtype=torch.float64) / side
    return torch.stack([angles.cos(), angles.sin()][: min(side, 2)], dim=-1)


def dense_reference(module: Cosformer, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    """The N x N kernel with a cosine of each distance."""
    height, width = module.distance_grid
    tokens = torch.arange(height * width, device=rows.device)
    down = (rows // width)[:, None] - tokens // width
    right = (rows % width)[:, None] - tokens % width
    near = torch.cos(math.pi / 2 * down.double() / height) * torch.cos(math.pi / 2 * right.double() / width)
    kernel = F.relu(query[:, :, rows]) @ F.relu(key).transpose(-1, -2) * near
    return kernel @ value / (kernel.sum(dim=-1, keepdim=True) + EPS)


def cost(workload: Workload, *, distance: str, key_dim: int | None) -> Cost:
    d_k, d_v = workload.head_dim if key_dim is None else key_dim, workload.head_dim
    features = d_k * 2 ** sum(side > 1 for side in distance_grid(workload.grid, distance))
    per_token = workload.batch * workload.heads * workload.tokens
    transient, saved = kernel_attention_bytes(workload, features, d_v)
    widened = 4.0 * (workload.item_bytes < 4)  # half precision: the inputs once more, in float32
    return Cost(
        mix_flops=kernel_attention_flops(workload, features, d_v),
        projection_flops=projection_flops(workload, d_k),
        transient_bytes=transient + per_token * (2 * d_k + d_v) * widened,
        saved_bytes=saved + per_token * (2.0 * d_k * max(4, workload.item_bytes) + d_v * widened),
        traffic_bytes=per_token * 2.0 * (d_k + d_v) * workload.item_bytes,
    )


OPERATOR = Operator(
    name="cosformer",
    title="cosFormer",
    module=Cosformer,
    source="Qin et al., ICLR 2022; the distance on a grid is ours",
    formula="y_i = sum_j w_ij v_j / sum_j w_ij, w_ij = relu(q_i) . relu(k_j) cos(pi/2 dy/H) cos(pi/2 dx/W)",
    time_order="N 4d C",
    memory_order="N C",
    family="kernel",
    cost=cost,
    reference=dense_reference,
)
