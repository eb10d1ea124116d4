from __future__ import annotations

import torch

from lisabench.contract import Grid
from lisabench.operators.soft import RIDGE, Soft, dense_reference


def test_a_landmark_for_each_token_gives_the_kernel_itself() -> None:
    """K (K + ridge)^-1 K, by a solver, once the iteration has converged."""
    torch.manual_seed(0)
    query, value = torch.randn(2, 2, 2, 15, 12, dtype=torch.float64)
    kernel = torch.exp(-torch.cdist(query, query).square() / (2 * 12**0.5))
    want = kernel @ torch.linalg.solve(kernel + RIDGE * torch.eye(15, dtype=torch.float64), kernel @ value)
    assert torch.allclose(Soft(24, 2, Grid(3, 5), landmarks=15, iterations=60).mix(query, value), want, atol=1e-8)


def test_float32_is_right_where_the_kernel_is_all_but_singular() -> None:
    """Tokens that hardly differ: a kernel of ones, the worst that the inverse can be given."""
    torch.manual_seed(0)
    module = Soft(24, 2, Grid(8, 8)).eval()
    for spread in (1e-3, 0.1, 1.0):
        query = torch.randn(1, 2, 1, 12) + spread * torch.randn(1, 2, 64, 12)
        value = torch.randn(1, 2, 64, 12)
        got = module.mix(query, value).double()
        want = dense_reference(module, query.double(), value.double(), rows=torch.arange(64))
        assert float((got - want).norm() / want.norm()) < 1e-4


def test_rounding_of_distances_makes_no_weight_larger_than_one() -> None:
    """|a|^2 + |b|^2 - 2 a b of two equal tokens of size 1000 is far from 0 in float32; below 0 its exponential would blow up."""
    query = torch.full((1, 1, 1, 64), 1000.0) + torch.zeros(1, 1, 16, 1)
    out = Soft(64, 1, Grid(4, 4)).mix(query, torch.ones(1, 1, 16, 64))
    assert out.isfinite().all()
    assert float(out.max()) <= 16.001
