"""The laws of `lisabench verify`, over all operators and their variants."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from operator_cases import BUILT_IN, CASES, case_id
from torch import nn

from lisabench import cost_laws, laws, registry
from lisabench.contract import SYMMETRIES, Cost, Grid, Operator, Workload, growth
from lisabench.law import LawBrokenError, prepared_by


def asked(operator: Operator, law: str, options: dict[str, Any]) -> bool:
    """Whether the law must hold of it: symmetries are claimed by some, orders are stated for the default options, some have no FLOPs."""
    if law == "symmetries":
        return bool(operator.symmetries(**operator.resolve(options)))
    if law == "time order" and operator.cost and not operator.cost(Workload(grid=Grid(8, 8)), **operator.resolve(options)).mix_flops:
        return False
    return not (options and law in ("time order", "memory order"))


@pytest.mark.parametrize("law", laws.LAWS)
@pytest.mark.parametrize(("name", "options"), CASES, ids=case_id)
def test_law(name: str, options: dict[str, Any], law: str) -> None:
    operator = registry.load(name)
    for grid in laws.ON_GRIDS[law]:
        if asked(operator, law, options):
            laws.LAWS[law](operator, operator.resolve(options), grid)


@pytest.mark.parametrize(("name", "options"), CASES, ids=case_id)
def test_an_operator_claims_all_the_symmetries_that_it_has(name: str, options: dict[str, Any]) -> None:
    operator = registry.load(name)
    resolved = operator.resolve(options)
    missing = set(SYMMETRIES) - operator.symmetries(**resolved)
    if "permutation" in operator.symmetries(**resolved):
        missing = set()  # a translation is a permutation
    for symmetry in missing:
        with pytest.raises(LawBrokenError):
            laws.symmetric(replace(operator, symmetries=lambda symmetry=symmetry, **_: frozenset({symmetry})), resolved, Grid(11, 17))


@pytest.mark.parametrize("name", BUILT_IN)
def test_parameters_depend_on_the_grid_where_an_operator_says_so(name: str) -> None:
    operator = registry.load(name)
    counts = set()
    with torch.device("meta"):
        for grid in (Grid(12, 9), Grid(24, 24)):
            module = operator.build(Workload(grid=grid, dim=24, heads=2), operator.resolve({}))
            counts.add(sum(parameter.numel() for parameter in module.parameters()))
    assert (len(counts) > 1) is bool(operator.grid_parameters)


@pytest.mark.parametrize(("name", "options"), CASES, ids=case_id)
def test_layer_is_its_three_parts(name: str, options: dict[str, Any]) -> None:
    operator = registry.load(name)
    module: Any = operator.build(Workload(grid=Grid(5, 3), dim=24, heads=2), operator.resolve(options)).eval()
    x = torch.randn(2, 15, 24)
    with torch.no_grad():
        mixed = module.mix(*prepared_by(module, x))
        assert torch.allclose(module(x), module.finish(mixed) if hasattr(module, "finish") else mixed, atol=1e-6)


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
@pytest.mark.parametrize(("name", "options"), [case for case in CASES if case[1]], ids=case_id)
def test_laws_hold_on_a_gpu(name: str, options: dict[str, Any]) -> None:
    """Of the variants: `make gpu` runs `lisabench verify --device cuda` on the defaults."""
    operator = registry.load(name)
    findings = list(laws.verify(operator, operator.resolve(options), device="cuda:0"))
    assert [finding for finding in findings if not finding.holds and asked(operator, finding.law, options)] == []


SETTINGS: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn]  # type: ignore[attr-defined]


def test_tf32_is_off_while_a_law_runs_and_put_back_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it was, and also where the law breaks."""
    seen = []

    def law(*_: Any, **__: Any) -> str:
        seen.append([setting.fp32_precision for setting in SETTINGS])
        raise RuntimeError("no such luck")

    monkeypatch.setattr(laws, "LAWS", {"gradients": law})
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


class Forgetful(Broken):
    """Its output is not what it was a call before, and overflows where the input is large."""

    calls = 0

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        Forgetful.calls += 1
        return super().mix(x) + Forgetful.calls + torch.where(x.abs() > 20, torch.inf, 0.0)

    forward = mix


def described(module: type[nn.Module], **more: Any) -> Operator:
    return Operator(name="broken", title="", module=module, source="", formula="", **{"time_order": "", "memory_order": "", **more})


def test_laws_can_fail() -> None:
    def wrong_cost(workload: Workload) -> Cost:
        return Cost(mix_flops=1.5 * workload.tokens, transient_bytes=0, saved_bytes=0, traffic_bytes=0)

    more = {"reference": lambda module, x, rows: x[:, rows], "symmetries": lambda: frozenset({"permutation"}), "cost": wrong_cost}
    broken = described(Broken, time_order="N^2", memory_order="N^2", **more)
    findings = {finding.law: finding for finding in laws.verify(broken, {})}
    assert {law for law, finding in findings.items() if finding.holds is not False} == {"symmetries", "finite at scale 30", "deterministic"}
    assert "unused" in findings["gradients"].detail
    assert "N^1.00" in findings["time order"].detail
    findings = {finding.law: finding for finding in laws.verify(described(Forgetful, **more), {})}
    assert {law for law, finding in findings.items() if finding.holds is not False} == {"time order", "memory order"}


def test_an_order_is_told_from_its_neighbours() -> None:
    """By formulas that are that, with smaller terms beside it."""
    orders = {
        "N C": lambda n: n,
        "N log N C": lambda n: n * (math.log(n) + 200),
        "N^2 C": lambda n: n * (n + 500),
        "N^2 log N C": lambda n: n**2 * math.log(n),
        "1": lambda n: 1,
    }
    for stated in orders:
        for order, flops in orders.items():

            def cost(workload: Workload, flops: Any = flops) -> Cost:
                return Cost(mix_flops=flops(workload.tokens), transient_bytes=0, saved_bytes=0, traffic_bytes=0)

            operator = described(Broken, cost=cost, time_order=stated)
            if order == stated:
                cost_laws.flops_grow_as_stated(operator, {}, Grid(1, 1))
            else:
                with pytest.raises(LawBrokenError):
                    cost_laws.flops_grow_as_stated(operator, {}, Grid(1, 1))


@pytest.mark.parametrize(
    ("order", "power", "log"),
    [
        ("N C d", 1, False),
        ("N log N (1+R) C", 1, True),
        ("N C log NC", 1, True),
        ("N^2/r^2 C", 2, False),
        ("N L C + L^3 h", 1, False),
        ("N C + N^2 h", 2, False),
        ("1", 0, False),
    ],
)
def test_orders_are_read(order: str, power: int, log: bool) -> None:
    assert growth(order) == (power, log)


def test_what_is_not_stated_is_absent_and_says_so() -> None:
    findings = {finding.law: finding for finding in laws.verify(described(Broken), {})}
    for law, words in {
        "reference, float64": "no reference",
        "symmetries": "no symmetry",
        "FLOPs counted": "no cost",
        "time order": "no order",
        "memory order": "no order",
    }.items():
        assert findings[law].holds is None
        assert words in findings[law].detail


def test_what_is_refused_is_absent_and_says_so() -> None:
    refusing = replace(registry.load("linear"), refuses=lambda workload, **options: "not today")
    assert {finding.holds for finding in laws.verify(refusing, refusing.resolve({}))} == {None}
