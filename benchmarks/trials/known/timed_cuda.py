"""Operators of known duration on a GPU: a kernel that waits for so many of the device's cycles, counted against the host's clock first."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

TRIED_CYCLES = 10**8  # some 50 ms: launch and synchronising are nothing beside it


class Waits(nn.Module):
    """Keeps the device waiting for `seconds` and gives its input back."""

    seconds = 0.0

    def __init__(self) -> None:
        super().__init__()
        rates = []
        for _ in range(3):
            torch.cuda.synchronize()
            started = time.perf_counter()
            torch.cuda._sleep(TRIED_CYCLES)
            torch.cuda.synchronize()
            rates.append(TRIED_CYCLES / (time.perf_counter() - started))
        self.cycles = int(self.seconds * sorted(rates)[1])

    def forward(self, x: Tensor) -> Tensor:
        torch.cuda._sleep(self.cycles)
        return x


class WaitShort(Waits):
    seconds = 1e-3


class WaitLong(Waits):
    seconds = 20e-3
