"""What the device can do at best, measured: FLOP/s of a large matrix product and bytes/s of a large copy."""

from __future__ import annotations

import torch

from lisabench.measure.latency import Limits, measure_latency

CPU_SIDE, GPU_SIDE = 2048, 8192
COPY_BYTES = {"cpu": 2**28, "cuda": 2**31}


def measure_peaks(device: str) -> dict[str, float]:
    """`flops_per_s_fp32` (a square product, a multiply-add is 2) and `bytes_per_s` (a copy: read and written bytes)."""
    kind = torch.device(device).type
    side = CPU_SIDE if kind == "cpu" else GPU_SIDE
    a, b = torch.randn(2, side, side, device=device)
    with torch.no_grad():
        product = measure_latency(lambda: a @ b, device=device, limits=Limits(seconds=2.0))
        source = torch.ones(COPY_BYTES[kind] // 4, device=device)
        target = torch.empty_like(source)
        copy = measure_latency(lambda: target.copy_(source), device=device, limits=Limits(seconds=2.0))
    return {"flops_per_s_fp32": 2.0 * side**3 / product.median, "bytes_per_s": 2.0 * source.nbytes / copy.median}
