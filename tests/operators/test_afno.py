from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lisabench.contract import Grid, Workload
from lisabench.operators.afno import AFNO, OPERATOR, low_rows


def wave(grid: Grid, rows: int, columns: int, channels: int = 4) -> Tensor:
    """A cosine with so many periods along height and width, the same in all channels: (1, N, C)."""
    y, x = torch.arange(grid.height)[:, None] / grid.height, torch.arange(grid.width) / grid.width
    return torch.cos(2 * math.pi * (rows * y + columns * x)).flatten()[None, :, None].expand(1, -1, channels)


def filtering(fraction: float, grid: Grid) -> AFNO:
    """Without biases and threshold, and with weights large enough to see: what is dropped leaves x as it is."""
    torch.manual_seed(0)
    module = AFNO(4, grid, num_blocks=2, sparsity_threshold=0.0, hard_thresholding_fraction=fraction)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.mul_(0 if "bias" in name else 50)
    return module


def test_frequencies_are_dropped_on_both_axes() -> None:
    """0 to 2 are kept of 0 to 6 on 12 rows, 0 to 3 of 0 to 8 on 16 columns; published code keeps all of them here, since 0.5 N > W."""
    module = filtering(0.5, Grid(12, 16))
    with torch.no_grad():
        moved = {
            (rows, columns): float((module.mix(x) - x).abs().max())
            for rows in (0, 2, -2, 3, -3, 6)
            for columns in (0, 3, 4, 8)
            for x in [wave(module.grid, rows, columns)]
        }
    kept = {at for at, by in moved.items() if by > 0.1}
    assert kept == {(rows, columns) for rows in (0, 2, -2) for columns in (0, 3)}
    assert all(by < 1e-4 for at, by in moved.items() if at not in kept)


def test_rows_of_low_frequencies() -> None:
    assert low_rows(8, 3).tolist() == [0, 1, 2, 6, 7]
    assert low_rows(8, 5).tolist() == list(range(8))
    assert low_rows(5, 1).tolist() == [0]
    assert low_rows(1, 1).tolist() == [0]


def test_a_high_threshold_leaves_the_residual_alone() -> None:
    module, x = AFNO(16, Grid(5, 6), sparsity_threshold=1e3), torch.randn(2, 30, 16)
    with torch.no_grad():
        assert torch.allclose(module.mix(x), x)


def test_translations_are_no_symmetry() -> None:
    grid = Grid(8, 8)
    module, x = filtering(1.0, grid), torch.randn(1, 64, 4)

    def shift(t: Tensor) -> Tensor:
        return t.unflatten(1, grid).roll(1, dims=2).flatten(1, 2)

    with torch.no_grad():
        assert float((module.mix(shift(x)) - shift(module.mix(x))).abs().max()) > 0.1
    assert OPERATOR.symmetries(**OPERATOR.resolve({})) == frozenset()


def test_channels_that_do_not_divide_are_refused() -> None:
    refused = OPERATOR.refuses(Workload(grid=Grid(4, 4), dim=20, heads=2), **OPERATOR.resolve({}))
    assert refused == "20 channels do not divide into 8 blocks"
    with pytest.raises(ValueError, match="num_blocks got 8 with dim 20; valid: a divisor of dim"):
        AFNO(20, Grid(4, 4))
