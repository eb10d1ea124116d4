from __future__ import annotations

import pytest
import torch
from torch import nn

from lisabench import registry
from lisabench.contract import Grid, Workload
from lisabench.measure.memory import bytes_of, kept_bytes, plan_bytes, saved_bytes, trace_call

MIB = 2**20
no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


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


def test_bytes_of_counts_what_a_sparse_tensor_is_made_of() -> None:
    indices, values = torch.tensor([[0, 5], [1, 2]]), torch.ones(2)
    assert bytes_of([torch.sparse_coo_tensor(indices, values, (9, 9), check_invariants=True)]) == 4 * 8 + 2 * 4
    assert bytes_of([torch.empty(1000, device="meta")]) == 0


def test_two_temporaries_alive_together_are_the_peak_to_the_byte() -> None:
    def call() -> None:
        first = torch.ones(64 * MIB, dtype=torch.uint8)
        second = torch.ones(64 * MIB, dtype=torch.uint8)
        del first, second

    assert trace_call(call).transient_bytes == 128 * MIB


class Keeps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(10, 10)
        self.register_buffer("table", torch.randn(100))
        self.plain = 3
        self.inner = nn.Identity()


def test_a_module_that_keeps_nothing_has_no_kept_bytes() -> None:
    module = Keeps()
    module.aliases = [module.linear.weight, module.table[5:], module.linear]  # type: ignore[index]
    assert kept_bytes(module) == 0


def test_kept_tensors_are_found_however_nested_and_once() -> None:
    module, kept = Keeps(), torch.randn(1000)
    module._kept = (1, {"spectra": [kept, kept[10:]], "none": None}, ("text", {torch.randn(10)}))
    module.inner.cache = kept
    module.hidden = [nn.Linear(5, 5, bias=False)]  # no submodule: its weight is in no list of parameters
    module.circle = [module._kept]
    module.circle.append(module.circle)
    assert kept_bytes(module) == 4 * (1000 + 10 + 25)


def test_the_spectra_that_lisa_keeps_are_counted_in_evaluation_only() -> None:
    operator = registry.load("lisa")
    workload = Workload(grid=Grid(32, 32), dim=32, heads=2)
    module = operator.build(workload, operator.resolve({}))
    module.train()
    module(torch.randn(1, 1024, 32))
    assert kept_bytes(module) == 0
    module.eval()
    with torch.no_grad():
        module(torch.randn(1, 1024, 32))
    _, tables, spectra = module._kept  # type: ignore[misc]
    assert kept_bytes(module) == bytes_of(tables) + bytes_of(spectra) > 0


def test_a_cpu_has_no_plans_and_says_so() -> None:
    assert plan_bytes("cpu") == "a CPU has no cuFFT"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_plans_that_cannot_be_asked_for_are_a_reason() -> None:
    assert isinstance(plan_bytes("cuda:0"), str)


@pytest.mark.gpu
@no_gpu
def test_a_known_allocation_on_a_gpu_is_the_peak_to_the_byte() -> None:
    held = torch.ones(8 * MIB, dtype=torch.uint8, device="cuda:0")

    def call() -> torch.Tensor:
        first = torch.ones(64 * MIB, dtype=torch.uint8, device="cuda:0")
        second = torch.ones(32 * MIB, dtype=torch.uint8, device="cuda:0")
        del first
        return second

    trace = trace_call(call, device="cuda:0")
    assert trace.transient_bytes == 96 * MIB
    assert trace.reserved_bytes is not None
    assert trace.reserved_bytes >= 96 * MIB + held.nbytes


@pytest.mark.gpu
@no_gpu
def test_an_earlier_peak_on_a_gpu_does_not_count() -> None:
    del (large := [torch.ones(512 * MIB, dtype=torch.uint8, device="cuda:0")])[:]
    assert not large
    assert trace_call(lambda: torch.ones(32 * MIB, dtype=torch.uint8, device="cuda:0"), device="cuda:0").transient_bytes == 32 * MIB


@pytest.mark.gpu
@no_gpu
def test_what_a_backward_takes_on_a_gpu_counts() -> None:
    """The result of exp, which its backward keeps, and the gradient of x."""
    x = torch.zeros(32 * MIB // 4, device="cuda:0", requires_grad=True)
    gradient = torch.ones_like(x)
    trace = trace_call(lambda: torch.autograd.grad(x.exp(), x, gradient), device="cuda:0")
    assert trace.transient_bytes == 64 * MIB


@pytest.mark.gpu
@no_gpu
def test_plans_are_counted_and_dropped() -> None:
    x = torch.randn(70_000, device="cuda:0")
    found = plan_bytes("cuda:0", lambda: [torch.fft.rfft(x[:length]) for length in range(65_000, 65_064)])
    assert isinstance(found, int), found
    assert found > 0
    assert torch.backends.cuda.cufft_plan_cache[0].size == 0
    assert plan_bytes("cuda:0") == 0
    assert plan_bytes("cuda:0", lambda: x + 1) == 0
