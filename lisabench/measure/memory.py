"""What memory a call takes, what is kept between calls, and which aten operators ran.

GPU: the caching allocator's peak over what stood before. CPU: torch.profiler's allocation events, added up in their
order. Not used on the CPU: ru_maxrss (a child inherits its parent's peak) and a TorchDispatchMode (it misses what
kernels allocate inside).

Both see what goes through torch's allocators. On a CPU the buffers that MKL packs operands into do not: up to 8 MiB were
seen (float64 products on two threads); `lisabench scale --cross-check` shows them. On a GPU the workspaces of cuBLAS and
cuFFT do go through the allocator, cuFFT's plans do not: `plan_bytes`.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else the profiler says on stderr each time that it starts and stops


@dataclass(frozen=True, kw_only=True)
class Trace:
    """`transient_bytes`: the peak over what stood before the call. `reserved_bytes`: the allocator's pool (GPU only)."""

    transient_bytes: int
    reserved_bytes: int | None
    ran: frozenset[str]


def trace_call(call: Callable[[], Any], *, device: str = "cpu") -> Trace:
    """Runs `call` once under the profiler. Call it once before: first calls also allocate what is kept."""
    on_gpu = device.startswith("cuda")
    gc.collect()  # what is freed during the call and stood before it would lower the peak
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    # Not acc_events: it turns every event into a Python object at the end, which takes seconds where a call makes 60,000 of them.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=not on_gpu) as profiler:
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
    return sum(_storages(tensors).values())


def kept_bytes(module: nn.Module) -> int:
    """Bytes of the tensors that a module and its submodules keep as attributes beside parameters and buffers, each storage once.

    Found in tuples, lists, sets, dictionaries and modules that these hold, however nested; not in objects of other classes.
    """
    stated = _storages([*module.parameters(), *module.buffers()])
    found = _storages(_tensors_in(module, set()))
    return sum(size for storage, size in found.items() if storage not in stated)


def saved_bytes(forward: Callable[[], Tensor], *, standing: Iterable[Tensor]) -> int:
    """Bytes that `forward` keeps for its backward beyond the tensors that stand anyway (inputs and parameters)."""
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    known = _storages(standing)
    total = sum(size for storage, size in _storages(saved).items() if storage not in known)
    del result
    return total


def plan_bytes(device: str, call: Callable[[], Any] | None = None) -> int | str:
    """Bytes of GPU memory that cuFFT's plans hold beside torch's allocator; a text says why there is no figure.

    With `call`: the plans of that call alone, which runs once; else all that are in torch's cache. The figure is what
    the driver has free after the cache is cleared over what it had before, with torch's pool untouched in between: in
    steps of the driver's own blocks, and disturbed by what other processes do on the device at that moment. In it: the
    tables that a plan keeps for its transform. Not in it: a transform's work area, which torch takes from its own
    allocator, so that it stands in the transient bytes; and cuFFT's compiled code, which stays loaded.
    The cache is empty afterwards and the next transform of each shape makes its plan again: ask after the timing.
    Source: pytorch, aten/src/ATen/native/cuda/CuFFTPlanCache.h (cufftSetAutoAllocation), SpectralOps.cpp (cufftSetWorkArea); pytorch#94893.
    """
    if not device.startswith("cuda"):
        return "a CPU has no cuFFT"
    try:
        cache = torch.backends.cuda.cufft_plan_cache[torch.device(device)]
        _ = cache.size
    except (AttributeError, RuntimeError):
        return "this build of torch does not tell of cuFFT's plans"
    if call is not None:
        cache.clear()
        call()
    if cache.size == 0:
        return 0
    torch.cuda.synchronize(device)
    before, _ = torch.cuda.mem_get_info(device)
    cache.clear()
    torch.cuda.synchronize(device)
    after, _ = torch.cuda.mem_get_info(device)
    if after < before:
        return "another process took memory of the device meanwhile"
    return int(after - before)


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Address and bytes of each storage behind these tensors; those on the meta device hold no memory."""
    dense = (part for tensor in tensors for part in _dense_parts(tensor))
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in dense if not t.is_meta}


def _dense_parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """The tensors with a storage that a sparse tensor is made of; a strided one is itself; other layouts (MKL-DNN's) show none."""
    if tensor.layout == torch.sparse_coo:
        return tensor._indices(), tensor._values()
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return tensor.ccol_indices(), tensor.row_indices(), tensor.values()
    return (tensor,) if tensor.layout == torch.strided else ()


def _tensors_in(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """The tensors in a value; `seen` keeps containers that hold themselves from being walked for ever."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list, set, frozenset, Mapping, nn.Module)) and id(value) not in seen:
        seen.add(id(value))
        inside = vars(value) if isinstance(value, nn.Module) else value
        for item in inside.values() if isinstance(inside, Mapping) else inside:
            yield from _tensors_in(item, seen)
