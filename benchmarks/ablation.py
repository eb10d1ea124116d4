"""What each choice in LiSA is worth, beside other operators: trainings on the digits and on generated tasks.

    python benchmarks/ablation.py                 all of it into reports/reference-ablation-cpu
    python benchmarks/ablation.py --show          its tables and figures again

Each data set is a run of `lisabench train-small`, which can be stopped and gone on with by the same command; then
`lisabench report` joins them. nprf has 8 features, not 32: with 32 a seed takes most of an hour on a CPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

DATA = ("digits", "structures-offset", "structures-same", "structures-count")
OPERATORS = ("lisa", "linear", "performer", "nprf", "gfnet")
VARIATIONS = ("lisa.patterns=1,2,8", "lisa.key_dim=16,8,4", "lisa.boundary=periodic", "lisa.norm=false")
OUT = Path("reports/reference-ablation-cpu")


def command(data: str, out: Path, seeds: int) -> list[str]:
    """The training run on one data set."""
    varied = [word for variation in VARIATIONS for word in ("--vary", variation)]
    settings = ["--op-option", "nprf.features=8", "--seeds", str(seeds), "--device", "cpu", "--threads", "1", "--data", data]
    return ["train-small", "--op", ",".join(OPERATORS), *varied, *settings, "--out", str(out)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="*", default=DATA, choices=DATA, help="which data sets (default: all)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--show", action="store_true", help="train nothing, show what is there")
    asked = parser.parse_args()
    program = [sys.executable, "-m", "lisabench"]
    for data in asked.data if not asked.show else ():
        out = asked.out / data
        more = ["--resume", "--out", str(out)] if (out / "plan.json").exists() else None
        done = subprocess.run([*program, "train-small", *more] if more else [*program, *command(data, out, asked.seeds)], check=False)
        if done.returncode:
            sys.exit(done.returncode)
    runs = [str(asked.out / data) for data in DATA if (asked.out / data / "plan.json").exists()]
    sys.exit(subprocess.run([*program, "report", *runs], check=False).returncode)


if __name__ == "__main__":
    main()
