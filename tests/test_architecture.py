"""Who may import whom, and what a command costs before it does anything."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
LAYERS = [
    {"cli"},
    {"run", "train", "render", "laws", "cost_laws"},
    {"bundle", "merging", "merging_join", "merging_plan", "merging_sources"},
    {"analysis", "sweep", "plans", "axes", "journal", "provenance", "results", "measure"},
    {"records"},
    {"registry"},
    {"contract", "law", "presets", "workload"},
    {"files"},
    {"errors", "units"},
]
# `measure` takes the interval of a median from `analysis`, and `render` what it draws: the same line or below.
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FILES = sorted((TOP / "lisabench").rglob("*.py"))
OPERATORS = sorted((TOP / "operators").glob("*.py"))


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """The modules that a file imports; with `top_level_only` those that importing the file imports."""
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    if top_level_only:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (
                isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            ):
                skipped.update(set(ast.walk(node)) - {node})
    found = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part(module: str) -> str | None:
    names = module.split(".")
    return names[1] if names[0] == "lisabench" and len(names) > 1 and names[1] in RANK else None


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(TOP)))
def test_imports_run_one_way(path: Path) -> None:
    own = part(".".join(path.relative_to(TOP).with_suffix("").parts))
    if own is None:
        return
    for module in imports(path):
        other = part(module)
        if other is not None and other != own:
            assert RANK[other] >= RANK[own], f"{own} imports {other}"
            assert other != "cli"


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name in ("render", "analysis")], ids=lambda p: p.stem)
def test_render_and_analysis_do_without_torch(path: Path) -> None:
    assert not {module for module in imports(path) if module.split(".")[0] == "torch"}


@pytest.mark.parametrize("path", OPERATORS, ids=lambda p: p.stem)
def test_operators_know_the_contract_and_torch_only(path: Path) -> None:
    for module in imports(path):
        if module.split(".")[0] in ("lisabench", "torch"):
            assert module.startswith(("torch", "lisabench.contract", "lisabench.operators._")), module
        else:
            kernels = path.stem == "_lisa_triton_kernels"  # imported where they run
            assert module.split(".")[0] in sys.stdlib_module_names or (kernels and module.startswith("triton")), module


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["scale", "--help"], ["report", "--help"]], ids=" ".join)
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['lisabench', *{args!r}]\n"
        "from lisabench.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib', 'scipy', 'fvcore', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_render_runs_without_torch() -> None:
    code = "import sys, lisabench.render.figures, lisabench.render.terminal, lisabench.results\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_operators_folder_refuses_another_name() -> None:
    done = subprocess.run([sys.executable, "-c", "import operators"], cwd=TOP, capture_output=True, text=True, check=False)
    assert "lisabench.operators" in done.stderr
    assert done.returncode == 1


def test_files_have_their_size() -> None:
    """Files over 300 lines need a reason, which stands here."""
    reasons: dict[str, str] = {}
    long = [str(p.relative_to(TOP)) for p in [*FILES, *OPERATORS] if len(p.read_text().splitlines()) > 300]
    assert [name for name in long if name not in reasons] == []
