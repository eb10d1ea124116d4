from __future__ import annotations

import pytest
import torch
from torch import nn

from lisabench.measure.numerics import checked_rows, relative_error


@pytest.mark.parametrize("tokens", [1, 2, 37, 512, 4096, 100_000])
def test_checked_rows_hold_both_ends_and_fit(tokens: int) -> None:
    rows = checked_rows(tokens).tolist()
    assert rows[0] == 0
    assert rows[-1] == tokens - 1
    assert rows == sorted(set(rows))
    assert len(rows) == tokens or len(rows) * tokens <= 2**18


def test_relative_error() -> None:
    output = torch.randn(3, 2, 10, 4)

    def expected(module: nn.Module, rows: torch.Tensor, picked: list[int]) -> torch.Tensor:
        assert picked == [0, 2]
        return output[picked].double()[:, :, rows] * 1.01

    assert relative_error(expected, nn.Identity(), output) == pytest.approx(0.01 / 1.01, rel=1e-6)
    output[2, 0, 0, 0] = float("nan")
    assert relative_error(expected, nn.Identity(), output) == float("inf")
