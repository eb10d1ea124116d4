"""Trained parameters on a wider view: what an operator did near a token, it does there still."""

from __future__ import annotations

import pytest
import torch

from lisabench import registry
from lisabench.contract import Workload
from lisabench.operators._relative_position import widened
from lisabench.workload import Grid

OLD, NEW = Grid(4, 5), Grid(7, 9)
WIDENING = [name for name in registry.built_in() if hasattr(registry.load(name).module, "widen")]


def test_who_can() -> None:
    assert {"gfnet", "lambda", "lisa", "nprf", "softmax_rpe", "topvit", "urpe"} == set(WIDENING)


@pytest.mark.parametrize("boundary", ["zero", "periodic"])
def test_an_offset_keeps_its_entry(boundary: str) -> None:
    shape = OLD if boundary == "periodic" else (2 * OLD.height - 1, 2 * OLD.width - 1)
    table = torch.rand(3, *shape) + 1
    found = widened(table, OLD, NEW, boundary)
    for dy in range(-1, 2):
        for dx in range(-2, 3):
            there = (dy, dx) if boundary == "periodic" else (dy + OLD.height - 1, dx + OLD.width - 1)
            here = (dy, dx) if boundary == "periodic" else (dy + NEW.height - 1, dx + NEW.width - 1)
            torch.testing.assert_close(found[:, here[0], here[1]], table[:, there[0], there[1]], rtol=0, atol=0)
    assert found.count_nonzero() == table.numel()
    nearest = widened(table, OLD, NEW, boundary, beyond="nearest")
    assert nearest.count_nonzero() == nearest.numel()


@pytest.mark.parametrize("name", WIDENING)
def test_a_module_on_its_own_grid_stays_as_it_is(name: str) -> None:
    operator = registry.load(name)
    torch.manual_seed(0)
    module = operator.build(Workload(grid=OLD, dim=8, heads=2), operator.resolve({})).double().eval()
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    x = torch.randn(2, OLD.tokens, 8, dtype=torch.float64)
    before = module(x)
    module.widen(tuple(OLD))
    torch.testing.assert_close(module(x), before)
    module.widen(tuple(NEW))
    assert module(torch.randn(1, NEW.tokens, 8, dtype=torch.float64)).isfinite().all()


@pytest.mark.parametrize("options", [{}, {"engine": "fft"}], ids=str)
def test_lisa_sees_the_same_of_an_image_in_the_corner_of_a_wider_one(options: dict[str, str]) -> None:
    """Values and keys beyond the old grid are zero: they add nothing, and offsets within it weigh what they did."""
    operator = registry.load("lisa")
    module = operator.build(Workload(grid=OLD, dim=8, heads=2), operator.resolve(options)).double().eval()
    query, key, value = (torch.randn(1, 2, OLD.tokens, 4, dtype=torch.float64) for _ in range(3))
    before = module.mix(query, key, value)
    module.widen(tuple(NEW))
    wide = [torch.zeros(1, 2, *NEW, 4, dtype=torch.float64) for _ in range(3)]
    for image, part in zip(wide, (query, key, value), strict=True):
        image[:, :, : OLD.height, : OLD.width] = part.unflatten(2, OLD)
    after = module.mix(*(image.flatten(2, 3) for image in wide)).unflatten(2, NEW)[:, :, : OLD.height, : OLD.width]
    torch.testing.assert_close(after.flatten(2, 3), before)
