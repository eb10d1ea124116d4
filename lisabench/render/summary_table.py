"""How operators grow with the tokens, where they overtake the baseline, and what they cost at one size, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from lisabench.render import caption
from lisabench.render.cost_table import Records, block, cost_cells, labels, records_of, unit_for, workloads
from lisabench.render.curves import cut
from lisabench.render.tabular import Cell, Column, Heading, Table, figure, ranked
from lisabench.results import FLOOR, Run

if TYPE_CHECKING:
    from lisabench.analysis.growth import Crossing, Growth

COLUMNS = ("ratio.median", "ratio.ci_low", "ratio.ci_high")
EXACT = 0.005  # an interval of an exponent that its two decimals do not show
FITTED = ("latency", "memory")
COSTS = ("latency", "memory", "flops")
SHORT = {"latency": "latency", "memory": "memory", "flops": "FLOPs", "energy": "energy"}


@dataclass(frozen=True, kw_only=True)
class Laws:
    """What is fitted to a run."""

    growths: Sequence[Growth]
    crossings: Sequence[Crossing]

    @classmethod
    def of(cls, run: Run) -> Laws:
        """The laws over the tokens, and the crossovers with the baseline."""
        from lisabench.analysis.growth import crossings, growths

        return cls(growths=growths(run, axes=("tokens",)), crossings=crossings(run))

    def exponent(self, row: Mapping[str, Any], quantity: str) -> Cell:
        """The exponent of the curve that a record belongs to."""
        found = next((one for one in self.growths if one.quantity == quantity and _is_of(one, row)), None)
        law = found and found.law
        if not found or not law:
            return Cell()
        if not found.determined:
            return Cell(text="?")
        ends = (law.ci_low, law.ci_high) if law.ci_high - law.ci_low >= EXACT else (None, None)
        return figure(law.exponent, *ends, decimals=2)

    def crossover(self, row: Mapping[str, Any], quantity: str) -> Cell:
        """From how many tokens on it is cheaper than the baseline."""
        crossing = next((one for one in self.crossings if one.quantity == quantity and _is_of(one, row)), None)
        found = crossing and crossing.crossover
        if not crossing or not found:
            return Cell()
        if found.size is None:
            beyond = f"{'up to ' * (found.always == 'first')}≈{_rounded(crossing.extrapolated)}" if crossing.extrapolated else ""
            return Cell(text=beyond or {"first": "all", "second": "none", None: "equal"}[found.always])
        size, low, high = _rounded(found.size), _rounded(found.ci_low), _rounded(found.ci_high)
        if found.after == "second":
            return Cell(text=f"up to {size}")
        ends = ", ".join("–" if end is None else str(end) for end in (low, high))
        return Cell(text=str(size), value=size, low=low, high=high, interval=f"[{ends}]")

    def efficiency_length(self, row: Mapping[str, Any], quantity: str) -> Cell:
        """The same by a straight line and the baseline's parabola."""
        crossing = next((one for one in self.crossings if one.quantity == quantity and _is_of(one, row)), None)
        length = _rounded(crossing.efficiency_length) if crossing else None
        return Cell() if length is None else Cell(text=str(length), value=length)


def table(frame: pd.DataFrame, run: Run, laws: Laws) -> Table:
    """An operator a row: exponents, crossovers, costs and speed-up at the largest size that is fit for a comparison."""
    baseline = run.baseline if run.baseline in set(frame["op"]) else None
    at = common_size(frame, baseline)
    units = {quantity: unit_for(frame[frame["tokens"] == at], quantity) for quantity in COSTS}
    blocks = []
    for device, title, rows in workloads(frame):
        names, records = labels(rows), records_of(rows)
        columns = _columns(names, records, laws, baseline, at, {quantity: size for quantity, (_, size) in units.items()})
        blocks.append(block(title, names, columns, device=device))
    name = run.label(baseline) if baseline else None
    return Table(
        name="summary",
        caption=caption.sentences(caption.of_summary(frame, run.environments, baseline=name, at=at)),
        columns=tuple(_heads(name, at, {quantity: unit for quantity, (unit, _) in units.items()})),
        blocks=tuple(blocks),
        wide=True,
    )


def common_size(frame: pd.DataFrame, baseline: str | None) -> int | None:
    """The largest number of tokens that half of all operators have finished in every workload, the baseline among them; a device on
    which nothing has finished, as its node was lost, is not asked."""
    everywhere = []
    alive = frame.loc[frame["status"] == "ok", "device_name"]
    for _, rows in cut(frame[frame["device_name"].isin(alive)]):
        done = rows[rows["status"] == "ok"]
        counts = done.groupby("tokens")["label"].nunique()
        enough = set(counts.index[counts * 2 >= rows["label"].nunique()])
        everywhere.append(enough & set(done.loc[done["op"] == baseline, "tokens"]) if baseline else enough)
    return max((int(count) for count in set.intersection(*everywhere)), default=None) if everywhere else None


def _heads(baseline: str | None, at: int | None, units: Mapping[str, str]) -> list[Column]:
    growth = Heading(text="exponent")
    heads = [Column(head=Heading(text=SHORT[quantity]), over=growth) for quantity in FITTED]
    if baseline:
        cheaper = Heading(text=f"cheaper than {baseline} from")
        heads += [Column(head=Heading(text=SHORT[quantity]), over=cheaper) for quantity in FITTED]
    if at:
        costs = Heading(text=f"at {at} tokens")
        heads += [Column(head=Heading(text=SHORT[quantity], unit=units[quantity]), over=costs) for quantity in COSTS]
        heads += [Column(head=Heading(text="speed-up", unit="×"), over=costs)] if baseline else []
    return heads


def _columns(
    names: Sequence[str], records: Records, laws: Laws, baseline: str | None, at: int | None, sizes: Mapping[str, float]
) -> list[list[Cell]]:
    """The cells of each column, in the order of `_heads`."""
    any_of = {name: next(record for (label, _), record in records.items() if label == name) for name in names}
    columns = [[laws.exponent(any_of[name], quantity) for name in names] for quantity in FITTED]
    if baseline:
        columns += [[laws.crossover(any_of[name], quantity) for name in names] for quantity in FITTED]
    if at:
        columns += [cost_cells(names, records, at, quantity, sizes[quantity]) for quantity in COSTS]
    if at and baseline:
        found = [records.get((name, at)) for name in names]
        reference = next((record["latency_s.median"] for record in found if record and record["op"] == baseline), float("nan"))
        columns.append(ranked([_speed_up(record, reference, baseline) for record in found], candidates=[True] * len(found), highest=True))
    return columns


def _speed_up(record: Mapping[str, Any] | None, reference: float, baseline: str) -> Cell:
    """How many times as fast as the baseline; the floor, which does nothing, is not asked."""
    if record is None or record["status"] != "ok" or record["op"] in (baseline, FLOOR):
        return Cell()
    if record["ratio.median"] > 0:
        return figure(*(1 / record[f"ratio.{part}"] for part in ("median", "ci_high", "ci_low")))
    return figure(reference / record["latency_s.median"])


def _rounded(size: float | None) -> int | None:
    return None if size is None else int(float(f"{size:.3g}"))


def _is_of(found: Growth | Crossing, row: Mapping[str, Any]) -> bool:
    """Whether a record belongs to the curve that was fitted."""
    return found.label == row["label"] and all(row[name] == value for name, value in found.where.items() if name in row)
