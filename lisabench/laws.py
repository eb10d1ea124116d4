"""Laws that hold for every operator, as `lisabench verify` runs them and the tests too: of its values here, of its costs in `cost_laws`.

A law takes an operator, its options, a grid and a device, and returns what it saw; it raises LawBrokenError where it does not
hold and NotApplicableError where it cannot be asked. Everything random is drawn on the CPU, so that a law asks the same on
every device. Parameters are shaken: tables that begin at zero, as many do, would hide what is wrong with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lisabench import cost_laws
from lisabench.contract import Grid, Operator, Workload
from lisabench.law import Finding, LawBrokenError, NotApplicableError, prepared_by

# Odd, oblong, prime and one-dimensional, and one square that is a power of two.
GRIDS = (Grid(1, 1), Grid(1, 13), Grid(7, 1), Grid(5, 3), Grid(8, 8), Grid(11, 17))
DIM, HEADS, BATCH = 24, 2, 3
# float64: what rounding leaves. float32: sums over up to 187 tokens and FFTs of them stay well under this.
REFERENCE_BOUNDS = {torch.float64: 1e-10, torch.float32: 1e-4}
# A step so small that a random direction hardly ever crosses the kink of a relu; rounding alone errs by some 1e-8 at it.
GRADIENT_STEP, GRADIENT_BOUND = 3e-8, 1e-5
SYMMETRY_BOUND = 1e-10
DTYPE_NAMES = {torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
SHAKEN_BY = 0.1
# Sums over so many tokens of this size overflow float16, and in bfloat16 lose their small terms.
LARGE_GRID, LARGE_SCALE = Grid(64, 64), 30.0


@contextmanager
def exact_float32() -> Iterator[None]:
    """No TF32 on a GPU while it is entered: products and convolutions keep float32's 24 bits, which the bounds are made for."""
    settings: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn]  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


def _module(
    operator: Operator, options: Mapping[str, Any], grid: Grid, dtype: torch.dtype, device: str, *, batch: int = BATCH
) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    workload = Workload(grid=grid, dim=DIM, heads=HEADS, batch=batch, dtype=DTYPE_NAMES[dtype], device=device)
    refusal = operator.refuses(workload, **options)
    if refusal:
        raise NotApplicableError(f"refused: {refusal}")
    module = operator.build(workload, options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(SHAKEN_BY * _drawn_like(parameter))
    module = module.to(device=device, dtype=dtype).eval()
    return module, torch.randn(batch, grid.tokens, DIM, dtype=torch.float64).to(device=device, dtype=dtype)


def _drawn_like(tensor: Tensor) -> Tensor:
    """Standard normal, in float64 on the CPU, then as `tensor` is."""
    return torch.randn(tensor.shape, dtype=torch.float64).to(tensor)


def equals_reference(operator: Operator, options: Mapping[str, Any], grid: Grid, *, dtype: torch.dtype, device: str = "cpu") -> str:
    """mix gives what the dense float64 reference gives."""
    if operator.reference is None:
        raise NotApplicableError("states no reference")
    module, x = _module(operator, options, grid, dtype, device)
    with torch.no_grad():
        prepared = prepared_by(module, x)
        got = module.mix(*prepared).double()  # type: ignore[operator]
        want = operator.reference(module.double(), *(t.double() for t in prepared), rows=torch.arange(grid.tokens, device=device))
    return _bounded(got, want, REFERENCE_BOUNDS[dtype])


def batch_independent(operator: Operator, options: Mapping[str, Any], grid: Grid, *, device: str = "cpu") -> str:
    """A sample gives the same result alone as among others."""
    module, x = _module(operator, options, grid, torch.float64, device)
    with torch.no_grad():
        together = module(x)
        alone = torch.cat([module(sample) for sample in x.split(1)])
    return _bounded(together, alone, REFERENCE_BOUNDS[torch.float64])


def symmetric(operator: Operator, options: Mapping[str, Any], grid: Grid, *, device: str = "cpu") -> str:
    """The whole module commutes with permutations of the tokens, and with cyclic translations on the grid, where it claims to."""
    claimed = operator.symmetries(**options)
    if not claimed:
        raise NotApplicableError("claims no symmetry")
    module, x = _module(operator, options, grid, torch.float64, device)
    order = torch.randperm(grid.tokens).to(device)
    moves: dict[str, Callable[[Tensor], Tensor]] = {
        "permutation": lambda t: t[:, order],
        "translation": lambda t: t.unflatten(1, grid).roll((1, 2), dims=(1, 2)).flatten(1, 2),
    }
    with torch.no_grad():
        out = module(x)
        return ", ".join(f"{name}: {_bounded(module(moves[name](x)), moves[name](out), SYMMETRY_BOUND)}" for name in sorted(claimed))


def gradients_exact(operator: Operator, options: Mapping[str, Any], grid: Grid, *, device: str = "cpu") -> str:
    """Along random directions, autograd's gradients are those of central differences, for the input and all parameters."""
    module, x = _module(operator, options, grid, torch.float64, device)
    x.requires_grad_()
    weight = _drawn_like(x)
    leaves = [x, *(p for p in module.parameters() if p.requires_grad)]
    found = torch.autograd.grad((module(x) * weight).sum(), leaves, allow_unused=True)
    unused = [name for (name, p), g in zip([("x", x), *module.named_parameters()], found, strict=True) if p.requires_grad and g is None]
    if unused:
        raise LawBrokenError(f"no gradient reaches {', '.join(unused)}")
    directions = [_drawn_like(leaf) for leaf in leaves]
    along = sum(float((g * d).sum()) for g, d in zip(found, directions, strict=True) if g is not None)

    def shifted(step: float) -> float:
        with torch.no_grad():
            for leaf, direction in zip(leaves, directions, strict=True):
                leaf += step * direction
            value = float((module(x) * weight).sum())
            for leaf, direction in zip(leaves, directions, strict=True):
                leaf -= step * direction
            return value

    difference = (shifted(GRADIENT_STEP) - shifted(-GRADIENT_STEP)) / (2 * GRADIENT_STEP)
    error = abs(along - difference) / max(abs(difference), 1e-3)
    if not error <= GRADIENT_BOUND:
        raise LawBrokenError(f"gradient {along:.6g} along a direction, central difference {difference:.6g}")
    return f"relative error {error:.0e}"


def dtype_kept(operator: Operator, options: Mapping[str, Any], grid: Grid, *, device: str = "cpu") -> str:
    """The output has the input's shape and dtype, finite, also in half precision."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        module, x = _module(operator, options, grid, dtype, device)
        with torch.no_grad():
            out = module(x)
        if out.dtype != dtype or out.shape != x.shape:
            raise LawBrokenError(f"{dtype} {tuple(x.shape)} gave {out.dtype} {tuple(out.shape)}")
        if not torch.isfinite(out).all():
            raise LawBrokenError(f"{dtype}: the output is not finite")
    return "fp64, fp32, bf16, fp16"


def finite_at_scale(operator: Operator, options: Mapping[str, Any], grid: Grid, *, device: str = "cpu") -> str:
    """Nothing overflows on large inputs, in float32 and by autocast to bfloat16 and float16, over many tokens."""
    module, x = _module(operator, options, grid, torch.float32, device, batch=1)
    kind = torch.device(device).type
    for dtype in (None, torch.bfloat16, torch.float16):
        with torch.no_grad(), torch.autocast(kind, dtype=dtype) if dtype else nullcontext():
            out = module(LARGE_SCALE * x)
        if not torch.isfinite(out).all():
            raise LawBrokenError(f"{dtype or x.dtype}: inputs of scale {LARGE_SCALE:.0f} on {grid} gave an output that is not finite")
    return f"fp32, bf16, fp16 on {grid}"


def deterministic(operator: Operator, options: Mapping[str, Any], grid: Grid, *, device: str = "cpu") -> str:
    """The same seed gives the same module and the same output, bit for bit."""
    outputs = []
    for _ in range(2):
        module, x = _module(operator, options, grid, torch.float32, device)
        with torch.no_grad():
            outputs += [module(x), module(x)]
    if not all(torch.equal(outputs[0], other) for other in outputs[1:]):
        raise LawBrokenError("two calls with the same seed differ")
    return "bit for bit"


LAWS: dict[str, Callable[..., str]] = {
    "reference, float64": partial(equals_reference, dtype=torch.float64),
    "reference, float32": partial(equals_reference, dtype=torch.float32),
    "independent of the batch": batch_independent,
    "symmetries": symmetric,
    "gradients": gradients_exact,
    "shape and dtype kept": dtype_kept,
    "finite at scale 30": finite_at_scale,
    "deterministic": deterministic,
    "FLOPs counted": cost_laws.flops_are_counted,
    "time order": cost_laws.flops_grow_as_stated,
    "memory order": cost_laws.memory_grows_as_stated,
}
ON_GRIDS: dict[str, Sequence[Grid]] = dict.fromkeys(LAWS, GRIDS) | {
    "finite at scale 30": (LARGE_GRID,),
    "FLOPs counted": GRIDS[-1:],
    # These two choose their grids themselves.
    "time order": GRIDS[-1:],
    "memory order": GRIDS[-1:],
}


def verify(operator: Operator, options: Mapping[str, Any], *, device: str = "cpu") -> Iterator[Finding]:
    """Every law, on all of its grids: the first grid where it breaks, or what was seen on the largest."""
    for name, law in LAWS.items():
        with exact_float32():
            finding = _on_all_grids(name, partial(law, operator, options, device=device), ON_GRIDS[name])
        yield finding


def _on_all_grids(name: str, law: Callable[[Grid], str], grids: Sequence[Grid]) -> Finding:
    detail, why = "", ""
    for grid in grids:
        try:
            detail = law(grid)
        except NotApplicableError as absent:
            why = str(absent)
        except LawBrokenError as broken:
            return Finding(law=name, holds=False, detail=f"on {grid}: {broken}")
        except (Exception, SystemExit) as error:  # an operator of a user's may raise anything
            return Finding(law=name, holds=False, detail=f"on {grid}: {type(error).__name__}: {error}".splitlines()[0])
    return Finding(law=name, holds=True if detail else None, detail=detail or why)


def _bounded(got: Tensor, want: Tensor, bound: float) -> str:
    if got.shape != want.shape:
        raise LawBrokenError(f"shape {tuple(got.shape)}, the reference has {tuple(want.shape)}")
    smallest = torch.finfo(want.dtype).tiny  # a result may be 0 throughout: that of pooling, less itself, on a single token
    error = float(torch.linalg.vector_norm(got - want) / torch.linalg.vector_norm(want).clamp_min(smallest))
    if not error <= bound:
        raise LawBrokenError(f"relative error {error:.1e}, more than {bound:.0e}")
    return f"relative error {error:.0e}"
