"""What the device can do at best, measured: FLOP/s of a large matrix product and bytes/s of a large copy."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lisabench.errors import unknown
from lisabench.measure.environment import available_memory
from lisabench.measure.kept_peaks import PEAK_DTYPES

SECONDS = 0.4
SMALLEST_SIDE, LARGEST_SIDE = 256, 16384
PRODUCT_ROUNDS, COPY_ROUNDS = 5, 20
GROWTH = 8  # a product of twice the side
COPY_BYTES = {"cpu": 2**27, "cuda": 2**30}
CACHES = 4  # the buffers of a copy are so many times the last-level cache
MEMORY_SHARE = 0.25
TF32_CAPABILITY = (8, 0)
_TORCH_DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def measure_peaks(device: str, dtypes: Sequence[str] = ("fp32",), *, seconds: float = SECONDS) -> dict[str, float]:
    """`flops_per_s_DTYPE` of each dtype (a multiply-add is 2 FLOPs) and `bytes_per_s` of a copy (read and written bytes).

    A peak is a maximum: of all rounds at all sizes the fastest counts. Products are square; their side doubles from 256 to
    16384 while the next one fits `seconds` and a quarter of the free memory, so that a dtype that the device only emulates
    (fp16 on many CPUs) costs no more than the others. `fp32` is measured with TF32 off; `tf32` is the same with TF32 on, on
    GPUs that have it. A dtype that the device lacks is left out. The copy uses all threads and buffers of at least four
    times the last-level cache; that a CPU may read a line before it writes it is not counted. The settings of torch are as
    before afterwards.

    Raises:
        InputError: a dtype that is none of fp64, fp32, tf32, bf16, fp16.
    """
    for dtype in dtypes:
        if dtype not in PEAK_DTYPES:
            raise unknown("dtype of a peak", dtype, PEAK_DTYPES)
    memory = MEMORY_SHARE * (torch.cuda.mem_get_info(device)[0] if _on_gpu(device) else available_memory())
    found = {}
    with torch.no_grad():
        for dtype in dtypes:
            if rate := _product_rate(dtype, device, seconds=seconds, memory=memory):
                found[f"flops_per_s_{dtype}"] = rate
        found["bytes_per_s"] = _copy_rate(device, seconds=seconds, memory=memory)
    if _on_gpu(device):
        torch.cuda.empty_cache()
    return found


def _product_rate(dtype: str, device: str, *, seconds: float, memory: float) -> float:
    """The most FLOP/s of a square product; 0 where the device has none of this dtype."""
    if dtype == "tf32" and not (_on_gpu(device) and torch.cuda.get_device_capability(device) >= TF32_CAPABILITY):
        return 0.0
    best, side = 0.0, SMALLEST_SIDE
    with _products_of_fp32("tf32" if dtype == "tf32" else "ieee"):
        try:
            _fastest(_product(side, dtype, device), device, rounds=1)  # libraries load and choose their kernels
            end = time.perf_counter() + seconds
            while side <= LARGEST_SIDE and 3 * side**2 * _TORCH_DTYPES[dtype].itemsize <= memory:
                taken = _fastest(_product(side, dtype, device), device, rounds=PRODUCT_ROUNDS, end=end)
                best = max(best, 2.0 * side**3 / taken)
                if time.perf_counter() + GROWTH * taken > end:
                    break
                side *= 2
        except RuntimeError:  # not implemented for this dtype, or memory is out: what was measured until then stands
            pass
    return best


def _product(side: int, dtype: str, device: str) -> Callable[[], Any]:
    """A square product into memory that is there already."""
    # Random numbers, as an operator's are: of zeros a GPU makes less heat, and keeps a higher clock. A block of them,
    # repeated, since drawing all would take longer than the product.
    block = torch.randn(2, SMALLEST_SIDE, SMALLEST_SIDE).to(device=device, dtype=_TORCH_DTYPES[dtype])
    a, b = block.repeat(1, side // SMALLEST_SIDE, side // SMALLEST_SIDE)
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def _copy_rate(device: str, *, seconds: float, memory: float) -> float:
    kind = "cuda" if _on_gpu(device) else "cpu"
    wanted = max(COPY_BYTES[kind], CACHES * _last_level_cache(device))
    count = max(1, int(min(wanted, memory / 2))) // 4 + 1
    source = torch.ones(count, device=device)
    target = source.clone()  # written once: a first write would also map the pages
    end = time.perf_counter() + seconds
    return 2.0 * source.nbytes / _fastest(lambda: target.copy_(source), device, rounds=COPY_ROUNDS, end=end)


def _fastest(call: Callable[[], Any], device: str, *, rounds: int, end: float = float("inf")) -> float:
    """The least seconds of a call: once at least, then up to so many rounds while another one ends before `end`."""
    timed = _device_seconds if _on_gpu(device) else _host_seconds
    least = timed(call, device)
    for _ in range(rounds - 1):
        if time.perf_counter() + least > end:
            break
        least = min(least, timed(call, device))
    return least


def _host_seconds(call: Callable[[], Any], device: str) -> float:
    started = time.perf_counter_ns()
    call()
    return max(1, time.perf_counter_ns() - started) / 1e9


def _device_seconds(call: Callable[[], Any], device: str) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    with torch.cuda.device(device):
        start.record()
        call()
        end.record()
    torch.cuda.synchronize(device)
    return max(1e-3, float(start.elapsed_time(end))) / 1e3


@contextmanager
def _products_of_fp32(precision: str) -> Iterator[None]:
    """fp32 products on a GPU in "ieee" or "tf32"; afterwards as before."""
    matmul: Any = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = precision
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _last_level_cache(device: str) -> int:
    """Bytes of the GPU's L2, or of the level-3 caches of the cores that this process may use; 0 where not known."""
    if _on_gpu(device):
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    caches = {}
    for core in os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1):
        folder = Path(f"/sys/devices/system/cpu/cpu{core}/cache/index3")
        try:
            shared, size = (folder / "shared_cpu_list").read_text(), (folder / "size").read_text().strip()
            caches[shared] = int(size.removesuffix("K")) * 1024
        except (OSError, ValueError):
            continue
    return sum(caches.values())


def _on_gpu(device: str) -> bool:
    return torch.device(device).type == "cuda"
