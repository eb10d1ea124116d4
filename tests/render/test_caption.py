"""What stands beside a table is what the run's records and environments say, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_trainings import THIS_MACHINE, accuracies, write_run, write_sweep

from lisabench.analysis.accuracy import summarise
from lisabench.render import caption
from lisabench.results import Run

GPU = {"device": "cuda:0", "device_name": "NVIDIA H200", "driver": "570.86", "cuda": "12.8", "libraries": {"torch": "2.13.0+cu128"}}
SIZES = (256, 1024)


def beside_latency(run: Run) -> str:
    return caption.sentences(caption.of_costs(run.frame(), "latency", run.environments))


def with_latency(run: Run, told: Mapping[str, Any], **record: Any) -> Run:
    return replace(run, records=[one | {"latency_s": one["latency_s"] | told} | record for one in run.records])


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (GPU, "NVIDIA H200 (driver 570.86, CUDA 12.8, torch 2.13.0+cu128)"),
        (GPU | {"driver": None}, "NVIDIA H200 (CUDA 12.8, torch 2.13.0+cu128)"),
        (THIS_MACHINE, "AMD EPYC, 2 threads"),
        ({"device": "cpu", "device_name": "x", "cpu": {"threads": 1}}, "x, 1 thread"),
    ],
)
def test_a_machine_is_told_with_the_software_that_is_known(environment: Mapping[str, Any], words: str) -> None:
    assert caption.machine(environment) == words


def test_the_conditions_and_the_method_are_told(tmp_path: Path) -> None:
    run = with_latency(write_sweep(tmp_path / "run", {"softmax": SIZES, "linear": SIZES}), {"count": 40})
    text = beside_latency(run)
    for words in ("AMD EPYC, 2 threads; mixing only, forward, fp32, dim 192, 3 heads, batch 1", "Median of 40 samples"):
        assert words in text
    for absent in ("interleaved", "flushed", "warnings", "LiSA", "underlined", "identity", "oom"):
        assert absent not in text


def test_shared_rounds_flushed_caches_and_warnings_are_told_where_they_were(tmp_path: Path) -> None:
    run = write_sweep(tmp_path / "run", {"softmax": SIZES, "lisa": SIZES, "identity": SIZES})
    told = {"count": 40, "kind": "cold", "warnings": ["noisy: a lot; close others"]}
    text = beside_latency(with_latency(run, told, ratio={"median": 1.0, "ci_low": 0.9, "ci_high": 1.1}))
    for words in (
        "in interleaved rounds, L2 cache flushed before each; 6 of 6 medians carry warnings (noisy)",
        "underlined: the second",
        "identity, which mixes nothing, is not ranked",
        "LiSA: reconstruction from the paper's abstract",
    ):
        assert words in text


def test_the_convention_of_flops_and_what_words_mean_are_told(tmp_path: Path) -> None:
    run = write_sweep(tmp_path / "run", {"softmax": SIZES})
    run.records[1].update(status="oom", latency_s=None)
    text = caption.sentences(caption.of_costs(run.frame(), "flops", run.environments))
    assert "a multiply-add is 2, a complex FFT of n points 5 n log₂ n" in text
    assert "In place of figures: oom (out of memory)." in text


def test_several_machines_are_all_told(tmp_path: Path) -> None:
    run = write_sweep(tmp_path / "run", {"softmax": SIZES})
    run.records[1]["environment"] = "other"
    run = replace(run, environments=run.environments | {"other": GPU})
    assert "AMD EPYC, 2 threads; NVIDIA H200 (driver" in beside_latency(run)


def test_trainings_are_told_with_their_seeds_and_what_the_intervals_do_not_cover(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", accuracies(["lisa", "softmax", "linear"]))
    text = caption.sentences(caption.of_trainings(summarise([run]), run.environments))
    for words in (
        "Accuracy on digits",
        "30 epochs",
        "over 3 seeds",
        "do not cover other test images",
        "360 test images",
        "64 images",
        "LiSA",
    ):
        assert words in text
    assert "underlined" in text
