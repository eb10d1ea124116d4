from __future__ import annotations

import torch

from lisabench.contract import Grid
from lisabench.operators.agent import Agent, AgentBias


def test_a_bias_map_stands_as_it_is_on_a_grid_of_its_size() -> None:
    bias = AgentBias(2, 5, Grid(7, 7))
    with torch.no_grad():
        want = bias.map + bias.row + bias.column
        assert torch.allclose(bias(), want.flatten(-2), atol=1e-6)


def test_zero_bias_is_no_bias() -> None:
    module, without = Agent(24, 2, Grid(3, 5), agents=6), Agent(24, 2, Grid(3, 5), agents=6, bias=False)
    without.load_state_dict({name: t for name, t in module.state_dict().items() if "bias." not in name or "_bias" not in name})
    x = torch.randn(2, 15, 24)
    with torch.no_grad():
        assert not torch.allclose(module(x), without(x), atol=1e-5)
        for table in [*module.gather_bias.parameters(), *module.read_bias.parameters()]:
            table.zero_()
        assert torch.allclose(module(x), without(x), atol=1e-6)


def test_one_agent_gives_every_token_the_same_but_for_its_neighbourhood() -> None:
    """One agent: a softmax over one is 1."""
    module = Agent(24, 2, Grid(3, 5), agents=1)
    with torch.no_grad():
        module.local.weight.zero_()
        out = module.mix(*module.prepare(torch.randn(2, 15, 24)))
    assert torch.allclose(out, out[:, :, :1].expand_as(out), atol=1e-6)
