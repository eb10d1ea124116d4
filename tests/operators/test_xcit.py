from __future__ import annotations

import torch

from lisabench.contract import Grid
from lisabench.operators.xcit import XCiT


def test_orthogonal_channels_mix_evenly_at_temperature_0_and_not_at_all_at_a_high_one() -> None:
    module = XCiT(8, 2, Grid(3, 4))
    channels = torch.linalg.qr(torch.randn(1, 2, 12, 4)).Q
    value = torch.randn(1, 2, 12, 4)
    with torch.no_grad():
        module.temperature.fill_(0)
        assert torch.allclose(module.mix(channels, channels, value), value.mean(-1, keepdim=True).expand_as(value), atol=1e-5)
        module.temperature.fill_(100)  # which the lengths of the channels must not change
        assert torch.allclose(module.mix(3 * channels, 0.2 * channels, value), value, atol=1e-4)


def test_a_channel_of_zeros_in_half_precision_gives_numbers_and_finite_gradients() -> None:
    tensors = torch.randn(3, 1, 1, 9, 4).half()
    tensors[0, ..., 0] = 0
    query, key, value = (t.clone().requires_grad_() for t in tensors)
    out = XCiT(4, 1, Grid(3, 3)).half().mix(query, key, value)
    assert out.isfinite().all()
    assert torch.allclose(out[..., 0], value.mean(dim=-1), atol=1e-2)
    out.sum().backward()
    for tensor in (query, key, value):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
