"""A record's head, by which a run is gone on with, says what the whole record does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lisabench.errors import InputError, RunError
from lisabench.journal import blank_record
from lisabench.records import Record, head, parse, scan

TOP = Path(__file__).parent.parent
JOURNALS = [TOP / "reports" / name / "journal.jsonl" for name in ("reference-cpu", "reference-operators-cpu")]
BEHIND = ("latency_s", "flops")


def line(record: Record) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize("path", JOURNALS, ids=lambda path: path.parent.name)
def test_a_head_has_the_fields_of_the_record(path: Path) -> None:
    for whole in parse(path)[0]:
        found = head(line(whole))
        assert all(found[name] == whole[name] for name in found if name not in BEHIND)
        assert {"cell", "op", "status", "reason"} <= set(found)
        for name, figure in (("latency_s", "median"), ("flops", "analytic")):
            if found.get(name):
                assert found[name][figure] == whole[name][figure]


@pytest.mark.parametrize("reason", ['a,"latency_s":{"median":7,', "\\", '"'])
def test_words_that_look_like_a_latency_mislead_nobody(reason: str) -> None:
    whole = blank_record({"cell": "a", "op": "x", "options": {"latency_s": 3}}) | {"status": "error", "reason": reason}
    found = head(line(whole))
    assert (found["cell"], found["status"], found["reason"], found["latency_s"]) == ("a", "error", reason, None)


def test_heads_are_refused_where_records_are(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    good = line(blank_record({"cell": "a", "op": "x"}))
    for content, error in ((b"{nonsense\n" + good, RunError), (line({"schema": 99}), InputError), (good[:20] + b"\n" + good, RunError)):
        journal.write_bytes(content)
        with pytest.raises(error):
            scan(journal, lambda record: None, heads=True)
    journal.write_bytes(good + good[:-2])
    taken: list[Record] = []
    assert scan(journal, taken.append, heads=True) == len(good)
    assert [record["cell"] for record in taken] == ["a"]
