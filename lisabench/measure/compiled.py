"""What torch.compile made of a function: graphs, breaks, and what still ran as library calls."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from lisabench.measure.dispatch import moves_only

# What inductor hands to a library because the library is fast at it; anything else in a compiled call is a fallback.
_PRODUCTS = re.compile(r"(add|b|addb|badd)?mm|(add)?mv|dot|_scaled_mm|linear|matmul|\w*conv(olution|[123]d)\w*")


@dataclass(frozen=True, kw_only=True)
class CompileProof:
    """What torch.compile made of a function.

    `breaks`: the graph breaks' reasons, first lines, each once. `fallbacks`: aten operators that a compiled call still ran
    as library calls, movement of data left out; `products`: those where that is the design (matrix products and
    convolutions).
    """

    graphs: int
    breaks: list[str]
    fallbacks: list[str]
    products: list[str]

    def record(self) -> dict[str, Any]:
        return asdict(self)


class Compiled:
    """`function` is compiled by inductor at its first call for each shape, and what comes of it is counted on the way.

    Counted in the compilation that is timed, not in a second one: torch._dynamo.explain would forget everything that is
    compiled, and loses the breaks before a first graph.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.graphs = 0
        self.breaks: Counter[str] = Counter()
        self.count_anew()
        self.function: Callable[..., Any] = torch.compile(function, backend=self._inductor, dynamic=False)

    def _inductor(self, graph: Any, inputs: Any) -> Any:
        from torch._inductor.compile_fx import compile_fx

        self.graphs += 1
        return compile_fx(graph, inputs)

    def count_anew(self) -> None:
        """What is compiled from here on is what the proof tells of."""
        from torch._dynamo.utils import counters

        self.graphs, self._before = 0, Counter(counters["graph_break"])

    def stop_counting(self) -> None:
        """What is compiled from here on is left out."""
        from torch._dynamo.utils import counters

        self.breaks = Counter(counters["graph_break"]) - self._before

    def proof(self, ran_names: Iterable[str]) -> CompileProof:
        """`ran_names`: the aten operators (`aten::mm`) that a profile of a compiled call shows."""
        computed = sorted(name.removeprefix("aten::") for name in set(ran_names) if not moves_only(name))
        return CompileProof(
            graphs=self.graphs,
            breaks=list(dict.fromkeys(_first_line(text) for text in self.breaks)),
            fallbacks=[name for name in computed if not _PRODUCTS.fullmatch(name)],
            products=[name for name in computed if _PRODUCTS.fullmatch(name)],
        )


def _first_line(text: str) -> str:
    return (str(text).strip().splitlines() or [""])[0].strip()
