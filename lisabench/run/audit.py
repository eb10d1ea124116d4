"""The FLOP audit: an operator's formula beside two counters, what each of them leaves out, and what they see as they come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from lisabench import registry
from lisabench.measure.dispatch import KERNELS, Watcher, moves_only, watch
from lisabench.measure.flops import AGREE_WITHIN, tally_fvcore, tally_torch
from lisabench.run.cell import Subject, build
from lisabench.sweep import Cell
from lisabench.workload import Grid, Workload

CONVENTION = (
    "1 multiply-add = 2 FLOPs, a complex product 6, a complex FFT of n points 5 n log2 n, a real one half of it;"
    " pointwise real work is left out"
)
NO_COST = "the operator states no cost"
NO_BACKWARD = "fvcore sees no backward pass"
# Kernels that hold products: where one is not counted, it is no pointwise work that the convention leaves out.
_OPAQUE = frozenset(f"aten::{name}" for name in KERNELS if name != "_safe_softmax")


@dataclass(frozen=True, kw_only=True)
class Audit:
    """One operator, one direction, FLOPs of one call at the audited workload.

    `coverage`, `fvcore_coverage`: counted / analytic. `counted_in`: by torch's counter, operator by operator. `missing`:
    which part is not counted, or counted too often, where a coverage is off; `excuse`: why no counter can see that part.
    `left_out`: pointwise operators that ran and that the convention does not count. `stock_torch`, `stock_fvcore`: the share
    of the analytic figure (of the counted one where no cost is stated) that the counters give without our handles;
    `stock_misses`: the parts that they get wrong. `error`: why there are no figures. `absent`: figure -> reason.
    """

    op: str
    options: dict[str, Any]
    direction: str
    analytic: float | None = None
    fvcore: float | None = None
    torch: float | None = None
    coverage: float | None = None
    fvcore_coverage: float | None = None
    counted_in: dict[str, float] = field(default_factory=dict)
    missing: str | None = None
    excuse: str | None = None
    left_out: tuple[str, ...] = ()
    stock_torch: float | None = None
    stock_fvcore: float | None = None
    stock_misses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    error: str | None = None
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether the figures agree, or it is said why they cannot."""
        return self.error is None and (self.missing is None or self.excuse is not None)

    def record(self) -> dict[str, Any]:
        return asdict(self) | {"holds": self.holds}


def audited_workload(device: str = "cpu", mode: str = "forward") -> Workload:
    """Oblong, of no power of two, and large enough that LiSA takes its FFTs."""
    return Workload(grid=Grid(24, 40), batch=2, dim=192, heads=3, mode=mode, device=device)


def audit(op: str, options: Mapping[str, Any], *, device: str = "cpu") -> list[Audit]:
    """Forward and backward of one operator; what goes wrong in it is told in the row."""
    rows = []
    for direction, mode, counted in (("forward", "forward", _forward), ("backward", "train", _backward)):
        row = partial(Audit, op=op, options=dict(options), direction=direction)
        workload = audited_workload(device, mode)
        try:
            operator = registry.load(op)
            refusal = operator.refuses(workload, **options)
            if refusal is not None:
                rows.append(row(absent={"torch": f"refused: {refusal}"}))
                continue
            subject = build(Cell(op=op, options=dict(options), workload=workload), seed=0)
            with subject.gradients():
                rows.append(row(**counted(subject)))
        except (Exception, SystemExit) as error:  # an operator of a user's may raise anything
            rows.append(row(error=f"{type(error).__name__}: {error}".splitlines()[0]))
    return rows


def _forward(subject: Subject) -> dict[str, Any]:
    subject.call()()  # an evaluation keeps what its first call makes
    cost = subject.cell.cost
    watcher = Watcher()
    with watcher:
        tally = tally_torch(subject.counted_call)
    stock = tally_torch(subject.counted_call, handles=False)
    by_fvcore, stock_fvcore, absent = None, None, {}
    try:
        by_fvcore = tally_fvcore(subject.module, subject.function, subject.inputs)
        stock_fvcore = tally_fvcore(subject.module, subject.function, subject.inputs, handles=False)
    except Exception as error:  # fvcore traces through torch.jit, which not every module survives
        absent["fvcore"] = f"fvcore cannot trace it: {type(error).__name__}"
    analytic = cost.flops(subject.cell.workload.scope, "forward") if cost else None
    return _figures(analytic, tally, stock, watcher.result().calls, by_fvcore, stock_fvcore, absent)


def _backward(subject: Subject) -> dict[str, Any]:
    """A training step minus its forward, both in training mode."""
    cost, scope = subject.cell.cost, subject.cell.workload.scope
    subject.counted_call()

    def forward() -> Any:
        return subject.function(*subject.inputs)

    def rest(of: Callable[[Callable[[], Any]], Mapping[str, float]]) -> dict[str, float]:
        step, part = of(subject.counted_call), of(forward)
        return {name: count - part.get(name, 0) for name, count in step.items() if count > part.get(name, 0)}

    analytic = cost.flops(scope, "train") - cost.flops(scope, "forward") if cost else None
    tally, stock = rest(tally_torch), rest(lambda call: tally_torch(call, handles=False))
    return _figures(analytic, tally, stock, rest(lambda call: watch(call).calls), None, None, {"fvcore": NO_BACKWARD})


def _figures(
    analytic: float | None,
    tally: dict[str, float],
    stock: Mapping[str, float],
    calls: Mapping[str, float],
    by_fvcore: Mapping[str, float] | None,
    stock_fvcore: Mapping[str, float] | None,
    absent: dict[str, str],
) -> dict[str, Any]:
    total = sum(tally.values())
    fvcore = None if by_fvcore is None else sum(by_fvcore.values())
    if analytic is None:
        absent = absent | {"analytic": NO_COST, "coverage": NO_COST}
    whole = total if analytic is None else analytic
    left_out = sorted(name for name in calls if name not in tally and not moves_only(name))
    unseen = [name for name in left_out if name in _OPAQUE or not name.startswith("aten::")]
    shares = {"torch": _share(total, analytic), "fvcore": None if fvcore is None else _share(fvcore, analytic)}
    off = {counter: share for counter, share in shares.items() if share is not None and abs(share - 1) > AGREE_WITHIN}
    missing = _missing(off, {"torch": tally, "fvcore": by_fvcore or {}}, whole, left_out) if off else None
    if analytic == 0 and total > 0:  # of which nothing is a share
        missing = f"0 FLOPs are stated; torch counts {total:.4g}, in {', '.join(name.removeprefix('aten::') for name in tally)}"
    return {
        "analytic": analytic,
        "fvcore": fvcore,
        "torch": total,
        "coverage": shares["torch"],
        "fvcore_coverage": shares["fvcore"],
        "counted_in": tally,
        "missing": missing,
        "excuse": f"no counter sees into {', '.join(unseen)}" if off and unseen else None,
        "left_out": tuple(name.removeprefix("aten::") for name in left_out),
        "stock_torch": _share(sum(stock.values()), whole),
        "stock_fvcore": None if stock_fvcore is None else _share(sum(stock_fvcore.values()), whole),
        "stock_misses": {"torch": _wrong(tally, stock)}
        | ({"fvcore": _wrong(by_fvcore, stock_fvcore)} if by_fvcore is not None and stock_fvcore is not None else {}),
        "absent": absent,
    }


def _share(counted: float, whole: float | None) -> float | None:
    return counted / whole if whole else None


def _missing(off: Mapping[str, float], tallies: Mapping[str, Mapping[str, float]], whole: float, left_out: Sequence[str]) -> str:
    """Which part is not counted, in words: what was, share by share, and what ran beside it."""
    words = []
    for counter, share in off.items():
        parts = sorted(tallies[counter].items(), key=lambda part: -part[1])
        seen = ", ".join(f"{name.removeprefix('aten::')} {100 * flops / whole:.1f}%" for name, flops in parts) or "nothing"
        gap = f"{100 * (1 - share):.1f}% is not counted" if share < 1 else f"{100 * (share - 1):.1f}% too much"
        words.append(f"{counter} counts {seen}: {gap}")
    beside = ", ".join(name.removeprefix("aten::") for name in left_out)
    return "; ".join(words) + (f"; without a count ran {beside}" if beside else "")


def _wrong(ours: Mapping[str, float], stock: Mapping[str, float]) -> tuple[str, ...]:
    """The parts that a counter as it comes leaves out or counts differently, in words, each once."""
    names = [name for name in {**ours, **stock} if abs(ours.get(name, 0) - stock.get(name, 0)) > AGREE_WITHIN * ours.get(name, 0)]
    return tuple(sorted({_part(name.removeprefix("aten::")) for name in names}))


def _part(name: str) -> str:
    if "fft" in name:
        return "FFT"
    if "attention" in name:
        return "SDPA"
    return "complex product" if name == "mul" else name
