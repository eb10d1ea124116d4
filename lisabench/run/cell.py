"""One cell in the process that holds the device: builds the operator, checks it, and takes its samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lisabench import registry
from lisabench.contract import Operator
from lisabench.measure import numerics
from lisabench.measure.compiled import Compiled
from lisabench.measure.conditions import Load, LoadWatch
from lisabench.measure.environment import available_memory
from lisabench.measure.latency import Limits, Progress, no_collection, sample_round
from lisabench.measure.samplers import sampler_for
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


class Bench:
    """A cell that is built, checked and warmed up: it samples in rounds, and is audited at the end.

    What goes wrong at any point is raised: the worker makes a status of it. `check` compares the first output with the
    reference; a bench that is built again need not.
    """

    def __init__(self, cell: Cell, *, limits: Limits, seed: int, check: bool = True, progress: Progress = lambda *_: None) -> None:
        _fits(cell)
        progress("building", None)
        self.subject = build(cell, seed)
        device = cell.workload.device
        with self.subject.gradients():
            self.compiled = Compiled(self.subject.function) if cell.workload.compiled else None
            self.function = self.compiled.function if self.compiled else self.subject.function
            self.error, self.absent = self._check() if check else (None, {})
            self.call = self.subject.call(self.function)
            self.sampler = sampler_for(self.call, device)
            progress("warming up", None)
            if self.compiled and self.subject.trains:  # the first call with gradients compiles anew: that is what is timed
                self.compiled.count_anew()
            self.call_seconds = self.sampler.warm_up(seconds=limits.warmup_seconds, calls=limits.warmup_calls)
            if self.compiled:
                self.compiled.stop_counting()
        self.rests = False

    def _check(self) -> tuple[float | None, dict[str, str]]:
        """The relative error of the first output, and what is absent; a wrong output is raised."""
        subject = self.subject
        versions = [t._version for t in subject.inputs]
        with torch.no_grad():
            output = self.function(*subject.inputs)
        if versions != [t._version for t in subject.inputs]:
            raise ValueError("forward changes its input in place: no two calls do the same; write to a copy")
        _check_shape(subject, output)
        return _check_numbers(subject, output)

    @property
    def standing(self) -> list[Tensor]:
        """The tensors that are there before a call: inputs, parameters and buffers."""
        return [*self.subject.inputs, *self.subject.module.parameters(), *self.subject.module.buffers()]

    def sample(self, seconds: float) -> tuple[list[float], float, Load]:
        """One round of so many seconds: its samples, how long it took, and the load on the machine meanwhile."""
        with self.subject.gradients(), no_collection():
            if self.rests:
                self.sampler.warm_again()
            watch = LoadWatch()
            samples, taken = sample_round(self.sampler, seconds)
            self.rests = True
            return samples, taken, watch.load()


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
