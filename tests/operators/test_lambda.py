from __future__ import annotations

from typing import Any

import torch

from lisabench import registry
from lisabench.contract import Grid

Lambda: Any = registry.load("lambda").module


def test_by_hand_on_two_tokens() -> None:
    """k = 1, one head of one value channel: the softmax runs over the two positions, not over the one channel."""
    module = Lambda(1, 1, Grid(1, 2), key_dim=1).double()
    query, value = torch.tensor([2.0, -1.0]).double(), torch.tensor([5.0, 7.0]).double()
    key = torch.tensor([0.0, 3.0]).double().log1p()  # weights 1/5 and 4/5
    with torch.no_grad():
        module.embeddings.copy_(torch.tensor([[[0.5, 10.0, -3.0]]]))  # one to the left, itself, one to the right
        got = module.mix(query.view(1, 1, 2, 1), key.view(1, 2, 1), value.view(1, 2, 1)).flatten()
    content = 5 / 5 + 7 * 4 / 5
    want = [2 * (content + 10 * 5 - 3 * 7), -1 * (content + 0.5 * 5 + 10 * 7)]
    torch.testing.assert_close(got, torch.tensor(want).double())


def test_keys_that_are_the_same_everywhere_give_the_mean_to_all_heads() -> None:
    grid = Grid(3, 5)
    module = Lambda(12, 3, grid, key_dim=4).double()
    query, value = torch.randn(2, 3, 15, 4, dtype=torch.float64), torch.randn(2, 15, 4, dtype=torch.float64)
    with torch.no_grad():
        module.embeddings.zero_()
        got = module.mix(query, torch.randn(2, 1, 4, dtype=torch.float64).expand(-1, 15, -1), value)
    torch.testing.assert_close(got, query.sum(dim=-1, keepdim=True) * value.mean(dim=1)[:, None, None])


def test_an_embedding_of_one_offset_adds_the_neighbour() -> None:
    grid = Grid(3, 5)
    module = Lambda(12, 3, grid, key_dim=4).double()
    query, key, value = module.prepare(torch.randn(2, 15, 12, dtype=torch.float64))
    with torch.no_grad():
        module.embeddings.zero_()
        without = module.mix(query, key, value)
        module.embeddings[2, 2, 5] = 1  # channel 2, offset (0, 1): one to the right
        added = (module.mix(query, key, value) - without).unflatten(2, grid)
    right = torch.nn.functional.pad(value.unflatten(1, grid)[:, :, 1:], (0, 0, 0, 1))  # nothing beyond the rim
    torch.testing.assert_close(added, query[..., 2:3].unflatten(2, grid) * right[:, None])


def test_values_are_normalised_token_by_token() -> None:
    """Where the published layer takes statistics over the batch."""
    module = Lambda(12, 3, Grid(2, 2), key_dim=4)
    *_, value = module.prepare(5 + 3 * torch.randn(2, 4, 12))
    torch.testing.assert_close(value.mean(dim=-1), torch.zeros(2, 4), rtol=0, atol=1e-5)
