"""An operator that is off from its reference by a known relative error, within what float32 tolerates."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lisabench.contract import Operator

RELATIVE_ERROR = 2.0**-14


class Offset(nn.Module):
    """The identity, a little too large."""

    by = RELATIVE_ERROR

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + self.by)


def identity(module: Any, *prepared: Tensor, rows: Tensor) -> Tensor:
    (x,) = prepared
    return x.index_select(-2, rows)


def described(module: type[nn.Module]) -> Operator:
    return Operator(
        name="offset",
        title="The identity, a little too large",
        module=module,
        source="",
        formula="x",
        time_order="N",
        memory_order="N",
        reference=identity,
    )


OPERATOR = described(Offset)
