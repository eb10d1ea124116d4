from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lisabench.contract import Grid
from lisabench.operators.cosformer import EPS, Cosformer


def weights(grid: Grid, distance: str, query: Tensor, key: Tensor) -> Tensor:
    """What a query gives each key, (N, N): the result for values that tell the tokens apart."""
    module = Cosformer(query.shape[-1], 1, grid, distance=distance).double()
    with torch.no_grad():
        result: Tensor = module.mix(query[None, None], key[None, None], torch.eye(grid.tokens, dtype=torch.float64)[None, None])
    return result[0, 0]


@pytest.mark.parametrize(
    ("grid", "distance"), [(Grid(1, 12), "grid"), (Grid(12, 1), "grid"), (Grid(1, 12), "raster"), (Grid(3, 4), "raster")], ids=str
)
def test_on_one_row_it_is_the_papers_formula(grid: Grid, distance: str) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(12, 8, dtype=torch.float64, generator=generator) for _ in range(2))
    kernel = torch.tensor(
        [
            [
                sum(max(a, 0) * max(b, 0) for a, b in zip(q, k, strict=True)) * math.cos(math.pi / 2 * (i - j) / 12)
                for j, k in enumerate(key.tolist())
            ]
            for i, q in enumerate(query.tolist())
        ],
        dtype=torch.float64,
    )
    assert torch.allclose(weights(grid, distance, query, key), kernel / (kernel.sum(dim=-1, keepdim=True) + EPS), atol=1e-12)


def test_on_a_grid_weights_fall_off_along_rows_and_columns_and_never_below_zero() -> None:
    grid, ones = Grid(6, 9), torch.ones(54, 4, dtype=torch.float64)
    of_grid, of_raster = (weights(grid, distance, ones, ones) for distance in ("grid", "raster"))
    assert of_grid.min() > 0
    at = of_grid.view(6, 9, 6, 9)[2, 3]  # seen from row 2, column 3
    assert torch.allclose(at / at[2, 3], torch.outer(at[:, 3], at[2]) / at[2, 3] ** 2)
    assert at[3, 3] / at[2, 3] == pytest.approx(math.cos(math.pi / 12))
    assert at[2, 5] / at[2, 3] == pytest.approx(math.cos(math.pi / 9))
    # The token below the end of a row against the first one of the next row: the raster takes them the wrong way round.
    end, below, next_row = 8, 17, 9
    assert of_grid[end, below] > of_grid[end, next_row]
    assert of_raster[end, below] < of_raster[end, next_row]


def test_sides_of_one_token_take_no_features() -> None:
    blocks = {grid: Cosformer(8, 2, grid).waves.shape[-1] for grid in (Grid(1, 1), Grid(1, 5), Grid(5, 1), Grid(2, 3))}
    assert list(blocks.values()) == [1, 2, 2, 4]


def test_an_unknown_distance_is_refused() -> None:
    with pytest.raises(ValueError, match="distance got 'manhattan'; valid: grid, raster"):
        Cosformer(8, 2, Grid(2, 3), distance="manhattan")
