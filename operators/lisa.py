"""LiSA: lightweight structure-aware attention, log-linear in the number of tokens.

A reconstruction from the abstract of *Lightweight Structure-Aware Attention for Visual Understanding* (Kwon, Castro,
Marin-Jimenez, Guil, Alahari; arXiv 2211.16289; IJCV, doi 10.1007/s11263-025-02475-7): the authors' code is not public
and the paper's equations were not at hand. What is kept: relative position embeddings as multiplicative weights that
make the kernel sensitive to structural patterns, evaluated with FFTs.

With D(i,j) = pos(j) - pos(i) on an H x W grid, R patterns, tables P (kernel) and G (context):

    s[i,r]     = sum_j (q_i . k_j) P_r[D(i,j)]    structural pattern r seen from query i    = q_i . (P_r (*) k)_i
    kappa[i,j] = sum_r s[i,r] G_r[D(i,j)]         the transformed attention kernel
    y_i        = sum_j kappa[i,j] v_j                                             = sum_r s[i,r] (G_r (*) v)_i

The engines, each with how it works, stand in `_lisa_dense.py`, `_lisa_mixed.py` and `_lisa_fft.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisabench.contract import Cost, Grid, MultiHeadMixer, Operator, Workload, checked_grid, in_float32
from lisabench.operators._kept_spectra import KeptSpectra
from lisabench.operators._lisa_dense import DENSE, dense_cost
from lisabench.operators._lisa_fft import FFT, fft_cost
from lisabench.operators._lisa_mixed import MIXED, mixed_cost
from lisabench.operators._relative_position import offset_index, table_shape, widened

BOUNDARIES = ("zero", "periodic")
ENGINES = ("auto", "mixed", "fft", "dense")
# Where the engines cross (benchmarks/lisa_speed.py prints them side by side). `mixed` has been measured on CPUs only, and its gradients
# keep too much: on GPUs and for training `dense` gives way to `fft` at one number for all shapes.
DENSE_UP_TO_TOKENS = 400
DENSE_BELOW_MIXED = 256  # tokens; up to here the module keeps the N x N weights in evaluation
# Longer side + 1.6 shorter ones, which is what the products of `mixed` cost a token: on one thread, and on several, among which FFTs are
# divided better than its many small products.
MIXED_UP_TO_SIDES = 208.0, 110.0


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
    engine: "mixed", "fft", "dense", or "auto", which takes the fastest for shape and device.

    All five tensors share dtype and device. Half precision is computed in float32: no bfloat16 FFT exists, and sums
    over many tokens overflow float16.

    Raises:
        ValueError: shapes, dtypes or devices that do not go together, or an unknown boundary or engine.
    """
    grid = _checked(query, key, value, kernel_patterns, context_patterns, grid, boundary, engine)
    dtype = value.dtype
    if dtype in (torch.float16, torch.bfloat16):
        query, key, value, kernel_patterns, context_patterns = (t.float() for t in (query, key, value, kernel_patterns, context_patterns))
    trained = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value, kernel_patterns, context_patterns))
    found = BY_ENGINE[choose_engine(grid, engine, device=query.device.type, trained=trained)]
    return found.trained(query, key, value, kernel_patterns, context_patterns, grid, boundary).to(dtype)


BY_ENGINE = {"dense": DENSE, "mixed": MIXED, "fft": FFT}


def choose_engine(grid: Grid, engine: str = "auto", *, device: str = "cpu", trained: bool = False) -> str:
    """The engine that "auto" means for this workload, `trained` where gradients are wanted; any other is itself."""
    if engine != "auto":
        return engine
    if device != "cpu" or trained or torch.compiler.is_compiling():  # compiled, the loops of `mixed` would be unrolled
        return "dense" if grid.tokens <= DENSE_UP_TO_TOKENS else "fft"
    if grid.tokens <= DENSE_BELOW_MIXED:
        return "dense"
    return "mixed" if max(grid) + 1.6 * min(grid) <= MIXED_UP_TO_SIDES[torch.get_num_threads() > 1] else "fft"


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
        _one_of("boundary", boundary, BOUNDARIES)
        _one_of("engine", engine, ENGINES)
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

    @in_float32
    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        grid, boundary, engine = self.grid, self.boundary, self.engine
        tables = self.kernel_patterns.to(value.dtype), self.context_patterns.to(value.dtype)
        found = choose_engine(grid, engine, device=query.device.type)
        too_large = found == "dense" and grid.tokens > DENSE_BELOW_MIXED
        if self.training or torch.is_grad_enabled() or too_large:
            return lisa_attention(query, key, value, *tables, grid=grid, boundary=boundary, engine=engine)
        _checked(query, key, value, *tables, grid, boundary, engine)
        how = BY_ENGINE[found]
        kernel, context = self._prepared(value.dtype, how.kept or how.prepared)
        return how.run(query, key, value, kernel, context, grid, boundary)

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


# --- what is valid, and the description ------------------------------------------------------------------------------


def _one_of(name: str, given: str, valid: tuple[str, ...]) -> None:
    if given not in valid:
        raise ValueError(f"{name} got {given!r}; valid: {', '.join(valid)}")


def _checked(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_patterns: Tensor,
    context_patterns: Tensor,
    grid: tuple[int, int],
    boundary: str,
    engine: str,
) -> Grid:
    _one_of("boundary", boundary, BOUNDARIES)
    _one_of("engine", engine, ENGINES)
    grid = checked_grid(grid)
    if query.ndim != 4 or 0 in query.shape:
        raise ValueError(f"query got shape {tuple(query.shape)}; valid: (batch, heads, tokens, channels), none of them 0")
    batch, heads, tokens = query.shape[:3]
    if tokens != grid.tokens:
        raise ValueError(f"grid got {tuple(grid)}, which makes {grid.tokens} tokens; query has {tokens}")
    if key.shape != query.shape:
        raise ValueError(f"key got shape {tuple(key.shape)}; valid: that of query, {tuple(query.shape)}")
    if value.ndim != 4 or value.shape[:3] != query.shape[:3] or 0 in value.shape:
        raise ValueError(f"value got shape {tuple(value.shape)}; valid: ({batch}, {heads}, {tokens}, channels)")
    valid = (heads, *table_shape(grid, boundary))
    for name, table in (("kernel_patterns", kernel_patterns), ("context_patterns", context_patterns)):
        if table.ndim != 4 or (table.shape[0], *table.shape[2:]) != valid or table.shape[1] != kernel_patterns.shape[1]:
            shape = f"({heads}, patterns, {valid[1]}, {valid[2]})"
            raise ValueError(
                f"{name} got shape {tuple(table.shape)}; valid for boundary {boundary!r} on grid {tuple(grid)}: {shape}, the same patterns in both"
            )
    named = {"key": key, "value": value, "kernel_patterns": kernel_patterns, "context_patterns": context_patterns}
    for name, tensor in named.items():
        if tensor.dtype != query.dtype or tensor.device != query.device:
            raise ValueError(f"{name} got {tensor.dtype} on {tensor.device}; valid: that of query, {query.dtype} on {query.device}")
    if not query.dtype.is_floating_point:
        raise ValueError(f"query got {query.dtype}; valid: a floating-point dtype")
    return grid


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
    planes, tokens = workload.batch * workload.heads, workload.tokens
    tables = 2 * workload.heads * patterns
    table_numbers = tables * table_shape(grid, boundary)[0] * table_shape(grid, boundary)[1]
    traffic = (planes * tokens * 2 * (d_k + d_v) + table_numbers) * workload.item_bytes
    device, trained = workload.device.partition(":")[0], workload.mode == "train"
    found = choose_engine(grid, engine, device=device, trained=trained)
    # What is no engine is refused by the module, in words.
    return COSTS.get(found, fft_cost)(workload, patterns, d_k, boundary, traffic)


COSTS = {"mixed": mixed_cost, "fft": fft_cost, "dense": dense_cost}


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
    reference=dense_reference,
    backend=lambda ran: "fft" if "aten::_fft_r2c" in ran else "mixed" if "aten::neg" in ran else "dense",
)
