from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lisabench.contract import Grid
from lisabench.operators.focused import EPS, Focused


def test_features_keep_their_length_and_gather_in_the_largest_channel() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, 15, 8)
    shares = []
    for focusing in (1.0, 3.0, 9.0):
        module = Focused(16, 2, Grid(3, 5), focusing=focusing)
        with torch.no_grad():
            module.scale.normal_()
            features, u = module.feature_map(x), (F.relu(x) + EPS) / F.softplus(module.scale)
            module.scale.zero_()
            shares.append(float((module.feature_map(x).amax(dim=-1) / module.feature_map(x).norm(dim=-1)).mean()))
        assert torch.allclose(features.norm(dim=-1), u.norm(dim=-1), rtol=1e-5)
        assert torch.allclose(features, u, rtol=1e-5) is (focusing == 1)
    assert shares == sorted(shares)
    assert shares[-1] > 0.95


def test_a_head_does_not_depend_on_the_others() -> None:
    """In the published code it does: lengths are taken over all channels."""
    torch.manual_seed(0)
    module = Focused(24, 3, Grid(4, 5))
    query, key, value = torch.randn(3, 1, 3, 20, 8)
    with torch.no_grad():
        before = module.mix(query, key, value)
        for tensor in (query, key, value):
            tensor[:, 0] = torch.randn(20, 8)
        after = module.mix(query, key, value)
    assert torch.equal(before[:, 1:], after[:, 1:])
    assert not torch.allclose(before[:, 0], after[:, 0])


def test_small_features_are_no_zero_over_zero_in_half_precision() -> None:
    small = (1e-3 * torch.rand(1, 2, 6, 8)).half()
    cubes = (small + EPS) ** 3
    assert (cubes / cubes.norm(dim=-1, keepdim=True)).isnan().any()  # the fault is there to be avoided
    module = Focused(16, 2, Grid(2, 3)).half()
    for x in (small, -small):  # also where no feature is positive
        with torch.no_grad():
            assert torch.isfinite(module.mix(x, x, torch.randn_like(x))).all()


def test_a_power_under_one_is_refused() -> None:
    for focusing in (0.5, float("nan")):
        with pytest.raises(ValueError, match="focusing got"):
            Focused(16, 2, Grid(2, 3), focusing=focusing)
