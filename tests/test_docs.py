"""What docs/measurement.md states is what the code does and what a stored report says; docs/operators.md is what the operators say."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.trials.report import BEGIN, END, in_docs, markdown
from lisabench import registry
from lisabench.analysis.compare import compare
from lisabench.measure import conditions, latency, nvml
from lisabench.measure.energy import BLURRED, MAXIMUM_SECONDS, PERIODS, measure_energy
from lisabench.measure.numerics import CHECKED_PAIRS, TOLERANCES
from lisabench.run.worker import HELD_SHARE

TOP = Path(__file__).parent.parent
DOCS = TOP / "docs" / "measurement.md"
REPORT = TOP / "reports" / "trust-cpu"
MEASURE = sorted((TOP / "lisabench" / "measure").glob("*.py"))
stored = pytest.mark.skipif(
    not (REPORT / "report.json").exists(), reason="reports/trust-cpu is not there; python benchmarks/trust.py --docs"
)


def text() -> str:
    """The page without the report, in one line, so that line breaks do not matter."""
    page = DOCS.read_text()
    return " ".join((page.split(BEGIN)[0] + page.split(END)[1]).split())


@stored
def test_tables_are_those_of_the_stored_report() -> None:
    assert in_docs(DOCS.read_text()) == (REPORT / "report.md").read_text().strip()


@stored
def test_stored_markdown_is_made_of_the_stored_figures() -> None:
    assert markdown(json.loads((REPORT / "report.json").read_text())) == (REPORT / "report.md").read_text()


@stored
def test_stored_report_is_whole() -> None:
    report = json.loads((REPORT / "report.json").read_text())
    assert not report["quick"]
    assert not report["failed"]
    assert set(report["parts"]) == {"agreement", "repeatability", "truth", "interference"}


def kinds() -> Iterator[str]:
    """The kinds of warnings in the code: how the texts of `measure` begin that are appended to a list of warnings."""
    for path in MEASURE:
        for function in re.findall(r"def \w*(?:warnings|conditions)\(.*?(?=\n(?:@|def |class )|\Z)", path.read_text(), flags=re.DOTALL):
            yield from re.findall(r'f"([a-z]+(?: energy)?): ', function)


def test_every_kind_of_warning_is_explained() -> None:
    found = set(kinds())
    assert {"noisy", "contended", "drift", "throttled", "coarse energy"} <= found
    explained = set(
        re.findall(r"^\| `([a-z ]+)` \| .* \| .* \|$", DOCS.read_text().split("### Warnings")[1].split("## Memory")[0], flags=re.M)
    )
    assert explained == found


def default(function: Callable[..., object], name: str) -> object:
    """The default of a function's setting."""
    return inspect.signature(function).parameters[name].default


@pytest.mark.parametrize(
    "words",
    [
        f"At least {latency.ROUNDS} rounds and {latency.SAMPLES_A_ROUND} samples in each",
        f"at least {latency.MINIMUM_SAMPLES} samples",
        f"at most {latency.KEPT_SAMPLES} of the samples",
        f"within ±{latency.Limits().precision:.0%} of the median",
        f"within {latency.SETTLED_WITHIN:.0%} over its last {latency.SETTLED_CHECKS} checks",
        f"for {latency.Limits().warmup_seconds} s and at least {latency.Limits().warmup_calls} times"
        f" while that takes under {10 * latency.Limits().warmup_seconds:g} s",
        f"the sentinel was over {conditions.DRIFT:.0%} from its own median",
        f"the sentinel took over {conditions.DRIFT:.0%} longer",
        f"for {default(measure_energy, 'seconds')} s or ten periods of the counter, at most {MAXIMUM_SECONDS:g} s",
        f"Mann-Whitney gives p < {default(compare, 'alpha')}",
        f"without a core for over {conditions.WAITED_SHARE:.0%} of the threads' time",
        f"over {conditions.BUSY_CORES} cores",
        f"over {conditions.STOLEN_SHARE:.0%} of the time to other machines",
        f"under {nvml.THROTTLED_UNDER:.0%} of the default",
        f"under {PERIODS} steps of the energy counter, or the host read it late by over {BLURRED:.0%}",
        f"while N² is at most 2^{CHECKED_PAIRS.bit_length() - 1}",
    ],
)
def test_thresholds_are_those_of_the_code(words: str) -> None:
    assert words.lower() in text().lower()


def warned(**figures: float) -> list[str]:
    """The kinds of warnings of a latency with these figures, else without spread."""
    spread = {"median": 1.0, "ci_low": 1.0, "ci_high": 1.0, "p05": 1.0, "p95": 1.0} | figures
    found = latency.Latency(**spread, samples=[], count=12, seconds=1.0, rounds=[], kind="warm", stopped_by="time")
    return [warning.partition(":")[0] for warning in latency._warnings(found)]


def test_noisy_and_wide_begin_where_the_page_says() -> None:
    assert "p95 is over 1.5 times p05" in text()
    assert (warned(p95=1.5), warned(p95=1.501)) == ([], ["noisy"])
    assert "half of the interval is over 5% of the median" in text()
    assert (warned(ci_low=0.951, ci_high=1.049), warned(ci_low=0.949, ci_high=1.051)) == ([], ["wide"])


def test_noise_settles_after_half_of_the_time() -> None:
    assert "`noise`, when half of the time is spent" in text()
    rounds = latency.Rounds(latency.Limits(seconds=1.0))
    for _ in range(latency.ROUNDS):
        rounds.add([1.0, 2.0] * 50, 0.49 / latency.ROUNDS)
    assert rounds.stopped_by() == ""
    rounds.add([1.0, 2.0] * 50, 0.02)
    assert rounds.stopped_by() == "noise"


def test_cells_stay_built_within_a_tenth_of_the_memory() -> None:
    assert "within a tenth of the memory" in text()
    assert HELD_SHARE == 0.1


def test_tolerances_are_those_of_the_code() -> None:
    stated = re.search(r"Tolerances: (.*?)\. ", text())
    assert stated is not None
    assert {dtype: float(value) for value, dtype in re.findall(r"(\S+) \((\w+)\)", stated[1])} == TOLERANCES


def test_the_page_of_operators_is_what_they_say_of_themselves() -> None:
    from lisabench.cli.ops import page

    stands = (TOP / "docs" / "operators.md").read_text(encoding="utf-8")
    assert stands == page(), "docs/operators.md is stale; mend it by: lisabench ops --markdown > docs/operators.md"


def test_the_readme_names_every_operator_under_its_family() -> None:
    lines = (TOP / "README.md").read_text().splitlines()
    for name in registry.built_in():
        family = registry.load(name).family
        assert any(line.startswith(f"| {family} |") and f"`{name}`" in line for line in lines), name
