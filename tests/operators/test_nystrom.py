from __future__ import annotations

import pytest
import torch

from lisabench.contract import Grid
from lisabench.operators.nystrom import Nystrom, pseudoinverse


def test_a_landmark_for_each_token_gives_softmax_attention() -> None:
    """A pinv(A) A = A, once the iteration has converged."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 2, 15, 12, dtype=torch.float64) * torch.tensor([3.0, 3.0, 1.0]).reshape(3, 1, 1, 1, 1)
    module = Nystrom(24, 2, Grid(3, 5), landmarks=15, iterations=40)
    want = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    assert torch.allclose(module.mix(query, key, value), want, atol=1e-8)


def test_pseudoinverse_of_a_singular_matrix() -> None:
    """Singular values are inverted, those that are 0 stay 0: what rounding makes of them grows by 13 / 4 an iteration, no more."""
    left, right = torch.randn(2, 4, 8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = left @ right.transpose(-1, -2)
    assert torch.allclose(pseudoinverse(matrix, 12), torch.linalg.pinv(matrix), atol=1e-7)


@pytest.mark.parametrize("option", ["landmarks", "iterations"])
def test_refuses_negative_numbers(option: str) -> None:
    with pytest.raises(ValueError, match=option):
        Nystrom(24, 2, Grid(3, 5), **{option: -1})
