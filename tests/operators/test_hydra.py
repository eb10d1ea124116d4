from __future__ import annotations

import torch

from lisabench.contract import Grid
from lisabench.operators.hydra import Hydra


def test_with_one_channel_the_cosine_is_a_sign() -> None:
    query, key, value = torch.randn(3, 2, 1, 12, 1)
    with torch.no_grad():
        out = Hydra(1, Grid(3, 4)).mix(query, key, value)
    assert torch.allclose(out, query.sign() * (key.sign() * value).sum(dim=2, keepdim=True), atol=1e-5)


def test_a_token_of_zeros_gives_zeros_and_finite_gradients() -> None:
    """The published code divides by its length."""
    query, key, value = torch.randn(3, 1, 1, 6, 4)
    query[:, :, 2] = key[:, :, 4] = 0
    for tensor in (query, key, value):
        tensor.requires_grad_()
    out = Hydra(4, Grid(2, 3)).mix(query, key, value)
    assert out[:, :, 2].eq(0).all()
    out.square().sum().backward()
    for tensor in (out, query.grad, key.grad, value.grad):
        assert tensor is not None
        assert tensor.isfinite().all()


def test_sums_over_many_tokens_do_not_overflow_in_half_precision() -> None:
    query, key, value = (torch.full((1, 1, 4096, 4), size, dtype=torch.float16) for size in (1e-4, 300.0, 30.0))
    with torch.no_grad():
        out = Hydra(4, Grid(64, 64)).mix(query, key, value)
    assert torch.allclose(out.float(), torch.full_like(out, 0.5 * 0.5 * 30 * 4096).float(), rtol=1e-2)
