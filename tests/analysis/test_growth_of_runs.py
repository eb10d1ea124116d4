"""Growth and crossings of made runs whose laws are known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from lisabench.analysis import growth
from lisabench.analysis.growth import Crossing, Growth, crossings, growths, sentences
from lisabench.analysis.series import differing, named
from lisabench.journal import Record, blank_record
from lisabench.results import Run, joined

SIZES = (256, 1024, 4096, 16384)
NOISE = (0.99, 0.995, 1.0, 1.005, 1.01)


def record(op: str, tokens: int, seconds: float | None, *, energy: float | None = None, **conditions: Any) -> Record:
    side = math.isqrt(tokens)
    shape = {"scope": "mixing", "mode": "forward", "batch": 1, "height": side, "width": side, "tokens": tokens, "dim": 192, "heads": 3}
    made = blank_record({"cell": f"{op}{tokens}{conditions}", "op": op, "options": {}, **shape} | {"dtype": "fp32", "device": "cpu"})
    made |= {"compiled": False} | conditions
    if seconds is None:
        return made | {"status": "oom", "reason": "no memory left"}
    latency = {"median": seconds, "rounds": [seconds * factor for factor in NOISE], "samples": [seconds], "warnings": []}
    figures = {"memory_bytes": {"transient": 1024 * tokens}, "flops": {"analytic": 10.0 * tokens**2}, "energy_j": energy}
    return made | {"status": "ok", "latency_s": latency} | figures


def run(records: list[Record], *, name: str = "run", **plan: Any) -> Run:
    plan = {"kind": "scale", "baseline": "softmax", "operators": {"lisa": {"given": {"engine": "fft"}}, "softmax": {}}} | plan
    return Run(path=Path(name), plan=plan, records=records, environments={})


def linear(op: str = "lisa", factor: float = 3e-5, **conditions: Any) -> list[Record]:
    return [
        record(op, n, factor * n * batch, **(conditions | {"batch": batch})) for n in SIZES for batch in conditions.pop("batches", (1,))
    ]


def square(**conditions: Any) -> list[Record]:
    return [record("softmax", n, 1e-8 * n**2, **conditions) for n in SIZES]


def of(found: list[Growth], op: str, quantity: str = "latency", axis: str = "tokens") -> Growth:
    (one,) = (one for one in found if (one.op, one.quantity, one.axis) == (op, quantity, axis))
    return one


def against(found: list[Crossing], quantity: str = "latency") -> Crossing:
    (one,) = (one for one in found if one.quantity == quantity)
    return one


def test_exponents_over_tokens_are_doubled_over_sides() -> None:
    found = growths(run([*linear(), *square()], patch=16))
    tokens, sides = of(found, "softmax"), of(found, "softmax", axis="resolution")
    assert tokens.law is not None
    assert sides.law is not None
    assert tokens.law.exponent == pytest.approx(2, abs=1e-3)
    assert (sides.law.exponent, sides.law.ci_low) == (2 * tokens.law.exponent, 2 * tokens.law.ci_low)
    assert list(sides.sizes) == [256, 512, 1024, 2048]
    assert sides.values == tokens.values
    assert sides.law.predict(1024) == pytest.approx(tokens.law.predict(4096))
    assert of(growths(run(square())), "softmax", axis="resolution").sizes == (16, 32, 64, 128)


def test_sentences_tell_the_growth_over_the_side_of_an_image_where_the_patch_is_known() -> None:
    made = run([*linear(), *square()], patch=16)
    assert "from 256 to 16,384 tokens (s^4.00 in an image's side s, 256 to 2,048 px), its memory as" in sentences(made)[1]
    assert "image" not in sentences(run(made.records))[1]


def test_an_exponent_over_sides_is_determined_where_that_over_tokens_is() -> None:
    noisy = [record("softmax", n, 1e-8 * n**2 * factor) for n, factor in zip(SIZES, (1, 1.1, 0.92, 1.05), strict=True)]
    found = growths(run(noisy, patch=16))
    tokens, sides = of(found, "softmax"), of(found, "softmax", axis="resolution")
    assert tokens.law is not None
    assert 2 * (tokens.law.ci_high - tokens.law.ci_low) > growth.UNDETERMINED
    assert tokens.determined
    assert sides.determined


def test_quantities_are_those_measured_and_exact_ones_have_no_interval() -> None:
    found = growths(run(linear()))
    assert {one.quantity for one in found} == {"latency", "memory", "flops"}
    assert of(found, "lisa", "flops").exponent == "2.00"
    assert "(" in of(found, "lisa").exponent
    energetic = [record("lisa", n, 1e-5 * n, energy=1e-3 * n**1.5) for n in SIZES]
    assert of(growths(run(energetic)), "lisa", "energy").exponent == "1.50"


def test_batches_are_an_axis_at_each_grid_where_they_vary() -> None:
    assert {one.axis for one in growths(run(linear()))} == {"tokens", "resolution"}
    records = [record("lisa", n, 1e-6 * n * batch, batch=batch) for n in SIZES[:2] for batch in (1, 2, 4, 8)]
    found = [one for one in growths(run(records)) if (one.axis, one.quantity) == ("batch", "latency")]
    assert [(one.where["height"], one.sizes, one.law is not None) for one in found] == [(16, (1, 2, 4, 8), True), (32, (1, 2, 4, 8), True)]
    assert any(line.startswith("height 16, width 16: lisa (engine=fft)'s time grows as B^1.00") for line in sentences(run(records)))


def test_modes_and_devices_are_curves_of_their_own() -> None:
    found = growths(run([*linear(), *linear(mode="train", factor=9e-5)]), axes=("tokens",))
    assert [one.where["mode"] for one in found if one.quantity == "latency"] == ["forward", "train"]
    assert all("batch" in one.where and "device_name" in one.where for one in found)
    wheres = [one.where for one in found]
    assert differing(wheres) == ["mode"]
    assert named(wheres[0], ["mode", "batch"]) == "mode forward, batch 1"


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([record("lisa", 256, 1.0)], "one size: no fit"),
        ([record("lisa", n, 1e-5 * n) for n in SIZES[:2]], "2 sizes: no fit"),
        ([record("lisa", n, None) for n in SIZES], "no figure above 0: no fit"),
        ([record("lisa", n, math.nan) for n in SIZES], "no figure above 0: no fit"),
    ],
    ids=["one", "two", "failed", "nan"],
)
def test_too_little_is_told_never_guessed(records: list[Record], why: str) -> None:
    found = of(growths(run(records)), "lisa")
    assert found.law is None
    assert found.why == why
    assert not found.determined
    assert any(why in line for line in sentences(run(records))) or "its memory" in sentences(run(records))[0]


def test_nothing_at_all() -> None:
    assert (growths(run([])), crossings(run([])), sentences(run([]))) == ([], [], [])


def test_a_measured_crossing_is_told() -> None:
    found = crossings(run([*linear(), *square()]))
    assert {(one.op, one.baseline) for one in found} == {("lisa", "softmax")}
    time = against(found)
    assert time.crossover is not None
    assert time.crossover.size == pytest.approx(3000)
    assert (time.extrapolated, time.why) == (None, "")
    assert time.efficiency_length == pytest.approx(3000, rel=1e-3)
    (first, _) = sentences(run([*linear(), *square()]))
    assert first.startswith("lisa (engine=fft)'s time grows as N^1.00 (")
    assert " from 256 to 16,384 tokens, its memory as N^1.00, its FLOPs as N^2.00; it overtakes softmax at 3,000 tokens" in first
    assert against(found, "flops").sentence() == "lisa (engine=fft) and softmax are equal up to 16,384 tokens"


@pytest.mark.parametrize("meeting", [30_000, 200_000])
def test_a_crossing_beyond_the_sizes_is_extrapolated_and_says_so(meeting: int) -> None:
    found = against(crossings(run([*linear(factor=1e-8 * meeting), *square()])))
    assert found.crossover is not None
    assert found.crossover.size is None
    assert found.extrapolated == pytest.approx(meeting, rel=0.02)
    told = f"softmax stays faster up to 16,384 tokens; extrapolated, they meet at about {meeting:,} tokens, beyond the 16,384 measured"
    assert found.sentence() == told
    assert told in sentences(run([*linear(factor=1e-8 * meeting), *square()]))[0]


def test_too_far_or_of_like_growth_is_not_extrapolated() -> None:
    far = against(crossings(run([*linear(factor=1e-8 * 17 * SIZES[-1]), *square()])))
    alike = against(crossings(run([*linear("softmax"), *linear(factor=6e-5)])))
    for found in (far, alike):
        assert found.extrapolated is None
        assert "do not meet" in found.why
    assert far.sentence() == "softmax stays faster up to 16,384 tokens"


def test_a_crossing_needs_two_common_sizes_and_equal_conditions() -> None:
    (found,) = (one for one in crossings(run([*linear(), square()[0]])) if one.quantity == "latency")
    assert found.crossover is None
    assert "at least 2 sizes" in found.why
    assert found.sentence() == ""
    assert crossings(run([*linear(), *square(mode="train")])) == []


def test_joined_runs_meet_the_baseline_of_their_own_run() -> None:
    slow = [*linear(), *square()]
    fast = [*linear(factor=2e-5), *square()]
    both = joined([run(slow, name="a"), run(fast, name="b")])
    found = {one.label: one for one in crossings(both) if one.quantity == "latency"}
    assert {label: (one.baseline, round(one.crossover.size or 0)) for label, one in found.items() if one.crossover} == {
        "lisa (engine=fft), a": ("softmax, a", 3000),
        "lisa (engine=fft), b": ("softmax, b", 2000),
    }


def test_of_many_series_the_first_are_fitted_and_the_rest_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "MOST", 2)
    many = run([record("short", 256, 1.0), *(r for place in range(4) for r in linear(f"op{place}"))])
    assert [one.op for one in growths(many, axes=("tokens",)) if one.quantity == "latency"] == ["op0", "op1"]
    assert "3 more series over tokens are not told" in sentences(many)


def test_names_are_told_as_they_are() -> None:
    assert sentences(run(linear("<b>$x_1$ & \\y%")))[0].startswith("<b>$x_1$ & \\y%'s time grows as N^1.00")
