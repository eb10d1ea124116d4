from __future__ import annotations

import pytest
import torch

from lisabench.contract import Grid
from lisabench.measure.memory import trace_call
from lisabench.operators.softmax_rpe import OPERATOR, SoftmaxRPE

GRID = Grid(3, 5)


def test_without_a_bias_it_is_softmax_attention() -> None:
    module = SoftmaxRPE(16, 2, GRID)
    torch.nn.init.zeros_(module.bias)
    query, key, value = torch.randn(3, 2, 2, 15, 8)
    assert torch.allclose(module.mix(query, key, value), torch.nn.functional.scaled_dot_product_attention(query, key, value), atol=1e-6)


def test_a_bias_on_one_offset_looks_there() -> None:
    """Entry [dy + H-1, dx + W-1] is that of the key dy rows below and dx columns to the right of its query."""
    module = SoftmaxRPE(16, 2, GRID)
    torch.nn.init.zeros_(module.bias)
    with torch.no_grad():
        module.bias[:, 1 + 2, -2 + 4] = 200
    query, key, value = torch.randn(3, 1, 2, 15, 8)
    seen, want = module.mix(query, key, value).unflatten(2, GRID), value.unflatten(2, GRID)
    assert torch.allclose(seen[:, :, :-1, 2:], want[:, :, 1:, :-2], atol=1e-6)
    assert not torch.allclose(seen[:, :, -1], want[:, :, -1], atol=0.1)  # nothing stands there: the other weights decide


@pytest.mark.parametrize(("trains", "kernel"), [(False, "flash"), (True, "math")])
def test_a_bias_that_needs_a_gradient_takes_sdpa_off_flash(trains: bool, kernel: str) -> None:
    module = SoftmaxRPE(16, 2, GRID)
    query, key, value = torch.randn(3, 1, 2, 15, 8)
    with torch.set_grad_enabled(trains):
        assert OPERATOR.backend(trace_call(lambda: module.mix(query, key, value)).ran) == kernel
