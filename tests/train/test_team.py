"""Two processes train what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import records
from training import digits, point

from lisabench.errors import UnavailableError
from lisabench.train.team import Team, is_leader, own_device
from lisabench.train.vit import MICRO

ARGS = ("train-small", "--op", "lisa", "--baseline", "softmax", "--patch", "2", "--epochs", "2", "--seeds", "1", "--batch", "50")
ARGS += ("--drop-path", "0.2", "--augment", "shift", "--device", "cpu", "--threads", "1")


@pytest.mark.parametrize("samples", [1, 2, 3, 7, 32])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_parts_are_the_whole(samples: int, size: int) -> None:
    parts = [Team(rank=rank, size=size).part(samples) for rank in range(size)]
    counted = [sample for own, count in parts if count for sample in list(range(samples))[own]]
    assert counted == list(range(samples))
    assert sum(count for _, count in parts) == samples
    assert all(list(range(samples))[own] for own, _ in parts)


def test_who_leads_and_on_which_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert (is_leader(), own_device("cuda:1")) == (True, "cuda:1")
    for name, value in (("WORLD_SIZE", "4"), ("RANK", "3"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert (is_leader(), own_device("cuda"), own_device("cpu")) == (False, "cuda:1", "cpu")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UnavailableError, match="this machine, which has 2 GPUs; give --nproc-per-node 2"):
        own_device("cuda")


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    together = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "lisabench"]
    for command, out in (([*together, *ARGS], "two"), ([sys.executable, "-m", "lisabench", *ARGS], "one")):
        done = subprocess.run(
            [*command, "--out", out, "--json"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert [json.loads(line)["op"] for line in done.stdout.splitlines()] == ["lisa", "softmax"]
    for one, two in zip(records(tmp_path / "one"), records(tmp_path / "two"), strict=True):
        assert one["cell"] == two["cell"]
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
        logits = []
        for run in ("one", "two"):
            model = point(one["op"], epochs=2, size=MICRO).model()
            model.load_state_dict(torch.load(tmp_path / run / "weights" / f"{one['cell']}.pt", weights_only=True)["model"])
            logits.append(model.eval()(digits().test.images))
        # Not the weights: AdamW makes steps of full size of gradients that are 0 but for rounding, such as those of softmax's key bias.
        torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=1e-4)
