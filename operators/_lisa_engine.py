"""What an engine of LiSA is, and LiSA from one: forward, and a backward that recomputes instead of keeping.

With s = `seen` and y = `painted` (see `lisa.py`), and dy the gradient that arrives:

    ds[i,r] = dy_i . (G_r (*) v)_i           dq_i    = sum_r ds[i,r] (P_r (*) k)_i
    dv_j    = sum_i,r s[i,r] G_r[D] dy_i     dk_j    = sum_i,r ds[i,r] P_r[D] q_i
    dG_r[D] = sum_i,j s[i,r] dy_i . v_j      dP_r[D] = sum_i,j ds[i,r] q_i . k_j

with the sums of the last row over the pairs with D(i,j) = D. The first row is `seen` of other tensors, and `painted`; the other rows have one form
on both sides. So three functions of an engine are forward and backward, and nothing but query, key, value, s and the tables is saved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from lisabench.contract import Grid


class Engine(NamedTuple):
    """How s and y are found. Tokens are (B, h, N, d), tables (h, R, ...) as `lisa_attention` takes them, s is (B, h, R, N)."""

    prepared: Callable[[Tensor, Grid, str], Tensor]
    """Of a table, what the others take: spectra, or weights of pairs."""
    seen: Callable[[Tensor, Tensor, Tensor, Grid, str], Tensor]
    """Of query, key and the prepared kernel patterns: s."""
    painted: Callable[[Tensor, Tensor, Tensor, Grid, str], Tensor]
    """Of s, value and the prepared context patterns: y."""
    gradients: Callable[[Tensor, Tensor, Tensor, Tensor, Grid, str, bool], tuple[Tensor, Tensor, Tensor]]
    """Of s, x, value, prepared patterns, and whether to be painted: the gradients of sum_i x_i . y_i, y painted of s and value, to s (painted) or x
    (not: then x is what s was seen from, and value the key), to value and to the table. Nothing of it is differentiable."""

    kept: Callable[[Tensor, Grid, str], Tensor] | None = None
    """`prepared`, where that is done once for many calls."""
    takes_half: bool = False
    """Whether it takes float16 and bfloat16, and not float32 in their place."""
    plain: Engine | None = None
    """What stands in for it where torch must see the operations: under a compiler or a tracer in training, and in second derivatives."""

    def run(self, query: Tensor, key: Tensor, value: Tensor, kernel: Tensor, context: Tensor, grid: Grid, boundary: str) -> Tensor:
        """y of prepared patterns, differentiable by torch's own rules."""
        return self.painted(self.seen(query, key, kernel, grid, boundary), value, context, grid, boundary)

    def trained(self, query: Tensor, key: Tensor, value: Tensor, kernel: Tensor, context: Tensor, grid: Grid, boundary: str) -> Tensor:
        """y of tables, with the gradients above; these can be differentiated again."""
        given = query, key, value, kernel, context
        if not any(t.requires_grad for t in given):
            return self._of_tables(given, grid, boundary)
        if torch.compiler.is_compiling() or traced():
            return (self.plain or self)._of_tables(given, grid, boundary)
        y: Tensor = _Recomputed.apply(self, grid, boundary, *given)[0]
        return y

    def _of_tables(self, given: tuple[Tensor, ...], grid: Grid, boundary: str) -> Tensor:
        query, key, value, *tables = given
        kernel, context = (self.prepared(table, grid, boundary) for table in tables)
        return self.run(query, key, value, kernel, context, grid, boundary)


def budget(bytes_by_machine: Mapping[str, Any], device_type: str) -> Any:
    """What is stated for "cpu" with one thread, "threads" with several, among which few large operations are divided best, or "gpu"."""
    if device_type != "cpu":
        return bytes_by_machine["gpu"]
    return bytes_by_machine["threads" if torch.get_num_threads() > 1 else "cpu"]


def traced() -> bool:
    """Whether torch.jit.trace looks on, as it does for fvcore, which sees into no function of our own and counts no product that has `out`."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined]


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(
        engine: Engine, grid: Grid, boundary: str, query: Tensor, key: Tensor, value: Tensor, kernel: Tensor, context: Tensor
    ) -> tuple[Tensor, Tensor]:
        seen = engine.seen(query, key, engine.prepared(kernel, grid, boundary), grid, boundary)
        return engine.painted(seen, value, engine.prepared(context, grid, boundary), grid, boundary), seen

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.work = inputs[:3]  # type: ignore[attr-defined]
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs[3:], output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        engine, grid, boundary = ctx.work
        *given, seen = ctx.saved_tensors
        wanted = ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():  # the gradients are to be differentiated: s is no constant then
            again = iter(
                torch.autograd.grad(
                    (engine.plain or engine)._of_tables(tuple(given), grid, boundary),
                    [t for t, want in zip(given, wanted, strict=True) if want],
                    grad,
                    create_graph=True,
                )
            )
            return None, None, None, *(next(again) if want else None for want in wanted)
        query, key, value, *tables = given
        dseen, dvalue, dcontext = engine.gradients(seen, grad, value, engine.prepared(tables[1], grid, boundary), grid, boundary, True)
        found = {2: dvalue, 4: dcontext}
        if wanted[0] or wanted[1] or wanted[3]:
            kernel = engine.prepared(tables[0], grid, boundary)
            found[0], found[1], found[3] = engine.gradients(dseen, query, key, kernel, grid, boundary, False)
        return None, None, None, *(found[place] if want else None for place, want in enumerate(wanted))
