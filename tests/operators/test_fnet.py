from __future__ import annotations

import pytest
import torch

from lisabench.contract import Grid
from lisabench.operators.fnet import FNet


@pytest.mark.parametrize("channels", [1, 2, 7, 8])
def test_one_row_is_the_transform_of_the_paper(channels: int) -> None:
    x = torch.randn(2, 11, channels)
    want = torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real
    assert torch.allclose(FNet(Grid(1, 11), norm="backward").mix(x), want, atol=1e-4)


@pytest.mark.parametrize("grid", [Grid(4, 6), Grid(5, 3)], ids=str)
def test_on_a_grid_half_of_the_channel_frequencies_give_all(grid: Grid) -> None:
    x = torch.randn(2, grid.tokens, 6)
    want = torch.fft.fftn(x.unflatten(1, grid), dim=(1, 2, 3), norm="ortho").real.flatten(1, 2)
    assert torch.allclose(FNet(grid).mix(x), want, atol=1e-5)


def test_autocast_does_not_reach_it() -> None:
    module, x = FNet(Grid(4, 5)), torch.randn(1, 20, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = module.mix(x)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, module.mix(x))


def test_an_unknown_norm_is_told() -> None:
    with pytest.raises(ValueError, match="norm got 'forward'; valid: ortho, backward"):
        FNet(Grid(2, 2), norm="forward")
