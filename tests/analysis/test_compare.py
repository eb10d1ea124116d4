"""Verdicts on runs whose difference is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import A100, EPYC, H200, fleet_run, made_run

from lisabench.analysis.compare import Verdict, compare, mean_ratio, paired, trimmed
from lisabench.analysis.statistics import median_interval
from lisabench.errors import InputError
from lisabench.results import read_run

Latency = dict[str, Any]


def measured(median: float = 1.0, *, mood: float = 0.02, noise: float = 0.01, rounds: int = 12, seed: int = 0) -> Latency:
    """A latency as it is recorded: each round has its mood, shared by its 10 samples."""
    generator = np.random.default_rng(seed)
    moods = generator.normal(0, mood, (rounds, 1))
    samples = median * np.exp(moods + generator.normal(0, noise, (rounds, 10)))
    middles = np.median(samples, axis=1)
    intervals = np.array([median_interval(samples.ravel()), median_interval(middles)])
    found = {"median": float(np.median(samples)), "rounds": middles.tolist(), "samples": samples.ravel().tolist()}
    return found | {"ci_low": float(intervals[:, 0].min()), "ci_high": float(intervals[:, 1].max())}


def told(base: Latency, new: Latency, **settings: float) -> Verdict:
    return compare([base], [new], **settings)[0]


@pytest.mark.parametrize(
    ("median", "mood", "verdict"), [(1.3, 0.02, "slower"), (0.75, 0.02, "faster"), (1.0, 0.003, "same"), (1.05, 0.2, "can't tell")]
)
def test_known_differences(median: float, mood: float, verdict: str) -> None:
    found = told(measured(mood=mood, seed=1), measured(median, mood=mood, seed=2))
    assert found.verdict == verdict
    assert found.ci_low <= found.ratio <= found.ci_high
    assert found.ratio == pytest.approx(median, rel=2 * mood)


@pytest.mark.parametrize("rounds", [6, 12])
def test_the_interval_holds_the_true_ratio(rounds: int) -> None:
    """Medians' intervals by order statistics are wider than need be, and so is this."""
    base, new = ([measured(median, rounds=rounds, seed=seed + of) for seed in range(400)] for of, median in ((0, 1.0), (1000, 1.3)))
    held = sum(found.ci_low <= 1.3 <= found.ci_high for found in compare(base, new))
    assert 0.94 * 400 <= held < 400


@pytest.mark.parametrize(("median", "back"), [(1.3, "faster"), (0.75, "slower"), (1.0, "same")])
def test_swapped_runs_get_the_opposite_verdict(median: float, back: str) -> None:
    base, new = measured(mood=0.003, seed=1), measured(median, mood=0.003, seed=2)
    forth, found = told(base, new), told(new, base)
    assert found.verdict == back
    assert (found.ratio, found.ci_low, found.ci_high) == pytest.approx((1 / forth.ratio, 1 / forth.ci_high, 1 / forth.ci_low))
    assert found.p_value == pytest.approx(forth.p_value)


@pytest.mark.parametrize("rounds", [6, 12])
def test_of_a_thousand_cells_without_change_none_is_called_changed(rounds: int) -> None:
    """Rounds in moods of 5%: medians move by more than the threshold, and tests on samples are sure of it. All that could is 1 in 100."""
    base, new = ([measured(mood=0.05, rounds=rounds, seed=seed + of) for seed in range(1000)] for of in (0, 5000))
    found = compare(base, new, threshold=0.02)
    assert sum(abs(math.log(one.ratio)) > 0.02 for one in found) > 200
    assert {one.verdict for one in found} <= {"same", "can't tell"}


@pytest.mark.parametrize("rounds", [6, 12])
def test_a_lone_change_among_many_is_found(rounds: int) -> None:
    base, new = ([measured(rounds=rounds, seed=seed + of) for seed in range(300)] for of in (0, 5000))
    new[7] = measured(1.4, rounds=rounds, seed=9999)
    assert [place for place, one in enumerate(compare(base, new)) if one.verdict in ("faster", "slower")] == [7]


# Each of the criteria alone withholds "slower".
def test_threshold_withholds() -> None:
    base, new = measured(mood=0.003, seed=1), measured(1.08, mood=0.003, seed=2)
    found = told(base, new)
    assert found.verdict == "slower"
    assert told(base, new, threshold=0.2).verdict == "same"
    assert told(base, new, threshold=found.ratio - 1 + 1e-6).verdict == "can't tell"


def test_mann_whitney_withholds() -> None:
    base, new = measured(rounds=6, seed=1), measured(1.5, rounds=6, seed=2)
    found = told(base, new)
    assert found.verdict == "slower"
    assert found.p_value == pytest.approx(2 / math.comb(12, 6))
    assert found.p_adjusted < 0.002
    assert told(base, new, alpha=0.002).verdict == "can't tell"


def test_many_cells_withhold() -> None:
    base, new = measured(mood=0.05, rounds=6, seed=1), measured(1.25, mood=0.05, rounds=6, seed=2)
    quiet = measured(mood=0.05, rounds=6, seed=3)
    assert told(base, new).verdict == "slower"
    among_many = compare([base, *[quiet] * 1000], [new, *[quiet] * 1000])[0]
    assert among_many.p_adjusted > 100 * told(base, new).p_adjusted
    assert among_many.verdict == "can't tell"


def test_overlapping_intervals_withhold() -> None:
    base, new = measured(mood=0.003, seed=1), measured(1.1, mood=0.003, seed=2)
    assert told(base, new).verdict == "slower"
    assert told(base | {"ci_high": 1.12}, new | {"ci_low": 1.0}).verdict == "can't tell"


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_few_rounds_cannot_tell(rounds: int) -> None:
    few = {"median": 1.0, "ci_low": 1.0, "ci_high": 1.0, "samples": [1.0] * rounds}
    assert told(few, measured()).verdict == told(measured(9.0), few).verdict == "can't tell"


def test_equal_rounds() -> None:
    one, two = ({"median": of, "ci_low": of, "ci_high": of, "rounds": [of] * 20} for of in (1.0, 2.0))
    assert told(one, one).verdict == "same"
    assert told(one, two).verdict == "slower"


def test_cells_keep_their_order_whatever_their_rounds() -> None:
    base = [measured(rounds=rounds, seed=rounds) for rounds in (12, 6, 40, 12, 7)]
    new = [measured(median, rounds=rounds, seed=100 + rounds) for median, rounds in ((1.5, 12), (1, 6), (0.5, 8), (1, 12), (2, 7))]
    changed = {place: one.verdict for place, one in enumerate(compare(base, new)) if one.verdict in ("faster", "slower")}
    assert changed == {0: "slower", 2: "faster", 4: "slower"}
    assert compare([], []) == []


@pytest.mark.parametrize("changed", [{"median": 0.0}, {"ci_low": -1.0}, {"rounds": [1.0] * 5 + [0.0]}, {"rounds": [1.0] * 5 + [math.nan]}])
def test_times_that_are_none_are_an_error(changed: Latency) -> None:
    with pytest.raises(InputError, match="no positive number"):
        told(measured(), measured() | changed)


@pytest.mark.parametrize("settings", [{"threshold": -0.1}, {"threshold": math.nan}, {"alpha": 0.0}, {"alpha": 1.0}])
def test_bad_settings_are_an_error(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match="threshold"):
        compare([], [], **settings)


def test_the_mean_ratio_is_geometric_and_of_one_cell_its_own() -> None:
    def of(ratio: float) -> Verdict:
        return Verdict(verdict="same", ratio=ratio, ci_low=0.9 * ratio, ci_high=1.1 * ratio, p_value=1, p_adjusted=1)

    assert mean_ratio([of(2)]) == (2, 1.8, 2.2)
    mean, low, high = mean_ratio([of(2), of(0.5), of(1)])
    assert mean == pytest.approx(1)
    assert low == pytest.approx(1 / high)
    # Student's t with 2 degrees of freedom at 97.5%: 4.3027.
    assert math.log(high) == pytest.approx(4.3027 * math.log(2) / math.sqrt(3), rel=1e-4)


def test_its_interval_holds_what_moves_whole_cells() -> None:
    generator = np.random.default_rng(4)
    held = 0
    for _ in range(300):
        ratios = np.exp(generator.normal(math.log(1.1), 0.05, 6))
        _, low, high = mean_ratio(Verdict(verdict="same", ratio=r, ci_low=r, ci_high=r, p_value=1, p_adjusted=1) for r in ratios.tolist())
        held += low <= 1.1 <= high
    assert 0.92 * 300 <= held <= 0.98 * 300


def test_cells_are_paired_by_content_and_status(tmp_path: Path) -> None:
    made_run(tmp_path / "base", {16: 1.0, 32: 1.0, 64: "oom", 128: 1.0, 512: "oom"})
    made_run(tmp_path / "new", {16: 1.0, 32: "timeout", 64: 1.0, 256: 1.0, 512: "oom"})
    pairs = paired(read_run(tmp_path / "base"), read_run(tmp_path / "new"))
    tokens = [[before["tokens"] for before, _ in some] for some in (pairs.finished, pairs.stopped, pairs.started)]
    assert tokens == [[16], [32], [64]]
    assert [[record["tokens"] for record in some] for some in (pairs.only_base, pairs.only_new)] == [[128], [256]]


def test_an_own_operator_is_compared_with_what_it_was_before_its_file_changed(tmp_path: Path) -> None:
    for name, op, content in (("base", "my.py:MyOp", "before"), ("new", "copies/my.py:MyOp", "after"), ("other", "my.py:OtherOp", "after")):
        made_run(tmp_path / name, {16: 1.0, 32: 1.0}, op=op, content=content)
    base, new, other = (read_run(tmp_path / name) for name in ("base", "new", "other"))
    pairs = paired(base, new)
    assert [(one["tokens"], two["tokens"]) for one, two in pairs.finished] == [(16, 16), (32, 32)]
    assert (pairs.changed, pairs.only_base, pairs.only_new) == (["MyOp"], [], [])
    made_run(tmp_path / "same", {16: 1.0, 32: 1.0}, op="my.py:MyOp", content="before")
    assert paired(base, read_run(tmp_path / "same")).changed == []
    with pytest.raises(InputError, match="they differ in operators"):
        paired(base, other)


def pairs_of(tmp_path: Path) -> tuple[set[tuple[str, str, float]], list[str], list[str]]:
    """The kinds of devices of each pair with new / base, and those of what is only in the base or only in the new run."""
    base, new = (read_run(tmp_path / name, trimmed=trimmed) for name in ("base", "new"))
    pairs = paired(base, new)
    assert all([one[name] == two[name] for name in ("op", "tokens", "dtype")] for one, two in pairs.finished)
    found = {
        (base.device_of(one), new.device_of(two), round(two["latency_s"]["median"] / one["latency_s"]["median"], 3))
        for one, two in pairs.finished
    }
    alone = ([run.device_of(one) for one in of] for run, of in ((base, pairs.only_base), (new, pairs.only_new)))
    return found, *alone


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("of_kind", [True, False])
def test_cells_are_paired_kind_by_kind_whether_keys_hold_the_kind_or_not(known: bool, of_kind: bool, tmp_path: Path) -> None:
    fleet_run(tmp_path / "base", {H200: 1}, sizes=(256, 1024), known=known, of_kind=of_kind)
    fleet_run(tmp_path / "new", {EPYC: 3, H200: 2, A100: 4}, sizes=(256, 1024))
    assert pairs_of(tmp_path) == ({(H200, H200, 2.0)}, [], [EPYC] * 4 + [A100] * 4)


def test_two_runs_over_the_same_kinds_share_them_all(tmp_path: Path) -> None:
    fleet_run(tmp_path / "base", {H200: 1, EPYC: 3, A100: 1}, sizes=(256, 1024))
    fleet_run(tmp_path / "new", {EPYC: 6, H200: 0.5}, sizes=(256, 1024))
    assert pairs_of(tmp_path) == ({(H200, H200, 0.5), (EPYC, EPYC, 2.0)}, [A100] * 4, [])


def test_runs_of_one_kind_each_are_paired_whatever_the_kinds(tmp_path: Path) -> None:
    fleet_run(tmp_path / "base", {H200: 1}, sizes=(256,))
    fleet_run(tmp_path / "new", {A100: 2}, sizes=(256,), of_kind=True)
    assert pairs_of(tmp_path) == ({(H200, A100, 2.0)}, [], [])


def test_runs_without_a_kind_in_common_are_told_how_one_of_each_is_chosen(tmp_path: Path) -> None:
    fleet_run(tmp_path / "base", {H200: 1, EPYC: 3}, sizes=(256,))
    fleet_run(tmp_path / "new", {A100: 1}, sizes=(256,))
    with pytest.raises(InputError, match="no kind of device is in both") as refused:
        pairs_of(tmp_path)
    assert f"--mix --where 'device_kind={H200},{A100}'" in str(refused.value), "not the CPU, whose cells are others"


@pytest.mark.parametrize(("digest", "changed"), [("before", []), ("after", ["MyOp"])])
def test_an_own_operator_is_known_by_its_file_on_every_kind(digest: str, changed: list[str], tmp_path: Path) -> None:
    fleet_run(tmp_path / "base", {H200: 1}, ops=("my.py:MyOp",), digest="before")
    fleet_run(tmp_path / "new", {H200: 1, EPYC: 3}, ops=("copies/my.py:MyOp",), digest=digest)
    pairs = paired(*(read_run(tmp_path / name) for name in ("base", "new")))
    assert (len(pairs.finished), len(pairs.only_new), pairs.changed) == (5, 5, changed)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"medians": {32: 1.0}}, "they differ in tokens (16 and 32)"),
        ({"op": "lisa"}, "they differ in operators (linear and lisa)"),
        ({"options": {"$x": "<b>"}}, 'they differ in options ({} and {"$x": "<b>"})'),
        ({"axes": [{"dtype": "bf16", "dim": 64}]}, "they differ in dtype (fp32 and bf16), dim (192 and 64)"),
        ({"medians": {16: "oom", 32: "timeout"}}, "finished (1 oom, 1 timeout)"),
    ],
)
def test_runs_without_a_shared_cell_are_told_why(changed: dict[str, Any], words: str, tmp_path: Path) -> None:
    made_run(tmp_path / "base", {16: 1.0})
    made_run(tmp_path / "new", **({"medians": {16: 1.0}} | changed))
    with pytest.raises(InputError, match="share no finished cell") as refused:
        paired(read_run(tmp_path / "base"), read_run(tmp_path / "new"))
    assert words in str(refused.value)


def test_runs_that_share_every_axis_but_no_combination(tmp_path: Path) -> None:
    for name, tokens in (("base", (16, 32)), ("new", (32, 16))):
        made_run(tmp_path / name, {tokens[0]: 1.0}, axes=[{"mode": "forward"}])
        made_run(tmp_path / f"{name}2", {tokens[1]: 1.0}, axes=[{"mode": "train"}])
        with (tmp_path / name / "journal.jsonl").open("a") as journal:
            journal.write((tmp_path / f"{name}2" / "journal.jsonl").read_text())
    with pytest.raises(InputError, match="no combination"):
        paired(read_run(tmp_path / "base"), read_run(tmp_path / "new"))


def test_a_run_is_not_compared_with_itself(tmp_path: Path) -> None:
    made_run(tmp_path / "run", {16: 1.0})
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with pytest.raises(InputError, match="are the same run"):
        paired(read_run(tmp_path / "run"), read_run(tmp_path / "link"))


def test_a_trimmed_record_keeps_what_is_compared() -> None:
    record = {"cell": "x", "op": "lisa", "options": {}, "status": "ok", "reason": None, "environment": "e", "roofline": {"share": 1}}
    axes = dict.fromkeys(("device", "scope", "mode", "dtype", "compiled", "dim", "heads", "batch", "height", "width", "tokens"), 1)
    kept = trimmed(record | axes | {"latency_s": measured()})
    assert "roofline" not in kept
    assert "samples" not in kept["latency_s"]
    assert told(kept["latency_s"], kept["latency_s"]) == told(measured(), measured())
    assert trimmed(record | axes | {"latency_s": None})["latency_s"] is None
