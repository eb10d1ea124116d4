"""Records as a table: one row a cell, a column for every field, nested fields with a dot (`latency_s.median`)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from lisabench.errors import InputError, unknown
from lisabench.journal import Record, read_environments, read_plan, read_records
from lisabench.provenance import device_kind

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
WHERE = ("host", "device_kind", "device_id")  # which of the machines and devices of a fleet; runs of older versions do not tell
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
        """The kind of device that the record was measured on, in words; that it was meant for where it never ran."""
        key = _device_key(record)
        return self._devices.get(key) or _devices([record], self.environments)[key]

    @functools.cached_property
    def _devices(self) -> dict[tuple[Any, ...], str]:
        return _devices(self.records, self.environments)

    @property
    def devices(self) -> list[str]:
        """The kinds of devices of its records, in words."""
        return sorted({*self._devices.values()})

    def by_device(self) -> dict[str, Run]:
        """The records of each kind of device as a run of their own; the run itself where there is but one kind."""
        found = {name: list[Record]() for name in self.devices}
        for record in self.records:
            found[self.device_of(record)].append(record)
        return {name: replace(self, records=of) for name, of in found.items()} if len(found) > 1 else dict.fromkeys(found, self)

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
    """The run with those of its records that have the values asked for, each `NAME=VALUE,VALUE` of a field such as batch or dtype;
    `device_kind` is the device in words, of any run.

    Raises:
        InputError: there is no such field, or no record has such values.
    """
    records = run.records
    first = next((record for record in records if record["environment"]), records[0])  # what never ran tells less
    fields = {"device_kind", *(name for name, value in first.items() if isinstance(value, (str, int)))} - {"schema", "cell"}
    for text in wanted:
        name, equals, values = text.partition("=")
        if not equals or name not in fields:
            raise unknown("field in --where", name if equals else text, sorted(fields), more="; write NAME=VALUE,VALUE")
        said: Callable[[Record], Any] = run.device_of if name == "device_kind" else methodcaller("get", name)
        there = {str(said(record)) for record in run.records}
        asked = _parts(values, there)
        left = [record for record in records if str(said(record)) in asked]
        if not left:
            raise InputError(
                f"--where got {text!r}; {str(run.path)!r} has no such record among those chosen, of {name} it has: {', '.join(sorted(there)[:20])}"
            )
        records = left
    return replace(run, records=records)


def _parts(text: str, known: Collection[str]) -> set[str]:
    """What a comma list names. What is known may hold commas itself ("AMD EPYC, 2 threads"): the longest that fits is meant."""
    if not text:
        return set()
    part = max((name for name in known if f"{text},".startswith(f"{name},")), key=len, default=text.partition(",")[0])
    return {part} | _parts(text[len(part) + 1 :], known)


def joined(runs: Sequence[Run]) -> Run:
    """Several runs of one kind as one, in the folder of the first: every record with its `run`, `label` and `device_kind`.

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
        record
        | {"run": name, "label": f"{label}, {name}" if (label := run.label_of(record)) in clashing else label}
        | {"device_kind": run.device_of(record)}
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
    if fields is None:
        expected = [*WHERE, *(f"{group}.{part}" for group, parts in FIGURES.items() for part in parts)]
        columns |= {name: [None] * len(records) for name in expected if name not in columns}
    return pd.DataFrame({name: _array(name, values) for name, values in columns.items()})


def _names(
    records: Sequence[Record], labels: Mapping[str, str], families: Mapping[str, str], environments: Mapping[str, Any]
) -> dict[str, list[str]]:
    """What the records' operators and devices are called."""
    devices = _devices(records, environments)
    return {
        "label": [r.get("label") or labels.get(r["op"], r["op"]) for r in records],
        "family": [families.get(r["op"], "") for r in records],
        "device_name": [devices[_device_key(r)] for r in records],
    }


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


def _device_key(record: Record) -> tuple[Any, ...]:
    return record.get("device_kind"), record["environment"], record["device"]


def _devices(records: Sequence[Record], environments: Mapping[str, Any]) -> dict[tuple[Any, ...], str]:
    """What the kinds of devices of these records are called: as they say it themselves, else as their environments do."""
    keys = dict.fromkeys(map(_device_key, records))
    words = {key: key[0] or _device_words(environments.get(key[1] or ""), key[2]) for key in keys if key[0] or key[1]}
    # A cell that never ran, in a run that does not say what for, was meant for the device of the others.
    meant = {device: name for (_, _, device), name in words.items()}
    return {key: words.get(key) or meant.get(key[2], key[2]) for key in keys}


def _device_words(environment: Mapping[str, Any] | None, device: str) -> str:
    """The device in words; the bare device where its environment is not known."""
    return device_kind({"device": device} | dict(environment)) if environment else device
