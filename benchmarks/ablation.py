"""What each choice in LiSA is worth, beside other operators: trainings on the digits and on generated tasks.

    python benchmarks/ablation.py                          all of it into reports/reference-ablation-cpu
    python benchmarks/ablation.py --runs digits digits-floor
    python benchmarks/ablation.py --show                   its tables and figures again

Each run is one of `lisabench train-small`, which can be stopped and gone on with by the same command; then `lisabench report` joins
them into the folder above them, the controls into `controls`. DATA holds the operators and the variants of LiSA, DATA-floor
`identity`, which mixes nothing, and DATA-shuffled the control, which must stay at chance. nprf has 8 features, not 32: with 32 a seed takes many minutes on a CPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

DATA = ("digits", "structures-offset", "structures-same")
MORE_DATA = "structures-count"  # with fewer operators and variants, to see how LiSA's differ where they are not at a limit
VARIATIONS = ("lisa.patterns=1,2,8", "lisa.key_dim=16,8,4", "lisa.boundary=periodic", "lisa.norm=false")
FEWER = ("lisa.patterns=1,2,8", "lisa.key_dim=4", "lisa.boundary=periodic", "lisa.norm=false")
OUT = Path("reports/reference-ablation-cpu")


def runs() -> dict[str, list[str]]:
    """What each run trains, by its name."""
    main = ["--op", "lisa,linear,performer,nprf,gfnet", *_varied(VARIATIONS), "--op-option", "nprf.features=8"]
    found = {data: [*main, "--data", data] for data in DATA}
    found[MORE_DATA] = ["--op", "lisa,gfnet", *_varied(FEWER), "--data", MORE_DATA]
    found |= {f"{data}-floor": ["--op", "identity", "--no-baseline", "--data", data] for data in (*DATA, MORE_DATA)}
    return found | {f"{data}-shuffled": ["--op", "lisa", "--data", f"{data}-shuffled", "--seeds", "1"] for data in (*DATA[1:], MORE_DATA)}


def _varied(variations: tuple[str, ...]) -> list[str]:
    return [word for variation in variations for word in ("--vary", variation)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="*", default=list(runs()), choices=list(runs()), help="which runs (default: all)")
    parser.add_argument("--seeds", default="3")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--show", action="store_true", help="train nothing, show what is there")
    parser.add_argument(
        "--mix", action="store_true", help="show runs of unlike machines together: accuracies can be compared, times cannot"
    )
    asked = parser.parse_args()
    program = [sys.executable, "-m", "lisabench"]
    for name in asked.runs if not asked.show else ():
        out = asked.out / name
        settings = ["--seeds", asked.seeds, "--device", "cpu", "--threads", "1"]
        what = ["--resume"] if (out / "plan.json").exists() else [*settings, *runs()[name]]
        done = subprocess.run([*program, "train-small", *what, "--out", str(out)], check=False)
        if done.returncode:
            sys.exit(done.returncode)
    there = [name for name in runs() if (asked.out / name / "plan.json").exists()]
    for folder, are_controls in ((asked.out, False), (asked.out / "controls", True)):
        if shown := [str(asked.out / name) for name in there if name.endswith("-shuffled") == are_controls]:
            done = subprocess.run([*program, "report", *shown, "--out", str(folder), *["--mix"] * asked.mix], check=False)
            if done.returncode:
                sys.exit(done.returncode)


if __name__ == "__main__":
    main()
