from __future__ import annotations

import pytest
import torch

from lisabench.contract import Grid
from lisabench.operators.gfnet import GFNet


@pytest.mark.parametrize("grid", [Grid(5, 8), Grid(4, 7), Grid(1, 6)], ids=str)
def test_a_filter_that_is_one_token_shifts_the_grid(grid: Grid) -> None:
    module, x = GFNet(3, grid).double(), torch.randn(2, grid.tokens, 3, dtype=torch.float64)
    impulse = torch.zeros(grid, dtype=torch.float64)
    impulse[3 % grid.height, 2] = 1
    with torch.no_grad():
        module.filter.copy_(torch.view_as_real(torch.fft.rfft2(impulse))[:, :, None])
        shifted = module.mix(x)
    assert torch.allclose(shifted, x.unflatten(1, grid).roll((3, 2), dims=(1, 2)).flatten(1, 2))


def test_the_same_weights_mean_the_same_as_in_published_code() -> None:
    """Also where the filter's own columns are not Hermitian, and though the transforms there are unitary."""
    grid, x = Grid(6, 6), torch.randn(2, 36, 3)
    module = GFNet(3, grid)
    with torch.no_grad():
        spectrum = torch.fft.rfft2(x.unflatten(1, grid), dim=(1, 2), norm="ortho")
        want = torch.fft.irfft2(spectrum * torch.view_as_complex(module.filter), s=grid, dim=(1, 2), norm="ortho").flatten(1, 2)
        assert torch.allclose(module.mix(x), want, atol=1e-6)
