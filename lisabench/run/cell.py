"""Measures one cell, in the process that holds the device: builds the operator, checks it, times it, counts it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lisabench import registry
from lisabench.contract import Operator
from lisabench.measure import flops, memory, numerics
from lisabench.measure.environment import available_memory
from lisabench.measure.latency import Limits, Progress, measure_latency
from lisabench.sweep import Cell
from lisabench.workload import seeded_input

MEMORY_SHARE = 0.9
NO_REFERENCE = "the operator states no reference: its result is not checked"


class WrongResultError(Exception):
    """The operator's output differs from its reference by more than rounding explains."""


class TooLargeError(Exception):
    """The cell would not fit the memory that is free."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocator or a library says that memory is out; CPUs and CUDA's libraries have no exception of their own for it."""
    words = ("not enough memory", "can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(word in str(error) for word in words)


@dataclass(frozen=True)
class Subject:
    """What is timed: `function(*inputs)`, and for training its backward as well.

    The function is the module's mix on prepared tensors, or the module itself on `x` where the scope is the layer or the
    module has no mix.
    """

    operator: Operator
    module: nn.Module
    cell: Cell
    x: Tensor
    inputs: tuple[Tensor, ...]
    function: Callable[..., Tensor]

    @property
    def trains(self) -> bool:
        return self.cell.workload.mode == "train"

    def gradients(self) -> Any:
        """The context of every call: gradients are recorded in training only. Entered once, so that no call pays for it."""
        return torch.set_grad_enabled(self.trains)

    def leaves(self) -> list[Tensor]:
        """The tensors that a backward gives gradients for: the inputs, and the parameters that the function uses."""
        candidates = [t for t in (*self.inputs, *self.module.parameters()) if t.requires_grad]
        found = torch.autograd.grad(self.function(*self.inputs).sum(), candidates, allow_unused=True)
        return [t for t, gradient in zip(candidates, found, strict=True) if gradient is not None]

    def call(self, function: Callable[..., Tensor] | None = None) -> Callable[[], Any]:
        """A call without arguments that does what is timed, to be made under `gradients()`."""
        function = function or self.function
        inputs = self.inputs
        if not self.trains:
            return partial(function, *inputs)
        with torch.no_grad():
            gradient = torch.ones_like(self.function(*inputs))
        leaves = self.leaves()

        def forward_and_backward() -> Sequence[Tensor]:
            return torch.autograd.grad(function(*inputs), leaves, gradient)

        return forward_and_backward

    def counted_call(self) -> Any:
        """What is timed, once, in the form that torch's FlopCounterMode can follow: its module hooks break on autograd.grad."""
        if not self.trains:
            return self.call()()
        out = self.function(*self.inputs)
        out.backward(torch.ones_like(out))
        for leaf in [*self.inputs, *self.module.parameters()]:
            leaf.grad = None


def build(cell: Cell, seed: int) -> Subject:
    """The operator of a cell with seeded weights and inputs on its device."""
    workload = cell.workload
    operator = registry.load(cell.op)
    torch.manual_seed(seed)
    module: Any = operator.build(workload, cell.options).to(device=workload.device, dtype=workload.torch_dtype)
    module.train(workload.mode == "train")
    x = seeded_input(workload, seed)
    mixing = workload.scope == "mixing" and hasattr(module, "mix")
    inputs: tuple[Tensor, ...] = (x,)
    if mixing and hasattr(module, "prepare"):
        with torch.no_grad():
            prepared = module.prepare(x)
            inputs = tuple(prepared) if isinstance(prepared, (tuple, list)) else (prepared,)
    if workload.mode == "train":
        inputs = tuple(t.detach().requires_grad_(t.is_floating_point()) for t in inputs)
    return Subject(operator=operator, module=module, cell=cell, x=x, inputs=inputs, function=module.mix if mixing else module)


def measure_cell(cell: Cell, *, limits: Limits, seed: int, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """The measured fields of a record. What goes wrong is raised: the worker makes a status of it."""
    _fits(cell)
    progress("building", None)
    subject = build(cell, seed)
    with subject.gradients():
        return _measure(subject, limits=limits, progress=progress)


def _measure(subject: Subject, *, limits: Limits, progress: Progress) -> dict[str, Any]:
    cell = subject.cell
    function = subject.function
    if cell.workload.compiled:
        torch._dynamo.reset()  # else the second size of a curve is compiled for all sizes, and the first is not
        function = torch.compile(function, dynamic=False)
    versions = [t._version for t in subject.inputs]
    with torch.no_grad():
        output = function(*subject.inputs)
    if versions != [t._version for t in subject.inputs]:
        raise ValueError("forward changes its input in place: no two calls do the same; write to a copy")
    _check_shape(subject, output)
    error, absent = _check_numbers(subject, output)
    standing = [*subject.inputs, *subject.module.parameters(), *subject.module.buffers()]
    device = cell.workload.device
    latency = measure_latency(subject.call(function), device=device, limits=limits, progress=progress)
    progress("counting", latency.median)
    trace = memory.trace_call(subject.call(function), device=device)
    saved = None
    if subject.trains:
        saved = memory.saved_bytes(lambda: function(*subject.inputs), standing=standing)
    else:
        absent["memory_bytes.saved"] = "a forward pass without gradients keeps nothing"
    if trace.reserved_bytes is None:
        absent["memory_bytes.reserved"] = "a CPU has no reserving allocator"
    inputs, parameters = memory.bytes_of(subject.inputs), memory.bytes_of([*subject.module.parameters(), *subject.module.buffers()])
    absent["energy_j"] = "not measured by this version"
    counted, why = _count(subject)
    backend = subject.operator.backend(trace.ran)
    if backend is None:
        absent["backend"] = "the operator has one implementation"
    return {
        "latency_s": latency.record(),
        "memory_bytes": {
            "inputs": inputs,
            "parameters": parameters,
            "transient": trace.transient_bytes,
            "saved": saved,
            "peak": inputs + parameters + trace.transient_bytes,
            "reserved": trace.reserved_bytes,
        },
        "flops": counted,
        "relative_error": error,
        "backend": backend,
        "absent": absent | why,
    }


def _fits(cell: Cell) -> None:
    """Refuses a CPU cell whose predicted bytes are not free; a GPU's allocator says so itself, and harms nothing."""
    if cell.workload.device != "cpu" or cell.bytes_needed is None:
        return
    free = available_memory()
    if cell.bytes_needed > MEMORY_SHARE * free:
        raise TooLargeError(f"predicted to need {cell.bytes_needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free")


def _check_shape(subject: Subject, output: Any) -> None:
    workload = subject.cell.workload
    if not isinstance(output, Tensor):
        raise TypeError(f"forward gave {type(output).__name__}; an operator gives a tensor (batch, tokens, dim)")
    want = (workload.batch, workload.tokens, workload.dim)
    module: Any = subject.module
    with torch.no_grad():
        whole = output if subject.function is module or not hasattr(module, "finish") else module.finish(output)
    if tuple(whole.shape) != want:
        raise ValueError(f"forward gave shape {tuple(whole.shape)}; an operator gives (batch, tokens, dim) = {want}")
    if output.dtype != workload.torch_dtype:
        raise ValueError(f"the output has {output.dtype}; an operator keeps the dtype of its input, {workload.torch_dtype}")
    if not torch.isfinite(output).all():
        raise WrongResultError("the output is not finite")


def _check_numbers(subject: Subject, output: Tensor) -> tuple[float | None, dict[str, str]]:
    reference = subject.operator.reference
    if reference is None:
        return None, {"relative_error": NO_REFERENCE}
    whole_layer = subject.function is subject.module

    def expected(module: Any, rows: Tensor, picked: list[int]) -> Tensor:
        if not whole_layer:
            return reference(module, *(t.detach()[picked].double() for t in subject.inputs), rows=rows)
        prepared = module.prepare(subject.x[picked].double()) if hasattr(module, "prepare") else (subject.x[picked].double(),)
        mixed = reference(module, *prepared, rows=rows)
        return module.finish(mixed) if hasattr(module, "finish") else mixed

    try:
        error = numerics.relative_error(expected, subject.module, output)
    except Exception as problem:
        if not out_of_memory(problem):
            raise
        return None, {"relative_error": "the float64 reference does not fit the memory beside the cell"}
    tolerance = numerics.TOLERANCES[subject.cell.workload.dtype]
    if not error <= tolerance:
        raise WrongResultError(
            f"relative error {error:.1e} against the float64 reference, more than {tolerance:.0e} for {subject.cell.workload.dtype}"
        )
    return error, {}


def _count(subject: Subject) -> tuple[dict[str, Any], dict[str, str]]:
    """Analytic and counted FLOPs, and why one is absent or falls short."""
    cell, absent = subject.cell, {}
    analytic = cell.flops
    if analytic is None:
        absent["flops.analytic"] = "the operator states no cost"
    by_torch, counted_in = flops.count_torch(subject.counted_call)
    by_fvcore = None
    if subject.trains:
        absent["flops.fvcore"] = "fvcore sees no backward pass"
    else:
        try:
            by_fvcore = flops.count_fvcore(subject.module, subject.function, subject.inputs)
        except Exception as error:  # fvcore traces through torch.jit, which not every module survives
            absent["flops.fvcore"] = f"fvcore cannot trace it: {type(error).__name__}"
    coverage = by_torch / analytic if analytic else None
    if coverage is None:
        absent["flops.coverage"] = "nothing to compare with: the operator states no cost"
    elif abs(coverage - 1) > flops.AGREE_WITHIN:
        absent["flops.coverage"] = (
            f"torch counts {100 * coverage:.1f}% of the analytic figure, in {', '.join(sorted(counted_in)) or 'nothing'}"
        )
    return {"analytic": analytic, "fvcore": by_fvcore, "torch": by_torch, "coverage": coverage}, absent
