"""What sweeps over many devices and of many cells cost the program that drives them.

    python benchmarks/scale_out.py [--cells 10000 --cells 1000000] [--docs]

Two parts. The engines: the same sweep of an operator that does nothing, by the local engine and by Ray, one core each, in turns in one
run; what a cell takes beyond the local engine is Ray's. The driver: plans of the given sizes, brought into a journal by stands that
answer at once with a record that was really measured; time, memory and bytes are the driver's own. Of over 20,000 cells the journal is
written without the engine, all but the last of them: a disk syncs a few hundred records a second. --docs puts the tables into
docs/scale-out.md too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # run as a file, python looks beside it alone

from benchmarks.fleets import driver, engines
from benchmarks.trials.figures import Target, table
from benchmarks.trials.report import origin
from lisabench.files import write_whole
from lisabench.measure.environment import environment

DOCS = driver.TOP / "docs" / "scale-out.md"
BEGIN, END = "<!-- scale-out:begin -->", "<!-- scale-out:end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--cells", type=int, action="append", help="cells of a simulated plan; repeatable")
    parser.add_argument("--turns", type=int, default=3, help="turns of the two engines")
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/scale-out.md too")
    asked = parser.parse_args()
    found = environment("cpu")
    with tempfile.TemporaryDirectory(prefix="lisabench-scale-out-") as folder:
        overhead = engines.measure(asked.turns)
        plans = [driver.measure(cells, Path(folder)) for cells in asked.cells or (10_000, 1_000_000)]
    targets = [*engines.targets(overhead), *(target for plan in plans for target in driver.targets(plan))]
    tables = "\n\n".join(
        (origin(found, "python benchmarks/scale_out.py"), _verdicts(targets), engines.markdown(overhead), driver.markdown(plans))
    )
    print(tables)
    if asked.docs:
        before, rest = DOCS.read_text().split(BEGIN)
        write_whole(DOCS, f"{before}{BEGIN}\n\n{tables}\n\n{END}{rest.split(END)[1]}".encode())


def _verdicts(targets: list[Target]) -> str:
    return table(["figure", "target", "result", "verdict"], [[t.what, t.target, t.result, t.verdict] for t in targets])


if __name__ == "__main__":
    main()
