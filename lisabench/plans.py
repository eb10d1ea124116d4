"""What a run is to measure: its visits, and how plan.json states them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, groupby
from typing import Any, Protocol

from lisabench.errors import InputError
from lisabench.presets import Shape
from lisabench.sweep import Cell, Sweep
from lisabench.workload import Grid


class Part(Protocol):
    """Some visits by their places, made where they are wanted."""

    @property
    def count(self) -> int: ...

    @property
    def kinds(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def visit(self, place: int) -> list[Cell]: ...

    def next_missing(self, place: int, known: Container[str]) -> int: ...

    def kind_of(self, place: int) -> str | None: ...


class Listed:
    """Visits of cells that are there already; those of one workload must follow each other."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        self._visits = [list(group) for _, group in groupby(cells, key=lambda cell: (cell.workload, cell.kind))]

    @property
    def count(self) -> int:
        return sum(map(len, self._visits))

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(visit[0].kind for visit in self._visits if visit[0].kind))

    def __len__(self) -> int:
        return len(self._visits)

    def visit(self, place: int) -> list[Cell]:
        return self._visits[place]

    def next_missing(self, place: int, known: Container[str]) -> int:
        missing = (at for at in range(place, len(self)) if any(cell.key not in known for cell in self._visits[at]))
        return next(missing, len(self))

    def kind_of(self, place: int) -> str | None:
        return self._visits[place][0].kind


class Visits:
    """All visits of a plan, one part after the other."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self._ends = list(accumulate(map(len, parts)))

    @property
    def count(self) -> int:
        """How many cells there are."""
        return sum(part.count for part in self.parts)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, place: int) -> list[Cell]:
        part, within = self._at(place)
        return part.visit(within)

    def __iter__(self) -> Iterator[list[Cell]]:
        return (self[place] for place in range(len(self)))

    def kind_of(self, place: int) -> str | None:
        """The kind of device that the visit is meant for; None where there is but one."""
        part, within = self._at(place)
        return part.kind_of(within)

    def next_missing(self, place: int, known: Container[str]) -> int:
        """The first visit from `place` on of which not all cells are known by their keys; the number of visits where there is none."""
        for part, end in zip(self.parts, self._ends, strict=True):
            begin = end - len(part)
            if place < end and (found := part.next_missing(max(place - begin, 0), known)) < len(part):
                return begin + found
        return len(self)

    def cells(self) -> Iterator[Cell]:
        """All cells in the order of the visits."""
        return (cell for visit in self for cell in visit)

    def _at(self, place: int) -> tuple[Part, int]:
        if not 0 <= place < (self._ends[-1] if self._ends else 0):
            raise IndexError(place)
        which = bisect_right(self._ends, place)
        return self.parts[which], place - (self._ends[which - 1] if which else 0)


def stated(sweep: Sweep) -> dict[str, Any]:
    """A sweep's axes as JSON-ready values; operators by name, whose options and digests stand in the plan."""
    return {
        "ops": [op for op, _ in sweep.ops],
        "shapes": [[*one.grid, one.dim, one.heads] for one in sweep.shapes],
        "batches": list(sweep.batches),
        "modes": list(sweep.modes),
        "dtypes": list(sweep.dtypes),
        "scope": sweep.scope,
        "device": sweep.device,
        "compiled": sweep.compiled,
        "seed": sweep.seed,
        "kinds": list(sweep.kinds),
        "share": list(sweep.share),
    }


def sweeps_of(plan: Mapping[str, Any], *, run: object) -> list[Sweep]:
    """The sweeps that a plan states; InputError where an older lisabench wrote it, which listed its cells."""
    if "sweeps" not in plan:
        raise InputError(f"{str(run)!r} was begun by an older lisabench, whose plans were others; start a new run with another --out")
    operators = plan["operators"]
    return [
        Sweep(
            ops=tuple((op, operators[op]["options"]) for op in axes["ops"]),
            shapes=tuple(Shape(grid=Grid(height, width), dim=dim, heads=heads) for height, width, dim, heads in axes["shapes"]),
            digests={op: operators[op]["digest"] for op in axes["ops"]},
            batches=tuple(axes["batches"]),
            modes=tuple(axes["modes"]),
            dtypes=tuple(axes["dtypes"]),
            kinds=tuple(axes["kinds"]),
            share=(axes["share"][0], axes["share"][1]),
            **{name: axes[name] for name in ("scope", "device", "compiled", "seed")},
        )
        for axes in plan["sweeps"]
    ]


def visits_of(plan: Mapping[str, Any], *, run: object) -> Visits:
    """All visits of a plan."""
    return Visits(sweeps_of(plan, run=run))
