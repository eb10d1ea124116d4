"""What docs/measurement.md states is what the code does and what a stored report says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.trials.report import BEGIN, END, in_docs, markdown
from lisabench.measure import conditions, latency, nvml
from lisabench.measure.energy import BLURRED, PERIODS
from lisabench.measure.numerics import CHECKED_PAIRS, TOLERANCES

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


@pytest.mark.parametrize(
    "words",
    [
        f"At least {latency.ROUNDS} rounds and {latency.SAMPLES_A_ROUND} samples in each",
        f"at least {latency.MINIMUM_SAMPLES} samples",
        f"at most {latency.KEPT_SAMPLES} of the samples",
        f"within ±{latency.Limits().precision:.0%} of the median",
        f"within {latency.SETTLED_WITHIN:.0%} over its last {latency.SETTLED_CHECKS} checks",
        f"for {latency.Limits().warmup_seconds} s and at least {latency.Limits().warmup_calls} times",
        f"without a core for over {conditions.WAITED_SHARE:.0%} of the time",
        f"over {conditions.BUSY_CORES} cores",
        f"over {conditions.STOLEN_SHARE:.0%} of the time to other machines",
        f"over {conditions.DRIFT:.0%} from its own median",
        f"under {nvml.THROTTLED_UNDER:.0%} of the default",
        f"under {PERIODS} steps of the energy counter, or the host read it late by over {BLURRED:.0%}",
        f"while N² is at most 2^{CHECKED_PAIRS.bit_length() - 1}",
    ],
)
def test_thresholds_are_those_of_the_code(words: str) -> None:
    assert words.lower() in text().lower()


def test_tolerances_are_those_of_the_code() -> None:
    stated = re.search(r"Tolerances: (.*?)\. ", text())
    assert stated is not None
    assert {dtype: float(value) for value, dtype in re.findall(r"(\S+) \((\w+)\)", stated[1])} == TOLERANCES
