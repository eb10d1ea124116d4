"""What only an NVIDIA GPU can show, in one go: tests, laws, peaks, the reference sweeps, trust, accuracy points.

    make gpu        or        python benchmarks/gpu.py --minutes 20 --parts tests,sweeps --out FOLDER

Every part is a process with a time limit of its own and can be used without the next; one that fails stops no other. The
folder's README.md says what ran, how it ended and by which command, and is written before and after each part. A part that
ran before is run again; a run of lisabench that stands in the folder already is gone on with.

Needs a Python with torch, lisabench (installed, or on PYTHONPATH) and pytest; nothing is fetched. Exit code: 0 all parts
ended well, 1 some did not, 2 wrong usage, 3 no GPU or a Python that lacks what is needed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

sys.path.append(str(Path(__file__).resolve().parents[1]))  # run as a file, python looks beside it alone

from benchmarks.gpu_folder import State

ROOT = Path(__file__).resolve().parent.parent
MINUTES, MOST_MINUTES = 20.0, 10_000
LEAST_SECONDS = 5.0  # a part that would get less is not begun
START_SECONDS = 120.0
END_SECONDS = 20.0  # from the signal to stop in good order until the kill
DRAWING_SECONDS = 25.0  # of a part's limit, what its own --budget leaves: the start, the last cell, the figures
# -P keeps the checkout off the path: the package there has its operators in another folder than the installed one.
LISABENCH = "-P -m lisabench"
PYTEST = "-P -m pytest -c OUT/pytest.ini --rootdir . -p no:cacheprovider --continue-on-collection-errors -m gpu tests"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A command (after `python`; OUT is the folder, BUDGET seconds), its share of the time in minutes of 20, and what it is for."""

    name: str
    minutes: float
    words: str
    command: str


SWEEP = f"{LISABENCH} scale --device cuda --cell-seconds 0.5 --budget BUDGET --out OUT"
COMMON = "--op lisa,softmax,softmax_dense,performer,linear"
# The product of all axes and all operators is thousands of cells at two to three seconds each. These sweeps cover every axis with
# the operators that most papers show, and every operator at three lengths, each sweep with a budget of its own, the most valuable
# first: growth in tokens is what the program is for; then the other operators, and training, at every fourth size; batch and
# resolution at one dtype, whose growth the first has shown.
SWEEPS = (
    ("tokens", 2.8, "growth in tokens, forward", f"{SWEEP}/tokens {COMMON} --tokens 256..65536 --dtype fp32,bf16"),
    ("operators", 3.0, "every operator", f"{SWEEP}/operators --op all --tokens 1024,4096,16384 --dtype bf16"),
    ("train", 1.5, "growth in training", f"{SWEEP}/train {COMMON} --tokens 256,1024,4096,16384,65536 --dtype fp32,bf16 --mode train"),
    ("batch", 1.2, "growth in batch", f"{SWEEP}/batch {COMMON} --tokens 1024 --batch 1,4,16,64 --dtype bf16 --mode forward,train"),
    ("resolution", 0.8, "image sizes", f"{SWEEP}/resolution {COMMON} --resolution 224,384,512,768,1024 --patch 16 --dtype bf16"),
)
TABLE = (
    ("tests", 3.4, "the tests that need a GPU", PYTEST),
    ("verify", 2.0, "every operator's laws", f"{LISABENCH} verify --device cuda"),
    ("flops", 0.8, "FLOP formulas against two counters", f"{LISABENCH} verify --flops --device cuda"),
    ("env", 0.5, "machine, libraries, measured peaks", f"{LISABENCH} env --device cuda"),
    ("tune", 1.0, "LiSA's engines, of which auto then takes the fastest", f"{LISABENCH} tune --device cuda --budget BUDGET"),
    *SWEEPS,
    ("trust", 2.2, "whether the figures are to be believed", "-m benchmarks.trust --device cuda --quick --out OUT/trust"),
    ("train-small", 0.8, "accuracy", f"{LISABENCH} train-small --op lisa --seeds 2 --device cuda --budget BUDGET --out OUT/train-small"),
)
PARTS = tuple(Part(name=name, minutes=minutes, words=words, command=command) for name, minutes, words, command in TABLE)
GROUPS = {"sweeps": [name for name, *_ in SWEEPS], "all": [part.name for part in PARTS]}
NEEDED = ("torch", "lisabench", "pytest")
OTHER_PYTHON = "give another Python: make gpu PYTHON=.venv/bin/python"
NAME_THE_GPU = f"""
import importlib.util, json, sys
lacks = [name for name in {NEEDED} if importlib.util.find_spec(name) is None]
if lacks:
    print(json.dumps({{"lacks": lacks}}))
    sys.exit()
import lisabench, pytest, torch
known = torch.cuda.is_available()
print(json.dumps({{
    "name": torch.cuda.get_device_name(0) if known else None,
    "torch": torch.__version__,
    "cuda": torch.version.cuda,
    "python": sys.version.split()[0],
}}))
"""


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _arguments(arguments)
    machine = find_gpu()
    if isinstance(machine, str):
        print(f"Error: {machine}", file=sys.stderr)
        return 3
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    out = asked.out or ROOT / "reports" / folder_name(machine["name"])
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        print(f"Error: --out got {str(out)!r}: {failure.strerror}; give a folder that can be written", file=sys.stderr)
        return 2
    return run_parts(asked.parts, out=out.resolve(), seconds=60 * asked.minutes, machine=machine)


class _Parser(argparse.ArgumentParser):
    """Tells wrong usage in one line, as lisabench does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"Error: {message.removeprefix('argument ')}; `{self.prog} --help` tells more\n")


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(description="Everything that wants an NVIDIA GPU, each part on its own.", prog="gpu.py")
    parser.add_argument("--minutes", type=_minutes, default=MINUTES, help=f"for all parts together [default: {MINUTES:g}]")
    parser.add_argument("--parts", type=chosen, default=PARTS, help=f"a comma list of {', '.join(GROUPS['all'])}; sweeps for all sweeps")
    parser.add_argument("--out", type=Path, help="the folder [default: reports/<the GPU's name>]")
    return parser.parse_args(given)


def _minutes(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (minutes := float(text)) < MOST_MINUTES:
            return minutes
    raise argparse.ArgumentTypeError(f"got {text!r}; valid: a number of minutes above 0, below {MOST_MINUTES:,}")


def chosen(text: str) -> tuple[Part, ...]:
    """The parts of a comma list, in the order in which they always run."""
    names = {name for word in text.split(",") for name in GROUPS.get(word.strip(), [word.strip()])}
    unknown = names - set(GROUPS["all"])
    if unknown:
        raise argparse.ArgumentTypeError(f"got {', '.join(sorted(unknown))}; valid: {', '.join(GROUPS['all'])}, sweeps, all")
    return tuple(part for part in PARTS if part.name in names)


def find_gpu() -> dict[str, Any] | str:
    """The first GPU's name and the versions beside it, or in one line why there is none.

    Asked in a process that ends: a CUDA context of this one would take memory beside everything that is measured.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", NAME_THE_GPU], capture_output=True, text=True, timeout=START_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"torch did not start within {START_SECONDS:.0f} s; try: {sys.executable} -c 'import torch; torch.cuda.init()'"
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        return f"{', '.join(NEEDED)} do not all work in {sys.executable} ({why}); {OTHER_PYTHON}"
    machine: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if lacks := machine.get("lacks"):
        install = " ".join("." if name == "lisabench" else name for name in lacks)
        return f"{sys.executable} lacks {', '.join(lacks)}; install: {sys.executable} -m pip install {install}; or {OTHER_PYTHON}"
    if machine["name"] is None:
        built = f"built for CUDA {machine['cuda']}" if machine["cuda"] else "built without CUDA"
        return f"no CUDA device that this torch ({machine['torch']}, {built}) can use; run it on a machine with an NVIDIA GPU"
    return machine


def folder_name(gpu: str) -> str:
    """'NVIDIA H200' -> 'nvidia-h200'."""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-") or "gpu"


def run_parts(parts: Sequence[Part], *, out: Path, seconds: float, machine: dict[str, Any]) -> int:
    """Runs the parts one after the other, each within its share of the seconds that are left; 0 where all ended well, else 1."""
    state = State(out, machine, {part.name: part.words for part in PARTS})
    deadline = time.monotonic() + seconds
    every = []
    for place, part in enumerate(parts):
        share = part.minutes / sum(later.minutes for later in parts[place:])
        limit = share * (deadline - time.monotonic())
        if limit < LEAST_SECONDS:
            state.note(part.name, ended := "not run: no time was left", limit=limit)
        else:
            ended = run_part(part, out=out, limit=limit, state=state)
        every.append(ended)
        print(f"{part.name}: {ended}", flush=True)
    print(f"{out / 'README.md'} says what ran; what it printed stands beside it", flush=True)
    return 0 if set(every) <= {"ok"} else 1


def run_part(part: Part, *, out: Path, limit: float, state: State) -> str:
    """Runs one part into OUT/NAME.log and says how it ended; nothing of it is left running."""
    if part.command == PYTEST:
        (out / "pytest.ini").write_text(pytest_settings())
    words = command_words(part, out, limit)
    state.note(part.name, "running", limit=limit, words=words)
    started = time.monotonic()
    ended = "stopped"
    try:
        with open(out / f"{part.name}.log", "wb") as log:
            # A group, so that all of it can be ended, and no session: whoever ends this one's ends the part too.
            process = subprocess.Popen(
                [sys.executable, *(f"{out}{word[3:]}" if word.startswith("OUT/") else word for word in words)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(),
                process_group=0,
            )
            try:
                code = process.wait(timeout=limit)
                ended = "ok" if code == 0 else f"killed by signal {-code}" if code < 0 else f"exit code {code}"
            except subprocess.TimeoutExpired:
                ended = "over its time, stopped"
            finally:
                end(process)
    finally:
        state.note(part.name, ended, limit=limit, words=words, seconds=time.monotonic() - started)
    return ended


def environment() -> dict[str, str]:
    """That of a part: it takes lisabench from where it is installed, `benchmarks` from the checkout, and nothing else from there."""
    found = importlib.util.find_spec("lisabench")
    installed = [str(Path(folder).parent) for folder in (found and found.submodule_search_locations) or []]
    path = [*filter(None, [os.environ.get("PYTHONPATH")]), *installed, str(ROOT)]
    return {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(path)}


def command_words(part: Part, out: Path, limit: float) -> list[str]:
    """The command after `python`, its folder still called OUT; with --resume where the run that it writes is there already."""
    budget = max(limit / 2, limit - DRAWING_SECONDS)
    words = [f"{budget:.0f}" if word == "BUDGET" else word for word in shlex.split(part.command)]
    runs = [word for before, word in pairwise(words) if before == "--out"]
    there = any((out / run.removeprefix("OUT/") / "plan.json").is_file() for run in runs)
    return [*words, "--resume"] if there else words


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and its group, what it may have left behind too: in good order, or after END_SECONDS by force."""
    for number, patience in ((signal.SIGTERM, END_SECONDS), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=patience)


def pytest_settings() -> str:
    """pytest.ini for a machine that may lack the plugins: the project's own markers and options, without what only a plugin knows.

    Warnings are no errors there: its libraries have other versions than those that are pinned here.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    kept = {name: project[name] for name in ("addopts", "markers")}
    if importlib.util.find_spec("pytest_timeout"):
        kept["timeout"] = project["timeout"]
    lines = {name: "".join(f"\n    {one}" for one in value) if isinstance(value, list) else value for name, value in kept.items()}
    return "".join(["[pytest]\n", *(f"{name} = {value}\n" for name, value in lines.items())])


if __name__ == "__main__":
    sys.exit(main())
