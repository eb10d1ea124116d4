"""The arithmetic of the trials of benchmarks/trust.py: verdicts, shares, tables."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.trials import agreement, interference, repeatability, truth
from benchmarks.trials.figures import at_least, at_most, counted, none_of, overlap, percent, share, table
from benchmarks.trials.program import Swept, TrialError


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
