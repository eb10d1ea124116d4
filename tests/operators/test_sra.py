from __future__ import annotations

import torch
from torch.nn import functional as F

from lisabench.contract import Grid
from lisabench.operators.softmax import Softmax
from lisabench.operators.sra import SpatialReduction


def test_the_reduction_is_a_strided_convolution() -> None:
    module = SpatialReduction(24, 2, Grid(4, 6))
    tokens = torch.randn(2, 24, 24)
    with torch.no_grad():
        weight = module.reduce.weight.unflatten(1, (2, 2, 24)).permute(0, 3, 1, 2)  # (C, C, r, r)
        image = tokens.transpose(1, 2).unflatten(2, (4, 6))
        want = module.norm(F.conv2d(image, weight, module.reduce.bias, stride=2).flatten(2).transpose(1, 2))
        assert torch.allclose(module.patches(tokens), want, atol=1e-5)


def test_tokens_beyond_the_last_whole_patch_are_seen() -> None:
    """A strided convolution without padding drops the last row and column of 5 x 5."""
    module = SpatialReduction(24, 2, Grid(5, 5))
    tokens = torch.randn(1, 25, 24)
    other = tokens.clone()
    other[:, -1] += 1
    with torch.no_grad():
        assert module.patches(tokens).shape[1] == 9
        assert float((module(tokens) - module(other))[:, 0].abs().max()) > 1e-4


def test_without_reduction_it_is_softmax_attention() -> None:
    module, softmax = SpatialReduction(24, 2, Grid(5, 5), reduction=1), Softmax(24, 2, Grid(5, 5))
    softmax.load_state_dict(module.state_dict())
    x = torch.randn(2, 25, 24)
    with torch.no_grad():
        assert torch.allclose(module(x), softmax(x), atol=1e-6)
