from __future__ import annotations

import torch

from lisabench.contract import Grid
from lisabench.operators.performer import Performer, orthogonal_features


def test_features_are_orthogonal_in_blocks_with_gaussian_norms() -> None:
    torch.manual_seed(0)
    weights = orthogonal_features(40, 16)
    assert weights.shape == (40, 16)
    for block in weights.split(16):
        products = block @ block.T
        assert torch.allclose(products, torch.diag(products.diag()), atol=1e-4)
    norms = torch.cat([orthogonal_features(16, 16).norm(dim=-1) for _ in range(200)])
    assert abs(float(norms.square().mean()) - 16) < 0.5  # the mean of a chi-squared with 16 degrees of freedom


def test_directions_of_the_features_are_uniform() -> None:
    """QR as it comes has a first entry that is always negative, which makes the estimate of the kernel biased."""
    torch.manual_seed(0)
    weights = torch.stack([orthogonal_features(8, 8) for _ in range(4000)])
    assert float(weights.mean(dim=0).abs().max()) < 0.08  # five standard errors; -0.8 without the signs


def test_more_features_come_nearer_to_softmax() -> None:
    query, key, value = torch.randn(3, 1, 2, 64, 16, generator=torch.Generator().manual_seed(0)) * 0.4
    want = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    errors = []
    for features in (16, 256, 4096):
        torch.manual_seed(0)
        module = Performer(32, 2, Grid(8, 8), features=features)
        with torch.no_grad():
            errors.append(float((module.mix(query, key, value) - want).norm() / want.norm()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.1


def test_large_inputs_do_not_overflow_in_half_precision() -> None:
    module = Performer(32, 2, Grid(16, 16))
    for dtype in (torch.float16, torch.bfloat16):
        query, key, value = (
            (30 * torch.randn(1, 2, 256, 16)).to(dtype),
            (30 * torch.randn(1, 2, 256, 16)).to(dtype),
            torch.randn(1, 2, 256, 16).to(dtype),
        )
        with torch.no_grad():
            assert torch.isfinite(module.mix(query, key, value)).all()
