"""Models of equal cost: the MLPs' width by which a model has as many parameters, or FLOPs, as another."""

from __future__ import annotations

from torch import nn

from lisabench.train.vit import ViT, operator_flops, other_flops, parameter_count

MATCHES = ("parameters", "flops")


def matched_hidden(model: ViT, to: ViT, what: str) -> int | None:
    """The MLPs' hidden width at which `model` is nearest to `to` in parameters or forward FLOPs.

    Under 1 where the operators alone cost more than the other model does. None where an operator states no FLOPs.
    """
    sizes = [_size(one, what) for one in (model, to)]
    if sizes[0] is None or sizes[1] is None:
        return None
    first = model.layers[0].mlp[0]
    assert isinstance(first, nn.Linear)
    dim, depth = model.size.dim, model.size.depth
    a_channel = depth * (2 * dim + 1) if what == "parameters" else depth * 4 * dim * model.grid.tokens
    return first.out_features + round((sizes[1] - sizes[0]) / a_channel)


def _size(model: ViT, what: str) -> float | None:
    if what == "parameters":
        return parameter_count(model)
    flops = operator_flops(model)
    return None if flops is None else flops + other_flops(model)
