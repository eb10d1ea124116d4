"""GFNet's global filter: every channel of the grid convolved, circularly, with a filter as large as the grid.

    y = irfft2(rfft2(x) * K)        K learned, complex, (H, W // 2 + 1, C)

No query, key or value, and no projections: the filter is the whole operator. Both transforms are unitary in the published code
and not so here: the factors cancel, K is the same. K stands for a real filter on the grid as irfft2 reads it: of the columns
that are their own mirror (0, and W / 2 where W is even) the part without Hermitian symmetry does nothing. The published
code takes sqrt(N) for both sides; here the grid is any H x W.

Source: Rao et al., Global Filter Networks for Image Classification, NeurIPS 2021; code: raoyongming/GFNet (GlobalFilter).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lisabench.contract import Cost, Operator, Workload, checked_grid, fft_flops, in_float32
from lisabench.operators._grid_fft import correlate, spectrum_bytes, spectrum_product_flops, transform, transform_flops
from lisabench.operators._relative_position import offset_index, widened


class GFNet(nn.Module):
    """A global filter: (B, N, C) -> (B, N, C). The filter starts as N(0, 0.02^2), as published."""

    def __init__(self, dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim must be 1 or more, got {dim}")
        self.grid = checked_grid(grid)
        # Real and imaginary part last: optimisers and casts to half precision know real parameters only.
        self.filter = nn.Parameter(0.02 * torch.randn(self.grid.height, self.grid.width // 2 + 1, dim, 2))

    def widen(self, grid: tuple[int, int]) -> None:
        """Goes over to another grid with tokens as far apart: the filter keeps its response on the grid, and is 0 beyond it."""
        new = checked_grid(grid)
        response = torch.fft.irfft2(torch.view_as_complex(self.filter.detach()), s=self.grid, dim=(0, 1)).movedim(-1, 0)  # (C, H, W)
        spectrum = torch.fft.rfft2(widened(response, self.grid, new, "periodic"), s=new).detach()
        self.filter = nn.Parameter(torch.view_as_real(spectrum.movedim(0, -1)).contiguous(), requires_grad=self.filter.requires_grad)
        self.grid = new

    @in_float32
    def mix(self, x: Tensor) -> Tensor:
        response = torch.view_as_complex(self.filter.to(x.dtype))
        spectrum = transform(x.unflatten(1, self.grid), self.grid)
        return correlate(spectrum, response, self.grid, self.grid).flatten(1, 2)


def dense_reference(module: GFNet, x: Tensor, *, rows: Tensor) -> Tensor:
    """The filter on the grid, from K cosine by cosine, then the sum over all tokens."""
    height, width = module.grid
    of_row = torch.arange(height, device=x.device)
    of_column, frequency = torch.arange(width, device=x.device), torch.arange(width // 2 + 1, device=x.device)
    # With minus signs: at offset pos(j) - pos(i) stands the filter's value at pos(i) - pos(j).
    along_height = torch.exp(-2j * math.pi * torch.outer(of_row, of_row).to(x) / height)
    along_width = torch.exp(-2j * math.pi * torch.outer(frequency, of_column).to(x) / width)
    twice = 2.0 - ((frequency == 0) | (2 * frequency == width)).to(x)  # the other columns stand for their mirrors too
    response = torch.complex(*module.filter.unbind(-1)) * twice[:, None] / (height * width)
    weights = torch.einsum("uvc,uy,vx->yxc", response, along_height, along_width).real.flatten(0, 1)
    offsets = offset_index(module.grid, rows, "periodic")  # (rows, N)
    return torch.stack([(weights[of_token] * x).sum(dim=1) for of_token in offsets], dim=1)


def cost(workload: Workload) -> Cost:
    """Backward of a real-to-complex transform is a complex one of full length; that of a complex-to-real one costs what it did."""
    grid, planes = workload.grid, workload.batch * workload.dim
    wide = max(4, workload.item_bytes)
    one_way, product = transform_flops(grid, grid), spectrum_product_flops(grid)
    parameters = 2.0 * grid.height * (grid.width // 2 + 1) * workload.dim
    spectra = spectrum_bytes(grid, planes, wide)
    tokens = planes * grid.tokens
    widened = tokens + parameters if workload.item_bytes < 4 else 0.0  # copies in float32
    return Cost(
        mix_flops=planes * (2 * one_way + product),
        mix_backward_flops=planes * (2 * one_way + fft_flops(grid.width, grid.height, real=True) + 2 * product),
        transient_bytes=3.0 * spectra + (tokens + widened) * wide,
        saved_bytes=spectra + widened * wide,
        traffic_bytes=(2.0 * tokens + parameters) * workload.item_bytes,
    )


OPERATOR = Operator(
    name="gfnet",
    title="GFNet global filter",
    module=GFNet,
    source="Rao et al., NeurIPS 2021; raoyongming/GFNet",
    formula="y = irfft2(rfft2(x) * K)",
    time_order="N log N C",
    memory_order="N C",
    family="spectral",
    grid_parameters="2 H (W // 2 + 1) C",
    symmetries=lambda **options: frozenset({"translation"}),
    cost=cost,
    reference=dense_reference,
)
