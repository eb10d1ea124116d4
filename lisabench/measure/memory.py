"""What memory a call takes, and which aten operators ran in it.

GPU: the caching allocator's peak over what stood before. CPU: torch.profiler's allocation events, added up in their
order. Not used on the CPU: ru_maxrss (a child inherits its parent's peak) and a TorchDispatchMode (it misses what
kernels allocate inside).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True, kw_only=True)
class Trace:
    """`transient_bytes`: the peak over what stood before the call. `reserved_bytes`: the allocator's pool (GPU only)."""

    transient_bytes: int
    reserved_bytes: int | None
    ran: frozenset[str]


def trace_call(call: Callable[[], Any], *, device: str = "cpu") -> Trace:
    """Runs `call` once under the profiler. Call it once before: first calls also allocate what is kept."""
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    # acc_events: without it torch warns that events do not outlive a profiling cycle; there is one cycle here.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=not on_gpu, acc_events=True) as profiler:
        result = call()
    del result
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    ran = frozenset(event.name() for event in events if event.name().startswith("aten::"))
    if on_gpu:
        torch.cuda.synchronize(device)
        transient = torch.cuda.max_memory_allocated(device) - before
        return Trace(transient_bytes=transient, reserved_bytes=torch.cuda.max_memory_reserved(device), ran=ran)
    changes = sorted(((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"), key=lambda change: change[0])
    peak = standing = 0
    for _, change in changes:
        standing += change
        peak = max(peak, standing)
    return Trace(transient_bytes=peak, reserved_bytes=None, ran=ran)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages behind these tensors, each storage once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def saved_bytes(forward: Callable[[], Tensor], *, standing: Iterable[Tensor]) -> int:
    """Bytes that `forward` keeps for its backward beyond the tensors that stand anyway (inputs and parameters)."""
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    known = {t.untyped_storage().data_ptr() for t in standing}
    total = bytes_of(t for t in saved if t.untyped_storage().data_ptr() not in known)
    del result
    return total
