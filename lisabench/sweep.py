"""From the axes that a user names to a plan of cells, checked before anything runs.

A plan may have a million cells: it is kept as its axes, and its cells are made where they are wanted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lisabench import registry
from lisabench.errors import InputError, unknown
from lisabench.presets import Shape
from lisabench.workload import DTYPES, MODES, SCOPES, Workload

if TYPE_CHECKING:
    from lisabench.contract import Cost

MAX_CELLS = 10_000_000
MOST_CHECKED = 5_000  # workloads at which a user's own formula of cost is tried before anything runs
AT_ONCE = 512
_ENCODE = json.JSONEncoder(sort_keys=True, default=str).encode


@dataclass(frozen=True, kw_only=True)
class Cell:
    """An operator with all its options at a workload. `digest` is the content hash of a user's own file.

    `kind` names the kind of device that it is meant for where a plan has several: the same work on another kind is another cell.
    """

    op: str
    options: dict[str, Any]
    workload: Workload
    digest: str | None = None
    kind: str | None = None

    @cached_property
    def key(self) -> str:
        """Content hash: equal cells have equal keys on every machine."""
        w = self.workload
        of_shape = _of_shape(Shape(grid=w.grid, dim=w.dim, heads=w.heads), w.scope)
        mixer = _Mixer(self.op, self.options, self.digest)
        return mixer.key(_of_batch(w.batch, w.device, compiled=w.compiled), of_shape, w.dtype, w.mode, _of_kind(self.kind))

    @cached_property
    def cost(self) -> Cost | None:
        """The analytic cost, None for a user's own module that states none."""
        operator = registry.load(self.op)
        return operator.cost(self.workload, **self.options) if operator.cost else None

    @property
    def flops(self) -> float | None:
        return self.cost.flops(self.workload.scope, self.workload.mode) if self.cost else None

    @property
    def bytes_needed(self) -> float | None:
        """Predicted bytes at the peak: inputs, what mix allocates, and in training what is kept and its gradients."""
        if self.cost is None:
            return None
        w = self.workload
        inputs = 3.0 * w.batch * w.tokens * w.dim * w.item_bytes
        return inputs + self.cost.transient_bytes + (self.cost.saved_bytes + 2 * inputs if w.mode == "train" else 0)

    def record_fields(self) -> dict[str, Any]:
        """The fields of a record that state this cell."""
        return {"cell": self.key, "op": self.op, "options": self.options} | self.workload.record_fields()

    @classmethod
    def from_record(cls, record: Mapping[str, Any], *, digest: str | None, kind: str | None = None) -> Cell:
        """The cell that `record_fields` stated."""
        return cls(op=record["op"], options=record["options"], workload=Workload.from_record(record), digest=digest, kind=kind)


class _Mixer:
    """What is the same in the keys of all cells of an operator with its options, written once: plans have a million cells."""

    def __init__(self, op: str, options: Mapping[str, Any], digest: str | None) -> None:
        # A user's file is known by what is in it, wherever it lies.
        self.digest, name = f'"digest": {_ENCODE(digest)}, ', op.rpartition(":")[2] if digest else op
        self.op = f'", "op": {_ENCODE(name)}, "options": {_ENCODE(options)}, '

    def key(self, of_batch: str, of_shape: tuple[str, str, str], dtype: str, mode: str, of_kind: str) -> str:
        """The hash of what JSON with sorted keys gives of the cell."""
        dim, heads, tokens = of_shape
        stated = f'{of_batch}{self.digest}{dim}{dtype}{heads}{of_kind}"mode": "{mode}{self.op}{tokens}'
        return sha256(stated.encode()).hexdigest()[:16]


def _of_batch(batch: int, device: str, *, compiled: bool) -> str:
    return f'{{"batch": {batch}, "compiled": {"true" if compiled else "false"}, "device": {_ENCODE(device)}, '


def _of_shape(shape: Shape, scope: str) -> tuple[str, str, str]:
    height, width = shape.grid
    first, second = f'"dim": {shape.dim}, "dtype": "', f'", "heads": {shape.heads}, "height": {height}, '
    return first, second, f'"scope": "{scope}", "tokens": {height * width}, "width": {width}}}'


def _of_kind(kind: str | None) -> str:
    return "" if kind is None else f'"kind": {_ENCODE(kind)}, '


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The axes as asked, resolved: every combination is a cell. A visit has the cells of one workload, an operator each.

    `kinds`: the kinds of devices that each measure all of it, one after the other; empty where the device is of one kind.
    `share` (i, n): of n parts of the visits, of about as much work each, the i-th from 1 on.
    """

    ops: tuple[tuple[str, Mapping[str, Any]], ...]
    shapes: tuple[Shape, ...]
    batches: tuple[int, ...] = (1,)
    modes: tuple[str, ...] = ("forward",)
    dtypes: tuple[str, ...] = ("fp32",)
    scope: str = "mixing"
    device: str = "cpu"
    compiled: bool = False
    seed: int = 0
    digests: Mapping[str, str | None] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()
    share: tuple[int, int] = (1, 1)

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """The workloads' places in the product of the axes, from small to large."""
        axes = [self.shapes, self.batches, self.modes, self.dtypes]
        shape, batch, mode, dtype = (index.ravel() for index in np.indices([len(axis) for axis in axes]))
        tokens = np.array([float(one.grid.tokens) for one in self.shapes])[shape]
        dims = np.array([float(one.dim) for one in self.shapes])[shape]
        batches = np.array(self.batches, dtype=float)[batch]
        modes = np.array([MODES.index(one) for one in self.modes])[mode]
        dtypes = np.array([sorted(self.dtypes).index(one) for one in self.dtypes])[dtype]
        order = np.lexsort((dtypes, modes, batches, tokens, batches * tokens * dims))
        part, parts = self.share
        # Dealt from the largest on, there and back again, so that no part has the larger of every pair.
        dealt = np.arange(len(order))[::-1] % (2 * parts)
        mine: NDArray[np.int64] = order[np.minimum(dealt, 2 * parts - 1 - dealt) == part - 1]
        return mine

    def __len__(self) -> int:
        """How many visits there are."""
        return len(self._order) * max(1, len(self.kinds))

    @property
    def count(self) -> int:
        """How many cells there are."""
        return len(self) * len(self.ops)

    def kind_of(self, place: int) -> str | None:
        """The kind of device that the visit is meant for."""
        return self.kinds[place // len(self._order)] if self.kinds else None

    def _point(self, place: int) -> tuple[Shape, int, str, str]:
        """Shape, batch, mode and dtype of a visit."""
        rest = int(self._order[place % len(self._order)])
        rest, dtype = divmod(rest, len(self.dtypes))
        rest, mode = divmod(rest, len(self.modes))
        shape, batch = divmod(rest, len(self.batches))
        return self.shapes[shape], self.batches[batch], self.modes[mode], self.dtypes[dtype]

    def workload(self, place: int) -> Workload:
        """The workload of a visit; the smallest is the first."""
        shape, batch, mode, dtype = self._point(place)
        stated = {"scope": self.scope, "device": self.device, "compiled": self.compiled}
        return Workload(grid=shape.grid, dim=shape.dim, heads=shape.heads, batch=batch, mode=mode, dtype=dtype, **stated)  # type: ignore[arg-type]

    @cached_property
    def _texts(self) -> tuple[list[tuple[str, str, str]], list[str], list[_Mixer]]:
        shapes = [_of_shape(shape, self.scope) for shape in self.shapes]
        batches = [_of_batch(batch, self.device, compiled=self.compiled) for batch in self.batches]
        return shapes, batches, [_Mixer(op, options, self.digests.get(op)) for op, options in self.ops]

    def next_missing(self, place: int, known: Container[str]) -> int:
        """The first visit from `place` on of which not all cells are known by their keys; the number of visits where there is none."""
        shapes, batches, mixers = self._texts
        dtypes, modes, axes = self.dtypes, self.modes, (len(self.batches), len(self.modes), len(self.dtypes))
        while place < len(self):
            of_kind, within = _of_kind(self.kind_of(place)), place % len(self._order)
            for index in self._order[within : within + AT_ONCE].tolist():
                rest, dtype = divmod(index, axes[2])
                rest, mode = divmod(rest, axes[1])
                shape, batch = divmod(rest, axes[0])
                for mixer in mixers:
                    if mixer.key(batches[batch], shapes[shape], dtypes[dtype], modes[mode], of_kind) not in known:
                        return place
                place += 1
        return place

    def visit(self, place: int) -> list[Cell]:
        """The cells of a visit; the operators follow each other in seeded random order."""
        ops = list(self.ops)
        if len(ops) > 1:
            Random(f"{self.seed} {place}").shuffle(ops)
        workload, kind = self.workload(place), self.kind_of(place)
        return [Cell(op=op, options=options, workload=workload, digest=self.digests.get(op), kind=kind) for op, options in ops]  # type: ignore[arg-type]

    def visits(self) -> Iterator[list[Cell]]:
        """All visits, from small to large, a kind of device after the other."""
        return (self.visit(place) for place in range(len(self)))

    def cells(self) -> list[Cell]:
        """All cells in the order of the visits."""
        return [cell for visit in self.visits() for cell in visit]


def spread(whole: int, most: int) -> list[int]:
    """At most so many places of `whole`, evenly, the first and the last among them."""
    return list(range(whole)) if whole <= most else [round(place * (whole - 1) / (most - 1)) for place in range(most)]


def check(sweep: Sweep) -> None:
    """InputError for what no operator could run: shapes that do not go together, options that none takes."""
    for name, values, valid in (("--mode", sweep.modes, MODES), ("--dtype", sweep.dtypes, DTYPES), ("--scope", (sweep.scope,), SCOPES)):
        for value in values:
            if value not in valid:
                raise unknown(name, value, valid)
    for shape in sweep.shapes:
        if shape.dim % shape.heads:
            raise InputError(f"--dim {shape.dim} is not a multiple of --heads {shape.heads}; give both so that it is")
    count = math.prod(map(len, (sweep.shapes, sweep.batches, sweep.modes, sweep.dtypes, sweep.ops)))
    if count > MAX_CELLS:
        raise InputError(f"the sweep has {count:,} cells; at most {MAX_CELLS:,} make one run: name fewer values on an axis")
    if not sweep:
        part, parts = sweep.share
        raise InputError(f"--shard {part}/{parts} has no cells: there are {count // len(sweep.ops):,} workloads; give fewer parts")
    places = spread(len(sweep), MOST_CHECKED)
    ours = registry.built_in()
    for op, options in sweep.ops:
        # The constructor of a user's file or package runs in the worker, where it can harm nothing. With its defaults none of ours can
        # fail, and a module on the meta device costs a second, in which torch imports what it traces with.
        if op in ours and options != registry.load(op).resolve({}):
            check_options(op, options, sweep.workload(0))
        for place in places if op not in ours else places[-1:]:
            cell = Cell(op=op, options=dict(options), workload=sweep.workload(place))
            if not all(math.isfinite(value) for value in (cell.flops, cell.bytes_needed) if value is not None):
                raise InputError(f"operator {op} states a cost that is no number at {cell.workload.describe()}; mend its `cost`")


def check_options(op: str, options: Mapping[str, Any], workload: Workload) -> None:
    """InputError where the operator cannot be built with these options at a workload's shape; nothing is allocated."""
    import torch

    try:
        with torch.device("meta"):
            registry.load(op).build(workload, options)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise InputError(f"operator {op}: {str(error).splitlines()[0]}; see `lisabench ops {op}`") from error
