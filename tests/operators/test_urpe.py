from __future__ import annotations

import torch

from lisabench.contract import Grid
from lisabench.operators.softmax_rpe import SoftmaxRPE
from lisabench.operators.urpe import URPE

GRID = Grid(3, 5)


def test_it_sets_out_from_softmax_with_a_relative_bias() -> None:
    module, plain = URPE(16, 2, GRID), SoftmaxRPE(16, 2, GRID)
    plain.load_state_dict({name: value for name, value in module.state_dict().items() if name != "gain"})
    x = torch.randn(2, 15, 16)
    assert torch.allclose(module(x), plain(x), atol=1e-6)


def test_it_tells_positions_of_equal_tokens_apart_where_a_bias_cannot() -> None:
    """The theorem of the paper: rows of a softmax sum to 1, whatever bias went into them."""
    x = torch.randn(1, 1, 16).expand(1, 15, 16)
    for module, apart in ((SoftmaxRPE(16, 2, GRID), False), (URPE(16, 2, GRID), True)):
        with torch.no_grad():
            for name, table in module.named_parameters():
                if name in ("bias", "gain"):
                    table.normal_()
            out = module(x)
        assert (float((out - out[:, :1]).abs().max()) > 1e-2) is apart
