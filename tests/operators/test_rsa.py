from __future__ import annotations

import torch
from torch.nn import functional as F

from lisabench.contract import Grid
from lisabench.operators.rsa import RSA

GRID = Grid(6, 7)


def test_one_weight_of_a_window_picks_the_token_there() -> None:
    """No relations (H1 = G = 0): P1 and H2 give one weight, q . 1, to the token a row above and a column to the right."""
    module = RSA(8, 2, GRID, window=3, latent=1).double()
    with torch.no_grad():
        for parameter in (module.key_filters, module.value_filters, module.context_filters):
            parameter.zero_()
        module.key_free.fill_(1)
        module.value_filters[0, 0, 2] = 1
        query, key, value = torch.randn(1, 2, 42, 4).double(), torch.randn(1, 42, 4).double(), torch.randn(1, 42, 4).double()
        got = module.mix(query, key, value).unflatten(2, GRID)
    there = F.pad(F.normalize(value, dim=-1).unflatten(1, GRID), (0, 0, 0, 1, 1, 0))[:, :-1, 1:]  # 0 beyond the rim
    want = F.normalize(query, dim=-1).sum(-1).unflatten(2, GRID)[..., None] * there[:, None]
    assert torch.allclose(got, want, atol=1e-5)


def test_relations_are_what_changes_with_keys_and_similar_values() -> None:
    """Without H1 keys do not matter; without G values come in linearly."""
    torch.manual_seed(0)
    module = RSA(8, 2, GRID, window=3).double()
    query, key, value = torch.randn(1, 2, 42, 4).double(), torch.randn(1, 42, 4).double(), torch.randn(1, 42, 4).double()

    def keys_matter_and_odd() -> tuple[bool, bool]:
        with torch.no_grad():
            here, other_keys, negative = (module.mix(query, k, v) for k, v in ((key, value), (-key, value), (key, -value)))
        return not torch.allclose(here, other_keys), torch.allclose(here, -negative)

    assert keys_matter_and_odd() == (True, False)
    torch.nn.init.zeros_(module.key_filters)
    assert keys_matter_and_odd() == (False, False)
    torch.nn.init.zeros_(module.context_filters)
    assert keys_matter_and_odd() == (False, True)


def test_away_from_the_rim_it_moves_with_the_image() -> None:
    module = RSA(8, 2, GRID, window=3)
    image = torch.randn(1, *GRID, 8)
    with torch.no_grad():
        here, moved = (module(x.flatten(1, 2)).unflatten(1, GRID) for x in (image, image.roll((1, 2), dims=(1, 2))))
    assert torch.allclose(moved[:, 2:-1, 3:-1], here[:, 1:-2, 1:-3], atol=1e-5)
