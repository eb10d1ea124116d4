"""Tables for a paper, of sweeps and trainings: as LaTeX, Markdown and CSV, with the text of a caption beside each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from lisabench.files import write_whole
from lisabench.render import cost_table, crossover_table, families, latex, markdown, summary_table, training_table
from lisabench.render.curves import complete, cut, cuts
from lisabench.render.tabular import Table
from lisabench.results import Run

MOST_ROWS = 55  # of a page, headings of workloads among them


def write_tables(run: Run | None, trainings: Sequence[Run], folder: Path, *, frame: pd.DataFrame | None = None) -> list[Path]:
    """Writes FOLDER/<name>.tex, .md and .csv and the caption as <name>-caption.txt and .tex, for every table; returns the paths.

    Of a sweep: `latency`, `memory`, `flops` and, where it was measured, `energy` by number of tokens, `latency-intervals`, `summary`
    (growth, crossovers with the baseline, costs at one size) and, with a baseline, `crossovers`; of trainings `accuracy`. What is longer
    than a page is cut between workloads, into tables whose names end in a number or, as those of figures, in the workload.

    `frame` is the sweep's, where that has been made already.

    Raises: RunError where the files cannot be written.
    """
    made = [
        *(_of_sweep(run, run.frame() if frame is None else frame) if run else ()),
        *([training_table.table(trainings)] if trainings else ()),
    ]
    return [path for table in made for path in _write(table, folder)]


def _of_sweep(run: Run, frame: pd.DataFrame) -> Iterator[Table]:
    frame = complete(frame, [*cost_table.COLUMNS, *summary_table.COLUMNS])
    pages = _pages(frame)
    shown = pd.concat([rows for _, rows in pages])
    laws = summary_table.Laws.of(replace(run, records=[run.records[place] for place in shown.index]))
    rest = "" if len(shown) == len(frame) else f" Tables show {len(cuts(shown))} of {len(cuts(frame))} workloads, the first."
    for end, rows in pages:
        costs = [cost for cost in cost_table.COSTS if cost != "energy" or rows["energy_j"].notna().any()]
        tables = [cost_table.table(rows, cost, run.environments) for cost in costs]
        tables += [cost_table.table(rows, "latency", run.environments, intervals=True), summary_table.table(rows, run, laws)]
        crossovers = crossover_table.table(rows, run, laws)
        tables += [crossovers] if crossovers else []
        yield from (replace(table, name=table.name + end, caption=table.caption + rest) for table in tables)


def _pages(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """What goes into one table each, and the end of its name: the workloads that a figure shows, as many as a page takes."""
    found = []
    for end, part in families.figures_of(frame):
        pages: list[list[pd.DataFrame]] = [[]]
        for _, rows in cut(part):
            if pages[-1] and sum(one["label"].nunique() + 1 for one in [*pages[-1], rows]) > MOST_ROWS:
                pages.append([])
            pages[-1].append(rows)
        ends = [f"{end}-{place}" for place in range(1, len(pages) + 1)] if len(pages) > 1 else [end]
        found += [(name, pd.concat(page)) for name, page in zip(ends, pages, strict=True)]
    return found


def _write(table: Table, folder: Path) -> Iterator[Path]:
    shown = latex.fitted(table)
    left_out = len(table.columns) - len(shown.columns)
    text = table.caption + (f" {left_out} of {len(table.columns)} sizes are left out." if left_out else "")
    files = {
        f"{table.name}.tex": latex.render(shown),
        f"{table.name}.md": markdown.render(table),
        f"{table.name}.csv": _csv(table),
        f"{table.name}-caption.txt": f"{text}\n",
        f"{table.name}-caption.tex": f"{latex.escape(text)}%\n",
    }
    for name, content in files.items():
        write_whole(folder / name, content.encode())
        yield folder / name


def _csv(table: Table) -> str:
    """Every figure in full with the ends of its interval, in its column's unit; a word where there is none."""
    rows, several = [], any(block.device for block in table.blocks)
    for block in table.blocks:
        for row in block.rows:
            found: dict[str, str | float | None] = {"device": block.device} if several else {}
            found |= {"workload": block.title, "operator": row.label}
            for head, cell in zip(table.heads, row.cells, strict=True):
                found[head] = cell.text if cell.value is None else cell.value
                found |= {f"{head}, low": cell.low, f"{head}, high": cell.high}
            rows.append(found)
    return str(pd.DataFrame(rows).dropna(axis="columns", how="all").to_csv(index=False, lineterminator="\n"))
