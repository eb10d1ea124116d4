"""One point of the axes that a sweep runs over, and the seeded input that goes with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

SCOPES = ("mixing", "layer")
MODES = ("forward", "train")
DTYPES = ("fp32", "bf16", "fp16", "fp64")
_TORCH_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp64": "float64"}
_ITEM_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp64": 8}


class Grid(NamedTuple):
    """Height and width in tokens; token i stands at (i // width, i % width)."""

    height: int
    width: int

    @property
    def tokens(self) -> int:
        return self.height * self.width

    def __str__(self) -> str:
        return f"{self.height} x {self.width}"


def most_square(tokens: int) -> Grid:
    """The grid of so many tokens whose sides lie nearest to each other, the height the smaller: 512 -> 16 x 32, a prime p -> 1 x p."""
    height = next(side for side in range(math.isqrt(tokens), 0, -1) if tokens % side == 0)
    return Grid(height, tokens // height)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What an operator is given to do.

    `scope` says what is timed (`mixing`: the operator's mix alone, on prepared tensors; `layer`: projections too),
    `mode` is `forward` (inference) or `train` (forward and backward). `device` is torch's name of it; one GPU is `cuda:0`.
    """

    scope: str = "mixing"
    mode: str = "forward"
    batch: int = 1
    grid: Grid
    dim: int = 192
    heads: int = 3
    dtype: str = "fp32"
    device: str = "cpu"
    compiled: bool = False

    @property
    def tokens(self) -> int:
        return self.grid.tokens

    @property
    def head_dim(self) -> int:
        """Channels a head."""
        return self.dim // self.heads

    @property
    def item_bytes(self) -> int:
        """Bytes of one element of `dtype`."""
        return _ITEM_BYTES[self.dtype]

    @property
    def torch_dtype(self) -> torch.dtype:
        import torch

        dtype: torch.dtype = getattr(torch, _TORCH_DTYPES[self.dtype])
        return dtype

    def record_fields(self) -> dict[str, Any]:
        """The fields of a record that state this workload."""
        return {
            "scope": self.scope,
            "mode": self.mode,
            "batch": self.batch,
            "height": self.grid.height,
            "width": self.grid.width,
            "tokens": self.tokens,
            "dim": self.dim,
            "heads": self.heads,
            "dtype": self.dtype,
            "device": self.device,
            "compiled": self.compiled,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Workload:
        """The workload that `record_fields` stated."""
        plain = {name: record[name] for name in ("scope", "mode", "batch", "dim", "heads", "dtype", "device", "compiled")}
        return cls(grid=Grid(record["height"], record["width"]), **plain)

    def describe(self) -> str:
        """Short words for progress and messages: '1,024 tokens (32 x 32), batch 1'."""
        return f"{self.tokens:,} tokens ({self.grid}), batch {self.batch}"


def seeded_input(workload: Workload, seed: int) -> torch.Tensor:
    """The input of a layer, (batch, tokens, dim), standard normal; drawn on the CPU, so that a seed means the same on every device."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(workload.batch, workload.tokens, workload.dim, generator=generator)
    return drawn.to(device=workload.device, dtype=workload.torch_dtype)
