"""The FLOP audit of operators whose figures are known, right and wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lisabench import registry
from lisabench.run.audit import Audit, audit

OWN = """
from torch import nn
from torch.nn import functional as F

from lisabench.contract import Cost, Operator


class Mixer(nn.Module):
    def __init__(self, dim, num_heads, grid):
        super().__init__()
        self.linear = nn.Linear(dim, dim, bias=False)

    def mix(self, x):
        return F.layer_norm(self.linear(x), x.shape[-1:]).exp()


class Raises(Mixer):
    def mix(self, x):
        raise RuntimeError("no such luck")


class Opaque(nn.Module):
    def __init__(self, dim, num_heads, grid):
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


OPERATOR = Operator(
    name="own", title="", module=CLASS, source="", formula="", time_order="", memory_order="",
    cost=lambda w: Cost(mix_flops=FACTOR * 2.0 * w.batch * w.tokens * w.dim**2, transient_bytes=0, saved_bytes=0, traffic_bytes=0),
    refuses=lambda workload, **options: REFUSES,
)
"""


def own(folder: Path, name: str = "Mixer", *, factor: float = 1.0, cost: bool = True, refuses: str | None = None) -> list[Audit]:
    """The audit of a file of one's own, whose stated cost is so many times what it does."""
    path = folder / "own.py"
    text = OWN if cost else OWN.partition("OPERATOR =")[0]
    path.write_text(text.replace("CLASS", name).replace("FACTOR", str(factor)).replace("REFUSES", repr(refuses)))
    return audit(f"{path}:{name}", {})


# By the kinds of work that counters see: SDPA, FFTs, matrix products, convolutions. `.ci/run` audits all.
REPRESENTATIVE = ("softmax", "lisa", "linear", "depthwise")
ON_A_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=ON_A_GPU)])
@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in REPRESENTATIVE), ("lisa", {"engine": "dense"})], ids=str)
def test_all_of_the_work_is_covered(name: str, options: dict[str, str], device: str) -> None:
    for row in audit(name, registry.load(name).resolve(options), device=device):
        assert row.error is None
        assert row.holds
        assert row.missing is None
        assert row.coverage == pytest.approx(1, abs=0.01)
        assert row.fvcore_coverage == (pytest.approx(1, abs=0.01) if row.direction == "forward" else None)
        json.dumps(row.record())


def test_stock_counters_miss_the_ffts_of_lisa() -> None:
    forward, backward = audit("lisa", registry.load("lisa").resolve({"engine": "fft"}))
    assert (forward.stock_torch, forward.stock_fvcore, backward.stock_torch) == (0, 0, 0)
    assert forward.stock_misses == {"torch": ("FFT", "complex product"), "fvcore": ("FFT", "complex product")}
    assert backward.stock_misses == {"torch": ("FFT", "complex product")}
    assert {"aten::_fft_r2c", "aten::_fft_c2r", "aten::_fft_c2c"} <= set(forward.counted_in)


def test_stock_counters_miss_the_attention_kernel_of_a_cpu() -> None:
    forward, backward = audit("softmax", registry.load("softmax").resolve({}))
    assert (forward.stock_torch, forward.stock_fvcore, backward.stock_torch) == (0, 0, 0)
    assert forward.stock_misses == {"torch": ("SDPA",), "fvcore": ("SDPA",)}


def test_a_formula_that_is_right_and_what_it_leaves_out(tmp_path: Path) -> None:
    forward, backward = own(tmp_path)
    assert forward.holds
    assert backward.holds
    # fvcore as it comes counts the normalisation, which the convention does not.
    assert forward.stock_misses == {"torch": (), "fvcore": ("layer_norm",)}
    assert {"native_layer_norm", "exp"} <= set(forward.left_out)
    assert not {"exp", "native_layer_norm"} & set(backward.left_out)
    assert {"native_layer_norm_backward", "mul"} <= set(backward.left_out)
    assert "fvcore sees no backward" in backward.absent["fvcore"]


@pytest.mark.parametrize(("factor", "word"), [(2.0, "50.0% is not counted"), (0.5, "100.0% too much")])
def test_a_formula_that_is_wrong(factor: float, word: str, tmp_path: Path) -> None:
    for row in own(tmp_path, factor=factor):
        assert not row.holds
        assert row.coverage == pytest.approx(1 / factor)
        assert row.missing is not None
        assert f"torch counts mm {100 / factor:.1f}%: {word}" in row.missing
        assert row.excuse is None


def test_a_kernel_that_no_counter_sees_into_is_an_excuse(tmp_path: Path) -> None:
    forward, _ = own(tmp_path, "Opaque")
    assert forward.coverage == 0
    assert forward.missing is not None
    assert forward.excuse == "no counter sees into aten::_native_multi_head_attention"
    assert forward.holds


def test_without_a_cost_the_counted_figures_stand_alone(tmp_path: Path) -> None:
    forward, backward = own(tmp_path, cost=False)
    assert forward.analytic is None
    assert forward.coverage is None
    assert forward.torch == forward.fvcore == 2 * 2 * 960 * 192**2
    assert backward.torch == 2 * forward.torch
    assert forward.stock_torch == 1
    assert forward.absent["coverage"] == "the operator states no cost"
    assert forward.holds


def test_what_fails_or_is_refused_says_why(tmp_path: Path) -> None:
    for row in own(tmp_path, "Raises"):
        assert row.error == "RuntimeError: no such luck"
        assert not row.holds
    for row in own(tmp_path, refuses="no oblong grids"):
        assert row.absent["torch"] == "refused: no oblong grids"
        assert row.torch is None
        assert row.holds


def test_stated_zeros_are_held_to_the_counters(tmp_path: Path) -> None:
    """Nothing is a share of 0 FLOPs: what is counted all the same is told."""
    forward, backward = own(tmp_path, factor=0.0)
    assert not forward.holds
    assert not backward.holds
    assert "0 FLOPs are stated; torch counts" in (forward.missing or "")
    assert all(row.holds for row in audit("identity", {}))
