from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lisabench.contract import Grid, Workload
from lisabench.measure.memory import trace_call
from lisabench.operators import _lisa_mixed
from lisabench.operators._grid_fft import fast_length
from lisabench.operators._lisa_choice import predicted
from lisabench.operators._lisa_features import Shape
from lisabench.operators.lisa import LiSA, choose_engine, lisa_attention
from lisabench.registry import load


def tensors(
    grid: tuple[int, int], *, heads: int = 2, patterns: int = 3, boundary: str = "zero", dtype: torch.dtype = torch.float64
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = grid[0] * grid[1]
    shape = grid if boundary == "periodic" else (2 * grid[0] - 1, 2 * grid[1] - 1)
    sizes = [(2, heads, tokens, 5), (2, heads, tokens, 5), (2, heads, tokens, 7), (heads, patterns, *shape), (heads, patterns, *shape)]
    return [torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]


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


def test_a_delta_pattern_picks_the_neighbour() -> None:
    """By hand: P a delta at offset (0, 0) makes s = q . k at the query itself, G a delta at (0, 1) takes the value to its right."""
    grid = (2, 3)
    query, key, value = torch.randn(3, 1, 1, 6, 4, dtype=torch.float64)
    kernel, context = torch.zeros(2, 1, 1, 3, 5, dtype=torch.float64)
    kernel[0, 0, 1, 2] = context[0, 0, 1, 3] = 1
    seen = (query * key).sum(-1, keepdim=True)
    right = torch.zeros_like(value)
    right[:, :, [0, 1, 3, 4]] = value[:, :, [1, 2, 4, 5]]
    for engine in ("fft", "dense", "mixed"):
        out = lisa_attention(query, key, value, kernel, context, grid=grid, engine=engine)
        assert torch.allclose(out, seen * right, atol=1e-12)


def test_periodic_is_translation_equivariant_and_zero_is_not() -> None:
    grid = (4, 6)

    def roll(t: torch.Tensor) -> torch.Tensor:
        return t.unflatten(2, grid).roll((1, 2), dims=(2, 3)).flatten(2, 3)

    for boundary, equivariant in (("periodic", True), ("zero", False)):
        query, key, value, kernel, context = tensors(grid, boundary=boundary)
        out = lisa_attention(query, key, value, kernel, context, grid=grid, boundary=boundary)
        moved = lisa_attention(roll(query), roll(key), roll(value), kernel, context, grid=grid, boundary=boundary)
        assert torch.allclose(moved, roll(out)) is equivariant


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("engine", ["fft", "dense", "mixed"])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, engine: str) -> None:
    grid = (12, 10)
    given = [30 * t for t in tensors(grid, dtype=dtype)]
    out = lisa_attention(*given, grid=grid, engine=engine)
    exact = lisa_attention(*(t.double() for t in given), grid=grid, engine=engine)
    # Overflow of float16 is the value's own, not the computation's.
    assert torch.equal(torch.isfinite(out), torch.isfinite(exact.to(dtype)))
    finite = torch.isfinite(out)
    assert torch.allclose(out[finite].double(), exact[finite], rtol=2 * torch.finfo(dtype).eps, atol=float(exact.abs().median()) * 1e-4)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"grid": (3, 5)}, "grid"),
        ({"grid": (0, 12)}, "grid"),
        ({"grid": 12}, "grid"),
        ({"grid": (12,)}, "grid"),
        ({"grid": (3.0, 4.0)}, "grid"),
        ({"query": torch.randn(0, 2, 12, 5)}, "query"),
        ({"query": torch.randn(2, 12, 5)}, "query"),
        ({"key": torch.randn(1, 2, 12, 4)}, "key"),
        ({"value": torch.randn(1, 2, 11, 5)}, "value"),
        ({"kernel_patterns": torch.randn(2, 3, 5, 6)}, "kernel_patterns"),
        ({"context_patterns": torch.randn(2, 2, 5, 7)}, "context_patterns"),
        ({"context_patterns": torch.randn(2, 3, 5, 7).double()}, "context_patterns"),
        ({"value": torch.randn(1, 2, 12, 5, device="meta")}, "value"),
        ({"boundary": "wrap"}, "boundary"),
        ({"boundary": "periodic"}, "kernel_patterns"),
        ({"engine": "magic"}, "engine"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], named: str) -> None:
    query = torch.randn(1, 2, 12, 5)
    table = torch.randn(2, 3, 5, 7)
    good = {"query": query, "key": query, "value": query, "kernel_patterns": table, "context_patterns": table, "grid": (3, 4)}
    lisa_attention(**good)
    with pytest.raises(ValueError, match=f"^{named} got .*valid|^{named} got .*has|^{named} got .*must"):
        lisa_attention(**good | change)


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


def test_spectra_are_kept_in_evaluation_and_follow_the_tables() -> None:
    module = LiSA(16, 2, (6, 5), engine="fft").eval()
    x = torch.randn(2, 30, 16)

    def fresh() -> torch.Tensor:
        module._kept = None
        return module(x)

    with torch.no_grad():
        module(x)
        kept = module._kept
        module(x)
        assert module._kept is kept is not None
        for change in (
            lambda: module.kernel_patterns.mul_(2),
            lambda: module.context_patterns.data.add_(1),
            lambda: module.load_state_dict(LiSA(16, 2, (6, 5)).state_dict()),
            lambda: module.to(torch.float64).to(torch.float32),
            lambda: setattr(module, "kernel_patterns", torch.nn.Parameter(torch.randn(2, 4, 11, 9))),
        ):
            change()
            assert torch.equal(module(x), fresh())
    trained = LiSA(16, 2, (6, 5), engine="fft")
    optimiser = torch.optim.SGD(trained.parameters(), lr=1.0)
    with torch.no_grad():
        before = trained.eval()(x)
    trained.train()(x).square().sum().backward()
    optimiser.step()
    with torch.no_grad():
        after = trained.eval()(x)
        trained._kept = None
        assert torch.equal(after, trained(x))
    assert not torch.equal(before, after)


@pytest.mark.parametrize("boundary", ["zero", "periodic"])
def test_resize(boundary: str) -> None:
    module = LiSA(16, 2, (6, 8), boundary=boundary).double().eval()
    before = {name: table.clone() for name, table in module.named_parameters() if "patterns" in name}
    module.resize((6, 8))
    for name, table in before.items():
        assert torch.allclose(getattr(module, name), table)
    module.resize((12, 10))
    assert module(torch.randn(1, 120, 16).double()).shape == (1, 120, 16)
    centre = (0, 0) if boundary == "periodic" else (11, 9)
    old_centre = (0, 0) if boundary == "periodic" else (5, 7)
    for name, table in before.items():
        new = getattr(module, name)
        assert torch.allclose(new[..., *centre], table[..., *old_centre])
        # Twice the height: the weight of offset 1 stands at offset 2 now, and that of offset 1 between those of 0 and 1.
        assert torch.allclose(new[..., centre[0] + 2, centre[1]], table[..., old_centre[0] + 1, old_centre[1]])
        assert torch.allclose(new[..., centre[0] + 1, centre[1]], table[..., old_centre[0] : old_centre[0] + 2, old_centre[1]].mean(-1))


def test_resize_refuses_before_it_changes_anything_and_keeps_frozen_tables_frozen() -> None:
    module = LiSA(16, 2, (6, 8))
    module.kernel_patterns.requires_grad_(False)
    with pytest.raises(ValueError, match="grid got"):
        module.resize((0, 4))
    assert module(torch.randn(1, 48, 16)).shape == (1, 48, 16)
    module.resize((3, 4))
    assert not module.kernel_patterns.requires_grad
    assert module.context_patterns.requires_grad


def test_kept_spectra_stay_out_of_copies_and_files() -> None:
    import copy

    module = LiSA(16, 2, (6, 8), engine="fft").eval()
    with torch.no_grad():
        module(torch.randn(1, 48, 16))
    assert module._kept is not None
    assert copy.deepcopy(module)._kept is None
    assert module.train()._kept is None


@pytest.mark.parametrize(("dim", "heads", "grid"), [(8, 2, (0, 4)), (8, 0, (4, 4)), (8, -2, (4, 4)), (9, 2, (4, 4))])
def test_a_module_of_no_shape_is_refused(dim: int, heads: int, grid: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="got"):
        LiSA(dim, heads, grid)


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


def test_spectra_that_are_kept_belong_to_their_engine() -> None:
    torch.manual_seed(0)
    module, x = LiSA(16, 2, (6, 5)).eval(), torch.randn(2, 30, 16)
    exact = module(x)
    with torch.no_grad():
        for engine in ("dense", "mixed", "fft", "mixed", "dense"):
            module.engine = engine
            for _ in range(2):
                torch.testing.assert_close(module(x), exact, rtol=1e-3, atol=1e-4)


def test_fast_length() -> None:
    assert [fast_length(n) for n in (1, 11, 13, 27, 31, 55, 111, 127, 257)] == [1, 12, 14, 27, 32, 56, 112, 128, 270]
