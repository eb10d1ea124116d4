"""results.csv: the bytes that pandas writes."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from lisabench.errors import RunError
from lisabench.render import csv
from lisabench.render.csv import write_csv
from lisabench.results import read_run

FRAME = pd.DataFrame(
    {
        "name": ["plain", 'with "quotes"', "a,comma", "two\nlines", "µ ± é", ""],
        "absent": ["a", None, "b", None, "", "c"],
        "nothing": [None] * 6,
        "number": [0.1, math.nan, 1e-300, 123456789.123456789, -0.0, 5.0],
        "count": [1, 2, 3, 4, 5, 6],
        "flag": [True, False, True, False, True, True],
        "mixed": [1, "a", None, 2.5, True, "c,d"],
    }
)


@pytest.mark.parametrize("rows", [1, 4, 10_000])
def test_any_column_is_written_as_pandas_does(rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv, "_AT_A_TIME", rows)
    write_csv(FRAME, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == FRAME.to_csv(index=False, lineterminator="\n").encode()
    write_csv(FRAME.head(0), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == FRAME.head(0).to_csv(index=False, lineterminator="\n").encode()


def test_a_run_is_written_as_pandas_does(tmp_path: Path) -> None:
    frame = read_run(Path(__file__).parents[2] / "reports/reference-operators-cpu").frame()
    write_csv(frame, tmp_path / "results.csv")
    assert (tmp_path / "results.csv").read_bytes() == frame.to_csv(index=False, lineterminator="\n").encode()


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        write_csv(FRAME, tmp_path / "file" / "results.csv")
