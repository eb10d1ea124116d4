"""What an operator is.

An operator is a token mixer (B, N, C) -> (B, N, C). Letters for shapes, here and in every operator:
B batch, N tokens (= H*W), C channels (`dim`), h heads, d channels a head (C / h), H W the grid's height and width,
R structural patterns, m features. Nothing in a forward pass depends on the other samples of the batch.

FLOP convention: a multiply-add is 2 FLOPs; a complex product is 6 and a complex FFT of n points 5 n log2 n, a real one
2.5 n log2 n. Products and transforms are counted; exponentials, normalisations and other pointwise real work are not.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lisabench.errors import InputError
from lisabench.workload import Grid, Workload

SHAPE_ARGUMENTS = ("dim", "num_heads", "grid")
FAMILIES = ("quadratic", "structure-aware", "kernel", "low rank", "spectral", "channel", "local and control")
"""What the built-in operators are grouped by; one operator belongs to one."""
SYMMETRIES = ("permutation", "translation")

__all__ = [
    "FAMILIES",
    "Cost",
    "Grid",
    "Growth",
    "MultiHeadMixer",
    "Operator",
    "Option",
    "Reference",
    "Workload",
    "checked_grid",
    "fft_flops",
    "growth",
    "in_float32",
    "projection_flops",
]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Analytic cost of one call at a workload, in FLOPs and bytes, without regard to its scope and mode.

    `mix_flops`: forward of mix. `mix_backward_flops`: its backward; left out, twice the forward, as for matrix products.
    `projection_flops`: forward of prepare and finish. `transient_bytes`: the peak that a forward of mix allocates, its
    output among it. `saved_bytes`: what a forward of mix keeps for backward beyond its inputs. `traffic_bytes`: the
    least that a forward of mix must move, inputs and parameters read and output written once.
    """

    mix_flops: float
    mix_backward_flops: float | None = None
    projection_flops: float = 0.0
    transient_bytes: float
    saved_bytes: float
    traffic_bytes: float

    def flops(self, scope: str, mode: str) -> float:
        """FLOPs of one timed call in this scope and mode."""
        backward = 2 * self.mix_flops if self.mix_backward_flops is None else self.mix_backward_flops
        mix = self.mix_flops + (backward if mode == "train" else 0)
        projections = self.projection_flops * (3 if mode == "train" else 1) if scope == "layer" else 0
        return mix + projections


Reference = Callable[..., Tensor]
"""What mix must give, in float64 and so plain that it is obviously right: `reference(module, *prepared, rows=rows)`.

`module` and the prepared tensors come in float64. `rows` holds the tokens whose outputs are wanted, so that a check fits in
memory at any N: the result is that of mix with only these along the token axis, the last but one.
"""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One keyword-only argument of an operator's module: what the command line may set."""

    name: str
    default: Any
    annotation: str

    def parse(self, text: str) -> Any:
        """The value that `text` means for this option, or InputError."""
        kinds = [kind.strip() for kind in self.annotation.split("|")]
        if "None" in kinds and text.lower() == "none":
            return None
        for kind in kinds:
            if kind == "bool" and text.lower() in ("true", "false"):
                return text.lower() == "true"
            if kind in ("int", "float"):
                try:
                    number = int(text) if kind == "int" else float(text)
                except ValueError:
                    continue
                if math.isfinite(number):  # a record cannot state another
                    return number
            if kind == "str":
                return text
        raise InputError(f"option {self.name} got {text!r}; valid is {self.annotation}")


@dataclass(frozen=True, kw_only=True)
class Operator:
    """A frozen description of one operator; `OPERATOR` in each file of `operators/` is one.

    `module` is built as `module(dim, num_heads, grid, **options)`. `cost` takes a workload and the module's options.
    `reference` is absent only for a user's own module, whose check is then absent too. `time_order` and `memory_order` say
    how mix grows, in the letters above; `growth` reads them. `family` is one of FAMILIES, or a word of a user's own.
    `grid_parameters` is the number of parameters that depends on the grid, "" for none. `symmetries(**options)`: of
    SYMMETRIES those that the whole module keeps: to any permutation of the tokens, to cyclic translation on the grid.
    `needs` says in words which workloads the operator takes, where not all; `refuses` gives the reason why it cannot do
    one, or None; `left_out(device, dtype)` names engines that do not run there, each with the reason. `backend` names the
    implementation that ran, from the names of the operators that a profiler saw. `settled(workload, **options)`: the options,
    with what the operator would choose by the workload's shape put in.
    `caveat` is what must stand beside every figure of this operator.
    """

    name: str
    title: str
    module: type[nn.Module]
    source: str
    formula: str
    time_order: str
    memory_order: str
    cost: Callable[..., Cost] | None = None
    reference: Reference | None = None
    family: str = ""
    grid_parameters: str = ""
    symmetries: Callable[..., frozenset[str]] = lambda **options: frozenset()
    needs: str = ""
    refuses: Callable[..., str | None] = lambda workload, **options: None
    left_out: Callable[[torch.device, torch.dtype], Mapping[str, str]] = lambda device, dtype: {}
    backend: Callable[[frozenset[str]], str | None] = lambda ran: None
    settled: Callable[..., Mapping[str, Any]] = lambda workload, **options: options
    caveat: str = ""
    origin: str = "built in"

    @property
    def options(self) -> dict[str, Option]:
        """The module's keyword-only arguments whose defaults are plain values (numbers, text, None): those a record can state."""
        parameters = inspect.signature(self.module.__init__).parameters.values()
        return {
            p.name: Option(name=p.name, default=p.default, annotation=_annotation(p))
            for p in parameters
            if p.kind is p.KEYWORD_ONLY and p.name not in SHAPE_ARGUMENTS and _is_plain(p.default)
        }

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All options with their values: those given, over the defaults."""
        return {name: option.default for name, option in self.options.items()} | dict(given)

    def build(self, workload: Workload, options: Mapping[str, Any]) -> nn.Module:
        """The module for a workload's shape, in float32 on the current default device."""
        names = inspect.signature(self.module.__init__).parameters
        shape = {"dim": workload.dim, "num_heads": workload.heads, "grid": workload.grid}
        module = self.module(**{name: value for name, value in shape.items() if name in names}, **options)
        if type(module).forward is nn.Module.forward:  # a mixer that has only its parts
            module.forward = partial(_in_a_row, module)
        return module


def _in_a_row(module: Any, x: Tensor) -> Tensor:
    """prepare, mix and finish, where they are there."""
    prepared = module.prepare(x) if hasattr(module, "prepare") else (x,)
    mixed = module.mix(*prepared) if isinstance(prepared, (tuple, list)) else module.mix(prepared)
    result: Tensor = module.finish(mixed) if hasattr(module, "finish") else mixed
    return result


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value))


def checked_grid(grid: Any) -> Grid:
    """The grid as it was given, or a ValueError that says what is valid."""
    if not (isinstance(grid, (tuple, list)) and len(grid) == 2 and all(isinstance(side, int) and side >= 1 for side in grid)):
        raise ValueError(f"grid got {grid!r}; valid: (height, width), whole numbers of 1 or more")
    return Grid(*grid)


def _annotation(parameter: inspect.Parameter) -> str:
    """The annotation as text; one that is left out is taken from the default's type."""
    if parameter.annotation is parameter.empty:
        return "str" if parameter.default in (None, parameter.empty) else type(parameter.default).__name__
    return parameter.annotation if isinstance(parameter.annotation, str) else inspect.formatannotation(parameter.annotation)


def in_float32(mix: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A mix that works in float32 on half-precision tensors, in their own dtype on others, and gives the dtype of its last one.

    Autocast is off meanwhile: it would send the products back to half precision, where sums over many tokens overflow
    (float16) or lose their small terms (bfloat16).
    """

    @wraps(mix)
    def widened(self: nn.Module, *tensors: Tensor) -> Tensor:
        dtype, device = tensors[-1].dtype, tensors[-1].device.type
        wide = torch.promote_types(dtype, torch.float32)
        if not torch.is_autocast_enabled(device):
            return mix(self, *(t.to(wide) for t in tensors)).to(dtype)
        with torch.autocast(device, enabled=False):
            return mix(self, *(t.to(wide) for t in tensors)).to(dtype)

    return widened


class Growth(NamedTuple):
    """N^power, times log N where `log`."""

    power: int
    log: bool

    def __str__(self) -> str:
        return {0: "1", 1: "N"}.get(self.power, f"N^{self.power}") + (" log N" if self.log else "")


def growth(order: str) -> Growth | None:
    """How an order such as "N log N (1+R) C" or "N^2/r^2 C" grows with N alone: that of its largest term; None for ""."""
    terms = []
    for term in order.split(" + "):
        rest, logs = re.subn(r"\blog N\w*", "", term)
        powers = [int(power or 1) for power in re.findall(r"\bN(?:\^(\d+))?(?![A-Za-z])", rest)]
        terms.append(Growth(sum(powers), logs > 0))
    return max(terms) if order else None


class MultiHeadMixer(nn.Module):
    """Projections that most operators share; a subclass brings `mix(query, key, value)` on (B, h, N, d) tensors.

    `prepare` gives query and key (B, h, N, key_dim) and value (B, h, N, C/h); `finish` takes (B, h, N, C/h).
    """

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int], *, key_dim: int | None = None) -> None:
        super().__init__()
        if num_heads < 1 or dim < 1 or dim % num_heads:
            raise ValueError(f"dim got {dim} with num_heads {num_heads}; valid: dim a multiple of num_heads, both 1 or more")
        self.num_heads = num_heads
        self.grid = checked_grid(grid)
        self.key_dim = dim // num_heads if key_dim is None else key_dim
        if self.key_dim < 1:
            raise ValueError(f"key_dim must be 1 or more, got {key_dim}")
        self.query = nn.Linear(dim, num_heads * self.key_dim)
        self.key = nn.Linear(dim, num_heads * self.key_dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, N, h*d) -> (B, h, N, d)."""
        heads: Tensor = x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return heads

    def prepare(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.split_heads(projection(x)) for projection in (self.query, self.key, self.value))

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        raise NotImplementedError

    def finish(self, y: Tensor) -> Tensor:
        merged: Tensor = self.out(y.transpose(1, 2).flatten(-2))
        return merged

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.mix(*self.prepare(x)))


def projection_flops(workload: Workload, key_dim: int | None = None) -> float:
    """FLOPs of MultiHeadMixer's four linear layers, forward."""
    key_width = workload.heads * (workload.head_dim if key_dim is None else key_dim)
    return 4.0 * workload.batch * workload.tokens * workload.dim * (workload.dim + key_width)


def fft_flops(points: float, transforms: float = 1, *, real: bool) -> float:
    """FLOPs of so many FFTs of so many points each, by the usual 5 n log2 n, half of it where one side is real."""
    return transforms * (2.5 if real else 5.0) * points * math.log2(points) if points > 1 else 0.0
