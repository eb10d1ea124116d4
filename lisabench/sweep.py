"""From the axes that a user names to a plan of cells, checked before anything runs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Any

from lisabench import registry
from lisabench.errors import InputError, unknown
from lisabench.presets import PRESETS, Shape
from lisabench.workload import DTYPES, MODES, SCOPES, Grid, Workload, most_square

if TYPE_CHECKING:
    from lisabench.contract import Cost

MAX_CELLS = 100_000
LARGEST = 10**9


@dataclass(frozen=True, kw_only=True)
class Cell:
    """An operator with all its options at a workload. `digest` is the content hash of a user's own file."""

    op: str
    options: dict[str, Any]
    workload: Workload
    digest: str | None = None

    @cached_property
    def key(self) -> str:
        """Content hash: equal cells have equal keys on every machine."""
        # A user's file is known by what is in it, wherever it lies.
        op = self.op.rpartition(":")[2] if self.digest else self.op
        return _hash({"op": op, "options": self.options, "digest": self.digest} | self.workload.record_fields())

    @cached_property
    def series(self) -> str:
        """What the cell shares with the smaller and larger ones of its curve: all but tokens, grid and batch."""
        fixed = {k: v for k, v in self.workload.record_fields().items() if k not in ("tokens", "height", "width", "batch")}
        # A user's file is known by what is in it, wherever it lies.
        op = self.op.rpartition(":")[2] if self.digest else self.op
        return _hash({"op": op, "options": self.options} | fixed)

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


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The axes as asked, resolved: every combination is a cell."""

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

    def cells(self) -> list[Cell]:
        """All cells from small to large; the operators of a workload follow each other in seeded random order."""
        workloads = [
            Workload(
                scope=self.scope,
                mode=mode,
                batch=batch,
                grid=s.grid,
                dim=s.dim,
                heads=s.heads,
                dtype=dtype,
                device=self.device,
                compiled=self.compiled,
            )
            for s in self.shapes
            for batch in self.batches
            for mode in self.modes
            for dtype in self.dtypes
        ]
        workloads.sort(key=lambda w: (w.batch * w.tokens * w.dim, w.tokens, w.batch, MODES.index(w.mode), w.dtype))
        order = Random(self.seed)
        cells = []
        for workload in workloads:
            ops = list(self.ops)
            order.shuffle(ops)
            cells += [Cell(op=op, options=dict(options), workload=workload, digest=self.digests.get(op)) for op, options in ops]
        return cells


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


# --- reading what a user wrote -----------------------------------------------------------------------------------------


def numbers(text: str, what: str) -> list[int]:
    """'1,2,8' or the doubling range '256..16384' or both, as whole numbers of 1 or more, each once."""
    found: list[int] = []
    for part in _parts(text, what):
        low, dots, high = part.partition("..")
        first = _whole(low, what, text)
        if not dots:
            found.append(first)
            continue
        last = _whole(high, what, text)
        if last < first:
            raise InputError(f"{what} got {text!r}; a range a..b doubles from a up to b: write the smaller number first")
        while first <= last:
            found.append(first)
            first *= 2
    return list(dict.fromkeys(found))


def grids(tokens: str | None, resolution: str | None, patch: int) -> list[Grid]:
    """Grids from token counts (the most square grid of each) or from image resolutions with a patch size."""
    if resolution is None:
        return [most_square(count) for count in numbers(tokens or "", "--tokens")]
    if patch < 1:
        raise InputError(f"--patch got {patch}; valid: 1 or more")
    found = []
    for part in _parts(resolution, "--resolution"):
        sides = part.split("x")
        if len(sides) == 2:
            images = [(_whole(sides[0], "--resolution", resolution), _whole(sides[1], "--resolution", resolution))]
        elif len(sides) == 1:
            images = [(side, side) for side in numbers(part, "--resolution")]
        else:
            raise InputError(f"--resolution got {part!r}; write 224 or HEIGHTxWIDTH such as 384x640")
        for height, width in images:
            if height % patch or width % patch:
                near = "x".join(str(max(patch, round(side / patch) * patch)) for side in (height, width))
                raise InputError(f"--resolution {height}x{width} is not a multiple of --patch {patch}; the nearest that is: {near}")
            found.append(Grid(height // patch, width // patch))
    return list(dict.fromkeys(found))


def choices(text: str, what: str, valid: Sequence[str]) -> list[str]:
    """A comma list of words, each one of the valid ones."""
    found = _parts(text, what)
    for word in found:
        if word not in valid:
            raise unknown(what, word, valid)
    return list(dict.fromkeys(found))


def presets(text: str) -> list[Shape]:
    """The shapes of the presets in a comma list."""
    return [shape for name in choices(text, "--preset", list(PRESETS)) for shape in PRESETS[name].shapes]


def _parts(text: str, what: str) -> list[str]:
    found = [part.strip() for part in text.split(",")]
    if not all(found):
        raise InputError(f"{what} got {text!r}; write values with commas between them, none empty")
    return found


def _whole(text: str, what: str, given: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= LARGEST:
        raise InputError(f"{what} got {given!r}; valid: whole numbers of 1 to {LARGEST:,}, as a list a,b,c or a doubling range a..b")
    return number


def resolve_operators(given: Sequence[str], baseline: str | None, assignments: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """The operators asked for, the baseline last, each with all its options; every assignment must be taken by one.

    `given` holds names, comma lists, or "all"; an assignment is [OP.]NAME=VALUE. "all" are those that can be imported
    (see `left_out`); one that is named must be.
    """
    ops: list[str] = []
    for name in _names(given):
        ops += [operator.name for operator in registry.load_all()[0]] if name == "all" else [name]
    named = list(dict.fromkeys(ops))
    ops = named if baseline is None or baseline in named else [*named, baseline]
    for op in ops:
        registry.check_name(op)
    options: dict[str, dict[str, Any]] = {op: {} for op in ops}
    for assignment in assignments:
        target, value = _assignment(assignment)
        op, dot, name = target.rpartition(".")
        if dot and op not in ops:
            raise unknown("operator in --op-option", op, ops)
        candidates = [op] if dot else named  # the baseline that stands beside them stays as it is
        takers = [candidate for candidate in candidates if name in registry.load(candidate).options]
        if not takers:
            raise unknown("option in --op-option", name, sorted({f"{o}.{n}" for o in candidates for n in registry.load(o).options}))
        for taker in takers:
            options[taker][name] = registry.load(taker).options[name].parse(value)
    return [(op, registry.load(op).resolve(options[op])) for op in ops]


def left_out(given: Sequence[str]) -> list[str]:
    """What "all" in `given` leaves out: a line on each operator of an installed package that cannot be imported."""
    return list(registry.load_all()[1].values()) if "all" in _names(given) else []


def _names(given: Sequence[str]) -> list[str]:
    return [name for text in given for name in _parts(text, "--op")]


def _assignment(text: str) -> tuple[str, str]:
    target, equals, value = text.partition("=")
    if not equals or not target:
        raise InputError(f"--op-option got {text!r}; write NAME=VALUE or OPERATOR.NAME=VALUE")
    return target.strip(), value.strip()


def check(sweep: Sweep) -> list[Cell]:
    """The cells, or InputError for what no operator could run: shapes that do not go together, options that none takes."""
    for name, values, valid in (("--mode", sweep.modes, MODES), ("--dtype", sweep.dtypes, DTYPES), ("--scope", (sweep.scope,), SCOPES)):
        for value in values:
            if value not in valid:
                raise unknown(name, value, valid)
    for shape in sweep.shapes:
        if shape.dim % shape.heads:
            raise InputError(f"--dim {shape.dim} is not a multiple of --heads {shape.heads}; give both so that it is")
    count = len(sweep.shapes) * len(sweep.batches) * len(sweep.modes) * len(sweep.dtypes) * len(sweep.ops)
    if count > MAX_CELLS:
        raise InputError(f"the sweep has {count:,} cells; at most {MAX_CELLS:,} make one run: name fewer values on an axis")
    cells = sweep.cells()
    for cell in cells:
        if not all(math.isfinite(value) for value in (cell.flops, cell.bytes_needed) if value is not None):
            raise InputError(f"operator {cell.op} states a cost that is no number at {cell.workload.describe()}; mend its `cost`")
    ours = registry.built_in()
    for op, options in sweep.ops:
        # The constructor of a user's file or package runs in the worker, where it can harm nothing. With its defaults none of ours can
        # fail, and a module on the meta device costs a second, in which torch imports what it traces with.
        if op in ours and options != registry.load(op).resolve({}):
            check_options(op, options, next(cell.workload for cell in cells if cell.op == op))
    return cells


def check_options(op: str, options: Mapping[str, Any], workload: Workload) -> None:
    """InputError where the operator cannot be built with these options at a workload's shape; nothing is allocated."""
    import torch

    try:
        with torch.device("meta"):
            registry.load(op).build(workload, options)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise InputError(f"operator {op}: {str(error).splitlines()[0]}; see `lisabench ops {op}`") from error
