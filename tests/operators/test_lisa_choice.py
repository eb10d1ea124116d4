"""LiSA's choice of an engine: by the user's table where it holds, else by the built-in one, and never one that takes too much memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from lisabench import registry
from lisabench.operators import _lisa_choice as choice
from lisabench.operators._lisa_choice import MODES, Shape, Table, choose, chosen_by, predicted, read, seconds_by, written
from lisabench.operators._lisa_features import MOST_MATRIX_BYTES, features, matrix_bytes
from lisabench.workload import Grid

ENGINES = ("dense", "mixed", "fft")
ANY = Shape(Grid(14, 14), "zero", 1, 3, 4, 64, 64, 4)
HERE: dict[str, Any] = {"device": "cpu", "threads": 1, "machine": choice.machine("cpu"), "torch": torch.__version__, "date": "2020-02-02"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the user's tables stand in this test, on one thread."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("LISABENCH_TUNED", raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    choice.forget()
    (tmp_path / "lisabench").mkdir()
    yield tmp_path / "lisabench" / "lisa_engines.json"
    torch.set_num_threads(threads)
    choice.forget()


def winning(engine: str) -> dict[str, dict[str, dict[str, float]]]:
    """Coefficients by which this engine takes a second everywhere and the others two."""
    return {
        mode: {name: dict.fromkeys(features(name, ANY, mode, "cpu"), 0.0) | {"calls": 2.0 - (name == engine)} for name in ENGINES}
        for mode in MODES
    }


def here(engine: str = "fft") -> Table:
    """A table of this machine on one thread, by which this engine always wins."""
    return Table(**HERE, coefficients=winning(engine))


def chosen(shape: Shape = ANY, *, trained: bool = False, prepared: bool = False) -> str:
    """The choice after the tables as they stand now."""
    choice.forget()
    return choose(shape, device="cpu", trained=trained, prepared=prepared)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_users_table_is_followed(engine: str, cache: Path) -> None:
    cache.write_bytes(written([here(engine)]))
    assert {chosen(trained=trained, prepared=prepared) for trained in (False, True) for prepared in (False, True)} == {engine}
    assert chosen_by("cpu").startswith("tuned 2020-02-02, ")
    assert predicted(ANY, device="cpu", trained=True, prepared=False) == {name: 2.0 - (name == engine) for name in ENGINES}


def test_an_engine_that_does_not_run_here_is_not_taken_whatever_a_table_says(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    coefficients = {
        mode: engines | {"triton": dict.fromkeys(features("triton", ANY, mode, "cpu"), 0.0)} for mode, engines in winning("mixed").items()
    }
    cache.write_bytes(written([here()._replace(coefficients=coefficients)]))
    choice.forget()
    assert choose(ANY, device="cpu", trained=False, prepared=False) == "triton"
    choose_engine = import_module(f"{registry.PACKAGE}.lisa").choose_engine
    assert choose_engine(ANY) == choose_engine(ANY, trained=True) == "mixed"


def test_modes_are_chosen_for_apart(cache: Path) -> None:
    mixture = {mode: winning(engine)[mode] for mode, engine in zip(MODES, ENGINES, strict=True)}
    cache.write_bytes(written([here()._replace(coefficients=mixture)]))
    assert (chosen(prepared=True), chosen(), chosen(trained=True)) == ENGINES


def test_one_thread_and_several_have_tables_of_their_own(cache: Path) -> None:
    cache.write_bytes(written([here("fft"), here("mixed")._replace(threads=8)]))
    assert chosen() == "fft"
    torch.set_num_threads(2)
    assert chosen() == "mixed"
    assert "8 threads" in chosen_by("cpu")
    assert "1 thread," in chosen_by("cpu", 1)


def test_it_can_be_ignored(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built_in = chosen()
    other = next(engine for engine in ENGINES if engine != built_in)
    cache.write_bytes(written([here(other)]))
    assert chosen() == other
    monkeypatch.setenv("LISABENCH_TUNED", "0")
    assert chosen() == built_in
    assert chosen_by("cpu").startswith("built-in table of ")


def broken(**changes: Any) -> bytes:
    """A file with a table of this machine that differs in these entries."""
    return json.dumps({"schema": choice.SCHEMA, "tables": [here()._asdict() | changes]}).encode()


def with_coefficient(value: Any, name: str = "calls") -> bytes:
    coefficients = winning("fft")
    coefficients["train"]["mixed"][name] = value
    return broken(coefficients=coefficients)


DAMAGED = {
    "empty": b"",
    "torn": written([here()])[:200],
    "a list": b"[]",
    "no text": b"\xff\xfe",
    "newer": written([here()]).replace(b'"schema": 1', b'"schema": 2'),
    "tables are a number": b'{"schema": 1, "tables": 3}',
    "a table is a number": b'{"schema": 1, "tables": [3]}',
    "another machine": broken(machine="another"),
    "another torch": broken(torch="1.0"),
    "a device that is none": broken(device=["cpu"]),
    "threads in words": broken(threads="one"),
    "more entries": broken(owner="me"),
    "no coefficients": broken(coefficients=3),
    "no modes": broken(coefficients={}),
    "a mode less": broken(coefficients={mode: winning("fft")[mode] for mode in MODES[1:]}),
    "no engines": broken(coefficients=winning("fft") | {"train": {}}),
    "a feature more": with_coefficient(1.0, "luck"),
    **{f"coefficient {value}": with_coefficient(value) for value in (-1.0, float("nan"), float("inf"), True, None, "1.0")},
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_table_that_does_not_hold_is_as_none(content: bytes, cache: Path) -> None:
    wanted = chosen(), chosen_by("cpu")
    cache.write_bytes(content)
    assert (chosen(), chosen_by("cpu")) == wanted
    assert wanted[1].startswith("built-in")


def test_a_sound_table_behind_a_foreign_one_is_found(cache: Path) -> None:
    cache.write_bytes(written([here("mixed")._replace(machine="another"), here("fft")]))
    assert chosen() == "fft"
    assert [table.machine for table in read(cache)] == ["another", choice.machine("cpu")]


def test_the_built_in_tables_are_sound_and_name_engines_that_there_are() -> None:
    tables = read(choice.BUILT_IN)
    assert {"cpu, one thread", "cpu, several threads"} <= {table.kind for table in tables}
    there = import_module(f"{registry.PACKAGE}.lisa").ENGINES
    for table in tables:
        for mode in MODES:
            assert set(table.coefficients[mode]) <= set(there)
            few, many = (seconds_by(table.coefficients, ANY._replace(grid=Grid(side, side)), mode, table.device) for side in (6, 64))
            assert min(few, key=few.__getitem__) == "dense"
            assert min(many, key=many.__getitem__) != "dense"


@pytest.mark.usefixtures("cache")
def test_a_device_without_a_table_goes_by_the_rule(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(choice, "BUILT_IN", tmp_path / "none.json")
    for device in ("cpu", "cuda", "cuda:1"):
        few, many = (choose(ANY._replace(grid=Grid(20, side)), device=device, trained=False, prepared=False) for side in (20, 21))
        assert (few, many) == ("dense", "fft")
        assert predicted(ANY, device=device, trained=False, prepared=False) == {}
        assert chosen_by(device) == "no table: dense up to 400 tokens, else fft"


def test_what_takes_too_much_memory_is_not_taken(cache: Path) -> None:
    cache.write_bytes(written([here("dense")]))
    shapes = [ANY._replace(grid=Grid(side, side), batch=batch) for side in (14, 64, 128, 256, 400) for batch in (1, 64)]
    fit = [matrix_bytes("dense", shape, "cpu") <= MOST_MATRIX_BYTES for shape in shapes]
    assert (fit[0], fit[-1]) == (True, False)
    assert [chosen(shape) == "dense" for shape in shapes] == fit
    cache.write_bytes(written([here("mixed")]))
    assert chosen(ANY._replace(grid=Grid(100, 100))) == "mixed"
    assert chosen(ANY._replace(grid=Grid(1, 10_000))) != "mixed"  # a matrix of waves that is N x N


def test_an_engine_that_cannot_be_taken_is_not(cache: Path) -> None:
    cache.write_bytes(written([here("mixed")]))
    choice.forget()
    assert choose(ANY, device="cpu", trained=False, prepared=False, engines=("dense", "mixed")) == "mixed"
    assert choose(ANY, device="cpu", trained=False, prepared=False, engines=("dense",)) == "dense"


BY_TILE = ("tiles", "samples", "far_kernel_bytes", "far_weight_bytes", "table_bytes")  # of `dense`: tiles must divide a side


@pytest.mark.parametrize("engine", [*ENGINES, "triton", "another"])
@pytest.mark.parametrize("axis", ["height", "width", "batch", "heads", "patterns", "key_dim", "value_dim", "item_bytes"])
def test_more_work_is_never_told_as_less(engine: str, axis: str) -> None:
    shape = Shape(Grid(5, 5), "zero", 2, 2, 2, 8, 8, 4)
    before = features(engine, shape, "train", "cpu")
    for value in range(8, 70):
        grid = shape.grid._replace(**{axis: value}) if axis in Grid._fields else shape.grid
        now = features(engine, shape._replace(grid=grid, **({} if axis in Grid._fields else {axis: value})), "train", "cpu")
        assert now.keys() == before.keys()
        assert all(now[name] >= before[name] for name in now if name not in BY_TILE), (value, before, now)
        before = now
    assert before != features(engine, shape, "train", "cpu")


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_kept_is_not_made(engine: str) -> None:
    kept, made = (features(engine, ANY, mode, "cpu") for mode in ("kept", "forward"))
    of_tables = {name for name in made if name.startswith("table")}
    assert of_tables
    assert {name: kept[name] for name in of_tables} == dict.fromkeys(of_tables, 0.0)
    assert all(made[name] > 0 for name in of_tables)
