"""What came of a law, and what laws raise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


class LawBrokenError(Exception):
    """The law does not hold; the text says by how much."""


class NotApplicableError(Exception):
    """The law cannot be asked of this operator; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What came of one law on one operator: holds is None where it cannot be asked."""

    law: str
    holds: bool | None
    detail: str


def prepared_by(module: Any, x: Tensor) -> tuple[Tensor, ...]:
    """What the module's mix is given for x: what it prepares, or x itself."""
    if not hasattr(module, "prepare"):
        return (x,)
    prepared = module.prepare(x)
    return tuple(prepared) if isinstance(prepared, (tuple, list)) else (prepared,)
