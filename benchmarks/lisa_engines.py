"""Where the engines of LiSA cross, by batch size and CPU threads: what `auto` is set by.

    python benchmarks/lisa_engines.py

Prints, side by side from one run, milliseconds of one forward (dim 192, heads 3, 4 patterns, float32, zero boundary).
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import torch

from lisabench.contract import Grid, Workload
from lisabench.measure.latency import Limits, measure_latency
from lisabench.registry import load

SIDES = (7, 10, 14, 16, 18, 20, 22, 24, 28, 32)


def main() -> None:
    limits = Limits(seconds=0.4, warmup_seconds=0.05)
    operator = load("lisa")
    print("threads batch  grid    dense ms    fft ms  dense/fft")
    for threads in dict.fromkeys((1, torch.get_num_threads())):
        torch.set_num_threads(threads)
        for batch in (1, 8):
            for side in SIDES:
                workload = Workload(grid=Grid(side, side), batch=batch)
                seconds = {}
                for engine in ("dense", "fft"):
                    module = operator.build(workload, {"engine": engine}).eval()
                    with torch.no_grad():
                        prepared = module.prepare(torch.randn(batch, side * side, workload.dim))
                        seconds[engine] = measure_latency(
                            lambda module=module, prepared=prepared: module.mix(*prepared), limits=limits
                        ).median
                dense, fft = (1e3 * seconds[engine] for engine in ("dense", "fft"))
                print(f"{threads:7} {batch:5} {side:3}x{side:<3} {dense:10.2f} {fft:10.2f} {dense / fft:10.2f}", flush=True)


if __name__ == "__main__":
    main()
