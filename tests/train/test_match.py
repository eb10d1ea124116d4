"""Models of equal cost."""

from __future__ import annotations

import pytest
from training import point

from lisabench.train.match import MATCHES, matched_hidden
from lisabench.train.vit import MICRO, ViT, operator_flops, other_flops, parameter_count


def cost(model: ViT, what: str) -> float:
    if what == "parameters":
        return parameter_count(model)
    flops = operator_flops(model)
    assert flops is not None
    return flops + other_flops(model)


@pytest.mark.parametrize("what", MATCHES)
@pytest.mark.parametrize("op", ["lisa", "gfnet", "identity"])
def test_no_other_width_is_nearer(op: str, what: str) -> None:
    target = point("softmax", size=MICRO).model()
    hidden = matched_hidden(point(op, size=MICRO).model(), target, what)
    assert hidden is not None
    assert hidden >= 1
    distances = [
        abs(cost(point(op, size=MICRO, mlp_hidden=width).model(), what) - cost(target, what)) for width in range(hidden - 1, hidden + 2)
    ]
    assert distances[1] == min(distances)
    assert hidden != MICRO.mlp_ratio * MICRO.dim


def test_an_operator_that_states_no_flops(own_operators: object) -> None:
    models = [point(op, size=MICRO).model() for op in (f"{own_operators}:Plain", "softmax")]
    assert matched_hidden(models[0], models[1], "flops") is None
    assert matched_hidden(models[0], models[1], "parameters") is not None
