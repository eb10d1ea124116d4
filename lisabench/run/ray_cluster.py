"""A Ray cluster that is connected to, or started on this machine: its nodes and what they have."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lisabench.errors import UnavailableError

# What a cluster of our own needs: little passes through the object store.
STORE_BYTES = 100 * 2**20
# Ray's own switches, where the user did not set them: no report of use; in a cluster of our own
# no token in the home folder.
SWITCHES = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
OWN_SWITCHES = SWITCHES | {"RAY_AUTH_MODE": "disabled"}
ANSWER_SECONDS = 10.0
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
    for name, value in OWN_SWITCHES.items() if not address else SWITCHES.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise UnavailableError(f"--engine ray needs Ray ({error}); install it by: pip install 'lisabench[ray]'") from error
    where = f"the Ray cluster at {address}" if address != "auto" else "a Ray cluster that runs on this machine"
    if address:
        _check_answers(address, where)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": True}
    own: dict[str, Any] = {"address": "local", "include_dashboard": False, "object_store_memory": STORE_BYTES}
    with _signals_kept():
        try:
            ray.init(**({"address": address} if address else own), **quiet)
            # What a raylet says of a node that dies would stand among the results; the fleet tells it in its own words.
            vars(sys.modules["ray._private.worker"])["print_to_stdstream"] = lambda *_, **__: None
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            where, then = (
                (where, "see `ray status` there") if address else ("a Ray cluster on this machine", "see /tmp/ray/session_latest/logs")
            )
            raise UnavailableError(f"{where} cannot be had ({first}); {then}") from error
    return ray


def _check_answers(address: str, where: str) -> None:
    """UnavailableError where nobody listens at the address: Ray itself would try for many minutes."""
    from ray._private.services import canonicalize_bootstrap_address

    try:
        found = canonicalize_bootstrap_address(address.removeprefix("ray://")) or address
        host, _, port = found.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except (ValueError, OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error).partition(". ")[0] or type(error).__name__
        valid = "give --address auto or HOST:PORT, as `ray start` prints it"
        raise UnavailableError(f"{where} cannot be had ({why}); {valid}") from error


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts its own handler of SIGTERM in place of ours."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
