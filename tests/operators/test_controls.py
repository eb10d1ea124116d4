"""The controls: no mixing, pooling, and a depthwise convolution, on grids small enough to do by hand."""

from __future__ import annotations

import pytest
import torch

from lisabench import cost_laws, laws, registry
from lisabench.contract import Grid
from lisabench.law import NotApplicableError
from lisabench.operators.depthwise import Depthwise
from lisabench.operators.identity import Identity
from lisabench.operators.pool import Pool


def test_identity_gives_the_tensor_itself() -> None:
    x = torch.randn(2, 6, 4)
    assert Identity(4, 2, Grid(2, 3)).mix(x) is x


def test_pooling_takes_means_over_tokens_that_exist() -> None:
    """A corner has four tokens in its 3 x 3, an edge six: were those beyond the rim counted as zeros, a constant would not give 0."""
    grid = Grid(3, 4)
    pool = Pool(1, 1, grid)
    assert pool.mix(torch.full((1, 12, 1), 7.0)).abs().max() < 1e-5
    impulse = torch.zeros(1, 12, 1)
    impulse[0, 1] = 12  # in the upper edge
    want = torch.tensor([[3, 2 - 12, 2, 0], [2, 12 / 9, 12 / 9, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(pool.mix(impulse).reshape(3, 4), want)


def test_depthwise_moves_each_channel_by_its_own_filter() -> None:
    """One weight of 1 in each filter: at (0, 0), which looks up and to the left, and at the centre. Zeros come in over the rim."""
    grid = Grid(2, 3)
    depthwise = Depthwise(2, 1, grid, kernel_size=3)
    with torch.no_grad():
        depthwise.convolution.weight.zero_()
        depthwise.convolution.weight[0, 0, 0, 0] = 1
        depthwise.convolution.weight[1, 0, 1, 1] = 1
        x = torch.arange(1.0, 13).reshape(1, 6, 2)
        out = depthwise.mix(x)
    assert out[0, :, 0].tolist() == [0, 0, 0, 0, 1, 3]
    assert out[0, :, 1].tolist() == x[0, :, 1].tolist()


@pytest.mark.parametrize("kernel_size", [0, 1, 4])
def test_neighbourhoods_without_a_centre_are_refused(kernel_size: int) -> None:
    with pytest.raises(ValueError, match=f"kernel_size got {kernel_size}; valid: an odd number of 3 or more"):
        Pool(8, 2, Grid(4, 4), kernel_size=kernel_size)
    if kernel_size != 1:
        with pytest.raises(ValueError, match=f"kernel_size got {kernel_size}; valid: an odd number of 1 or more"):
            Depthwise(8, 2, Grid(4, 4), kernel_size=kernel_size)


@pytest.mark.parametrize("name", ["identity", "pool"])
def test_what_has_no_flops_is_not_asked_how_they_grow(name: str) -> None:
    with pytest.raises(NotApplicableError, match="no FLOPs"):
        cost_laws.flops_grow_as_stated(registry.load(name), {} if name == "identity" else {"kernel_size": 3}, Grid(1, 1))


def test_a_result_that_is_zero_throughout_equals_its_reference() -> None:
    """Pooling on a single token: a relative error would be 0 / 0."""
    assert laws.equals_reference(registry.load("pool"), {"kernel_size": 3}, Grid(1, 1), dtype=torch.float64) == "relative error 0e+00"
