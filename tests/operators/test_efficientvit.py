from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lisabench.contract import Grid, Workload
from lisabench.measure.flops import count_torch
from lisabench.operators.efficientvit import EfficientViT, cost


def test_aggregation_that_does_nothing_gives_the_first_scale_again() -> None:
    torch.manual_seed(0)
    module = EfficientViT(24, 2, Grid(5, 7))
    with torch.no_grad():
        module.convolution.weight.zero_()[:, :, 2, 2] = 1
        module.mixing.copy_(torch.eye(12).expand_as(module.mixing))
        first, second = module.mix(*torch.randn(3, 1, 2, 35, 12)).chunk(2, dim=1)
    assert torch.allclose(first, second, atol=1e-6)
    assert not torch.allclose(first[:, 0], first[:, 1])


def attention_as_published(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """As in May 2024: sums in the input's dtype, the quotient in float32, eps = 1e-15."""
    query, key = F.relu(query), F.relu(key)
    attended = (query @ (key.transpose(-1, -2) @ F.pad(value, (0, 1), value=1.0))).float()
    return (attended[..., :-1] / (attended[..., -1:] + 1e-15)).to(value.dtype)


def test_a_query_that_is_negative_throughout_has_finite_gradients_in_half_precision() -> None:
    torch.manual_seed(0)
    module = EfficientViT(16, 2, Grid(4, 4)).half()
    tensors = torch.randn(3, 1, 2, 16, 8).half()
    tensors[0, :, :, 3] = -1
    published, ours = tensors.clone().requires_grad_(), tensors.clone().requires_grad_()
    attention_as_published(*published).sum().backward()
    mixed = module.mix(*ours)
    mixed.sum().backward()
    assert published.grad is not None
    assert not torch.isfinite(published.grad).all()  # the fault is there to be avoided
    assert ours.grad is not None
    assert torch.isfinite(ours.grad).all()
    assert (mixed[:, :2, 3] == 0).all()  # of the first scale; the second has other queries


def test_few_tokens_cost_no_product_of_all_pairs() -> None:
    """At N <= d too, where the published code turns quadratic, the FLOPs are N times those of a token."""
    for grid in (Grid(1, 2), Grid(2, 2), Grid(2, 4)):
        module, workload = EfficientViT(64, 2, grid), Workload(grid=grid, dim=64, heads=2)
        with torch.no_grad():
            tensors = module.prepare(torch.randn(1, grid.tokens, 64))
            counted, _ = count_torch(lambda module=module, tensors=tensors: module.mix(*tensors))  # type: ignore[misc]
        assert (
            counted
            == cost(workload, kernel_size=5).mix_flops
            == grid.tokens * cost(Workload(grid=Grid(1, 1), dim=64, heads=2), kernel_size=5).mix_flops
        )
