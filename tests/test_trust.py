"""The arithmetic of benchmarks/trust.py and its trials: verdicts, shares, tables, and their place in the documentation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.trials import agreement, interference, repeatability, truth
from benchmarks.trials.figures import at_least, at_most, counted, none_of, overlap, percent, share, table
from benchmarks.trials.neighbour import KINDS, neighbour
from benchmarks.trials.program import Swept, TrialError
from benchmarks.trials.report import BEGIN, END, PARTS, in_docs, into_docs, markdown, verdicts
from benchmarks.trust import _command, _folder, _measured
from lisabench.errors import InputError

TOP = Path(__file__).parent.parent


def record(op: str = "lisa", *, median: float = 1.0, half: float = 0.01, warnings: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """A record with a latency of so many seconds, give or take `half`, and a ratio of twice the median."""
    figures = {"median": median, "ci_low": median - half, "ci_high": median + half, "warnings": list(warnings)}
    ratio = {"median": 2 * median, "ci_low": 2 * (median - half), "ci_high": 2 * (median + half)}
    blank = {"op": op, "tokens": 64, "mode": "forward", "status": "ok", "latency_s": figures, "ratio": ratio}
    return blank | {"memory_bytes": {"transient": 8, "saved": None}, "flops": {"torch": 2.0, "fvcore": 2.0}} | more


def test_a_target_is_met_missed_or_not_measured() -> None:
    assert at_most("x", 0.03, 0.03).verdict == "met"
    assert at_most("x", 0.031, 0.03).verdict == "missed"
    assert at_least("x", 0.95, 0.95, of=20).verdict == "met"
    assert at_least("x", 0.94, 0.95, of=20).verdict == "missed"
    assert at_least("x", None, 0.95, of=0).verdict == "not measured"
    assert at_least("x", 0.5, 1.0, of=2).target == "all"
    assert (none_of("x", 0).verdict, none_of("x", 2).verdict) == ("met", "missed")


def test_a_result_does_not_round_its_verdict_away() -> None:
    assert at_least("x", 70 / 74, 0.95, of=74).result == "70 of 74 (94.6%)"
    assert at_most("x", 0.030004, 0.03).result == "3.0004%"
    assert at_most("x", 0.03, 0.03).result == "3%"
    assert counted(None, 0) == "not measured"


@pytest.mark.parametrize(("value", "words"), [(0.0, "0%"), (1.0, "100%"), (0.034, "3.4%"), (0.00042, "0.042%"), (2e-6, "under 0.001%")])
def test_percent(value: float, words: str) -> None:
    assert percent(value) == words


def test_nothing_has_no_share() -> None:
    assert share([]) is None
    assert share([True, False]) == 0.5


def test_intervals_overlap_at_their_ends_and_one_within_the_other() -> None:
    assert overlap((1, 2), (2, 3))
    assert overlap((1, 4), (2, 3))
    assert overlap((2, 3), (1, 4))
    assert not overlap((1, 2), (2.1, 3))
    assert not overlap((2.1, 3), (1, 2))


def test_a_table_keeps_its_columns_whatever_the_cells_hold() -> None:
    lines = table(["a", "b"], [["x|y", 1]]).splitlines()
    assert {line.count("|") for line in lines} == {3}


def test_agreement_takes_the_median_of_paired_ratios() -> None:
    # The machine slowed between the turns: the ratio of the medians would be 1.5, the turns say 1.
    found = agreement.row([1.0, 3.0, 2.0], [1.0, 3.0, 2.0])
    assert found["ratio"] == 1
    assert agreement.row([1.1, 3.3, 2.2], [1.0, 3.0, 2.0])["ratio"] == pytest.approx(1.1)
    assert found["theirs_step"] == found["ours_step"] == pytest.approx((2.0 + 1 / 3) / 2)
    assert found["single_turn_off"] == 0


def test_agreement_judges_no_call_that_its_launch_may_be_in() -> None:
    cells = [
        {"op": op, "tokens": 64} | agreement.row([ours], [1.0], launch=launch) for op, ours, launch in (("a", 1.0, 0.1), ("b", 0.5, 0.3))
    ]
    part = {"timer": "other", "settings": {"tokens": [64], "turns": 1}, "cells": cells}
    assert (agreement.summary(part)["cells"], agreement.summary(part)["worst_off"]) == (1, 0)
    assert "b at 64 tokens." in agreement.markdown(part)
    assert "Not judged" not in agreement.markdown(part | {"cells": cells[:1]})


def test_agreement_judges_too_small_as_it_does_too_large() -> None:
    cells = [{"op": "a", "tokens": 64} | agreement.row([ratio], [1.0]) for ratio in (0.9, 1.0, 1.02)]
    part = {"timer": "other", "settings": {"tokens": [64], "turns": 1}, "cells": [*cells, {"op": "b", "tokens": 64, "absent": "refused"}]}
    found = agreement.summary(part)
    assert (found["cells"], found["worst_off"], found["share_within"]) == (3, pytest.approx(0.1), pytest.approx(2 / 3))
    assert [target.verdict for target in agreement.targets(part)] == ["met", "missed"]
    assert "refused" in agreement.markdown(part)


def test_a_repeated_cell_agrees_only_if_intervals_overlap_and_medians_are_near() -> None:
    same = repeatability.pair(record(), record(median=1.01))
    apart = repeatability.pair(record(half=0.001), record(median=1.01, half=0.001))
    far = repeatability.pair(record(half=0.1), record(median=1.04, half=0.1))
    assert (same["latency"]["agrees"], apart["latency"]["agrees"], far["latency"]["agrees"]) == (True, False, False)
    assert far["latency"]["overlap"]


def test_repeatability_tells_quiet_cells_from_all() -> None:
    cells = [repeatability.pair(record(), record()), repeatability.pair(record(), record(median=2.0, warnings=("noisy: very",)))]
    part = {"command": "c", "seconds": [1, 1], "status_changed": 0, "cells": cells}
    found = repeatability.summary(part)
    assert found["all"]["agrees"] == 0.5
    assert (found["without warnings"]["cells"], found["without warnings"]["agrees"]) == (1, 1.0)
    assert "noisy" in repeatability.markdown(part)


def test_counts_that_differ_are_seen() -> None:
    other = record(flops={"torch": 3.0, "fvcore": 2.0})
    assert repeatability.pair(record(), record())["same_counts"]
    assert repeatability.pair(record(), other)["same_counts"] is False
    absent = record(flops={"torch": None, "fvcore": 2.0})
    assert repeatability.pair(absent, other)["same_counts"]  # what only one of them holds is no difference
    nothing = record(flops=None, memory_bytes=None)
    assert repeatability.pair(nothing, other)["same_counts"] is None


def test_a_status_that_changed_misses_its_target() -> None:
    cells = [repeatability.pair(record(), record())]
    told = [repeatability.targets({"command": "c", "seconds": [1, 1], "status_changed": n, "cells": cells})[-1].verdict for n in (0, 1)]
    assert told == ["met", "missed"]


def test_a_baseline_has_no_ratio_to_repeat() -> None:
    assert repeatability.pair(record(ratio=None), record(ratio=None))["ratio"] is None


def test_truth_judges_exact_figures_exactly_and_others_by_their_share() -> None:
    rows = [
        truth.row("near", 1.0, 1.019, unit="s"),
        truth.row("far", 1.0, 0.97, unit="s"),
        truth.row("same", 8, 8, unit="bytes", exact=True),
        truth.row("nearly", 1_000_000, 1_000_001, unit="bytes", exact=True),
        truth.row("none", 0, 0, unit="", exact=True),
        truth.row("some", 0, 1, unit="", exact=True),
        truth.row("absent", 1.0, None, unit="J", absent="no counter"),
    ]
    found = [target.verdict for target in truth.targets({"rows": rows})]
    assert found == ["met", "missed", "met", "missed", "met", "missed", "not measured"]
    assert "no counter" in truth.markdown({"rows": rows, "times": ""})


def test_truth_says_which_cell_is_not_ok() -> None:
    found = swept(record("/x/known.py:Product", status="timeout", reason="60 s are over"))
    with pytest.raises(TrialError, match=r"Product \(forward\) came out as timeout: 60 s are over"):
        truth._of(found, "Product")
    with pytest.raises(TrialError, match="no record of Offset"):
        truth._of(found, "Offset")


def swept(*records: dict[str, Any]) -> Swept:
    return Swept(records={f"{r['op']} {place}": r for place, r in enumerate(records)}, environment={}, seconds=1.0)


def test_interference_counts_warnings_among_moved_cells_only() -> None:
    quiet = swept(record("a"), record("b"), record("c", warnings=("busy: x",)), record("d"))
    loud = swept(
        record("a", median=1.5, warnings=("noisy: x", "busy: y")), record("b", median=0.8), record("c"), record("d", status="timeout")
    )
    cells, lost = interference.compared(quiet, loud), interference.lost(quiet, loud)
    part = {
        "command": "c",
        "quiet": {"cells": [{"warnings": interference.warnings_of(r)} for r in quiet.ok.values()], "warned": {"busy": 1}},
        "neighbours": {"spin": {"busy_cores": 1.0, "cells": cells, "lost": lost, "warned": {"noisy": 1, "busy": 1}}},
    }
    found = interference.summary(part)
    assert [cell["op"] for cell in cells] == ["a", "b", "c"]
    assert (found["all"]["moved"], found["all"]["moved_and_warned"]) == (2, 0.5)
    assert (found["all"]["moved_and_warned_besides_busy"], found["all"]["unmoved_and_warned"]) == (0.5, 0)
    assert found["quiet"]["warned"] == 0.25
    assert [(cell["op"], cell["status"]) for cell in lost] == [("d", "timeout")]
    assert found["spin"]["medians_moved"] == pytest.approx(0.2)
    assert [target.verdict for target in interference.targets(part)] == ["missed", "missed"]
    assert "- d, 64 tokens, forward: timeout beside a process that spins" in interference.markdown(part)
    assert "a process that spins" in interference.markdown(part)


def test_a_moved_median_with_an_unmoved_ratio() -> None:
    steady = {"median": 3.0}
    cell = interference.change(record(ratio=steady), record(median=2.0, ratio=steady))
    assert (cell["moved"], cell["ratio_moved"]) == (1.0, 0.0)


def report(**parts: Any) -> dict[str, Any]:
    machine = {
        "device": "cpu",
        "device_name": "a CPU",
        "cpu": {"threads": 1},
        "libraries": {"torch": "2"},
        "lisabench": "1",
        "load_average": [0.5],
    }
    return {"command": "python benchmarks/trust.py", "quick": False, "seconds": 61, "environment": machine, "parts": parts, "failed": {}}


def test_the_report_says_missed_targets_and_failed_trials() -> None:
    told = report(truth={"times": "", "rows": [truth.row("far", 1.0, 2.0, unit="s"), truth.row("near", 1.0, 1.0, unit="s")]})
    told["failed"] = {"interference": "no neighbour"}
    text = markdown(told)
    assert "1 of 2 targets met" in text
    assert "| far | at most 2% off | 100% off | missed |" in text
    assert "This trial failed: no neighbour" in text
    assert [target.met for target in verdicts(told["parts"])] == [False, True]
    assert "not the report to cite" in markdown(told | {"quick": True})
    assert "agreement, repeatability were not measured" in text


def asked(**more: Any) -> Namespace:
    return Namespace(**({"device": "cpu", "threads": None, "quick": False, "out": "/x", "docs": True, "render": False} | more))


def test_a_partial_report_has_a_folder_of_its_own_and_no_command_names_a_folder() -> None:
    every = list(PARTS)
    assert _folder(every, asked()) == TOP / "reports" / "trust-cpu"
    assert _folder(["truth"], asked(device="cuda:1", quick=True)) == TOP / "reports" / "trust-cuda-quick-partial"
    assert _command(every, asked()) == "python benchmarks/trust.py"
    assert _command(["truth"], asked(quick=True, threads=2)) == "python benchmarks/trust.py --part truth --threads 2 --quick"


def test_a_part_that_fails_in_any_way_leaves_the_others_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Faked: the trials and the machine, which take minutes to measure; each part looks at what is stored before it.
    stored: list[list[str]] = []

    def look(_: object) -> dict[str, Any]:
        path = tmp_path / "report.json"
        stored.append(list(json.loads(path.read_text())["parts"]) if path.exists() else [])
        return {"rows": [truth.row("far", 1.0, 2.0, unit="s")], "times": ""}

    def fails(_: object) -> dict[str, Any]:
        raise KeyError("latency_s")

    monkeypatch.setattr("benchmarks.trust.child", lambda *_: {"device": "cpu"})
    monkeypatch.setattr(agreement, "measure", fails)
    for part in (truth, interference):
        monkeypatch.setattr(part, "measure", look)
    monkeypatch.setattr(interference, "targets", truth.targets)
    found = _measured(["agreement", "truth", "interference"], asked(), tmp_path)
    assert found["failed"] == {"agreement": "KeyError: 'latency_s'"}
    assert stored == [[], ["truth"]]
    assert json.loads((tmp_path / "report.json").read_text()) == found


def test_docs_take_the_tables_between_their_markers_and_nothing_else() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = into_docs(page, "| new |\n")
    assert in_docs(once) == "| new |"
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert into_docs(once, "| new |\n") == once


@pytest.mark.parametrize("page", ["none", f"{END} {BEGIN}", f"{BEGIN} {BEGIN} {END}"])
def test_a_page_without_its_markers_is_refused(page: str) -> None:
    with pytest.raises(InputError, match="markers"):
        into_docs(page, "x")


@pytest.mark.parametrize("kind", KINDS)
def test_a_neighbour_is_busy_and_gone_afterwards(kind: str) -> None:
    before = set(psutil.Process().children())
    with neighbour(kind) as busy:
        (found,) = set(psutil.Process().children()) - before
        deadline, started = time.monotonic() + 60, sum(found.cpu_times()[:2])
        while sum(found.cpu_times()[:2]) < started + 0.05 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert busy.cores
    assert not found.is_running()


def test_a_neighbour_does_not_outlive_its_parent() -> None:
    code = (
        "from benchmarks.trials.neighbour import neighbour\nimport psutil, time\n"
        "with neighbour('spin'):\n    print(psutil.Process().children()[0].pid, flush=True)\n    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=TOP, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    found = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    found.wait(timeout=30)


def test_the_command_refuses_a_part_that_is_none_and_docs_of_a_partial_report(tmp_path: Path) -> None:
    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "benchmarks.trust", *args, "--out", str(tmp_path)]
        return subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=120, check=False)

    wrong = run("--part", "thruth")
    assert wrong.returncode == 2
    assert "did you mean 'truth'" in wrong.stderr
    none = run("--part", ",")
    assert (none.returncode, len(none.stderr.splitlines())) == (2, 1)
    early = run("--quick", "--docs")
    assert early.returncode == 2
    assert not list(tmp_path.iterdir())
    (tmp_path / "report.json").write_text(json.dumps(report(truth={"rows": [], "times": ""})))
    partial = run("--render", "--docs")
    assert partial.returncode == 2
    assert len(partial.stderr.splitlines()) == 1
    assert run("--render").returncode == 0
    assert "0 of 0 targets met" in (tmp_path / "report.md").read_text()
    far = {"times": "", "rows": [truth.row("far", 1.0, 2.0, unit="s")]}
    (tmp_path / "report.json").write_text(json.dumps(report(truth=far)))
    assert run("--render").returncode == 1
