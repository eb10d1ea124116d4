"""Peaks are kept for a machine, and the file is only a cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lisabench.measure import kept_peaks
from lisabench.measure.kept_peaks import keep, kept

HERE: dict[str, Any] = {"device": "cpu", "device_name": "a CPU", "cpu": {"threads": 2}}
THERE: dict[str, Any] = {"device": "cpu", "device_name": "a CPU", "cpu": {"threads": 1}}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the kept peaks stand in this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "lisabench" / "peaks.json"


def test_what_is_kept_is_found_again(cache: Path) -> None:
    assert kept(HERE) == {}
    assert keep(HERE, {"flops_per_s_fp32": 2.0, "bytes_per_s": 3.0}) == {"flops_per_s_fp32": 2.0, "bytes_per_s": 3.0}
    assert kept(HERE) == {"flops_per_s_fp32": 2.0, "bytes_per_s": 3.0}
    assert [path.name for path in cache.parent.iterdir()] == ["peaks.json"]


@pytest.mark.usefixtures("cache")
def test_the_larger_one_stays_and_new_dtypes_come_in() -> None:
    keep(HERE, {"flops_per_s_fp32": 2.0, "bytes_per_s": 3.0})
    merged = keep(HERE, {"flops_per_s_fp32": 1.0, "flops_per_s_bf16": 5.0, "bytes_per_s": 4.0})
    assert merged == {"flops_per_s_fp32": 2.0, "flops_per_s_bf16": 5.0, "bytes_per_s": 4.0}
    assert kept(HERE) == merged


@pytest.mark.usefixtures("cache")
def test_another_thread_count_has_its_own_and_another_commit_has_not() -> None:
    keep(HERE, {"bytes_per_s": 3.0})
    assert kept(THERE) == {}
    keep(THERE, {"bytes_per_s": 1.0})
    assert (kept(HERE), kept(THERE)) == ({"bytes_per_s": 3.0}, {"bytes_per_s": 1.0})
    assert kept(HERE | {"git": {"commit": "another"}, "host": "another"}) == {"bytes_per_s": 3.0}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"KEY": 3}', b'{"KEY": {"peaks": [1]}}', b'{"KEY": {"peaks": {"bytes_per_s": "fast"}}}']
    + [b'{"KEY": {"peaks": {"bytes_per_s": %s}}}' % value for value in (b"NaN", b"0", b"-1", b"true", b"null", b"9" * 400, b"1e999")],
    ids=lambda content: content[:48].decode(errors="replace") or "empty",
)
def test_a_damaged_file_is_measured_again(content: bytes, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_bytes(content.replace(b"KEY", kept_peaks.fingerprint(HERE).encode()))
    assert kept(HERE) == {}
    assert keep(HERE, {"bytes_per_s": 3.0}) == {"bytes_per_s": 3.0}
    assert kept(HERE) == {"bytes_per_s": 3.0}
    assert isinstance(json.loads(cache.read_text()), dict)


def test_what_is_no_peak_is_not_kept(cache: Path) -> None:
    assert keep(HERE, {"bytes_per_s": float("nan"), "flops_per_s_fp32": 0.0, "warmth": 3.0}) == {}
    assert not cache.exists()


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert keep(HERE, {"bytes_per_s": 3.0}) == {"bytes_per_s": 3.0}
    assert kept(HERE) == {}


@pytest.mark.parametrize("stated", [None, "", "relative/folder"])
def test_without_an_absolute_path_the_home_is_used(stated: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    if stated is None:
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", stated)
    keep(HERE, {"bytes_per_s": 3.0})
    assert (tmp_path / ".cache" / "lisabench" / "peaks.json").is_file()
