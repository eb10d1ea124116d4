"""Several processes that train one model: started by torchrun on one node or several, a device each, the same weights in all of them.

Each takes a part of every batch and the gradients are averaged (DistributedDataParallel), so that the result is that of one process
with the whole batch, to rounding. Whatever is random is drawn for the whole batch in each process alike. The leader alone has the run's
folder, and tells the others what it reads there: no disk need be shared. What would let the processes drift apart ends all of them, in a
line that the leader says.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.rendezvous import rendezvous

from lisabench import __version__
from lisabench.errors import InputError, LisaBenchError, UnavailableError

MEETING = timedelta(minutes=10)  # for all to come, and for a step
WAITING = timedelta(hours=2)  # for the leader, while it measures all models; for the node that is the last to have read its images
FAILURE = "failure"
Value = TypeVar("Value")


class TeamError(LisaBenchError):
    """What ends all processes of a team. `told`: whether this one says it; the others end without a word."""

    def __init__(self, message: str, *, exit_code: int, told: bool) -> None:
        super().__init__(message)
        self.exit_code, self.told = exit_code, told


class FailedInTeamError(TeamError):
    """A training failed in one of several processes: its record's status and reason."""

    def __init__(self, message: str, *, status: str, reason: str, told: bool) -> None:
        super().__init__(f"{message}; the others are stopped too, --resume goes on behind it", exit_code=1, told=told)
        self.status, self.reason = status, reason


@dataclass(frozen=True, kw_only=True)
class Team:
    """This process among those that train together; alone where torchrun did not start it. The leader alone writes and prints.

    `hosts` are the machines of all processes by rank, `nodes` is the number of torchrun's. `patient` and `gradients` are the groups for
    words and for gradients, `store` is what torchrun keeps beside the processes.
    """

    rank: int = 0
    size: int = 1
    leader: int = 0
    nodes: int = 1
    hosts: tuple[str, ...] = ()
    patient: Any = None
    gradients: Any = None
    store: Any = None

    @property
    def leads(self) -> bool:
        return self.rank == self.leader

    def part(self, samples: int) -> tuple[slice, int]:
        """Which of a batch's samples are this process's, and how many of them count.

        A process for which there are none takes the first sample, which then counts for nothing: all of them must take part.
        """
        share, rest = divmod(samples, self.size)
        begin = self.rank * share + min(self.rank, rest)
        end = begin + share + (self.rank < rest)
        return (slice(begin, end), end - begin) if end > begin else (slice(0, 1), 0)

    def on(self, device: str) -> Team:
        """The same, with gradients that are averaged by NCCL where the devices are GPUs, and by gloo on CPUs."""
        if self.size == 1 or not device.startswith("cuda"):
            return self
        torch.cuda.set_device(device)
        return replace(self, gradients=distributed.new_group(backend="nccl", timeout=MEETING))

    def wrapped(self, model: nn.Module, *, whole: bool) -> nn.Module:
        """The model with gradients that are averaged over the processes; `whole`: each parameter is known to have one."""
        if self.size == 1:
            return model
        return nn.parallel.DistributedDataParallel(model, find_unused_parameters=not whole, process_group=self.gradients)

    def total(self, value: Tensor) -> Tensor:
        """The sum of it over the processes, in each of them."""
        if self.size > 1:
            distributed.all_reduce(value, group=self.gradients)
        return value

    def told(self, value: Any) -> Any:
        """What the leader has, in each of the processes."""
        box = [value]
        if self.size > 1:
            distributed.broadcast_object_list(box, src=self.leader, group=self.patient)
        return box[0]

    def gathered(self, value: Value) -> list[Value]:
        """What each process has, by rank, in each of them."""
        found: list[Any] = [value] * self.size
        if self.size > 1:
            distributed.all_gather_object(found, value, group=self.patient)
        return found

    def led_by(self, can: bool) -> Team:
        """The same, led by the first process that can, and by the first of all where none can."""
        return replace(self, leader=next((rank for rank, one in enumerate(self.gathered(can)) if one), 0))

    def each(self, work: Callable[[], Value]) -> Value:
        """What the work gives in this process.

        Raises:
            TeamError: it failed in one of them; all end with the first one's error.
        """
        if self.size == 1:
            return work()
        found, failed = None, None
        try:
            found = work()
        except LisaBenchError as error:
            failed = (str(error), error.exit_code)
        for rank, told in enumerate(self.gathered(failed)):
            if told:
                message, exit_code = told
                raise self._ended(message if rank == self.leader else f"{self.place(rank)}: {message}", exit_code)
        return found  # type: ignore[return-value]

    def check_alike(self, facts: Mapping[str, Any]) -> None:
        """Compares facts, by what a message calls them, with the leader's.

        Raises:
            TeamError: a process has others; all end.
        """
        known = self.gathered(dict(facts))
        here = known[self.leader]
        for rank, there in enumerate(known):
            name = next((name for name in {**here, **there} if here.get(name) != there.get(name)), None)
            if name is not None:
                apart = f"{there.get(name)!r}, and {here.get(name)!r} in {self.place(self.leader)}, which leads"
                same = "give all nodes the same lisabench and torch, command, operators and images, and devices of one kind"
                raise self._ended(f"{self.place(rank)} differs in {name} ({apart}); {same}", InputError.exit_code)

    def place(self, rank: int) -> str:
        """'process 1 on node-b'."""
        return f"process {rank} on {self.hosts[rank]}" if self.hosts else f"process {rank}"

    def _ended(self, message: str, exit_code: int) -> TeamError:
        if not self.leads:
            with suppress(RuntimeError):  # the leader's end is waited for: torchrun would end it at the first that is gone, untold
                distributed.barrier(group=self.patient)
        distributed.destroy_process_group()
        return TeamError(message, exit_code=exit_code, told=self.leads)

    def failed(self, what: str, *, status: str, reason: str, error: BaseException) -> TeamError:
        """What a process ends with whose training raised: where another one is gone, with the last word that it left, if any."""
        if is_loss(error):
            noted = self._noted()
            if noted is None:
                return self._lost(error)
            place, status, reason, told = noted["place"], noted["status"], f"{noted['place']}: {noted['reason']}", self.leads
        else:
            place, told = self.place(self.rank), True
            with suppress(RuntimeError):  # the store's
                self.store.set(FAILURE, json.dumps({"place": place, "status": status, "reason": reason}))
        words = reason.removeprefix(f"{place}: ")
        return FailedInTeamError(f"{what} failed in {place}, of {self.size}: {words}", status=status, reason=reason, told=told)

    def _noted(self) -> dict[str, str] | None:
        with suppress(RuntimeError):  # torchrun's store may be gone too
            if self.store.check([FAILURE]):
                found: dict[str, str] = json.loads(self.store.get(FAILURE))
                return found
        return None

    def _lost(self, error: BaseException) -> TeamError:
        message = f"another process of this training is gone ({_words(error)}); start all nodes again, with --resume"
        return TeamError(message, exit_code=UnavailableError.exit_code, told=self.leads or _is_first_here())

    @contextmanager
    def losses_told(self) -> Iterator[None]:
        """Within it a process that is gone is told in a line, once a node.

        Raises:
            TeamError: in place of what torch raises.
        """
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not is_loss(error):
                raise
            raise self._lost(error) from error

    def leave(self) -> None:
        """Waits for all and takes the connections down."""
        if self.size > 1:
            distributed.barrier(group=self.patient)
            distributed.destroy_process_group()


def is_loss(error: BaseException) -> bool:
    """Whether torch raised it because another process is gone or does not answer; of gloo's errors the text alone says so."""
    return isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "gloo/transport" in str(error))


def _words(error: BaseException) -> str:
    """The first sentence of what torch says, without places in its source."""
    return re.sub(r"\[\S*\.cc:\d+\] ", "", (str(error).splitlines() or [""])[0]).partition(". ")[0]


def started_by_torchrun() -> bool:
    """Whether this process is one of several; torchrun says so in the environment."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def restarted() -> bool:
    """Whether torchrun (--max-restarts) started this process in the place of one that failed."""
    return started_by_torchrun() and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def is_leader() -> bool:
    return not started_by_torchrun() or os.environ.get("RANK") == "0"


def _is_first_here() -> bool:
    return os.environ.get("LOCAL_RANK", "0") == "0"


@cache
def meet() -> Team:
    """This process among all that torchrun started, which have come and are of one version.

    Raises:
        TeamError: one has not come, or has another version of lisabench or torch; or torchrun would start processes again in vain.
    """
    if not started_by_torchrun():
        return Team()
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        message = (
            "--max-restarts lets processes look for those that are gone; set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 on all nodes, with c10d"
        )
        raise TeamError(message, exit_code=InputError.exit_code, told=is_leader())
    try:
        store, rank, size = next(rendezvous("env://", timeout=MEETING))
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=MEETING)
        patient = distributed.new_group(backend="gloo", timeout=WAITING)
    except RuntimeError as error:
        message = f"the processes of this training have not all met ({_words(error)}); see what the other nodes say, and start all again"
        raise TeamError(message, exit_code=UnavailableError.exit_code, told=_is_first_here()) from error
    team = Team(rank=rank, size=size, nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")), patient=patient, store=store)
    with team.losses_told():
        team = replace(team, hosts=tuple(team.gathered(platform.node())))
        team.check_alike({"lisabench": __version__, "torch": torch.__version__})
    return team


def own_device(device: str) -> str:
    """The GPU of this process among those on its machine, where the devices are GPUs.

    Raises:
        UnavailableError: torchrun started more processes here than there are GPUs.
    """
    if not started_by_torchrun() or not device.startswith("cuda"):
        return device
    place, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if place >= count:
        started, gpus = os.environ.get("LOCAL_WORLD_SIZE", place + 1), "1 GPU" if count == 1 else f"{count} GPUs"
        raise UnavailableError(f"torchrun started {started} processes on this machine, which has {gpus}; give --nproc-per-node {count}")
    return f"cuda:{place}"
