from __future__ import annotations

from typing import Any

import pytest
import torch
from lisa_inputs import tensors

from lisabench.operators.lisa import LiSA, lisa_attention


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


def test_spectra_that_are_kept_belong_to_their_engine() -> None:
    torch.manual_seed(0)
    module, x = LiSA(16, 2, (6, 5)).eval(), torch.randn(2, 30, 16)
    exact = module(x)
    with torch.no_grad():
        for engine in ("dense", "mixed", "fft", "mixed", "dense"):
            module.engine = engine
            for _ in range(2):
                torch.testing.assert_close(module(x), exact, rtol=1e-3, atol=1e-4)
