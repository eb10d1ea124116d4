"""The sample paper compiles with the figures and tables of a run, unchanged; so do tables with hostile names."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from made_trainings import accuracies, write_run, write_sweep

from lisabench.render.tables import write_tables
from lisabench.results import read_run

TOP = Path(__file__).parent.parent
HOSTILE = (r"my_op & <b>$x^2$ 100%\foo", "[1] #{}~^|\"''--", "*中µé≤", "my_operators.py:CrossCovarianceAttentionWithALongName")
PAGE = r"""\documentclass[10pt,twocolumn]{article}
\usepackage{times,booktabs,siunitx}%s
\setlength{\textwidth}{6.875in}\setlength{\columnsep}{0.3125in}
\begin{document}
%s
\end{document}
"""

pytestmark = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")


def compiled(path: Path, *, times: int = 1) -> str:
    """What pdflatex says of a file when it compiles it the last time; references need two."""
    for _ in range(times):
        words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", path.name]
        done = subprocess.run(words, cwd=path.parent, capture_output=True, timeout=120, check=False)
        said = done.stdout.decode(errors="replace")
        assert done.returncode == 0, said[-2000:]
    return said


def faults(said: str) -> list[str]:
    return re.findall(r"^(?:!|Overfull|LaTeX Warning: (?:Reference|Citation|There were undefined)).*", said, re.MULTILINE)


def fonts(path: Path) -> list[str]:
    if shutil.which("pdffonts") is None:
        pytest.skip("pdffonts is not installed")
    done = subprocess.run(["pdffonts", path], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()[2:]


def paper(folder: Path) -> Path:
    """The sample paper beside copies of runs whose tables are written anew."""
    shutil.copytree(TOP / "examples/paper", folder / "examples/paper")
    shutil.copytree(TOP / "reports/reference-cpu", folder / "reports/reference-cpu")
    trainings = write_run(folder / "reports/reference-digits-cpu", accuracies(["softmax", "performer", "linear", "gfnet", "lisa"]))
    write_tables(read_run(folder / "reports/reference-cpu"), [], folder / "reports/reference-cpu/tables")
    write_tables(None, [trainings], trainings.path / "tables")
    return folder / "examples/paper/main.tex"


def test_the_sample_paper_compiles_with_fonts_a_publisher_takes(tmp_path: Path) -> None:
    path = paper(tmp_path)
    assert faults(compiled(path, times=2)) == []
    found = fonts(path.with_suffix(".pdf"))
    assert found
    assert not [line for line in found if "Type 3" in line]


def shown(folder: Path, names: Sequence[str], *, environment: str) -> str:
    """Tables and their captions as a document has them."""
    return "\n".join(
        rf"\begin{{{environment}}}\caption[{name}]{{\input{{{folder.name}/{name}-caption}}}}\input{{{folder.name}/{name}}}\end{{{environment}}}"
        for name in names
    )


@pytest.mark.parametrize("packages", ["", r"\usepackage[T1]{fontenc}\usepackage{caption,hyperref}"], ids=["OT1", "T1 and hyperref"])
def test_hostile_names_show_themselves_and_stay_within_the_columns(tmp_path: Path, packages: str) -> None:
    sizes = tuple(4**power for power in range(3, 13))
    sweep = write_sweep(tmp_path / "run", dict.fromkeys(("softmax", "identity", *HOSTILE), sizes), modes=("forward", "train"))
    sweep = replace(sweep, plan=sweep.plan | {"baseline": "softmax"})
    for record in sweep.records[len(sizes) // 2 :: len(sizes)]:
        record.update(status="oom", latency_s=None)
    trainings = write_run(tmp_path / "trainings", accuracies(HOSTILE))
    folder = tmp_path / "tables"
    write_tables(sweep, [trainings], folder)
    narrow = shown(folder, ("latency", "memory", "flops", "accuracy"), environment="table")
    wide = shown(folder, ("latency-intervals", "summary"), environment="table*")
    path = tmp_path / "page.tex"
    path.write_text(PAGE % (packages, narrow + wide))
    assert faults(compiled(path)) == []
    if packages and shutil.which("pdftotext"):
        words = ["pdftotext", "-layout", str(path.with_suffix(".pdf")), "-"]
        text = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
        assert [name for name in (r"my_op & <b>$x^2$", "[1] #{}~^|", "*U+4E2Dµé") if name not in text] == []
