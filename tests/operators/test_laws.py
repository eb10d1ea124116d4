"""The laws of `lisabench verify`, over all operators and their variants, grid by grid."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lisabench import laws, registry
from lisabench.contract import Grid, Operator, Workload

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "lisa": [
        {"engine": "fft"},
        {"engine": "dense"},
        {"engine": "fft", "boundary": "periodic"},
        {"engine": "dense", "boundary": "periodic"},
        {"key_dim": 5, "patterns": 1},
    ],
    "performer": [{"features": 7}],
    "linear": [{"key_dim": 5}],
}
CASES = [(name, options) for name in registry.names() for options in [{}, *VARIANTS.get(name, [])]]


@pytest.mark.parametrize("grid", laws.GRIDS, ids=lambda grid: f"H{grid.height}-W{grid.width}")
@pytest.mark.parametrize("law", laws.LAWS)
@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda case: str(case) if isinstance(case, dict) else case)
def test_law(name: str, options: dict[str, Any], law: str, grid: Grid) -> None:
    operator = registry.load(name)
    laws.LAWS[law](operator, operator.resolve(options), grid)


@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda case: str(case) if isinstance(case, dict) else case)
def test_layer_is_its_three_parts(name: str, options: dict[str, Any]) -> None:
    operator = registry.load(name)
    module: Any = operator.build(Workload(grid=Grid(5, 3), dim=24, heads=2), operator.resolve(options)).eval()
    x = torch.randn(2, 15, 24)
    with torch.no_grad():
        assert torch.allclose(module(x), module.finish(module.mix(*module.prepare(x))), atol=1e-6)


class Broken(nn.Module):
    """Breaks every law there is: sees the batch, keeps no dtype, and its gradient is another function's."""

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        self.unused = nn.Parameter(torch.zeros(1))

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return (self.linear(x) + x.mean(dim=0, keepdim=True)).float()

    forward = mix


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda case: str(case) if isinstance(case, dict) else case)
def test_laws_hold_on_a_gpu(name: str, options: dict[str, Any]) -> None:
    operator = registry.load(name)
    findings = list(laws.verify(operator, operator.resolve(options), device="cuda:0"))
    assert {finding.law: finding.holds for finding in findings} == dict.fromkeys(laws.LAWS, True), findings


SETTINGS: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn]  # type: ignore[attr-defined]


def test_tf32_is_off_while_a_law_runs_and_put_back_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it was, and also where the law breaks."""
    seen = []

    def law(*_: Any, **__: Any) -> str:
        seen.append([setting.fp32_precision for setting in SETTINGS])
        raise RuntimeError("no such luck")

    monkeypatch.setattr(laws, "LAWS", {"one": law})
    at_first = [setting.fp32_precision for setting in SETTINGS]
    try:
        for precision in ("tf32", "ieee"):
            for setting in SETTINGS:
                setting.fp32_precision = precision
            (finding,) = laws.verify(registry.load("linear"), {})
            assert finding.holds is False
            assert [setting.fp32_precision for setting in SETTINGS] == [precision] * 3
    finally:
        for setting, precision in zip(SETTINGS, at_first, strict=True):
            setting.fp32_precision = precision
    assert seen == [["ieee"] * 3] * 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_products_on_a_gpu_are_exact_while_a_law_runs() -> None:
    left, right = (torch.randn(512, 512, device="cuda") for _ in range(2))
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        with laws.exact_float32():
            product = left @ right
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    want = left.double() @ right.double()
    assert float((product - want).norm() / want.norm()) < 1e-6


def test_laws_can_fail() -> None:
    operator = Operator(
        name="broken",
        title="",
        module=Broken,
        source="",
        formula="",
        time_order="",
        memory_order="",
        reference=lambda module, x, rows: x[:, rows],
    )
    findings = {finding.law: finding for finding in laws.verify(operator, {})}
    assert {law: finding.holds for law, finding in findings.items()} == dict.fromkeys(laws.LAWS, False)
    assert "unused" in findings["gradients"].detail


def test_without_a_reference_the_check_is_absent_and_says_so() -> None:
    operator = Operator(name="bare", title="", module=Broken, source="", formula="", time_order="", memory_order="")
    finding = next(iter(laws.verify(operator, {})))
    assert finding.holds is None
    assert "no reference" in finding.detail
