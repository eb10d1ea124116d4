from __future__ import annotations

import pytest
import torch

from lisabench.contract import Grid
from lisabench.operators.linformer import Linformer


def test_as_many_mixtures_as_tokens_each_of_one_token_give_softmax_attention() -> None:
    module = Linformer(24, 2, Grid(3, 5), rank=15)
    query, key, value = torch.randn(3, 2, 2, 15, 12)
    with torch.no_grad():
        module.key_mixtures.copy_(torch.eye(15))
        module.value_mixtures.copy_(torch.eye(15))
        assert torch.allclose(module.mix(query, key, value), torch.nn.functional.scaled_dot_product_attention(query, key, value), atol=1e-6)


@pytest.mark.parametrize(("sharing", "tables"), [("none", 2 * 3), ("headwise", 2), ("key-value", 1)])
def test_what_is_shared_is_there_once(sharing: str, tables: int) -> None:
    module = Linformer(24, 3, Grid(3, 5), rank=4, sharing=sharing)
    projections = 4 * (24 * 24 + 24)
    assert sum(parameter.numel() for parameter in module.parameters()) == projections + tables * 4 * 15


def test_refuses_unknown_sharing() -> None:
    with pytest.raises(ValueError, match="valid: none, headwise, key-value"):
        Linformer(24, 2, Grid(3, 5), sharing="layerwise")
