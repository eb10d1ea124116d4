from __future__ import annotations

import pytest
import torch

from lisabench.contract import Grid
from lisabench.operators.hydra import Hydra


def test_with_one_channel_the_cosine_is_a_sign() -> None:
    query, key, value = torch.randn(3, 2, 1, 12, 1)
    with torch.no_grad():
        out = Hydra(1, Grid(3, 4)).mix(query, key, value)
    assert torch.allclose(out, query.sign() * (key.sign() * value).sum(dim=2, keepdim=True), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_token_of_zeros_gives_zeros_and_takes_no_gradient(dtype: torch.dtype) -> None:
    """The published code divides by its length; a floor of 1e-12 under it would leave a gradient of 1e12."""
    tensors = torch.randn(3, 1, 1, 6, 4).to(dtype)
    tensors[0, :, :, 2] = tensors[1, :, :, 4] = 0
    query, key, value = (t.clone().requires_grad_() for t in tensors)
    out = Hydra(4, Grid(2, 3)).mix(query, key, value)
    assert out[:, :, 2].eq(0).all()
    out.square().sum().backward()
    for tensor in (out, query.grad, key.grad, value.grad):
        assert tensor is not None
        assert tensor.isfinite().all()
    assert query.grad is not None
    assert key.grad is not None
    assert query.grad[:, :, 2].eq(0).all()
    assert key.grad[:, :, 4].eq(0).all()


def test_sums_over_many_tokens_do_not_overflow_in_half_precision() -> None:
    query, key, value = (torch.full((1, 1, 4096, 4), size, dtype=torch.float16) for size in (1e-4, 300.0, 30.0))
    with torch.no_grad():
        out = Hydra(4, Grid(64, 64)).mix(query, key, value)
    assert torch.allclose(out.float(), torch.full_like(out, 0.5 * 0.5 * 30 * 4096).float(), rtol=1e-2)
