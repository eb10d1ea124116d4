"""What LiSA is given in tests."""

from __future__ import annotations

import torch


def tensors(
    grid: tuple[int, int], *, heads: int = 2, patterns: int = 3, boundary: str = "zero", dtype: torch.dtype = torch.float64
) -> list[torch.Tensor]:
    """Query, key, value and both tables, of 2 samples, 5 and 7 channels; the same each time."""
    generator = torch.Generator().manual_seed(0)
    tokens = grid[0] * grid[1]
    shape = grid if boundary == "periodic" else (2 * grid[0] - 1, 2 * grid[1] - 1)
    sizes = [(2, heads, tokens, 5), (2, heads, tokens, 5), (2, heads, tokens, 7), (heads, patterns, *shape), (heads, patterns, *shape)]
    return [torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]
