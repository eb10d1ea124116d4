"""What two constants of LiSA on the CPU are set by: where its engines cross, and how many bytes of spectra it holds at once.

    python benchmarks/lisa_engines.py

Prints milliseconds of one forward, side by side from one run (dim 192, heads 3, 4 patterns, float32, zero boundary).
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import torch

from lisabench.contract import Grid, Workload
from lisabench.measure.latency import Limits, measure_latency
from lisabench.registry import load

SIDES = (7, 10, 14, 16, 18, 20, 22, 24, 28, 32)
CHUNKED_GRIDS = (Grid(32, 32), Grid(64, 64), Grid(128, 128))
CHUNK_MIB = (1024, 16, 4, 1)


def milliseconds(grid: Grid, batch: int, engine: str) -> float:
    """Median of one forward of mix."""
    workload = Workload(grid=grid, batch=batch)
    module = load("lisa").build(workload, {"engine": engine}).eval()
    with torch.no_grad():
        prepared = module.prepare(torch.randn(batch, grid.tokens, workload.dim))
        return 1e3 * measure_latency(lambda: module.mix(*prepared), limits=Limits(seconds=0.4, warmup_seconds=0.05)).median


def engines() -> None:
    print("threads batch   grid   dense ms     fft ms  dense / fft")
    for threads in dict.fromkeys((1, torch.get_num_threads())):
        torch.set_num_threads(threads)
        for batch in (1, 8):
            for side in SIDES:
                dense, fft = (milliseconds(Grid(side, side), batch, engine) for engine in ("dense", "fft"))
                print(f"{threads:7} {batch:5} {side:3}x{side:<3} {dense:10.2f} {fft:10.2f} {dense / fft:12.2f}", flush=True)


def chunks() -> None:
    from lisabench.operators import _grid_fft

    print("\nfft, ms, by MiB of spectra at once\nbatch    grid " + "".join(f"{mib:>10}" for mib in CHUNK_MIB))
    for batch in (1, 8):
        for grid in CHUNKED_GRIDS:
            row = []
            for mib in CHUNK_MIB:
                _grid_fft.CHUNK_BYTES["cpu"] = mib * 2**20
                row.append(milliseconds(grid, batch, "fft"))
            print(f"{batch:5} {grid.height:3}x{grid.width:<3} " + "".join(f"{ms:10.1f}" for ms in row), flush=True)


if __name__ == "__main__":
    engines()
    chunks()
