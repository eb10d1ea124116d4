from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lisabench.contract import Grid
from lisabench.operators import _relative_kernel
from lisabench.operators._kernel_attention import kernel_attention
from lisabench.operators._relative_kernel import dense_relative_kernel_attention, relative_kernel_attention
from lisabench.operators.nprf import NPRF

GRID = Grid(3, 4)


def drawn(module: NPRF, grid: Grid) -> tuple[Tensor, ...]:
    return module.prepare(torch.randn(2, grid.tokens, 16, dtype=next(module.parameters()).dtype))


def test_without_bias_it_is_kernel_attention_on_unit_queries_and_keys() -> None:
    module = NPRF(16, 2, GRID).double()
    query, key, value = drawn(module, GRID)
    unit_query, unit_key = (x / x.norm(dim=-1, keepdim=True) for x in (query, key))
    want = kernel_attention((unit_query @ module.weights.T).exp(), (unit_key @ module.weights.T).exp(), value)
    torch.testing.assert_close(module.mix(query, key, value), want)


def test_more_features_come_nearer_to_softmax_with_a_bias() -> None:
    """Of unit queries and keys, with the bias inside the exponential."""
    errors = []
    for features in (16, 256, 4096):
        torch.manual_seed(0)
        module = NPRF(16, 2, GRID, features=features).double()
        with torch.no_grad():
            module.bias += torch.randn(module.bias.shape, generator=torch.Generator().manual_seed(1))
            query, key, value = drawn(module, GRID)
            unit_query, unit_key = (x / x.norm(dim=-1, keepdim=True) for x in (query, key))
            y, x = torch.arange(12) // 4, torch.arange(12) % 4
            bias = module.bias[:, y - y[:, None] + 2, x - x[:, None] + 3]
            want = torch.softmax(unit_query @ unit_key.transpose(-1, -2) + bias, dim=-1) @ value
            errors.append(float((module.mix(query, key, value) - want).norm() / want.norm()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.05


def test_the_end_of_a_row_does_not_neighbour_the_start_of_the_next() -> None:
    module = NPRF(16, 2, GRID).double()
    with torch.no_grad():
        module.bias -= 25
        module.bias[:, 2, 4] = 0  # the offset (0, 1): one to the right
        query, key, value = drawn(module, GRID)
        got = module.mix(query, key, value).unflatten(2, GRID)
        module.bias.zero_()
        everywhere = module.mix(query, key, value).unflatten(2, GRID)
    torch.testing.assert_close(got[..., :-1, :], value.unflatten(2, GRID)[..., 1:, :], rtol=0, atol=1e-8)
    torch.testing.assert_close(got[..., -1, :], everywhere[..., -1, :], rtol=0, atol=1e-3)  # rounding, of sums 25 e-folds below the peak


def test_only_differences_of_the_bias_matter() -> None:
    module = NPRF(16, 2, GRID)
    prepared = drawn(module, GRID)
    with torch.no_grad():
        want = module.mix(*prepared)
        module.bias += 200  # beyond float32's exponential
        torch.testing.assert_close(module.mix(*prepared), want)


@pytest.mark.parametrize("block", [(1, 1, 1), (2, 1, 3), (1, 2, 2), (2, 2, 5)])
def test_block_sizes_change_neither_result_nor_gradients(block: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_relative_kernel, "_block_shape", lambda *_: block)
    query, key = (torch.rand(2, 2, 12, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    value = torch.randn(2, 2, 12, 3, dtype=torch.float64, requires_grad=True)
    table = torch.rand(2, 5, 7, dtype=torch.float64, requires_grad=True)
    inputs, weight = (query, key, value, table), torch.randn(2, 2, 12, 3, dtype=torch.float64)
    got = relative_kernel_attention(*inputs, GRID, eps=0.1)
    want = dense_relative_kernel_attention(*inputs, GRID, torch.arange(12), eps=0.1)
    torch.testing.assert_close(got, want)
    gradients = (torch.autograd.grad((result * weight).sum(), inputs) for result in (got, want))
    for of_got, of_want in zip(*gradients, strict=True):
        torch.testing.assert_close(of_got, of_want)
