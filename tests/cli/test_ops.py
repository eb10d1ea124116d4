"""`lisabench ops` as its users meet it."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import only_error
from rich.console import Console

from lisabench import registry
from lisabench.cli import console
from lisabench.cli.ops import describe, ops, page, place
from lisabench.contract import FAMILIES

Run = Callable[..., subprocess.CompletedProcess[str]]
FIELDS = {"name", "title", "family", "formula", "source", "time_order", "memory_order", "grid_parameters", "parameters", "parameters_at"}
FIELDS |= {"options", "symmetries", "needs", "reference", "cost", "caveat", "origin", "docstring", "absent"}


def test_json_has_all_fields_of_all_operators_by_family(lisabench: Run) -> None:
    listed = [json.loads(line) for line in lisabench("ops", "--json").stdout.splitlines()]
    ours = [operator for operator in listed if operator["origin"] == "built in"]
    assert sorted(operator["name"] for operator in ours) == list(registry.built_in())
    assert all(set(operator) == FIELDS for operator in listed)
    assert all(operator["source"] and operator["docstring"] and not operator["absent"] for operator in ours)
    families = [FAMILIES.index(operator["family"]) for operator in ours]
    assert families == sorted(families)
    found = {operator["name"]: operator for operator in ours}
    assert found["linear"]["parameters"] == 4 * (192 * 192 + 192)
    assert found["lisa"]["parameters"] == 4 * (192 * 192 + 192) + 2 * 4 * 27 * 27 * 3 + 2 * 192
    assert found["lisa"]["options"]["key_dim"] == {"type": "int | None", "default": None}
    assert found["softmax"]["symmetries"] == ["permutation"]


def printed(width: int, monkeypatch: pytest.MonkeyPatch, name: str | None = None) -> str:
    """What a terminal of that width shows."""
    screen = Console(width=width, file=io.StringIO(), record=True)
    monkeypatch.setattr(console, "results", lambda: screen)
    ops(name, False, False)
    return screen.export_text()


@pytest.mark.parametrize("width", [60, 110, 200])
def test_the_table_stands_by_family_and_fits(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(width, monkeypatch)
    rows = [line.rstrip() for line in text.splitlines()]
    assert max(map(len, rows)) <= width
    headings = [row for row in rows if row in FAMILIES]
    assert headings == sorted(headings, key=FAMILIES.index)
    assert {"quadratic", "structure-aware", "kernel"} <= set(headings)
    first = [row.split()[0] for row in rows if row.strip()]
    assert set(registry.built_in()) <= set(first)
    assert first.index("softmax") < first.index("structure-aware") < first.index("lisa") < first.index("kernel") < first.index("linear")
    assert ("Katharopoulos" in text) is (width == 200)
    assert ("phi = elu" in text) is (width > 60)
    assert ("left out on" in text) is (width < 200)


def test_one_in_full(lisabench: Run) -> None:
    one = lisabench("ops", "lisa").stdout
    told = {line[:12].strip(): line[14:].strip() for line in one.splitlines()}
    assert told["family"] == "structure-aware"
    assert told["parameters"].startswith("166,104 at dim 192, 3 heads, 14 x 14")
    assert told["by the grid"] == "2 R (2H-1)(2W-1) h"
    assert told["options"] == "patterns=4  (int)"
    assert told["reference"] == "float64, dense"
    assert "key_dim=none  (int | None)" in one
    assert "reconstruct" in told["caveat"]
    assert "kappa[i,j]" in one, "the docstring"


def test_one_in_full_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(60, monkeypatch, "lisa")
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 60
    assert "…" not in text


def test_an_own_module_says_what_it_does_not_state(lisabench: Run, own_operators: Path) -> None:
    done = lisabench("ops", "own.py:Plain")
    assert done.returncode == 0, done.stderr
    told = {line[:12].strip(): line[14:].strip() for line in done.stdout.splitlines()}
    assert told["title"] == "One linear layer."
    assert told["parameters"].startswith(f"{192 * 192 + 192:,} ")
    assert told["options"] == "scale=1.0  (float)"
    assert {told[name] for name in ("family", "formula", "time", "memory", "reference", "FLOPs, bytes")} == {"not stated"}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise RuntimeError('no such luck\\nsecond line')", "RuntimeError: no such luck"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("print('chatter')\n        super().__init__()\n        int('x')", "ValueError: invalid literal"),
    ],
)
def test_a_constructor_that_fails_leaves_the_rest(body: str, told: str, lisabench: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        f"from torch import nn\nclass Bad(nn.Module):\n    'Breaks.'\n    def __init__(self, dim, num_heads, grid):\n        {body}\n"
    )
    done = lisabench("ops", "bad.py:Bad", "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["parameters"] is None
    assert found["absent"]["parameters"].startswith(told)
    shown = lisabench("ops", "bad.py:Bad")
    assert f"not known: {told}" in shown.stdout
    assert "second line" not in shown.stdout


def test_parameters_of_a_shape_that_is_refused() -> None:
    from dataclasses import replace

    found = describe(replace(registry.load("linear"), refuses=lambda workload, **options: "no such grid"))
    assert found["parameters"] is None
    assert "refused: no such grid" in found["absent"]["parameters"]


def test_families_of_others_come_after_ours() -> None:
    names = ["", "zebra", "kernel", "mine", "quadratic"]
    assert sorted(names, key=place) == ["quadratic", "kernel", "mine", "zebra", ""]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["lisaa"], "did you mean 'lisa'"),
        (["nowhere.py:Mixer"], "is not there"),
        (["--markdown", "lisa"], "leave out --json and NAME"),
        (["--markdown", "--json"], "leave out --json and NAME"),
    ],
)
def test_ops_refuses(args: list[str], words: str, lisabench: Run) -> None:
    done = lisabench("ops", *args)
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in only_error(done)


def test_markdown_is_the_page(lisabench: Run) -> None:
    done = lisabench("ops", "--markdown")
    assert done.returncode == 0
    assert done.stdout == page()
    for name in registry.built_in():
        assert f"[`{name}`](#{name})" in done.stdout
        assert f"\n### {name}\n" in done.stdout
    tables = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert all(line.replace("\\|", "").count("|") in (4, 7) for line in tables), "a bar that is no end of a cell is escaped"
