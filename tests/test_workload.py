from __future__ import annotations

import pytest
import torch

from lisabench.workload import Grid, Workload, most_square, seeded_input


@pytest.mark.parametrize(
    ("tokens", "grid"), [(1, (1, 1)), (13, (1, 13)), (196, (14, 14)), (512, (16, 32)), (1000, (25, 40)), (16384, (128, 128))]
)
def test_most_square(tokens: int, grid: tuple[int, int]) -> None:
    assert most_square(tokens) == grid


def test_record_fields_come_back() -> None:
    workload = Workload(scope="layer", mode="train", batch=3, grid=Grid(5, 7), dim=64, heads=4, dtype="bf16", compiled=True)
    assert Workload.from_record(workload.record_fields()) == workload
    assert workload.record_fields()["tokens"] == 35


def test_inputs_are_seeded() -> None:
    workload = Workload(batch=2, grid=Grid(3, 4), dim=8, heads=2)
    first, again, other = (seeded_input(workload, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (2, 12, 8)
    half = seeded_input(Workload(batch=2, grid=Grid(3, 4), dim=8, heads=2, dtype="bf16"), 1)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, first.bfloat16())
