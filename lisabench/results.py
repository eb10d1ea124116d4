"""Records as a table: one row a cell, a column for every field, nested fields with a dot (`latency_s.median`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from lisabench.errors import InputError, unknown
from lisabench.journal import Record, read_environments, read_plan, read_records

if TYPE_CHECKING:
    import pandas as pd

# Fixed fields of a workload; rows that agree in them are measured under equal conditions, but for the operator.
WORKLOAD = ("device", "scope", "mode", "dtype", "compiled", "dim", "heads", "batch", "height", "width", "tokens")
# What all points of a curve over tokens share.
CURVE = ("device", "scope", "mode", "dtype", "compiled", "dim", "heads", "batch")
# The operator that mixes nothing: what any other costs at the least, and so never the best of them.
FLOOR = "identity"
FIGURES = {
    "latency_s": ("median", "ci_low", "ci_high", "p05", "p95", "count", "seconds", "kind", "stopped_by"),
    "ratio": ("median", "ci_low", "ci_high", "rounds"),
    "memory_bytes": ("inputs", "parameters", "kept", "transient", "saved", "peak", "reserved", "cufft_plans", "process", "resident"),
    "flops": ("analytic", "fvcore", "torch", "coverage"),
    "roofline": ("flops_per_s", "bytes_per_s", "limit_s", "share", "bound", "peak_flops_per_s", "peak_bytes_per_s"),
}
KINDS, KIND_FIGURES = ("cold", "warm", "graph", "host"), ("median", "ci_low", "ci_high")
NAMES = ("label", "family", "device_name")
TEXTS = ("kind", "stopped_by", "bound")
COMMANDS = {"scale": "scale", "accuracy": "train-small"}  # which command writes a run of which kind


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A run as it was read from disk. Equal to itself alone, so that what was found out about it can be kept."""

    path: Path
    plan: dict[str, Any]
    records: list[Record]
    environments: dict[str, Any]

    @property
    def baseline(self) -> str | None:
        found: str | None = self.plan.get("baseline")
        return found

    @property
    def patch(self) -> int | None:
        """Pixels a side of a token, where a sweep was given resolutions."""
        found: int | None = self.plan.get("patch")
        return found

    def label(self, op: str) -> str:
        """The operator with the options that were given for it: 'lisa (engine=fft)'."""
        given = self.plan.get("operators", {}).get(op, {}).get("given", {})
        name = op.rpartition(":")[2] if ".py:" in op else op
        return f"{name} ({', '.join(f'{k}={v}' for k, v in given.items())})" if given else name

    def label_of(self, record: Record) -> str:
        """What the record's series is called: its operator's label; in joined runs with the run's name where it takes that."""
        found: str = record.get("label") or self.label(record["op"])
        return found

    def device_of(self, record: Record) -> str:
        """The device that the record was measured on, in words; that it was meant for where it never ran."""
        environment = self.environments.get(record["environment"] or "")
        return _device_words(environment, record["device"])

    def family(self, op: str) -> str:
        """What the operator is grouped by; "" for a user's own operator and in runs that do not state it."""
        found: str = self.plan.get("operators", {}).get(op, {}).get("family", "")
        return found

    def frame(self, *, fields: Collection[str] | None = None, known: pd.DataFrame | None = None) -> pd.DataFrame:
        """One row a record; see `table`."""
        ops = {record["op"] for record in self.records}
        labels, families = ({op: of(op) for op in ops} for of in (self.label, self.family))
        return table(self.records, labels=labels, families=families, environments=self.environments, fields=fields, known=known)


def read_run(path: Path, *, kind: str = "scale", trimmed: Callable[[Record], Record] = lambda record: record) -> Run:
    """Reads a run's folder; `trimmed` takes from each record, as it is read, what is not needed.

    Raises:
        InputError: there is no run, or it is one of another kind.
    """
    plan = read_plan(path)
    if plan.get("kind") != kind:
        raise InputError(
            f"{str(path)!r} was written by `lisabench {COMMANDS.get(plan.get('kind', ''), 'something else')}`; give a run of `lisabench {COMMANDS[kind]}`"
        )
    records = read_records(path, trimmed=trimmed)
    if not records:
        raise InputError(f"{str(path)!r} holds no records yet; go on with it by: lisabench {COMMANDS[kind]} --resume --out {path}")
    return Run(path=path, plan=plan, records=records, environments=read_environments(path))


def chosen(run: Run, wanted: Sequence[str]) -> Run:
    """The run with those of its records that have the values asked for, each `NAME=VALUE,VALUE` of a field such as batch or dtype.

    Raises:
        InputError: there is no such field, or no record has such values.
    """
    records = run.records
    for text in wanted:
        name, equals, values = text.partition("=")
        fields = sorted(name for name, value in run.records[0].items() if isinstance(value, (str, int)) and name not in ("schema", "cell"))
        if not equals or name not in fields:
            raise unknown("field in --where", name if equals else text, fields, more="; write NAME=VALUE,VALUE")
        there = {str(record[name]) for record in run.records}
        left = [record for record in records if str(record[name]) in values.split(",")]
        if not left:
            raise InputError(
                f"--where got {text!r}; {str(run.path)!r} has no such record among those chosen, of {name} it has: {', '.join(sorted(there)[:20])}"
            )
        records = left
    return replace(run, records=records)


def joined(runs: Sequence[Run]) -> Run:
    """Several runs of one kind as one, in the folder of the first: every record with its `run` and `label`.

    Runs on different devices keep their labels. Where one label stands for measurements of two runs at the same workload on devices of
    one name, the run's name is added to it, or its whole path where names are alike. `environments` are those of all. The baseline and
    the size of a patch are those that all have.
    """
    if len(runs) == 1:
        return runs[0]
    names = [run.path.name for run in runs]
    names = names if len(set(names)) == len(names) else [str(run.path) for run in runs]
    claimed: dict[tuple[Any, ...], str] = {}
    clashing: set[str] = set()
    for run, name in zip(runs, names, strict=True):
        for record in run.records:
            at = (run.label_of(record), run.device_of(record), *(record[field] for field in WORKLOAD))
            if claimed.setdefault(at, name) != name:
                clashing.add(at[0])
    records = [
        record | {"run": name, "label": f"{label}, {name}" if (label := run.label_of(record)) in clashing else label}
        for run, name in zip(runs, names, strict=True)
        for record in run.records
    ]
    operators = {op: stated for run in reversed(runs) for op, stated in run.plan["operators"].items()}
    baselines = {run.baseline for run in runs}
    patches = {run.patch for run in runs}
    plan = runs[0].plan | {"operators": operators, "baseline": baselines.pop() if len(baselines) == 1 else None}
    plan |= {"patch": patches.pop() if len(patches) == 1 else None}
    environments = {key: environment for run in runs for key, environment in run.environments.items()}
    return Run(path=runs[0].path, plan=plan, records=records, environments=environments)


def table(
    records: Sequence[Record],
    *,
    labels: Mapping[str, str] | None = None,
    families: Mapping[str, str] | None = None,
    environments: Mapping[str, Any] | None = None,
    fields: Collection[str] | None = None,
    known: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """A row a record. Figures that are absent are NaN; options and conditions are JSON text; raw samples stay in the records.

    Where but few columns are needed, `fields` names those of the record that become columns, beside label, family and the device's name;
    `known` is a table of the same records, whose columns are taken as they are.
    """
    import pandas as pd

    made = {} if known is None else {name: known[name].array for name in known}
    columns = {name: made[name] for name in NAMES} if made else _names(records, labels or {}, families or {}, environments or {})
    for name in dict.fromkeys(name for record in records for name in record):
        if name in made:
            columns[name] = made[name]
        elif fields is None or name in fields:
            columns |= _columns(name, [record.get(name) for record in records], records)
    for group, parts in FIGURES.items() if fields is None else ():
        columns |= {f"{group}.{part}": [None] * len(records) for part in parts if f"{group}.{part}" not in columns}
    return pd.DataFrame({name: _array(name, values) for name, values in columns.items()})


def _names(
    records: Sequence[Record], labels: Mapping[str, str], families: Mapping[str, str], environments: Mapping[str, Any]
) -> dict[str, list[str]]:
    """What the records' operators and devices are called."""
    pairs = dict.fromkeys((r["environment"], r["device"]) for r in records if r["environment"])
    words = {pair: _device_words(environments.get(pair[0]), pair[1]) for pair in pairs}
    # A cell that never ran has no environment: it was meant for the device of the others.
    meant = {device: name for (_, device), name in words.items()}
    columns: tuple[list[Any], ...] = (
        [r.get("label") or labels.get(r["op"], r["op"]) for r in records],
        [families.get(r["op"], "") for r in records],
        [words.get((r["environment"], r["device"])) or meant.get(r["device"], r["device"]) for r in records],
    )
    return dict(zip(NAMES, columns, strict=True))


_NUMBERS = {f"{group}.{part}" for group, parts in FIGURES.items() for part in parts if part not in TEXTS}


def _array(name: str, values: Any) -> Any:
    """A column's values as pandas takes them in soonest: of a list of texts it makes an array of fixed width first."""
    if name in _NUMBERS:
        return _numbers(values)
    return np.array(values, dtype=object) if isinstance(values, list) and str in {*map(type, values)} else values


def _numbers(values: Sequence[Any]) -> NDArray[Any]:
    """Whole numbers as they are, where none is absent; else floats, NaN for what is absent."""
    return np.array(values, dtype=int if {*map(type, values)} == {int} else float)


def _columns(name: str, values: Sequence[Any], records: Sequence[Record]) -> dict[str, Any]:
    """The columns of a field, by their names."""
    if name == "label":
        return {}
    if name in FIGURES:
        found: dict[str, Any] = {f"{name}.{part}": [value and value.get(part) for value in values] for part in FIGURES[name]}
        if name == "latency_s":
            found["latency_s.warnings"] = ["; ".join(value.get("warnings", ())) if value else "" for value in values]
        return found
    if name == "latency_kinds_s":
        if not any(values):
            return {}
        kinds = {kind: [value and value[kind] for value in values] for kind in KINDS}
        return {
            f"{name}.{kind}.{part}": _numbers([value and value.get(part) for value in of])
            for kind, of in kinds.items()
            for part in KIND_FIGURES
        }
    if name == "energy_j":
        tokens = [record["batch"] * record["tokens"] for record in records]
        return {name: values, "energy_j_per_token": [v if v is None else v / each for v, each in zip(values, tokens, strict=True)]}
    if {dict, list} & {*map(type, values)}:
        texts: dict[int, Any] = {}  # records have equal parts in common: one text for all of them
        for value in values:
            if id(value) not in texts:
                texts[id(value)] = _json(value) if isinstance(value, (dict, list)) else value
        return {name: [texts[id(value)] for value in values]}
    return {name: values}


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _device_words(environment: Mapping[str, Any] | None, device: str) -> str:
    """'AMD EPYC, 2 threads' or the GPU's name; the bare device where its environment is not known."""
    if not environment:
        return device
    threads = environment.get("cpu", {}).get("threads")
    name = str(environment["device_name"])
    return f"{name}, {threads} thread{'s' if threads != 1 else ''}" if device == "cpu" else name
