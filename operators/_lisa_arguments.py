"""What `lisa_attention` takes, and what it says of anything else."""

from __future__ import annotations

from torch import Tensor

from lisabench.contract import Grid, checked_grid
from lisabench.operators._lisa_triton import why_not
from lisabench.operators._relative_position import table_shape

BOUNDARIES = ("zero", "periodic")


def one_of(name: str, given: str, valid: tuple[str, ...]) -> None:
    if given not in valid:
        raise ValueError(f"{name} got {given!r}; valid: {', '.join(valid)}")


def checked(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_patterns: Tensor,
    context_patterns: Tensor,
    grid: tuple[int, int],
    boundary: str,
    engine: str,
    engines: tuple[str, ...],
) -> Grid:
    """The grid, or a ValueError that names the argument, what it got and what is valid."""
    one_of("boundary", boundary, BOUNDARIES)
    one_of("engine", engine, engines)
    grid = checked_grid(grid)
    if engine == "triton" and (reason := why_not(query.device, query.dtype)):
        raise ValueError(f"engine got 'triton', which does not run here: {reason}; valid: auto, mixed, fft, dense")
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
