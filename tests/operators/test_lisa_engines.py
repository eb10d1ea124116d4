"""LiSA's engines: the same values and gradients from each, what they hold, and which one runs."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from lisa_inputs import tensors
from torch.utils._python_dispatch import TorchDispatchMode

from lisabench.contract import Grid, Workload
from lisabench.measure.memory import trace_call
from lisabench.operators import _lisa_mixed
from lisabench.operators._grid_fft import fast_length
from lisabench.operators._lisa_choice import predicted
from lisabench.operators._lisa_features import Shape
from lisabench.operators.lisa import LiSA, choose_engine, lisa_attention
from lisabench.registry import load


@pytest.mark.parametrize("boundary", ["zero", "periodic"])
@pytest.mark.parametrize("grid", [(1, 1), (1, 11), (6, 1), (4, 9), (13, 5)])
def test_engines_agree_with_each_other_and_in_their_gradients(grid: tuple[int, int], boundary: str) -> None:
    results = []
    for engine in ("fft", "dense", "mixed", "auto"):
        given = [t.requires_grad_() for t in tensors(grid, boundary=boundary)]
        out = lisa_attention(*given, grid=grid, boundary=boundary, engine=engine)
        results.append([out, *torch.autograd.grad(out.square().sum(), given)])
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            assert torch.allclose(first, second, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("boundary", ["zero", "periodic"])
@pytest.mark.parametrize("engine", ["fft", "dense", "mixed"])
def test_gradients_are_those_of_differences_and_can_be_differentiated_again(engine: str, boundary: str) -> None:
    for grid in ((2, 3), (3, 2)):
        given = [t[:1].requires_grad_() for t in tensors(grid, heads=1, patterns=2, boundary=boundary)]
        call = partial(lisa_attention, grid=grid, boundary=boundary, engine=engine)
        assert torch.autograd.gradcheck(call, given)
        assert torch.autograd.gradgradcheck(call, given)


@pytest.mark.parametrize("engine", ["fft", "dense", "mixed"])
def test_what_is_frozen_has_no_gradient_and_changes_none(engine: str) -> None:
    grid = (4, 5)
    whole = [t.requires_grad_() for t in tensors(grid)]
    all_of_them = torch.autograd.grad(lisa_attention(*whole, grid=grid, engine=engine).square().sum(), whole)
    for place, exact in enumerate(all_of_them):
        given = [t.detach().requires_grad_(other == place) for other, t in enumerate(whole)]
        lisa_attention(*given, grid=grid, engine=engine).square().sum().backward()
        torch.testing.assert_close(given[place].grad, exact)
        assert all(t.grad is None for other, t in enumerate(given) if other != place)


@pytest.mark.parametrize("engine", ["fft", "dense", "mixed"])
def test_gradients_by_functional_transforms(engine: str) -> None:
    grid = (3, 4)
    given = tensors(grid)
    by_transform = torch.func.grad(lambda value: lisa_attention(*given[:2], value, *given[3:], grid=grid, engine=engine).square().sum())(
        given[2]
    )
    value = given[2].requires_grad_()
    (by_backward,) = torch.autograd.grad(lisa_attention(*given[:2], value, *given[3:], grid=grid, engine=engine).square().sum(), value)
    torch.testing.assert_close(by_transform, by_backward)


@pytest.mark.parametrize("engine", ["fft", "dense", "mixed"])
def test_saved_for_backward_are_the_tokens_and_the_patterns_seen(engine: str) -> None:
    """Under 8 floats a token and channel: query, key and value are 3, s is R of key_dim, the tables 2 R (2H-1)(2W-1) h in all."""
    module, saved = LiSA(192, 3, (16, 16), engine=engine), dict[int, int]()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    prepared = [t.detach().requires_grad_() for t in module.prepare(torch.randn(2, 256, 192))]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = module.mix(*prepared)
    y.sum().backward()
    tables = module.kernel_patterns.nbytes + module.context_patterns.nbytes
    tokens = 4 * 2 * 256 * 192
    assert sum(saved.values()) == 3 * tokens + tokens * 4 // 64 + tables < 8 * tokens


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize("engine", ["fft", "dense", "mixed"])
def test_nothing_of_size_n_by_n_is_built(engine: str) -> None:
    tokens, heads = 40 * 40, 2
    module = LiSA(8, heads, (40, 40), engine=engine)
    with Largest() as largest:
        module(torch.randn(1, tokens, 8)).sum().backward()
    assert heads * tokens < largest.elements < heads * tokens**2 / 4


def test_transient_memory_grows_as_n() -> None:
    """One channel, of more a few planes are in work at a time whatever their size; powers of two, so that the padded length is always twice the side."""
    transient = []
    for side in (32, 64, 128):
        module = LiSA(1, 1, (side, side), engine="fft").eval()
        prepared = module.prepare(torch.randn(1, side * side, 1))
        call = torch.no_grad()(lambda module=module, prepared=prepared: module.mix(*prepared))
        call()
        transient.append(trace_call(call).transient_bytes)
    assert transient[1] / transient[0] == pytest.approx(4, rel=0.1)
    assert transient[2] / transient[1] == pytest.approx(4, rel=0.1)


def test_auto_is_the_engine_of_the_least_predicted_time_and_another_is_itself() -> None:
    shape = Shape(Grid(20, 20), "zero", 1, 3, 4, 64, 64, 4)
    assert choose_engine(shape, "fft") == "fft"
    for kept, trained in ((True, False), (False, False), (False, True)):
        seconds = predicted(shape, device="cpu", trained=trained, prepared=kept)
        assert choose_engine(shape, trained=trained, kept=kept) == min(seconds, key=seconds.__getitem__)
    assert choose_engine(shape._replace(grid=Grid(1, 2**17))) == "fft"


def test_triton_is_refused_with_the_reason_where_it_does_not_run() -> None:
    given = tensors((3, 4), dtype=torch.float32)
    with pytest.raises(
        ValueError, match=r"engine got 'triton', which does not run here: Triton kernels need an NVIDIA GPU.*valid: auto, mixed"
    ):
        lisa_attention(*given, grid=(3, 4), engine="triton")
    operator = load("lisa")
    workload = Workload(grid=Grid(3, 4), dim=24, heads=2)
    assert "NVIDIA GPU" in str(operator.refuses(workload, **operator.resolve({"engine": "triton"})))
    assert operator.refuses(workload, **operator.resolve({})) is None
    assert "NVIDIA GPU" in operator.left_out(torch.device("cpu"), torch.float32)["triton"]


def test_mixed_holds_few_matrices_and_spectra_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of small bounds the values are the same, with a frequency and a sample at a time."""
    grid = (9, 7)
    given = tensors(grid)
    with torch.no_grad():
        whole = lisa_attention(*given, grid=grid, engine="mixed")
        for name in ("MATRIX_BYTES", "SPECTRA_BYTES"):
            for machine in ("cpu", "threads"):
                monkeypatch.setitem(getattr(_lisa_mixed, name), machine, 1)
        torch.testing.assert_close(lisa_attention(*given, grid=grid, engine="mixed"), whole, rtol=1e-12, atol=1e-12)


def test_fast_length() -> None:
    assert [fast_length(n) for n in (1, 11, 13, 27, 31, 55, 111, 127, 257)] == [1, 12, 14, 27, 32, 56, 112, 128, 270]
