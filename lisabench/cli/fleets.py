"""Which engine measures a sweep: one worker on this machine, or those of a Ray cluster."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lisabench.errors import InputError

if TYPE_CHECKING:
    from lisabench.run.fleet import Fleet


def fleet_device(device: str, address: str | None) -> str:
    """torch's name of the device that each worker of the cluster sees: its one GPU, or its cores."""
    if not re.fullmatch(r"auto|cpu|cuda", device):
        raise InputError(f"--device got {device!r}; valid with --engine ray, where each worker has one device: auto, cpu, cuda")
    from lisabench.run import ray_cluster

    has_gpus = device == "cuda" or (device == "auto" and ray_cluster.connect(address).gpus > 0)
    return "cuda:0" if has_gpus else "cpu"


@contextmanager
def open_fleet(engine: str, plan: dict[str, Any], *, address: str | None, kinds: Sequence[str]) -> Iterator[Fleet]:
    """The stands that measure the plan, for as long as the block lasts."""
    command = ["lisabench", *sys.argv[1:]]
    if engine == "local":
        from lisabench.run.alone import Alone
        from lisabench.run.local import Worker

        with Alone(Worker(device=plan["device"], threads=plan["threads"], command=command)) as alone:
            yield alone
        return
    from lisabench.run import ray_cluster
    from lisabench.run.ray_fleet import RayFleet

    operators = [name for name, known in plan["operators"].items() if known["digest"]]
    cluster = ray_cluster.connect(address)
    with RayFleet(cluster, device=plan["device"], threads=plan["threads"], command=command, files=operators, kinds=kinds) as fleet:
        yield fleet
