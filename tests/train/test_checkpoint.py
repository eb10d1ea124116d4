"""An interrupted training goes on to the weights that an uninterrupted one has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training import few, point, trained

from lisabench.errors import InputError, RunError
from lisabench.train import checkpoint, loop
from lisabench.train.point import Recipe

EVERYTHING = Recipe(ema=0.9, drop_path=0.2, augment="shift")


@pytest.mark.parametrize("op", ["lisa", "performer"])
def test_goes_on_bit_for_bit(op: str, tmp_path: Path) -> None:
    wanted = point(op, epochs=3, recipe=EVERYTHING)
    whole, _ = trained(wanted)
    stopped = loop.train(wanted, few(), kept_at=tmp_path / "kept.pt")
    next(stopped)
    stopped.close()
    torch.manual_seed(99)
    resumed, seen = trained(wanted, kept_at=tmp_path / "kept.pt")
    assert [epoch.epoch for epoch in seen] == [2, 3]
    assert whole.model is not None
    assert resumed.model is not None
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert [(e.loss, e.top1) for e in resumed.outcome.curve] == [(e.loss, e.top1) for e in whole.outcome.curve]
    assert resumed.outcome.seconds is not None


def test_one_of_another_model_is_refused(tmp_path: Path) -> None:
    list(loop.train(point(epochs=1), few(), kept_at=tmp_path / "kept.pt"))
    with pytest.raises(InputError, match=r"kept.pt' is a checkpoint of another model or recipe; remove it"):
        trained(point("lisa", epochs=1), kept_at=tmp_path / "kept.pt")


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must not run",)


@pytest.mark.parametrize("kind", ["text", "code", "torn"])
def test_what_is_no_checkpoint_is_refused_and_never_run(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kept.pt"
    if kind == "text":
        path.write_text("hello")
    elif kind == "code":
        torch.save({"cell": point().key, "model": _Evil()}, path)
    else:
        checkpoint.save(path, point().key, {"model": torch.ones(10_000)})
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"is no checkpoint of lisabench or is damaged; remove it"):
        checkpoint.load(path, point().key)
    assert capsys.readouterr().out == ""


def test_one_that_cannot_be_written_leaves_the_older(tmp_path: Path) -> None:
    path = tmp_path / "kept.pt"
    checkpoint.save(path, "a", {"step": 1})
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        checkpoint.save(tmp_path / "file" / "kept.pt", "a", {"step": 2})
    assert checkpoint.load(path, "a") == {"cell": "a", "step": 1}
    assert checkpoint.load(tmp_path / "none.pt", "a") is None
