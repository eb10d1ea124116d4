"""FNet: the real part of the Fourier transform over tokens and channels, without any parameter.

    y = Re F_tokens F_channels x

The tokens are transformed as they stand, on the grid: F_tokens is a 2-D transform, which on a grid of one row is the 1-D
one of the paper. A transform of the flattened sequence would take the end of a row and the start of the next for neighbours.

The transform is unitary (norm "ortho"). The published one ("backward") is sqrt(N C) times that: its block has a LayerNorm after the
residual sum, which takes the size out again; in a block with the norm before, it would drown x, and the sum of all numbers at
frequency 0 overflows float16. x is real, so that half of the channel frequencies suffice: the others' real parts are mirrored.

Source: Lee-Thorp et al., FNet: Mixing Tokens with Fourier Transforms, NAACL 2022; code: google-research/google-research, f_net.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lisabench.contract import Cost, Operator, Workload, checked_grid, fft_flops, in_float32

NORMS = ("ortho", "backward")


class FNet(nn.Module):
    """Fourier mixing: (B, N, C) -> (B, N, C). `norm` is that of torch.fft."""

    mirrored: Tensor

    def __init__(self, grid: tuple[int, int], *, norm: str = "ortho") -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"norm got {norm!r}; valid: {', '.join(NORMS)}")
        self.grid, self.norm = checked_grid(grid), norm
        rows, columns = (-torch.arange(side) % side for side in self.grid)
        self.register_buffer("mirrored", (rows[:, None] * self.grid.width + columns).flatten(), persistent=False)

    @in_float32
    def mix(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x, norm=self.norm).unflatten(1, self.grid)  # (B, H, W, C // 2 + 1)
        spectrum = torch.fft.fft(torch.fft.fft(spectrum, dim=2, norm=self.norm), dim=1, norm=self.norm)
        low = spectrum.real.flatten(1, 2)
        # Of a real x the transform at (u, v, C - c) is the conjugate of that at (-u, -v, c).
        high = low[:, self.mirrored, 1 : (x.shape[-1] + 1) // 2].flip(-1)
        return torch.cat((low, high), dim=-1)


def dense_reference(module: FNet, x: Tensor, *, rows: Tensor) -> Tensor:
    """Cosines and sines of the phases on the grid and over channels, written out: Re e^-i(a + b) = cos a cos b - sin a sin b."""
    (height, width), channels = module.grid, x.shape[-1]
    tokens, channel = torch.arange(height * width, device=x.device), torch.arange(channels, device=x.device)
    turns = torch.outer(rows // width, tokens // width).to(x) / height + torch.outer(rows % width, tokens % width).to(x) / width
    of_tokens, of_channels = 2 * math.pi * turns, 2 * math.pi * torch.outer(channel, channel).to(x) / channels
    mixed = of_tokens.cos() @ x @ of_channels.cos() - of_tokens.sin() @ x @ of_channels.sin()
    return mixed / math.sqrt(x[0].numel()) if module.norm == "ortho" else mixed


def cost(workload: Workload, *, norm: str) -> Cost:
    """Backward of the transform over channels, real to complex, is a complex one of full length."""
    (height, width), channels, wide = workload.grid, workload.dim, max(4, workload.item_bytes)
    half = workload.batch * (channels // 2 + 1)
    on_grid = half * (fft_flops(width, height, real=False) + fft_flops(height, width, real=False))
    over_channels = fft_flops(channels, workload.batch * workload.tokens, real=True)
    numbers = workload.batch * workload.tokens * channels
    widened = 0.0 if workload.item_bytes >= 4 else 4.0 * numbers  # a copy of x in float32
    return Cost(
        mix_flops=over_channels + on_grid,
        mix_backward_flops=2 * over_channels + on_grid,
        transient_bytes=4.0 * numbers * wide + widened,
        saved_bytes=widened,  # a linear map without parameters, but the FFT keeps its input
        traffic_bytes=2.0 * numbers * workload.item_bytes,
    )


OPERATOR = Operator(
    name="fnet",
    title="FNet, Fourier mixing",
    module=FNet,
    source="Lee-Thorp et al., NAACL 2022; google-research f_net",
    formula="y = Re F_tokens F_channels x, F_tokens on the grid",
    time_order="N log N C",
    memory_order="N C",
    family="spectral",
    cost=cost,
    reference=dense_reference,
)
