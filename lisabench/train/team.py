"""Several processes that train one model: started by torchrun, a device each, the same weights in all of them.

Each takes a part of every batch and the gradients are averaged (DistributedDataParallel), so that the result is that of one process
with the whole batch, to rounding. Whatever is random is drawn for the whole batch in each process alike.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from lisabench.errors import UnavailableError


@dataclass(frozen=True, kw_only=True)
class Team:
    """This process among those that train together; alone where torchrun did not start it. The leader alone writes and prints."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def part(self, samples: int) -> tuple[slice, int]:
        """Which of a batch's samples are this process's, and how many of them count.

        A process for which there are none takes the first sample, which then counts for nothing: all of them must take part.
        """
        share, rest = divmod(samples, self.size)
        begin = self.rank * share + min(self.rank, rest)
        end = begin + share + (self.rank < rest)
        return (slice(begin, end), end - begin) if end > begin else (slice(0, 1), 0)

    def wrapped(self, model: nn.Module, *, whole: bool) -> nn.Module:
        """The model with gradients that are averaged over the processes; `whole`: each parameter is known to have one."""
        return nn.parallel.DistributedDataParallel(model, find_unused_parameters=not whole) if self.size > 1 else model

    def total(self, value: Tensor) -> Tensor:
        """The sum of it over the processes, in each of them."""
        if self.size > 1:
            distributed.all_reduce(value)
        return value

    def told(self, value: Any) -> Any:
        """What the leader has, in each of the processes."""
        box = [value]
        if self.size > 1:
            distributed.broadcast_object_list(box, src=0)
        return box[0]

    def leave(self) -> None:
        """Waits for all and takes the connections down."""
        if self.size > 1:
            distributed.barrier()
            distributed.destroy_process_group()


def started_by_torchrun() -> bool:
    """Whether this process is one of several; torchrun says so in the environment."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_leader() -> bool:
    return not started_by_torchrun() or os.environ.get("RANK") == "0"


def join(device: str) -> Team:
    """Meets the other processes: by NCCL on GPUs, by gloo on CPUs."""
    if not started_by_torchrun():
        return Team()
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    # The others wait while the leader measures all models.
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=timedelta(hours=2))
    return Team(rank=distributed.get_rank(), size=distributed.get_world_size())


def own_device(device: str) -> str:
    """The GPU of this process among those on its machine, where the devices are GPUs.

    Raises:
        UnavailableError: torchrun started more processes here than there are GPUs.
    """
    if not started_by_torchrun() or not device.startswith("cuda"):
        return device
    place, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if place >= count:
        raise UnavailableError(
            f"torchrun started process {place + 1} on this machine, which has {count} GPUs; give --nproc-per-node {count}"
        )
    return f"cuda:{place}"
