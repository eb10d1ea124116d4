"""LiSA: lightweight structure-aware attention, log-linear in the number of tokens.

A reconstruction from the abstract of *Lightweight Structure-Aware Attention for Visual Understanding* (Kwon, Castro,
Marin-Jimenez, Guil, Alahari; arXiv 2211.16289; IJCV, doi 10.1007/s11263-025-02475-7): the authors' code is not public
and the paper's equations were not at hand. What is kept: relative position embeddings as multiplicative weights that
make the kernel sensitive to structural patterns, evaluated with FFTs.

With D(i,j) = pos(j) - pos(i) on an H x W grid, R patterns, tables P (kernel) and G (context):

    s[i,r]     = sum_j (q_i . k_j) P_r[D(i,j)]    structural pattern r seen from query i    = q_i . (P_r (*) k)_i
    kappa[i,j] = sum_r s[i,r] G_r[D(i,j)]         the transformed attention kernel
    y_i        = sum_j kappa[i,j] v_j                                             = sum_r s[i,r] (G_r (*) v)_i

The engines, each with how it works, stand in `_lisa_dense.py`, `_lisa_mixed.py`, `_lisa_fft.py` and `_lisa_triton.py`, forward and
backward in `_lisa_engine.py`, the choice in `_lisa_choice.py`; docs/lisa.md sets them side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisabench.contract import Cost, Grid, MultiHeadMixer, Operator, Workload, checked_grid, in_float32
from lisabench.operators._kept_spectra import KeptSpectra
from lisabench.operators._lisa_arguments import BOUNDARIES, checked, one_of
from lisabench.operators._lisa_choice import choose
from lisabench.operators._lisa_dense import DENSE, dense_cost
from lisabench.operators._lisa_features import Shape
from lisabench.operators._lisa_fft import FFT, fft_cost
from lisabench.operators._lisa_mixed import MIXED, mixed_cost
from lisabench.operators._lisa_triton import TRITON, why_not
from lisabench.operators._relative_position import offset_index, table_shape, widened

BY_ENGINE = {"mixed": MIXED, "fft": FFT, "dense": DENSE, "triton": TRITON}
ENGINES = ("auto", *BY_ENGINE)
HALF = (torch.float16, torch.bfloat16)
DENSE_COMPILED_UP_TO = 400  # tokens


def lisa_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_patterns: Tensor,
    context_patterns: Tensor,
    *,
    grid: tuple[int, int],
    boundary: str = "zero",
    engine: str = "auto",
) -> Tensor:
    """Structure-aware attention on a grid: (B, h, N, d_v), in the dtype of value.

    query, key: (B, h, N, d_k), taken as they come (the module normalises them, this function does not).
    value: (B, h, N, d_v). grid: (H, W) with H * W = N, any H, W >= 1; H = 1 is the 1-D case.
    kernel_patterns, context_patterns: (h, R, 2H-1, 2W-1); entry [h, r, dy + H-1, dx + W-1] is the weight at offset
    (dy, dx) = pos(j) - pos(i). With boundary "periodic" offsets are taken modulo (H, W) and the tables are (h, R, H, W).
    engine: "mixed", "fft", "dense", "triton" (NVIDIA GPUs), or "auto", which takes the fastest for shape and device.

    All five tensors share dtype and device. Half precision is computed in float32: no bfloat16 FFT exists, and sums
    over many tokens overflow float16. Only "triton" multiplies in bfloat16, and sums in float32.

    Raises:
        ValueError: shapes, dtypes or devices that do not go together, an unknown boundary or engine, or one that does not run here.
    """
    grid = checked(query, key, value, kernel_patterns, context_patterns, grid, boundary, engine, ENGINES)
    given = query, key, value, kernel_patterns, context_patterns
    trained = torch.is_grad_enabled() and any(t.requires_grad for t in given)
    dtype, shape = value.dtype, _shape(query, value, kernel_patterns, grid, boundary)
    found = BY_ENGINE[choose_engine(shape, engine, device=query.device.type, trained=trained)]
    wide = torch.float32 if dtype in HALF and not found.takes_half else dtype
    query, key, value, kernel_patterns, context_patterns = (t.to(wide) for t in given)
    return found.trained(query, key, value, kernel_patterns, context_patterns, grid, boundary).to(dtype)


def choose_engine(shape: Shape, engine: str = "auto", *, device: str = "cpu", trained: bool = False, kept: bool = False) -> str:
    """The engine that "auto" means at this shape; any other is itself.

    trained: gradients are wanted. kept: what is prepared of the tables is at hand.
    """
    if engine != "auto":
        return engine
    if torch.compiler.is_compiling():  # the loops of `mixed` would be unrolled
        return "dense" if shape.grid.tokens <= DENSE_COMPILED_UP_TO else "fft"
    absent = left_out(
        torch.device(device), torch.float64 if shape.item_bytes > 4 else torch.float32
    )  # a table may know what does not run now
    return choose(shape, device=device, trained=trained, prepared=kept, engines=tuple(name for name in BY_ENGINE if name not in absent))


def _shape(query: Tensor, value: Tensor, table: Tensor, grid: Grid, boundary: str) -> Shape:
    batch, heads, _, d_k = query.shape
    return Shape(grid, boundary, batch, heads, table.shape[1], d_k, value.shape[-1], max(4, value.element_size()))


# --- module ----------------------------------------------------------------------------------------------------------


class LiSA(KeptSpectra, MultiHeadMixer):
    """LiSA with its projections: (B, N, C) -> (B, N, C).

    prepare: linear query, key (h * key_dim each) and value (C); query and key L2-normalised per head and token.
    mix: `lisa_attention`. finish: LayerNorm over C (none with norm=False), linear out. The tables start as N(0, 0.02^2).
    In evaluation without gradients the tables' spectra (of small grids their weights) are kept, and dropped when the tables change. On a GPU a change
    through `.data` is not seen: call `eval()` after it.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        grid: tuple[int, int],
        *,
        patterns: int = 4,
        key_dim: int | None = None,
        boundary: str = "zero",
        engine: str = "auto",
        norm: bool = True,
    ) -> None:
        super().__init__(dim, num_heads, grid, key_dim=key_dim)
        one_of("boundary", boundary, BOUNDARIES)
        one_of("engine", engine, ENGINES)
        if patterns < 1:
            raise ValueError(f"patterns must be 1 or more, got {patterns}")
        self.boundary, self.engine = boundary, engine
        shape = table_shape(self.grid, boundary)
        self.kernel_patterns = nn.Parameter(0.02 * torch.randn(num_heads, patterns, *shape))
        self.context_patterns = nn.Parameter(0.02 * torch.randn(num_heads, patterns, *shape))
        self.norm = nn.LayerNorm(dim) if norm else nn.Identity()

    def prepare(self, x: Tensor) -> tuple[Tensor, ...]:
        query, key, value = super().prepare(x)
        return F.normalize(query, dim=-1).to(value.dtype), F.normalize(key, dim=-1).to(value.dtype), value

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if not BY_ENGINE[self._found(query, value)].takes_half:
            return self._mixed_in_float32(query, key, value)
        with torch.autocast(query.device.type, enabled=False):
            return self._mixed(query, key, value)

    def _mixed(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        grid, boundary, engine = self.grid, self.boundary, self._found(query, value)
        tables = self.kernel_patterns.to(value.dtype), self.context_patterns.to(value.dtype)
        if not self._keeps:
            return lisa_attention(query, key, value, *tables, grid=grid, boundary=boundary, engine=engine)
        checked(query, key, value, *tables, grid, boundary, engine, ENGINES)
        kernel, context = self._prepared(value.dtype, BY_ENGINE[engine].kept or BY_ENGINE[engine].prepared)
        return BY_ENGINE[engine].run(query, key, value, kernel, context, grid, boundary)

    _mixed_in_float32 = in_float32(_mixed)

    @property
    def _keeps(self) -> bool:
        return not (self.training or torch.is_grad_enabled())

    def _found(self, query: Tensor, value: Tensor) -> str:
        shape = _shape(query, value, self.kernel_patterns, self.grid, self.boundary)
        return choose_engine(shape, self.engine, device=query.device.type, trained=not self._keeps, kept=self._keeps)

    def finish(self, y: Tensor) -> Tensor:
        merged: Tensor = self.out(self.norm(y.transpose(1, 2).flatten(-2)))
        return merged

    def _prepared(self, dtype: torch.dtype, make: Callable[[Tensor, Grid, str], Tensor]) -> tuple[Tensor, ...]:
        tables = self.kernel_patterns, self.context_patterns
        return self.kept_spectra(lambda: tuple(make(table.to(dtype), self.grid, self.boundary) for table in tables), tables, (dtype, make))

    def resize(self, grid: tuple[int, int]) -> None:
        """Carries the tables over to another grid, so that a trained model can change its resolution.

        An offset keeps its share of the image: (dy, dx) on the new grid takes the weight of (dy H/H', dx W/W') on the
        old one, by linear interpolation, at the rim the nearest. The parameters are replaced: make an optimiser anew.
        """
        old, new = self.grid, checked_grid(grid)
        for name in ("kernel_patterns", "context_patterns"):
            table = getattr(self, name).detach()
            rows, columns = (_interpolation(old[axis], new[axis], self.boundary).to(table) for axis in (0, 1))
            setattr(self, name, nn.Parameter(rows @ table @ columns.T, requires_grad=getattr(self, name).requires_grad))
        self.grid, self._kept = new, None

    def widen(self, grid: tuple[int, int]) -> None:
        """Goes over to another grid with tokens as far apart: an offset keeps its weight, and one that was never seen weighs nothing."""
        new = checked_grid(grid)
        self.kernel_patterns, self.context_patterns = (
            widened(table, self.grid, new, self.boundary) for table in (self.kernel_patterns, self.context_patterns)
        )
        self.grid, self._kept = new, None


def _interpolation(old: int, new: int, boundary: str) -> Tensor:
    """The matrix that takes a table's axis for `old` positions to one for `new` positions."""
    if boundary == "periodic":
        at = torch.arange(new, dtype=torch.float64) * old / new
        below = at.floor().long()
        size, above = old, (below + 1) % old
    else:
        at = (torch.arange(1 - new, new, dtype=torch.float64) * old / new + old - 1).clamp(0, 2 * old - 2)
        below = at.floor().long()
        size, above = 2 * old - 1, (below + 1).clamp(max=2 * old - 2)
    matrix = torch.zeros(len(at), size, dtype=torch.float64)
    share = at - below
    matrix.scatter_add_(1, below[:, None], (1 - share)[:, None])
    matrix.scatter_add_(1, above[:, None], share[:, None])
    return matrix


# --- the description -------------------------------------------------------------------------------------------------


def dense_reference(module: LiSA, query: Tensor, key: Tensor, value: Tensor, *, rows: Tensor) -> Tensor:
    """The definition, sum by sum, for the queries in `rows`."""
    offsets = offset_index(module.grid, rows, module.boundary)
    products = query[:, :, rows] @ key.transpose(-1, -2)
    kernel = torch.zeros_like(products)
    for r in range(module.kernel_patterns.shape[1]):
        seen = (products * module.kernel_patterns[:, r].flatten(1)[:, offsets]).sum(-1, keepdim=True)
        kernel += seen * module.context_patterns[:, r].flatten(1)[:, offsets]
    return kernel @ value


def cost(workload: Workload, *, patterns: int, key_dim: int | None, boundary: str, engine: str, norm: bool) -> Cost:
    """FLOPs and bytes of the engine that runs."""
    grid = workload.grid
    d_k, d_v = workload.head_dim if key_dim is None else key_dim, workload.head_dim
    tables = 2 * workload.heads * patterns * table_shape(grid, boundary)[0] * table_shape(grid, boundary)[1]
    traffic = (workload.batch * workload.heads * workload.tokens * 2 * (d_k + d_v) + tables) * workload.item_bytes
    found = settled(workload, patterns=patterns, key_dim=key_dim, boundary=boundary, engine=engine)["engine"]
    # What is no engine is refused by the module, in words.
    return COSTS.get(found, fft_cost)(workload, patterns, d_k, boundary, traffic)


def settled(workload: Workload, *, patterns: int, key_dim: int | None, boundary: str, engine: str, **options: object) -> dict[str, Any]:
    """The options, with the engine that runs."""
    d_k, d_v, device = workload.head_dim if key_dim is None else key_dim, workload.head_dim, workload.device.partition(":")[0]
    trained, item_bytes = workload.mode == "train", max(4, workload.item_bytes)
    # No patterns and no channels are refused by the module, in words.
    shape = Shape(workload.grid, boundary, workload.batch, workload.heads, max(1, patterns), max(1, d_k), d_v, item_bytes)
    found = choose_engine(shape, engine, device=device, trained=trained, kept=not trained)
    return {"patterns": patterns, "key_dim": key_dim, "boundary": boundary, "engine": found, **options}


COSTS = {"mixed": mixed_cost, "fft": fft_cost, "dense": dense_cost, "triton": mixed_cost}


def backend(ran: frozenset[str]) -> str:
    """The engine that ran, by the operations of torch that it alone calls."""
    if "lisabench::lisa_painted" in ran:
        return "triton"
    return "fft" if "aten::_fft_r2c" in ran else "mixed" if "aten::neg" in ran else "dense"


def refuses(workload: Workload, *, engine: str, **options: object) -> str | None:
    """Why the engine does not run in this workload's dtype on its device."""
    reason = why_not(torch.device(workload.device), workload.torch_dtype) if engine == "triton" else None
    return f"engine triton does not run here: {reason}" if reason else None


def left_out(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """Engines that do not run on this device in this dtype, and why."""
    reason = why_not(device, dtype)
    return {"triton": reason} if reason else {}


OPERATOR = Operator(
    name="lisa",
    title="LiSA, lightweight structure-aware attention (a reconstruction from the abstract)",
    module=LiSA,
    source="Kwon et al., IJCV, doi 10.1007/s11263-025-02475-7, arXiv 2211.16289; reconstructed from the abstract, not the authors' code",
    formula="y_i = sum_r (q_i . (P_r (*) k)_i) (G_r (*) v)_i",
    time_order="N log N (1+R) C",
    memory_order="N C",
    family="structure-aware",
    grid_parameters="2 R (2H-1)(2W-1) h",
    symmetries=lambda *, boundary, **options: frozenset({"translation"} if boundary == "periodic" else ()),
    caveat="a reconstruction from the paper's abstract, not the authors' code",
    cost=cost,
    needs="engine=triton takes an NVIDIA GPU",
    refuses=refuses,
    left_out=left_out,
    reference=dense_reference,
    backend=backend,
    settled=settled,
)
