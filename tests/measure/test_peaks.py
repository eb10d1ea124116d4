"""Measured peaks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lisabench.errors import InputError
from lisabench.measure import peaks
from lisabench.measure.kept_peaks import NAMES, PEAK_DTYPES
from lisabench.measure.peaks import measure_peaks


def test_peaks_of_a_cpu_in_all_dtypes() -> None:
    found = measure_peaks("cpu", PEAK_DTYPES, seconds=0.02)
    assert set(found) == set(NAMES) - {"flops_per_s_tf32"}
    assert all(rate > 0 for rate in found.values())


def test_only_what_is_asked_is_measured() -> None:
    assert set(measure_peaks("cpu", seconds=0.02)) == {"flops_per_s_fp32", "bytes_per_s"}
    assert set(measure_peaks("cpu", (), seconds=0.02)) == {"bytes_per_s"}


def test_an_unknown_dtype_is_told_with_the_valid_ones() -> None:
    with pytest.raises(InputError, match=r"fp31.*valid: fp64, fp32, tf32, bf16, fp16"):
        measure_peaks("cpu", ("fp31",))


@pytest.mark.parametrize(("rate", "largest"), [(1e9, 256), (1e10, 512), (1e11, 1024), (1e13, 4096)])
def test_products_grow_while_the_next_one_fits_the_time(rate: float, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that products alone move: a dtype that the device emulates costs no more than a fast one."""
    now, sides = 0.0, []

    def product(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor) -> None:
        nonlocal now
        sides.append(len(a))
        now += 2 * len(a) ** 3 / rate

    monkeypatch.setattr(torch, "mm", product)
    monkeypatch.setattr(peaks.time, "perf_counter", lambda: now)
    monkeypatch.setattr(peaks.time, "perf_counter_ns", lambda: int(now * 1e9))
    monkeypatch.setattr(peaks, "LARGEST_SIDE", 4096)
    monkeypatch.setattr(peaks, "_copy_rate", lambda *_, **__: 1.0)
    found = measure_peaks("cpu", ("bf16",), seconds=0.2)
    assert found["flops_per_s_bf16"] == pytest.approx(rate, rel=1e-2)
    assert max(sides) == largest
    assert len(sides) <= 1 + 5 * 5


def test_the_fastest_round_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter([0.0, 3.0, 3.0, 4.0, 4.0, 9.0])
    monkeypatch.setattr(peaks.time, "perf_counter_ns", lambda: int(1e9 * next(taken)))
    assert peaks._fastest(lambda: None, "cpu", rounds=3) == pytest.approx(1.0)


def test_a_product_that_the_device_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("\"addmm_impl_cpu_\" not implemented for 'Half'")

    monkeypatch.setattr(torch, "mm", refuse)
    assert set(measure_peaks("cpu", ("fp16",), seconds=0.02)) == {"bytes_per_s"}


def test_the_settings_of_torch_are_as_before() -> None:
    matmul: Any = torch.backends.cuda.matmul
    before = (matmul.fp32_precision, matmul.allow_tf32, torch.is_grad_enabled(), torch.get_num_threads())
    measure_peaks("cpu", PEAK_DTYPES, seconds=0.01)
    assert (matmul.fp32_precision, matmul.allow_tf32, torch.is_grad_enabled(), torch.get_num_threads()) == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_peaks_of_a_gpu() -> None:
    found = measure_peaks("cuda:0", PEAK_DTYPES)
    assert {"flops_per_s_fp64", "flops_per_s_fp32", "flops_per_s_fp16", "bytes_per_s"} <= set(found)
    assert all(rate > 0 for rate in found.values())
    if torch.cuda.get_device_capability(0) >= (8, 0):
        assert found["flops_per_s_tf32"] > found["flops_per_s_fp32"]
