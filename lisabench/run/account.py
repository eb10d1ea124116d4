"""What a cell is found to need, after its timing: memory, FLOPs, dispatch, energy, and a GPU's other kinds of latency.

All of it comes after the rounds, what is timed before what is counted: a compiled call that ran under a counter falls back to
eager ever after (pytorch#140909), and none may be timed within one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lisabench.analysis.statistics import median_interval
from lisabench.measure import flops, memory
from lisabench.measure.dispatch import KERNELS, Dispatch, Watcher
from lisabench.measure.energy import NoEnergyError, measure_energy
from lisabench.measure.nvml import NvmlError
from lisabench.measure.resident import peak_resident
from lisabench.measure.samplers import GPU_KINDS, GpuSampler
from lisabench.run.cell import Bench, out_of_memory
from lisabench.run.station import Station

Absent = dict[str, str]
NO_MEMORY = "no memory was left to measure it beside the cell"
EXPOSED_SHARE = 0.05
LONG_SECONDS = 0.05
LONG = "a call takes over 50 ms: launch and caches are no part of that"
ONE_KIND = "a CPU has one kind of latency, calls back to back"


def account(bench: Bench, station: Station) -> dict[str, Any]:
    """The counted fields of a record, `traffic_bytes` (the least that a call must move) and the reason for each that is absent."""
    subject = bench.subject
    absent: Absent = {}
    with subject.gradients():
        sampler = bench.sampler
        samples = sampler.plain_kinds() if isinstance(sampler, GpuSampler) and bench.call_seconds <= LONG_SECONDS else {}
        energy, of_energy = _energy(bench, station, absent)
        trace, process = _traced(bench, station, absent)
        counted, dispatch = _counted(bench, absent)
        standing = _memory(bench, trace, process, dispatch, absent)
        kinds = _kinds(bench, samples, absent)  # last: a capture that fails may leave the device unusable
    backend = subject.operator.backend(trace.ran)
    if backend is None:
        absent["backend"] = "the operator has one implementation"
    return {
        "latency_kinds_s": kinds,
        "memory_bytes": standing,
        "flops": counted,
        "traffic_bytes": _traffic(bench, standing["parameters"]),
        "energy_j": energy,
        "backend": backend,
        "dispatch": _dispatched(bench, dispatch, trace.ran),
        "conditions": {"energy_warnings": of_energy} if of_energy else {},
        "warnings": _exposed(bench),
        "absent": absent,
    }


def _traced(bench: Bench, station: Station, absent: Absent) -> tuple[memory.Trace, int | None]:
    """One call under the profiler, and what the process holds at its peak."""
    device = bench.subject.cell.workload.device
    call = bench.call
    found: list[memory.Trace] = []
    if device.startswith("cuda"):
        found.append(memory.trace_call(call, device=device))
        try:
            process: int | str = station.gpu.process_bytes() if station.gpu else station.no_gpu
        except NvmlError as error:
            process = str(error)
    else:
        process = peak_resident(lambda: found.append(memory.trace_call(call, device=device)))
        if not found:  # the system keeps no peak: nothing was run
            found.append(memory.trace_call(call, device=device))
    if isinstance(process, str):
        absent["memory_bytes.process"] = process
        return found[0], None
    return found[0], process


def _memory(bench: Bench, trace: memory.Trace, process: int | None, dispatch: Dispatch | None, absent: Absent) -> dict[str, int | None]:
    subject = bench.subject
    device = subject.cell.workload.device
    saved: int | str = "a forward pass without gradients keeps nothing"
    if subject.trains:
        saved = _if_it_fits(lambda: memory.saved_bytes(lambda: bench.function(*subject.inputs), standing=bench.standing))
    plans: int | str = "a CPU has no cuFFT"
    if device.startswith("cuda"):
        plans = _if_it_fits(lambda: memory.plan_bytes(device, bench.call))
    absent |= {f"memory_bytes.{name}": why for name, why in (("saved", saved), ("cufft_plans", plans)) if isinstance(why, str)}
    if trace.reserved_bytes is None:
        absent["memory_bytes.reserved"] = "a CPU has no reserving allocator"
    used = [*subject.module.parameters(), *subject.module.buffers()] if dispatch is None else dispatch.used
    inputs, parameters, kept = memory.bytes_of(subject.inputs), memory.bytes_of(used), memory.kept_bytes(subject.module)
    return {
        "inputs": inputs,
        "parameters": parameters,
        "kept": kept,
        "transient": trace.transient_bytes,
        "saved": None if isinstance(saved, str) else saved,
        "peak": inputs + parameters + kept + trace.transient_bytes,
        "reserved": trace.reserved_bytes,
        "cufft_plans": None if isinstance(plans, str) else plans,
        "process": process,
        "resident": None,
    }


def _if_it_fits(measure: Callable[[], int | str]) -> int | str:
    """A figure whose measuring takes memory of its own; without that memory the reason, and the cell keeps its others."""
    try:
        return measure()
    except Exception as error:
        if not out_of_memory(error):
            raise
        return NO_MEMORY


def _why_not(error: Exception, otherwise: str) -> str:
    return NO_MEMORY if out_of_memory(error) else f"{otherwise}: {type(error).__name__}"


def _counted(bench: Bench, absent: Absent) -> tuple[dict[str, float | None], Dispatch | None]:
    """Analytic and counted FLOPs of the function that is not compiled, why one is absent or falls short, and what ran in it."""
    subject = bench.subject
    analytic = subject.cell.flops
    if analytic is None:
        absent["flops.analytic"] = "the operator states no cost"
    by_torch = by_fvcore = dispatch = None
    try:
        with Watcher([*subject.module.parameters(), *subject.module.buffers()]) as watcher:
            by_torch, counted_in = flops.count_torch(subject.counted_call)
        dispatch = watcher.result()
    except Exception as error:  # some operators run under no dispatch mode at all, flex_attention among them
        absent["flops.torch"] = absent["dispatch"] = _why_not(error, "torch's counter cannot follow it")
    if subject.trains:
        absent["flops.fvcore"] = "fvcore sees no backward pass"
    else:
        try:
            by_fvcore = flops.count_fvcore(subject.module, subject.function, subject.inputs)
        except Exception as error:  # fvcore traces through torch.jit, which not every module survives
            absent["flops.fvcore"] = _why_not(error, "fvcore cannot trace it")
    coverage = by_torch / analytic if analytic and by_torch is not None else None
    if analytic == 0 and by_torch is not None:
        absent["flops.coverage"] = f"nothing to compare: the operator states 0 FLOPs, torch counts {by_torch:,.0f}"
    elif coverage is None:
        absent["flops.coverage"] = "nothing to compare: " + (absent.get("flops.torch") or "the operator states no cost")
    elif abs(coverage - 1) > flops.AGREE_WITHIN:  # the figure is there, and full it is not
        absent["flops.coverage"] = (
            f"torch counts {100 * coverage:.1f}% of the analytic figure, in {', '.join(sorted(counted_in)) or 'nothing'}"
        )
    return {"analytic": analytic, "fvcore": by_fvcore, "torch": by_torch, "coverage": coverage}, dispatch


def _dispatched(bench: Bench, dispatch: Dispatch | None, ran: frozenset[str]) -> dict[str, Any] | None:
    """Which kernels and dtypes ran, and what torch.compile made of the function; None where the call cannot be watched."""
    if dispatch is None:
        return None
    if bench.compiled is None:
        return dispatch.record()
    # The dispatch was watched on the function that is not compiled: inductor may have put another attention in its place.
    kernels = sorted({KERNELS[name] for name in (one.removeprefix("aten::") for one in ran) if name in KERNELS})
    return dispatch.record(bench.compiled.proof(ran).record()) | {"attention": ", ".join(kernels) or None}


def _traffic(bench: Bench, parameters: int | None) -> float:
    """Bytes that a call must move at the least: inputs and parameters read once, the output written once; for training as much again
    for their gradients."""
    workload, cost = bench.subject.cell.workload, bench.subject.cell.cost
    if cost is not None and workload.scope == "mixing":
        forward = cost.traffic_bytes
    else:
        output = workload.batch * workload.tokens * workload.dim * workload.item_bytes
        forward = float(memory.bytes_of(bench.subject.inputs) + (parameters or 0) + output)
    return 2 * forward if bench.subject.trains else forward


def _energy(bench: Bench, station: Station, absent: Absent) -> tuple[float | None, list[str]]:
    """Joules a call, and what to know of them."""
    if station.meter is None:
        absent["energy_j"] = station.no_energy
        return None, []
    device = bench.subject.cell.workload.device
    try:
        found = measure_energy(
            bench.call,
            station.meter,
            seconds_a_call=bench.call_seconds,
            device=device,
            period_s=station.energy_period_s,
        )
    except NoEnergyError as error:
        absent["energy_j"] = str(error)
        return None, []
    station.energy_period_s = found.period_s
    return found.joules_a_call, found.warnings


def _kinds(bench: Bench, samples: dict[str, list[float]], absent: Absent) -> dict[str, Any] | None:
    """Latency of the kinds beside the headline's, each with the interval of its median; null on a CPU, which has one."""
    if not isinstance(bench.sampler, GpuSampler):
        absent["latency_kinds_s"] = ONE_KIND
        return None
    if bench.call_seconds > LONG_SECONDS:
        absent |= dict.fromkeys((f"latency_kinds_s.{kind}" for kind in ("warm", "graph", "host")), LONG)
        return dict.fromkeys(GPU_KINDS)
    graph = bench.sampler.graph()
    if isinstance(graph, str):
        absent["latency_kinds_s.graph"] = graph
    else:
        samples = samples | {"graph": graph}
    absent["latency_kinds_s.cold"] = "the headline: see latency_s"
    return {kind: _kind(samples[kind]) if kind in samples else None for kind in GPU_KINDS}


def _exposed(bench: Bench) -> list[str]:
    """The warning that a GPU's figure holds time of the host."""
    sampler = bench.sampler
    if not isinstance(sampler, GpuSampler) or sampler.exposed <= EXPOSED_SHARE * sampler.taken:
        return []
    share = 100 * sampler.exposed / sampler.taken
    return [f"launch-bound: in {share:.0f}% of the samples the host was still launching; see latency_kinds_s.graph, or try --compile"]


def _kind(samples: list[float]) -> dict[str, float | int]:
    low, high = median_interval(samples)
    return {"median": float(np.median(samples)), "ci_low": low, "ci_high": high, "count": len(samples)}
