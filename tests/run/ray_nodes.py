"""A real Ray cluster of several nodes on this machine, for one test at a time: its workers claim the machine's cores."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

STORE_BYTES = 80 * 2**20


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """Two nodes of one core each."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with FileLock(Path(tempfile.gettempdir()) / "lisabench-tests-ray.lock"):
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        found = Nodes(cluster)
        try:
            found.add()
            found.add()
            yield found
        finally:
            cluster.shutdown()


class Nodes:
    """The cluster's nodes that measure."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._nodes: list[Any] = []

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, **settings: Any) -> None:
        self._nodes.append(self._cluster.add_node(**{"num_cpus": 1, "object_store_memory": STORE_BYTES} | settings))

    def kill(self) -> None:
        """Takes the last node away without a word."""
        self._cluster.remove_node(self._nodes.pop(), allow_graceful=False)


def posts() -> list[psutil.Process]:
    """The processes that hold a device for the run."""
    return _running(lambda words: "ray::Post" in words)


def measuring() -> list[psutil.Process]:
    """The processes that measure under these."""
    here = {process.pid for post in posts() for process in post.children(recursive=True)}
    return [process for process in _running(lambda words: "lisabench.run.worker" in words) if process.pid in here]


def _running(wanted: Any) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.info["status"] != psutil.STATUS_ZOMBIE and wanted(" ".join(process.info["cmdline"] or [])):
            found.append(process)
    return found
