"""Counters against sums done by hand, and the analytic costs of all operators against the counters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from operator_cases import CASES, case_id
from torch import Tensor, nn

from lisabench import registry
from lisabench.contract import Grid, Workload, fft_flops
from lisabench.measure.flops import count_fvcore, count_torch, tally_fvcore, tally_torch
from lisabench.run.cell import build
from lisabench.sweep import Cell

X = torch.randn(3, 8, 12)
Q = torch.randn(2, 3, 40, 16)


def fft(points: int, batch: int, *, real: bool) -> float:
    return (2.5 if real else 5) * batch * points * math.log2(points)


BY_HAND: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...], float]] = {
    "matmul": (lambda a, b: a @ b, (torch.randn(4, 5), torch.randn(5, 6)), 2 * 4 * 5 * 6),
    "rfft": (lambda x: torch.fft.rfft(x, dim=-1), (X,), fft(12, 24, real=True)),
    "rfft padded, another axis": (lambda x: torch.fft.rfft(x, n=15, dim=-2), (X,), fft(15, 36, real=True)),
    "irfft": (lambda x: torch.fft.irfft(torch.fft.rfft(x), n=12), (X,), 2 * fft(12, 24, real=True)),
    "irfft odd": (lambda x: torch.fft.irfft(torch.fft.rfft(x, n=15), n=15), (X,), 2 * fft(15, 24, real=True)),
    "fft": (lambda x: torch.fft.fft(x, n=16, dim=-2), (X.cfloat(),), fft(16, 36, real=False)),
    "fft of real numbers": (lambda x: torch.fft.fft(x, n=16, dim=-2), (X,), fft(16, 36, real=True)),
    "ifft": (lambda x: torch.fft.ifft(x, dim=-2), (X.cfloat(),), fft(8, 36, real=False)),
    "rfft2": (lambda x: torch.fft.rfft2(x, s=(16, 25)), (X,), fft(400, 3, real=True)),
    "irfft2": (lambda x: torch.fft.irfft2(torch.fft.rfft2(x, s=(16, 24)), s=(16, 24)), (X,), 2 * fft(384, 3, real=True)),
    "fft2": (torch.fft.fft2, (X,), fft(96, 3, real=False)),
    "complex product": (lambda x: torch.fft.rfft(x) * torch.fft.rfft(x).conj(), (X,), 2 * fft(12, 24, real=True) + 6 * 24 * 7),
    "real product": (lambda x: x * x, (X,), 0),
    "pointwise real work": (lambda x: torch.addcmul(x, x, x).exp(), (X,), 0),
    "attention": (torch.nn.functional.scaled_dot_product_attention, (Q, Q, Q), 4 * 6 * 40 * 40 * 16),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_counters_agree_with_sums_done_by_hand(name: str) -> None:
    function, tensors, want = BY_HAND[name]
    with torch.no_grad():
        assert count_torch(lambda: function(*tensors))[0] == pytest.approx(want)
        assert count_fvcore(nn.Identity(), function, tensors) == pytest.approx(want)


def test_backward_is_counted() -> None:
    a, b = torch.randn(4, 5, requires_grad=True), torch.randn(5, 6, requires_grad=True)
    flops, counted_in = count_torch(lambda: (a @ b).sum().backward())
    assert flops == 3 * 2 * 4 * 5 * 6
    assert counted_in == {"aten::mm"}


@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_backward_of_a_convolution_is_twice_its_forward(groups: int, transposed: bool) -> None:
    make = nn.ConvTranspose2d if transposed else nn.Conv2d
    convolution, x = make(6, 12, 3, groups=groups, stride=2, bias=False), torch.randn(2, 6, 9, 7, requires_grad=True)
    with torch.no_grad():
        out = convolution(x)
        forward = count_torch(lambda: convolution(x))[0]
    positions = (x if transposed else out)[0, 0].numel()
    assert forward == 2 * 2 * positions * 6 * 12 // groups * 9
    assert count_torch(lambda: convolution(x).sum().backward())[0] == 3 * forward
    x.requires_grad_(False)  # the first layer of a model: the weight's gradient alone
    assert count_torch(lambda: convolution(x).sum().backward())[0] == 2 * forward


def test_tallies_name_the_operators_and_add_up() -> None:
    def function(x: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(x) * torch.fft.rfft(x), n=12) @ torch.ones(12, 12)

    product = 2 * 24 * 12 * 12
    with torch.no_grad():
        by_torch, by_fvcore = tally_torch(lambda: function(X)), tally_fvcore(nn.Identity(), function, (X,))
        assert set(by_torch) == {"aten::_fft_r2c", "aten::_fft_c2r", "aten::mul", "aten::mm"}
        assert set(by_fvcore) == {"aten::fft_rfft", "aten::fft_irfft", "aten::mul", "aten::matmul"}
        assert sum(by_torch.values()) == pytest.approx(sum(by_fvcore.values()))
        # As the counters come, the product of matrices is all that they see.
        assert tally_torch(lambda: function(X), handles=False) == {"aten::mm": product}
        assert tally_fvcore(nn.Identity(), function, (X,), handles=False) == {"aten::matmul": product}


def test_fft_flops() -> None:
    assert fft_flops(1, 9, real=True) == 0
    assert fft_flops(8, 2, real=False) == 5 * 2 * 8 * 3
    assert fft_flops(8, 2, real=True) == 2.5 * 2 * 8 * 3


@pytest.mark.parametrize("mode", ["forward", "train"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=case_id)
def test_analytic_flops_are_what_the_counters_count(name: str, options: dict[str, Any], mode: str) -> None:
    """Of the whole layer; that of mix alone is a law."""
    operator = registry.load(name)
    for grid, batch in ((Grid(16, 16), 2), (Grid(13, 20), 1)):
        workload = Workload(grid=grid, batch=batch, mode=mode, scope="layer", dim=96, heads=3)
        cell = Cell(op=name, options=operator.resolve(options), workload=workload)
        subject = build(cell, seed=0)
        with subject.gradients():
            subject.call()()  # an evaluation keeps what its first call makes
        assert cell.flops is not None
        with subject.gradients():
            assert count_torch(subject.counted_call)[0] == pytest.approx(cell.flops, rel=1e-6)
            if mode == "forward":
                assert count_fvcore(subject.module, subject.function, subject.inputs) == pytest.approx(cell.flops, rel=1e-4)


@pytest.mark.parametrize(("mode", "grid", "batch", "dtype"), [("forward", Grid(27, 31), 1, "bf16"), ("train", Grid(16, 16), 4, "fp32")])
@pytest.mark.parametrize(("name", "options"), CASES, ids=case_id)
def test_predicted_bytes_are_near_what_is_taken(
    name: str, options: dict[str, Any], mode: str, grid: Grid, batch: int, dtype: str, request: pytest.FixtureRequest
) -> None:
    """By one thread: each further one has a workspace of its own in some kernels, which no formula holds."""
    from lisabench.measure.memory import trace_call

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    operator = registry.load(name)
    workload = Workload(grid=grid, batch=batch, mode=mode, dtype=dtype)
    cell = Cell(op=name, options=operator.resolve(options), workload=workload)
    subject = build(cell, seed=0)
    with subject.gradients():
        call = subject.call()
        call()
        taken = trace_call(call).transient_bytes + 3 * batch * grid.tokens * workload.dim * workload.item_bytes
    assert cell.bytes_needed is not None
    assert 0.6 * taken < cell.bytes_needed
    assert cell.bytes_needed < 2 * taken or name == "identity"  # it takes nothing, not even gradients beside those it is given
