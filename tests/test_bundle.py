"""The repeat bundle: what goes in comes out again, and nothing lands outside."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest
from made_trainings import accuracies, write_run, write_sweep

from lisabench.bundle import check_name, pack, unpack
from lisabench.errors import InputError, LisaBenchError, RunError
from lisabench.results import Run, read_run

PLAN = '{"kind": "scale"}'


@pytest.fixture
def sweep(tmp_path: Path) -> Run:
    return write_sweep(tmp_path / "sweep", {"lisa": [16, 64], "softmax": [16, 64]})


def test_what_was_packed_is_taken_out_again(sweep: Run, tmp_path: Path) -> None:
    training = write_run(tmp_path / "other/sweep", accuracies(["lisa"]), baseline=None)
    (training.path / "patterns").mkdir()
    (training.path / "patterns/x.npz").write_bytes(b"numbers")
    (training.path / "weights").mkdir()
    (training.path / "weights/x.pt").write_bytes(b"large")
    figure = tmp_path / "out/figures/latency.pdf"
    figure.parent.mkdir(parents=True)
    figure.write_bytes(b"%PDF")
    pack(tmp_path / "paper.zip", [sweep, training], tmp_path / "out", [figure])
    first, second = unpack(tmp_path / "paper.zip", tmp_path / "again")
    assert (first.name, second.name) == ("sweep", "sweep-2")
    assert read_run(first).records == sweep.records
    assert read_run(second, kind="accuracy").records == training.records
    assert (second / "patterns/x.npz").read_bytes() == b"numbers"
    assert not (second / "weights").exists()
    assert (tmp_path / "again/figures/latency.pdf").read_bytes() == b"%PDF"
    readme = (tmp_path / "again/README.md").read_text()
    assert "lisabench report paper.zip" in readme
    assert "reconstruction" in readme


def test_the_same_runs_are_the_same_bytes(sweep: Run, tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        pack(tmp_path / place / "paper.zip", [sweep], tmp_path, [])
    assert (tmp_path / "a/paper.zip").read_bytes() == (tmp_path / "b/paper.zip").read_bytes()


@pytest.mark.parametrize(
    "name", ["/etc/cron.d/x", "../x", "paper/../../x", "paper/runs/a/../../../x", "C:/x", "paper\\..\\x", "\\x", "plan.json", "paper"]
)
def test_an_entry_that_would_lie_outside_is_refused(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "paper.zip", "w") as archive:
        archive.writestr("paper/runs/a/plan.json", PLAN)
        archive.writestr(name, "x")
    with pytest.raises(InputError, match="is refused"):
        unpack(tmp_path / "paper.zip", tmp_path / "in/here")
    assert {path.name for path in tmp_path.rglob("*")} == {"paper.zip"}


def test_a_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("paper/figures")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "paper.zip", "w") as archive:
        archive.writestr("paper/runs/a/plan.json", PLAN)
        archive.writestr(link, "/etc")
    with pytest.raises(InputError, match="is refused"):
        unpack(tmp_path / "paper.zip", tmp_path / "here")


def test_what_is_no_bundle_or_damaged_is_told(sweep: Run, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("photos/one.png", "x")
    (tmp_path / "text.zip").write_text("no zip at all")
    pack(tmp_path / "whole.zip", [sweep], tmp_path, [])
    content = bytearray((tmp_path / "whole.zip").read_bytes())
    (tmp_path / "cut.zip").write_bytes(content[: len(content) // 2])
    content[200] ^= 0xFF  # within what the first entry holds
    (tmp_path / "flipped.zip").write_bytes(content)
    told = {"other.zip": "is no bundle", "text.zip": "cannot be read", "cut.zip": "cannot be read", "flipped.zip": "cannot be read"}
    for name, words in told.items():
        with pytest.raises(InputError, match=words):
            unpack(tmp_path / name, tmp_path / "here")
        assert not (tmp_path / "here").exists()
        assert not list(tmp_path.glob(".*"))


def test_nothing_is_written_over(sweep: Run, tmp_path: Path) -> None:
    pack(tmp_path / "sweep.zip", [sweep], tmp_path, [])
    with pytest.raises(InputError, match="is there already"):
        unpack(tmp_path / "sweep.zip", tmp_path / "sweep")


def test_names_and_places_that_cannot_be(sweep: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in \.zip"):
        check_name(Path("paper.tar"))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        pack(tmp_path / "file/paper.zip", [sweep], tmp_path, [])
    pack(tmp_path / "paper.zip", [sweep], tmp_path, [])
    with pytest.raises(LisaBenchError, match="cannot be taken out"):
        unpack(tmp_path / "paper.zip", tmp_path / "file/here")
