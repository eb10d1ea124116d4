"""AFNO: an MLP on each frequency of the grid, the same for all frequencies.

    y = irfft2(shrink(MLP(rfft2(x)))) + x        shrink(z) = sign(z) max(|z| - threshold, 0)
    MLP(z) = W2 relu(W1 z + b1) + b2             complex, W1 and W2 block-diagonal over channels

relu and shrink act on real and imaginary parts apart, so that AFNO is not equivariant to translations, though its transforms are
periodic. The sum with x belongs to the operator, as in the published code. The transforms are unitary, which the
threshold depends on.

Only modes whose frequency is low on both axes are kept: |u| < max(1, floor(fraction (H // 2 + 1))), |v| in the same way with
W; the others give 0. The published 2-D code drops along the width only, and counted modes from N, not W, so that a fraction
above about 1 / H dropped none (its issue 6); it also takes sqrt(N) for both sides where it is not given them.

Source: Guibas et al., Efficient Token Mixing for Transformers via Adaptive Fourier Neural Operators, ICLR 2022;
code: NVlabs/AFNO-transformer (AFNO2D).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisabench.contract import Cost, Operator, Workload, checked_grid, fft_flops, in_float32


class AFNO(nn.Module):
    """Adaptive Fourier neural operator: (B, N, C) -> (B, N, C).

    `hidden_factor` is the MLP's width over C. Weights and biases start as N(0, 0.02^2), as published.
    """

    rows: Tensor

    def __init__(
        self,
        dim: int,
        grid: tuple[int, int],
        *,
        num_blocks: int = 8,
        hidden_factor: int = 1,
        sparsity_threshold: float = 0.01,
        hard_thresholding_fraction: float = 1.0,
    ) -> None:
        super().__init__()
        if num_blocks < 1 or dim < 1 or dim % num_blocks:
            raise ValueError(f"num_blocks got {num_blocks} with dim {dim}; valid: a divisor of dim")
        if hidden_factor < 1:
            raise ValueError(f"hidden_factor got {hidden_factor}; valid: 1 or more")
        if not sparsity_threshold >= 0:
            raise ValueError(f"sparsity_threshold got {sparsity_threshold}; valid: 0 or more")
        if not 0 < hard_thresholding_fraction <= 1:
            raise ValueError(f"hard_thresholding_fraction got {hard_thresholding_fraction}; valid: more than 0, at most 1")
        self.grid = checked_grid(grid)
        self.sparsity_threshold = sparsity_threshold
        kept_rows, self.kept_columns = (kept_frequencies(side, hard_thresholding_fraction) for side in self.grid)
        self.register_buffer("rows", low_rows(self.grid.height, kept_rows), persistent=False)
        width, hidden = dim // num_blocks, hidden_factor * dim // num_blocks
        # (blocks, in, out, 2) and (blocks, out, 2): real and imaginary part last.
        self.weight_in, self.bias_in = _drawn(num_blocks, width, hidden, 2), _drawn(num_blocks, hidden, 2)
        self.weight_out, self.bias_out = _drawn(num_blocks, hidden, width, 2), _drawn(num_blocks, width, 2)

    @in_float32
    def mix(self, x: Tensor) -> Tensor:
        # Column frequencies are dropped before the transform along the height, and come back as zeros in the last one.
        modes = torch.fft.fft(
            torch.fft.rfft(x.unflatten(1, self.grid), dim=2, norm="ortho")[:, :, : self.kept_columns], dim=1, norm="ortho"
        )
        if len(self.rows) == self.grid.height:
            modes = self.mlp(modes)
        else:
            modes = torch.zeros_like(modes).index_copy(1, self.rows, self.mlp(modes[:, self.rows]))
        modes = torch.fft.ifft(modes, dim=1, norm="ortho")
        return torch.fft.irfft(modes, n=self.grid.width, dim=2, norm="ortho").flatten(1, 2) + x

    def mlp(self, spectrum: Tensor) -> Tensor:
        """(B, U, V, C) -> (B, U, V, C), complex; inside real, the two parts of each channel side by side."""
        parts = torch.view_as_real(spectrum).reshape(-1, len(self.weight_in), 2 * self.weight_in.shape[1])  # (modes, blocks, 2 C/blocks)
        dtype = parts.dtype
        hidden = F.relu(parts.transpose(0, 1) @ real_matrix(self.weight_in.to(dtype)) + self.bias_in.to(dtype).flatten(1).unsqueeze(1))
        out = hidden @ real_matrix(self.weight_out.to(dtype)) + self.bias_out.to(dtype).flatten(1).unsqueeze(1)
        shrunk = F.softshrink(out, self.sparsity_threshold).transpose(0, 1)
        return torch.view_as_complex(shrunk.reshape(*spectrum.shape, 2))


def _drawn(*shape: int) -> nn.Parameter:
    return nn.Parameter(0.02 * torch.randn(shape))


def kept_frequencies(side: int, fraction: float) -> int:
    """How many of |frequency| 0, 1, .. side // 2 are kept: the lowest, at least the mean."""
    return max(1, int(fraction * (side // 2 + 1)))


def low_rows(side: int, kept: int) -> Tensor:
    """Where an FFT of `side` points has the frequencies of less than `kept`, negative ones among them."""
    return torch.tensor([place for place in range(side) if min(place, side - place) < kept])  # also where tensors hold no numbers


def real_matrix(weight: Tensor) -> Tensor:
    """(blocks, in, out, 2) -> (blocks, 2 in, 2 out): the product with complex numbers as one with their parts, side by side."""
    real, imaginary = weight.unbind(-1)
    of_real, of_imaginary = torch.stack((real, imaginary), dim=-1), torch.stack((-imaginary, real), dim=-1)
    return torch.stack((of_real, of_imaginary), dim=2).flatten(3).flatten(1, 2)


def dense_reference(module: AFNO, x: Tensor, *, rows: Tensor) -> Tensor:
    """Fourier sums written out, complex numbers and a mask, block by block."""
    height, width = module.grid
    u, v = torch.arange(height, device=x.device), torch.arange(width // 2 + 1, device=x.device)
    along_height = torch.exp(-2j * math.pi * torch.outer(u, u).to(x) / height)
    along_width = torch.exp(-2j * math.pi * torch.outer(v, torch.arange(width, device=x.device)).to(x) / width)
    image = x.unflatten(1, module.grid).to(along_height.dtype)
    spectrum = torch.einsum("uy,vx,byxc->buvc", along_height, along_width, image) / math.sqrt(height * width)
    weight_in, bias_in, weight_out, bias_out = (
        torch.complex(p[..., 0], p[..., 1]) for p in (module.weight_in, module.bias_in, module.weight_out, module.bias_out)
    )
    outputs = []
    for block, modes in enumerate(spectrum.chunk(len(weight_in), dim=-1)):
        hidden = modes @ weight_in[block] + bias_in[block]
        hidden = torch.complex(hidden.real.clamp(min=0), hidden.imag.clamp(min=0))
        out = hidden @ weight_out[block] + bias_out[block]
        outputs.append(torch.complex(*(z.sign() * (z.abs() - module.sparsity_threshold).clamp(min=0) for z in (out.real, out.imag))))
    low = torch.isin(u, module.rows)[:, None, None] & (v < module.kept_columns)[:, None]
    mixed = torch.where(low, torch.cat(outputs, dim=-1), 0)
    twice = 2.0 - ((v == 0) | (2 * v == width)).to(x)  # the other columns stand for their mirrors too
    back = along_height[:, rows // width].conj(), along_width[:, rows % width].conj() * twice[:, None]  # (u, rows), (v, rows)
    return torch.einsum("ur,vr,buvc->brc", *back, mixed).real / math.sqrt(height * width) + x[:, rows]


def cost(workload: Workload, *, num_blocks: int, hidden_factor: int, sparsity_threshold: float, hard_thresholding_fraction: float) -> Cost:
    """Backward of a real-to-complex transform is a complex one of full length; that of a complex-to-real one costs what it did."""
    (height, width), planes = workload.grid, workload.batch * workload.dim
    wide = max(4, workload.item_bytes)
    kept_rows, kept_columns = (kept_frequencies(side, hard_thresholding_fraction) for side in workload.grid)
    modes = planes * min(height, 2 * kept_rows - 1) * kept_columns  # complex numbers that pass through the MLP
    real_way = planes * fft_flops(width, height, real=True)
    transforms = 2 * (real_way + planes * fft_flops(height, kept_columns, real=False))
    # Two complex products as real ones of twice the sides.
    products = 2 * 8.0 * modes * hidden_factor * workload.dim / num_blocks
    parameters = 4.0 * hidden_factor * workload.dim**2 / num_blocks + 2.0 * (1 + hidden_factor) * workload.dim
    tokens, widened = planes * workload.tokens, workload.item_bytes < 4  # a copy of x in float32
    spectrum, kept = 2.0 * planes * height * kept_columns * wide, 2.0 * modes * wide
    matrices = 4.0 * hidden_factor * workload.dim**2 / num_blocks * wide  # a layer's weights as `real_matrix` writes them
    dropped = modes < planes * height * kept_columns  # rows, which come back as zeros
    padded = 2.0 * planes * height * (width // 2 + 1) * wide
    in_mlp = spectrum + kept * (1 + max(3 + hidden_factor, 2 * hidden_factor)) + matrices
    after_it = spectrum + 2 * padded + tokens * wide
    return Cost(
        mix_flops=transforms + products,
        mix_backward_flops=transforms + real_way + 2 * products,
        transient_bytes=max(in_mlp, after_it) + widened * tokens * wide,
        saved_bytes=kept * (2 + hidden_factor + dropped) + 2 * matrices + widened * tokens * wide,
        traffic_bytes=(2.0 * tokens + parameters) * workload.item_bytes,
    )


def refuses(workload: Workload, *, num_blocks: int, **options: float) -> str | None:
    return None if workload.dim % num_blocks == 0 else f"{workload.dim} channels do not divide into {num_blocks} blocks"


OPERATOR = Operator(
    name="afno",
    title="AFNO, adaptive Fourier neural operator",
    module=AFNO,
    source="Guibas et al., ICLR 2022; NVlabs/AFNO-transformer",
    formula="y = irfft2(shrink(W2 relu(W1 rfft2(x) + b1) + b2)) + x, W1 and W2 block-diagonal",
    time_order="N log N C",
    memory_order="N C",
    family="spectral",
    needs="channels that num_blocks (8) divides",
    refuses=refuses,
    cost=cost,
    reference=dense_reference,
)
