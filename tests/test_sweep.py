from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from lisabench import registry
from lisabench.axes import grids, numbers, presets, resolve_operators
from lisabench.errors import InputError
from lisabench.plans import Visits
from lisabench.presets import PRESETS, Shape
from lisabench.sweep import Sweep, check
from lisabench.workload import Grid


def sweep(*ops: str, tokens: str = "16,64", **axes: Any) -> Sweep:
    resolved = resolve_operators(ops or ["linear"], None, [])
    shapes = tuple(Shape(grid=grid, dim=32, heads=2) for grid in grids(tokens, None, 16))
    return Sweep(ops=tuple(resolved), shapes=shapes, **axes)


@pytest.mark.parametrize(
    ("text", "found"),
    [("5", [5]), ("1,2,8", [1, 2, 8]), ("256..2048", [256, 512, 1024, 2048]), ("3..20", [3, 6, 12]), ("1,1..4,2", [1, 2, 4])],
)
def test_numbers(text: str, found: list[int]) -> None:
    assert numbers(text, "--tokens") == found


@pytest.mark.parametrize("text", ["", "a", "0", "-4", "1,,2", "8..2", "1.5", "1..x", "..", "1e3", "10000000000000000000000000057"])
def test_numbers_refuse(text: str) -> None:
    with pytest.raises(InputError, match="--tokens got"):
        numbers(text, "--tokens")


def test_grids() -> None:
    assert grids(None, "224,384x640", 16) == [Grid(14, 14), Grid(24, 40)]
    assert grids(None, "64..256", 32) == [Grid(2, 2), Grid(4, 4), Grid(8, 8)]
    assert grids("13,512", None, 16) == [Grid(1, 13), Grid(16, 32)]


@pytest.mark.parametrize("text", ["225", "1x2x3", "x224", "224x", "0x16", "wide"])
def test_resolutions_refuse(text: str) -> None:
    with pytest.raises(InputError, match="--resolution"):
        grids(None, text, 16)


def test_presets_state_their_source_and_are_valid() -> None:
    for name, preset in PRESETS.items():
        assert preset.source
        for shape in presets(name):
            assert shape.dim % shape.heads == 0
    assert len(presets("swin-t")) == 4
    assert presets("sam-b")[0].grid == Grid(64, 64)
    with pytest.raises(InputError, match="deit-t"):
        presets("deit-tiny")


def test_cells_run_from_small_to_large_with_operators_interleaved() -> None:
    cells = sweep("linear,softmax", tokens="64,16,256", batches=(2, 1), modes=("forward", "train")).cells()
    sizes = [cell.workload.batch * cell.workload.tokens for cell in cells]
    assert sizes == sorted(sizes)
    assert len(cells) == 24
    for first, second in zip(cells[::2], cells[1::2], strict=True):
        assert first.workload == second.workload
        assert {first.op, second.op} == {"linear", "softmax"}


def test_order_is_seeded() -> None:
    ops = ["linear,softmax,performer,lisa"]
    orders = [[cell.op for cell in sweep(*ops, tokens="16,32,64,128", seed=seed).cells()] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_keys_are_content() -> None:
    cells = sweep(tokens="16,64", batches=(1, 2)).cells()
    assert len({cell.key for cell in cells}) == 4
    assert [cell.key for cell in cells] == [cell.key for cell in sweep(tokens="16,64", batches=(1, 2)).cells()]
    other = sweep(tokens="16,64", batches=(1, 2), dtypes=("bf16",)).cells()
    assert not {cell.key for cell in cells} & {cell.key for cell in other}


def test_a_key_is_the_hash_of_its_content() -> None:
    for cell in sweep("lisa,linear", batches=(1, 2), modes=("train",), dtypes=("bf16", "fp64"), compiled=True).cells():
        stated = {"op": cell.op, "options": cell.options, "digest": None} | cell.workload.record_fields()
        assert cell.key == hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()[:16]


def test_the_next_visit_with_a_cell_that_is_not_known() -> None:
    of = sweep("lisa,linear", batches=(1, 2), modes=("forward", "train"), kinds=("a", "b"))
    cells = of.cells()
    assert len({cell.key for cell in cells}) == of.count == 32
    known = {cell.key for cell in cells[: len(cells) // 2]}
    for begin in range(len(of) + 1):
        missing = [place for place in range(begin, len(of)) if any(cell.key not in known for cell in of.visit(place))]
        assert of.next_missing(begin, known) == (missing or [len(of)])[0]
        assert Visits([of, of]).next_missing(len(of) + begin, known) == len(of) + of.next_missing(begin, known)
    assert of.next_missing(0, {cell.key for cell in cells}) == len(of)
    assert of.next_missing(0, {cell.key for cell in cells[1:]}) == 0


def test_shares_part_the_plan_evenly() -> None:
    whole = sweep("linear,softmax", tokens="16..1024", batches=(1, 2, 4))
    parts = [sweep("linear,softmax", tokens="16..1024", batches=(1, 2, 4), share=(part, 4)) for part in range(1, 5)]
    keys = [{cell.key for cell in part.cells()} for part in parts]
    assert sum(map(len, keys)) == whole.count
    assert set().union(*keys) == {cell.key for cell in whole.cells()}
    assert max(map(len, keys)) - min(map(len, keys)) <= 2
    largest = [visit[0].key for visit in list(whole.visits())[-4:]]
    assert [sum(key in part for part in keys) for key in largest] == [1] * 4
    assert [sum(key in part for key in largest) for part in keys] == [1] * 4


def test_options_go_to_every_operator_that_has_them() -> None:
    found = dict(resolve_operators(["lisa,performer"], "softmax", ["key_dim=16", "lisa.engine=fft", "features=8"]))
    assert dict(resolve_operators(["lisa"], "softmax", ["softmax.key_dim=16"]))["softmax"] == {"key_dim": 16}
    assert found["lisa"] == {"patterns": 4, "key_dim": 16, "boundary": "zero", "engine": "fft", "norm": True}
    assert found["performer"] == {"features": 8, "key_dim": 16}
    assert found["softmax"] == {"key_dim": None}  # the baseline was not named: it stays as it is


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("colour=red", "unknown option .*lisa.patterns"),
        ("lisa.colour=red", "unknown option"),
        ("performer.features=8", "unknown operator in --op-option"),
        ("patterns", "NAME=VALUE"),
        ("patterns=many", "valid is int"),
        ("key_dim=half", "int | None"),
    ],
)
def test_options_refuse(assignment: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        resolve_operators(["lisa"], None, [assignment])


@pytest.mark.parametrize("assignment", ["lisa.engine=magic", "lisa.boundary=wrap", "lisa.patterns=0", "lisa.key_dim=-1"])
def test_option_values_are_checked_before_anything_runs(assignment: str) -> None:
    ops = resolve_operators(["lisa"], None, [assignment])
    with pytest.raises(InputError, match=r"operator lisa: .* got"):
        check(Sweep(ops=tuple(ops), shapes=(Shape(grid=Grid(4, 4), dim=32, heads=2),)))


def test_a_file_is_known_by_its_content(own_operators: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "copy.py"
    copy.write_text(own_operators.read_text())
    keys = []
    for path in (own_operators, copy):
        (op,) = resolve_operators([f"{path}:Plain"], None, [])
        digests = {op[0]: registry.digest(op[0])}
        keys.append(Sweep(ops=(op,), shapes=(Shape(grid=Grid(4, 4), dim=32, heads=2),), digests=digests).cells()[0].key)
    assert keys[0] == keys[1]


def test_none_is_a_value() -> None:
    assert dict(resolve_operators(["lisa"], None, ["key_dim=none"]))["lisa"]["key_dim"] is None


def test_check_refuses_dims_and_huge_plans() -> None:
    with pytest.raises(InputError, match="--dim 33 is not a multiple of --heads 2"):
        check(Sweep(ops=(("linear", {"key_dim": None}),), shapes=(Shape(grid=Grid(4, 4), dim=33, heads=2),)))
    with pytest.raises(InputError, match="cells"):
        check(sweep(batches=tuple(range(1, 6_000_000))))


def test_all_means_every_operator() -> None:
    names = [name for name, _ in resolve_operators(["all"], "softmax", [])]
    assert len(names) == len(set(names)) >= 5


def test_a_shape_that_an_operator_refuses_is_data_unless_its_options_were_set() -> None:
    shapes = (Shape(grid=Grid(4, 4), dim=30, heads=2),)
    check(Sweep(ops=tuple(resolve_operators(["afno,linear"], None, [])), shapes=shapes))
    with pytest.raises(InputError, match="num_blocks got 7"):
        check(Sweep(ops=tuple(resolve_operators(["afno,linear"], None, ["num_blocks=7"])), shapes=shapes))
