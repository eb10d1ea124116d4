"""Toeplitz neural network (TNN): every channel is mixed with weights that depend on the offset of two tokens alone.

    y = norm(silu(x W_u) * T silu(x W_v)) W_o         the gated Toeplitz unit, GTU
    (T v)_i = sum_j t[D(i,j)] * v_j                   D(i,j) = pos(j) - pos(i), per channel
    t[D] = decay^(|dy| + |dx|) MLP(dy, dx)            the relative position encoder, RPE

The MLP is Linear(2, w), `layers` times (norm, relu, Linear(w, w)), and norm, relu, Linear(w, channels), with norm
x -> x sqrt(w) / |x|. It makes a table of all (2H-1)(2W-1) offsets, which is applied by FFTs on the grid. No parameter depends
on the grid. On a grid of one row this is the paper's 1-D operator, mirrored: there the offset is i - j.

The sum over tokens is not normalised: on large inputs the paper's formula, `norm=False`, leaves the range of float16. The norm
over the channels is an option of the published code, and is on here; its 1e-8 is added to the root, here to the mean square
under it. That code widens to 3 C channels; here `expand` is 1, so that C channels are mixed as everywhere. The 2-D version
(Tno2D) of the image models keeps the offsets of the largest grid that it has met and cuts the table for a smaller one, where
entries of negative offsets are lost; and it makes the table at every call.

Source: Qin et al., Toeplitz Neural Network for Sequence Modeling, ICLR 2023; code: Doraemonzzz/tnn-pytorch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisabench.contract import Cost, Operator, Workload, checked_grid, fft_flops, in_float32
from lisabench.operators._grid_fft import (
    correlate,
    spectrum_bytes,
    spectrum_product_flops,
    table_spectra,
    transform,
    transform_flops,
    transform_shape,
)
from lisabench.operators._kept_spectra import KeptSpectra
from lisabench.operators._relative_position import offset_index, table_shape

EPS = 1e-8


class RelativePositionEncoder(nn.Module):
    """The MLP of the offsets: (..., 2) -> (..., channels), in the dtype of the offsets."""

    rest: Any  # a ModuleList of Linear

    def __init__(self, channels: int, width: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Linear(2, width)
        self.rest = nn.ModuleList(nn.Linear(width, out) for out in [width] * layers + [channels])

    def forward(self, offsets: Tensor) -> Tensor:
        x = F.linear(offsets, self.first.weight.to(offsets.dtype), self.first.bias.to(offsets.dtype))
        for linear in self.rest:
            x = F.relu(F.rms_norm(x, x.shape[-1:], eps=EPS))
            x = F.linear(x, linear.weight.to(x.dtype), linear.bias.to(x.dtype))
        return x


class Toeplitz(KeptSpectra):
    """The gated Toeplitz unit: (B, N, C) -> (B, N, C).

    prepare: gate and value (B, N, E), E = expand * dim. mix: norm(gate * T value). finish: linear out.
    `width` and `layers` are those of the encoder's MLP, by default those of the published vision model; decay 1 is none.
    In evaluation without gradients the spectra of the table are kept, and dropped when the encoder changes. On a GPU a change
    through `.data` is not seen: call `eval()` after it.
    """

    def __init__(
        self,
        dim: int,
        grid: tuple[int, int],
        *,
        expand: int = 1,
        width: int = 32,
        layers: int = 1,
        decay: float = 0.99,
        norm: bool = True,
    ) -> None:
        super().__init__()
        for name, given, least in (("dim", dim, 1), ("expand", expand, 1), ("width", width, 1), ("layers", layers, 0)):
            if given < least:
                raise ValueError(f"{name} got {given}; valid: {least} or more")
        if not 0 < decay <= 1:
            raise ValueError(f"decay got {decay}; valid: more than 0, at most 1")
        self.grid, self.decay, self.norm = checked_grid(grid), decay, norm
        self.gate = nn.Linear(dim, expand * dim)
        self.value = nn.Linear(dim, expand * dim)
        self.encoder = RelativePositionEncoder(expand * dim, width, layers)
        self.out = nn.Linear(expand * dim, dim)

    def prepare(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.silu(self.gate(x)), F.silu(self.value(x))

    @in_float32
    def mix(self, gate: Tensor, value: Tensor) -> Tensor:
        shape = transform_shape(self.grid)
        planes = value.transpose(1, 2).unflatten(2, self.grid).unsqueeze(-1)  # (B, E, H, W, 1)
        (spectra,) = self.kept_spectra(lambda: (table_spectra(self.table(value), self.grid),), self.encoder.parameters(), value.dtype)
        mixed = correlate(transform(planes, shape), spectra, self.grid, shape)
        gated = gate * mixed.flatten(2).transpose(1, 2)
        return F.rms_norm(gated, gated.shape[-1:], eps=EPS) if self.norm else gated

    def finish(self, y: Tensor) -> Tensor:
        merged: Tensor = self.out(y)
        return merged

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.mix(*self.prepare(x)))

    def table(self, like: Tensor) -> Tensor:
        """t, (E, 2H-1, 2W-1), in the dtype and on the device of `like`."""
        dy, dx = (torch.arange(1 - side, side, dtype=like.dtype, device=like.device) for side in self.grid)
        offsets = torch.stack(torch.meshgrid(dy, dx, indexing="ij"), dim=-1)
        decay = self.decay ** (dy.abs()[:, None] + dx.abs())
        return self.encoder(offsets).movedim(-1, 0) * decay


def dense_reference(module: Toeplitz, gate: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    """The Toeplitz matrix of each channel, from the MLP of a list of all offsets."""
    encoder, (dy, dx) = module.encoder, (torch.arange(1 - side, side).to(value) for side in module.grid)
    listed = torch.cartesian_prod(dy, dx)
    hidden = listed @ encoder.first.weight.T + encoder.first.bias
    for linear in encoder.rest:
        hidden = hidden / (hidden.square().mean(dim=-1, keepdim=True) + EPS).sqrt()
        hidden = hidden.clamp(min=0) @ linear.weight.T + linear.bias
    table = (hidden * module.decay ** listed.abs().sum(dim=-1, keepdim=True)).T
    offsets = offset_index(module.grid, rows)
    mixed = torch.stack([value[:, :, c] @ table[c][offsets].T for c in range(value.shape[-1])], dim=-1)
    gated = gate[:, rows] * mixed
    return gated / (gated.square().mean(dim=-1, keepdim=True) + EPS).sqrt() if module.norm else gated


def cost(workload: Workload, *, expand: int, width: int, layers: int, decay: float, norm: bool) -> Cost:
    """The FFTs, whose backward has full complex transforms where the forward has real ones; in training, the table too."""
    grid, wide, training = workload.grid, max(4, workload.item_bytes), workload.mode == "train"
    channels = expand * workload.dim
    planes, shape = workload.batch * channels, transform_shape(grid)
    offsets, points = math.prod(table_shape(grid)), math.prod(shape)
    first, rest = 4.0 * offsets * width, 2.0 * offsets * width * (layers * width + channels)
    one_way, products = transform_flops(grid, shape), spectrum_product_flops(shape)
    # In evaluation the table's spectra are at hand.
    table = first + rest + channels * fft_flops(points, real=True) if training else 0.0
    parameters = 3 * width + layers * width * (width + 1) + channels * (width + 1)
    of_planes, of_table = spectrum_bytes(shape, planes, wide), spectrum_bytes(shape, channels, wide)
    values, widened = planes * workload.tokens * wide, workload.item_bytes < 4  # a copy of the gate in float32
    hidden = 2.0 * (layers + 1) * offsets * width * wide
    return Cost(
        mix_flops=table + planes * (2 * one_way + products),
        # The offsets take no gradient: the first layer's weight alone.
        mix_backward_flops=first
        + 2 * rest
        + channels * fft_flops(points, real=False)
        + planes * (2 * one_way + fft_flops(shape[1], grid.height, real=True) + 2 * products),
        projection_flops=6.0 * workload.batch * workload.tokens * workload.dim * channels,
        transient_bytes=3.0 * of_planes + values + of_table * (2 if training else 1),
        # Table and planes as they were before they were cropped, and their spectra.
        saved_bytes=hidden
        + (channels * points + planes * grid.height * shape[1]) * wide
        + of_table
        + of_planes
        + (1 + norm + widened) * values,
        traffic_bytes=(3.0 * planes * workload.tokens + parameters) * workload.item_bytes,
    )


OPERATOR = Operator(
    name="toeplitz",
    title="TNN, gated Toeplitz unit",
    module=Toeplitz,
    source="Qin et al., ICLR 2023; Doraemonzzz/tnn-pytorch",
    formula="y = norm(silu(x W_u) * T silu(x W_v)) W_o, T per channel, t[D] = decay^(|dy|+|dx|) MLP(D)",
    time_order="N log N C",
    memory_order="N C",
    family="structure-aware",
    cost=cost,
    reference=dense_reference,
)
