from __future__ import annotations

import copy

import torch

from lisabench.contract import Grid
from lisabench.operators.topvit import TopViT, dense_reference


def test_a_table_of_one_offset_picks_the_neighbour() -> None:
    grid = Grid(3, 4)
    module = TopViT(16, 2, grid).double()
    query, key = torch.rand(2, 1, 2, 12, 8, dtype=torch.float64) + 1  # the kernel is far above the floor of the weights
    value = torch.randn(1, 2, 12, 8, dtype=torch.float64)
    with torch.no_grad():
        module.table.zero_()
        module.table[:, 3, 3] = -1  # the offset (1, 0): one down; its sign does not matter
        got = module.mix(query, key, value)
    torch.testing.assert_close(got[:, :, :8], value[:, :, 4:], rtol=0, atol=1e-4)
    mean = value.mean(dim=2, keepdim=True).expand(-1, -1, 4, -1)  # the last row has no token below it
    torch.testing.assert_close(got[:, :, 8:], mean)


def test_keys_that_relu_empties_are_not_lost_in_the_rounding_of_an_fft() -> None:
    """With the published floor of 1e-8 the error is near 1e-1 here."""
    torch.manual_seed(0)
    grid = Grid(32, 32)
    module = TopViT(16, 2, grid)
    query, key, value = torch.randn(3, 1, 2, grid.tokens, 8)
    key[:, :, ::2] = -1
    with torch.no_grad():
        module.table.zero_()
        module.table[:, 31, 31:33] = 1  # itself and one to the right
        got = module.mix(query, key, value).double()
        want = dense_reference(copy.deepcopy(module).double(), query.double(), key.double(), value.double(), rows=torch.arange(grid.tokens))
    assert float((got - want).norm() / want.norm()) < 1e-5
    assert float(((got - want).norm(dim=-1) / want.norm(dim=-1)).max()) < 1e-3
