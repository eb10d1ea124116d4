"""What a watcher sees of calls whose kernels, conversions and parameters are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from lisabench.measure.dispatch import Watcher, moves_only, watch
from lisabench.measure.flops import count_torch

Q = torch.randn(1, 2, 16, 8)
X = torch.randn(4, 8, 12)


@pytest.mark.parametrize(
    ("function", "kernel"),
    [
        (lambda: F.scaled_dot_product_attention(Q, Q, Q), "flash"),
        (lambda: F.scaled_dot_product_attention(Q, Q, Q[..., :4]), "math"),
        (lambda: torch.softmax(Q @ Q.mT, -1) @ Q, None),
        (lambda: (F.scaled_dot_product_attention(Q, Q, Q), F.scaled_dot_product_attention(Q, Q, Q[..., :4])), "flash, math"),
    ],
    ids=["flash", "math", "none", "both"],
)
@pytest.mark.parametrize("inference", [False, True], ids=["eager", "inference mode"])
def test_attention_kernel(function: Callable[[], Any], kernel: str | None, inference: bool) -> None:
    with torch.inference_mode(inference):
        assert watch(function).attention == kernel


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("backend", "kernel"),
    [(SDPBackend.FLASH_ATTENTION, "flash"), (SDPBackend.EFFICIENT_ATTENTION, "efficient"), (SDPBackend.MATH, "math")],
    ids=str,
)
def test_attention_kernel_on_a_gpu(backend: SDPBackend, kernel: str) -> None:
    query = torch.randn(1, 2, 64, 64, device="cuda", dtype=torch.float16, requires_grad=True)
    with sdpa_kernel(backend):
        assert watch(lambda: F.scaled_dot_product_attention(query, query, query).sum().backward()).attention == kernel


@pytest.mark.parametrize(
    ("function", "dtype"),
    [
        (lambda: torch.fft.rfft2(X), "float32"),
        (lambda: torch.fft.irfft(torch.fft.rfft(X.double())), "float64"),
        (lambda: torch.fft.fft(X.cfloat()), "float32"),
        (lambda: (torch.fft.rfft(X), torch.fft.rfft(X.double())), "float32, float64"),
        (lambda: X * X, None),
    ],
    ids=["real", "and back", "complex", "two", "none"],
)
def test_dtype_of_ffts(function: Callable[[], Any], dtype: str | None) -> None:
    assert watch(function).fft_dtype == dtype


def test_upcasts_are_conversions_to_a_wider_floating_dtype() -> None:
    half = X.bfloat16()

    def call() -> None:
        (half.float() + half.float()).bfloat16()  # two upwards, one downwards
        half.to(torch.bfloat16), half.to(torch.float16), half.long(), X.double(), torch.arange(3).float()

    dispatch = watch(call)
    assert dispatch.upcast == {"bfloat16 -> float32": 2, "float32 -> float64": 1}
    assert dispatch.record()["upcast"] == ["bfloat16 -> float32 x2", "float32 -> float64 x1"]


def test_what_is_used_is_known_by_its_storage() -> None:
    module = nn.ModuleDict({"used": nn.Linear(12, 12), "unused": nn.Linear(12, 12)})
    first: Any = module["used"]
    parameters = dict(module.named_parameters())
    dispatch = watch(lambda: X @ first.weight.T[:, :3] + torch.cat([first.bias[:3]]), look_for=parameters.values())
    assert [name for name, p in parameters.items() if any(p is t for t in dispatch.used)] == ["used.weight", "used.bias"]
    assert watch(lambda: X + 1, look_for=parameters.values()).used == ()
    assert watch(lambda: X + 1, look_for=[torch.empty(0)]).used == ()


@pytest.mark.parametrize("outer", ["watcher", "counter"])
def test_watches_and_counts_in_one_run(outer: str) -> None:
    weight, query = torch.randn(12, 12, requires_grad=True), Q.clone().requires_grad_()

    def call() -> None:
        out = torch.fft.irfft(torch.fft.rfft(X @ weight) * torch.fft.rfft(X), n=12)
        (out.sum() + F.scaled_dot_product_attention(query, query, query).sum()).backward()
        weight.grad = query.grad = None

    alone, seen = count_torch(call), watch(call)
    watcher = Watcher()

    def watched() -> None:
        with watcher:
            call()

    if outer == "watcher":
        with watcher:
            together = count_torch(call)
    else:
        together = count_torch(watched)
    dispatch = watcher.result()
    assert together == alone
    assert (dispatch.attention, dispatch.fft_dtype, dispatch.calls) == (seen.attention, seen.fft_dtype, seen.calls)
    assert {"aten::mm", "aten::_fft_c2c", "aten::_scaled_dot_product_flash_attention_for_cpu_backward"} <= dispatch.ran


def test_calls_are_leaf_operators_with_their_counts() -> None:
    calls = watch(lambda: F.linear(X, torch.eye(12)).exp().exp()).calls
    assert calls["aten::exp"] == 2
    assert "aten::linear" not in calls


def test_moves_compute_nothing() -> None:
    for name in ("view", "transpose", "slice", "clone", "_to_copy", "copy_", "empty_strided", "new_zeros", "cat", "resolve_conj", "_conj"):
        assert moves_only(f"aten::{name}"), name
    for name in ("mul", "mul_", "exp", "bmm", "_fft_r2c", "_softmax", "sum", "add", "_scaled_dot_product_flash_attention"):
        assert not moves_only(f"aten::{name}"), name
    assert not moves_only("flash_attn::clone")


def test_the_record_is_plain_json() -> None:
    dispatch = watch(lambda: F.scaled_dot_product_attention(Q, Q, Q))
    assert dispatch.record() == {"attention": "flash", "fft_dtype": None, "upcast": [], "compile": None}
    assert json.loads(json.dumps(dispatch.record({"graphs": 1})))["compile"] == {"graphs": 1}
