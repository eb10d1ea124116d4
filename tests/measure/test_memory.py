from __future__ import annotations

import pytest
import torch

from lisabench.measure.memory import bytes_of, saved_bytes, trace_call

MIB = 2**20


def test_peak_is_what_stood_at_once() -> None:
    def call() -> torch.Tensor:
        first = torch.empty(MIB, dtype=torch.uint8)
        second = torch.empty(2 * MIB, dtype=torch.uint8)
        del first
        third = torch.empty(4 * MIB, dtype=torch.uint8)  # 2 + 4 stand now, more than 1 + 2
        del second
        return third

    assert trace_call(call).transient_bytes == pytest.approx(6 * MIB, rel=0.001)


def test_what_stood_before_does_not_count() -> None:
    held = [torch.empty(8 * MIB, dtype=torch.uint8)]

    def call() -> torch.Tensor:
        held.clear()
        return torch.empty(MIB, dtype=torch.uint8)

    trace_call(call)
    assert trace_call(call).transient_bytes == pytest.approx(MIB, rel=0.01)


def test_explicit_softmax_takes_two_squares_and_its_output() -> None:
    """N = 1,024, one head: scores and weights of N x N, and the output, in float32."""
    query, key, value = torch.randn(3, 1, 1, 1024, 64)

    def call() -> torch.Tensor:
        scores = query @ key.transpose(-1, -2)
        return torch.softmax(scores, dim=-1) @ value

    call()
    assert trace_call(call).transient_bytes == pytest.approx(4 * (2 * 1024**2 + 1024 * 64), rel=0.01)


def test_operators_that_ran_are_named() -> None:
    ran = trace_call(lambda: torch.fft.rfft(torch.randn(8))).ran
    assert "aten::_fft_r2c" in ran
    assert "aten::softmax" not in ran


def test_saved_counts_each_storage_once_and_no_inputs() -> None:
    x = torch.randn(MIB // 4, requires_grad=True)  # 1 MiB
    weight = torch.randn(MIB // 4, requires_grad=True)

    def forward() -> torch.Tensor:
        return (x * weight).exp() * weight  # keeps exp's result, once, for exp and for the product

    assert saved_bytes(forward, standing=[x, weight]) == MIB
    assert saved_bytes(forward, standing=[]) == 3 * MIB


def test_bytes_of_counts_a_storage_once() -> None:
    x = torch.randn(10, 10)
    assert bytes_of([x, x[2:], x.T]) == 400
