"""Memory that is kept: a tensor that is made again touches no page for the first time."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import resource, torch
from lisabench.measure.allocator import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.zeros(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
as_usual = faults()
kept = keep_freed_memory()
for _ in range(4):  # until the heap is large enough
    faults()
print(kept, as_usual, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_large_tensors_bring_no_page_faults() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    kept, as_usual, after = done.stdout.split()
    if kept == "False":
        pytest.skip("needs glibc")
    assert int(as_usual) > 8 * 2**24 * 4 // 2**21
    assert int(after) < int(as_usual) / 100
