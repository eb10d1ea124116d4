"""A Ray cluster that is connected to, or started on this machine: its nodes and what they have."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lisabench.errors import UnavailableError

# What a cluster of our own needs: little passes through the object store.
STORE_BYTES = 100 * 2**20
ADDRESS = "RAY_ADDRESS"  # set by Ray's job submission


@dataclass(frozen=True)
class Node:
    """A machine of the cluster. `key`: Ray's name of it, another one when it comes back."""

    key: str
    host: str
    cpus: int
    gpus: int

    @property
    def name(self) -> str:
        return f"{self.host} (node {self.key[:8]})"


class Cluster:
    """The one cluster of this process. `own`: it was started for it, and has this machine alone."""

    def __init__(self, ray: Any, address: str | None) -> None:
        self.ray, self.own = ray, address is None
        self.where = f"the cluster at {address}" if address else "this machine"

    def nodes(self) -> list[Node]:
        """The nodes that are there now."""
        return [
            Node(
                key=node["NodeID"],
                host=node["NodeManagerHostname"],
                cpus=int(node["Resources"].get("CPU", 0)),
                gpus=int(node["Resources"].get("GPU", 0)),
            )
            for node in self.ray.nodes()
            if node["Alive"]
        ]

    @property
    def gpus(self) -> int:
        return sum(node.gpus for node in self.nodes())

    def leave(self) -> None:
        """Ends the connection; a cluster of our own ends with it."""
        global _connected
        self.ray.shutdown()
        _connected = None


_connected: Cluster | None = None


def connect(address: str | None) -> Cluster:
    """The cluster at `address` (auto or HOST:PORT), that of RAY_ADDRESS, or else a new one on this machine; once a process.

    Raises:
        UnavailableError: Ray is not installed, or there is no such cluster.
    """
    global _connected
    if _connected is None:
        address = address or os.environ.get(ADDRESS)
        _connected = Cluster(_joined(address), address)
    return _connected


def _joined(address: str | None) -> Any:
    # Its own switches, where the user did not set them: no token in the home folder, no report of use, no word of GPUs that are not asked for.
    for name, value in (("RAY_AUTH_MODE", "disabled"), ("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")):
        if not (address and name == "RAY_AUTH_MODE"):
            os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise UnavailableError(f"--engine ray needs Ray ({error}); install it by: pip install 'lisabench[ray]'") from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": True}
    own: dict[str, Any] = {"address": "local", "include_dashboard": False, "object_store_memory": STORE_BYTES}
    with _signals_kept():
        try:
            ray.init(**({"address": address} if address else own), **quiet)
            # What a raylet says of a node that dies would stand among the results; the fleet tells it in its own words.
            vars(sys.modules["ray._private.worker"])["print_to_stdstream"] = lambda *_, **__: None
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            where = f"the Ray cluster at {address}" if address else "a Ray cluster on this machine"
            then = "see `ray status` there" if address else "see /tmp/ray/session_latest/logs"
            raise UnavailableError(f"{where} cannot be had ({first}); {then}") from error
    return ray


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts its own handler of SIGTERM in place of ours."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
