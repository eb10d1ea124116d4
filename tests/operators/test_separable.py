from __future__ import annotations

import torch

from lisabench.operators.separable import Separable


def test_equal_scores_take_the_mean_of_the_keys() -> None:
    key, value = torch.randn(2, 2, 9, 5)
    out = Separable(5).mix(torch.full((2, 9, 1), 7.0), key, value)
    assert torch.allclose(out, value.clamp(min=0) * key.mean(dim=1, keepdim=True), atol=1e-6)


def test_one_high_score_takes_the_key_of_its_token_also_in_half_precision() -> None:
    key, value = torch.randn(2, 1, 9, 5).half()
    query = torch.zeros(1, 9, 1).half()
    query[:, 3] = 6e4
    out = Separable(5).mix(query, key, value)
    assert torch.allclose(out, value.clamp(min=0) * key[:, 3:4], atol=1e-3)
