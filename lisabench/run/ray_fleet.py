"""The fleet of a Ray cluster: a stand on every GPU, or on every CPU node, started again where it is lost.

Ray starts the processes and tells which nodes there are. Each has its device to itself: a GPU by Ray's own account, cores by a claim
that holds across programs. The driver asks each for news, one call at a time; what is not heard of a visit is measured again.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import lisabench
from lisabench.errors import UnavailableError
from lisabench.provenance import device_id, device_kind
from lisabench.run.fleet import Ended, Event, Lost, Said, Stand, Surroundings, Task, Tell, UnfitError
from lisabench.run.ray_cluster import Cluster, Node
from lisabench.run.ray_post import Post, Setup

MOST_FAILURES = 3  # in a row, after which a node is left alone
PATIENCE_SECONDS = 60.0  # without any visit being made, though there are some to make
SILENT_SECONDS = 90.0  # a post that answers nothing for so long has hung
HEAR_SECONDS, LOOK_SECONDS, AGAIN_SECONDS = 0.5, 2.0, 5.0
START_SECONDS = 150.0


@dataclass(eq=False, kw_only=True)
class _RayStand(Stand):
    node: Node
    slot: tuple[str, int]
    actor: Any
    news: Any  # of the call that asks for news; None while there can be none: a call that waits would keep the next visit waiting
    heard: float = field(default_factory=time.monotonic)
    working: bool = False


class RayFleet:
    """Use it in a `with` block: it is left with every worker ended. `kinds`: device names to measure on alone, or parts of such."""

    alone = False

    def __init__(
        self,
        cluster: Cluster,
        *,
        device: str,
        threads: int | None,
        command: list[str],
        files: Sequence[str] = (),
        kinds: Sequence[str] = (),
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.cluster, self.wanted, self.patience = cluster, kinds, patience
        contents = {name: Path(name.rpartition(":")[0]).read_bytes() for name in files}
        self._setup = Setup(lisabench=lisabench.__version__, device=device, threads=threads, command=command, files=contents)
        self._actor = cluster.ray.remote(max_restarts=0, max_task_retries=0)(Post)
        self._stands: dict[tuple[str, int], _RayStand] = {}
        self._failures: Counter[str] = Counter()  # of a node, in a row
        self._aside: set[str | tuple[str, int]] = set()
        self._not_before: dict[tuple[str, int], float] = {}
        self._reasons: dict[str, str] = {}
        self._news: list[tuple[Stand, Event]] = []
        self._looked = self._worked = 0.0

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of devices that there are."""
        return tuple(dict.fromkeys(stand.kind for stand in self._stands.values() if stand.kind))

    @property
    def busy(self) -> int:
        return sum(stand.working for stand in self._stands.values())

    def idle(self) -> Sequence[Stand]:
        return [stand for stand in self._stands.values() if stand.kind and not stand.working]

    def start(self, stand: Stand, task: Task) -> None:
        assert isinstance(stand, _RayStand)
        # Copies without what they were asked before, which would travel with them.
        cells = [replace(cell) for cell in task.cells]
        beside = task.beside and replace(task.beside)
        stand.actor.start.remote(replace(task, cells=cells, beside=beside))
        stand.news, stand.heard, stand.working = stand.actor.hear.remote(HEAR_SECONDS), time.monotonic(), True

    def turn(self, tell: Tell) -> None:
        """Waits for news and tells them; looks for nodes that came or went meanwhile."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._look()
        self._hear()
        news, self._news = self._news, []
        for stand, event in news:
            if isinstance(event, Ended):
                self._failures[stand.node.key] = 0  # type: ignore[attr-defined]
            try:
                tell(stand, event)
            except UnfitError as error:
                self._set_aside(stand, f"{stand.name} is set aside: {error}")
                tell(stand, Lost(str(error), blameless=True))
        if self.busy:
            self._worked = time.monotonic()
        elif time.monotonic() - self._worked > self.patience:
            raise UnavailableError(
                f"no device is left to measure on at {self.cluster.where}{self._why()}; --resume goes on when there is one"
            )

    # --- stands --------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Waits until every device has answered or was given up, or until some have and the others take their time."""
        started = time.monotonic()
        while (waited := time.monotonic() - started) < START_SECONDS:
            if time.monotonic() - self._looked > LOOK_SECONDS:
                self._look()
            if not self._stands and not self._may_come(waited):
                break
            if self.kinds and (waited > self.patience / 2 or all(stand.kind for stand in self._stands.values())):
                break
            self._hear()
        if not self.kinds:
            why = self._why() or f" (it has {'no GPU' if self._setup.device != 'cpu' else 'too few cores'})"
            self.__exit__()
            raise UnavailableError(f"no device of {self.cluster.where} can measure{why}")
        self._worked = time.monotonic()
        return self

    def _may_come(self, waited: float) -> bool:
        """Whether a device may still be there soon: one is tried again, or nodes of the cluster are yet to join."""
        slots = [slot for node in self.cluster.nodes() for slot in self._slots(node)]
        tried_again = any(not {slot, slot[0]} & self._aside for slot in slots)
        return tried_again or (not slots and not self.cluster.own and waited < self.patience)

    def __exit__(self, *_: object) -> None:
        for stand in list(self._stands.values()):
            self._end(stand)
        self.cluster.leave()

    def _look(self) -> None:
        """Takes in which nodes there are, and starts stands where there are none."""
        self._looked = time.monotonic()
        nodes = {node.key: node for node in self.cluster.nodes()}
        for stand in list(self._stands.values()):
            if stand.node.key not in nodes:
                self._lose(stand, "its node is gone")
        for node in nodes.values():
            for slot in self._slots(node):
                free = slot not in self._stands and not {slot, node.key} & self._aside
                if free and time.monotonic() >= self._not_before.get(slot, 0.0):
                    self._stands[slot] = self._started(node, slot)

    def _slots(self, node: Node) -> Iterator[tuple[str, int]]:
        on_cpu = self._setup.device == "cpu"
        count = min(1, node.cpus // (self._setup.threads or 1)) if on_cpu else node.gpus
        return ((node.key, place) for place in range(count))

    def _started(self, node: Node, slot: tuple[str, int]) -> _RayStand:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        on_cpu = self._setup.device == "cpu"
        threads = (self._setup.threads or node.cpus) if on_cpu else self._setup.threads
        actor = self._actor.options(
            num_cpus=threads if on_cpu else min(1, node.cpus // max(1, node.gpus)),
            num_gpus=0 if on_cpu else 1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node.key, soft=False),
        ).remote(replace(self._setup, threads=threads))
        return _RayStand(name=node.name, node=node, slot=slot, actor=actor, news=actor.hear.remote(HEAR_SECONDS))

    def _end(self, stand: Stand) -> None:
        assert isinstance(stand, _RayStand)
        self._stands.pop(stand.slot, None)
        self.cluster.ray.kill(stand.actor, no_restart=True)

    # --- news ----------------------------------------------------------------------------------------------------------

    def _hear(self) -> None:
        asked = {stand.news: stand for stand in self._stands.values() if stand.news is not None}
        if not asked:
            time.sleep(min(1.0, self.patience / 10))
            return
        ready, _ = self.cluster.ray.wait(list(asked), num_returns=1, timeout=HEAR_SECONDS)
        if ready:
            ready, _ = self.cluster.ray.wait(list(asked), num_returns=len(asked), timeout=0)
        for news in ready:
            self._heard(asked[news])
        for stand in list(self._stands.values()):
            if stand.working and time.monotonic() - stand.heard > SILENT_SECONDS:
                self._lose(stand, f"it gave no answer for {SILENT_SECONDS:.0f} s")

    def _heard(self, stand: _RayStand) -> None:
        from ray.exceptions import RayError

        try:
            events: list[Event] = self.cluster.ray.get(stand.news)
        except RayError as error:
            self._lose(stand, _in_words(error))
            return
        stand.heard = time.monotonic()
        for event in events:
            if isinstance(event, Lost):
                self._lose(stand, event.why, blameless=event.blameless)
                return
            if isinstance(event, Surroundings) and stand.kind is None and not self._named(stand, event.environment):
                return
            if isinstance(event, Ended):
                stand.working = False
            self._news.append((stand, event))
        stand.news = stand.actor.hear.remote(HEAR_SECONDS) if stand.working or not stand.kind else None

    def _named(self, stand: _RayStand, environment: dict[str, Any]) -> bool:
        """Takes in what device the stand has; whether it is wanted."""
        kind = device_kind(environment)
        if self.wanted and not any(name.casefold() in kind.casefold() for name in self.wanted):
            self._reasons[stand.node.key] = f"{stand.node.name} has {kind}, which --kind leaves out"
            self._aside.add(stand.slot)
            self._end(stand)
            return False
        stand.kind = kind
        stand.name = " ".join(filter(None, (environment["host"], (device_id(environment) or "")[:13])))
        return True

    def _lose(self, stand: _RayStand, why: str, *, blameless: bool = False) -> None:
        """Takes a stand away, to be started again a little later; a node that keeps failing is set aside."""
        self._end(stand)
        node = stand.node
        gone = node.key not in {one.key for one in self.cluster.nodes()}
        why = "its node is gone" if gone else why
        self._reasons[node.key] = f"{node.name}: {why}"
        if stand.kind:
            self._news.append((stand, Said(f"{stand.name} is lost ({why}); what it was at is measured again")))
        self._news.append((stand, Lost(why, blameless=blameless)))
        if gone:
            return
        self._failures[node.key] += 1
        self._not_before[stand.slot] = time.monotonic() + AGAIN_SECONDS * self._failures[node.key]
        if self._failures[node.key] >= MOST_FAILURES:
            self._set_aside(stand, f"{node.name} is set aside after {MOST_FAILURES} failures in a row; the last: {why}", whole=True)

    def _set_aside(self, stand: Stand, words: str, *, whole: bool = False) -> None:
        assert isinstance(stand, _RayStand)
        self._aside.add(stand.node.key if whole else stand.slot)
        self._reasons[stand.node.key] = words
        if stand.slot in self._stands:
            self._end(stand)
        self._news.append((stand, Said(words)))

    def _why(self) -> str:
        return f" ({'; '.join(self._reasons.values())})" if self._reasons else ""


def _in_words(error: Exception) -> str:
    """What a failure inside Ray comes down to, in a line."""
    from ray import exceptions

    for kind, words in (
        (exceptions.ActorUnavailableError, "its node does not answer"),
        (exceptions.ActorUnschedulableError, "its node is gone"),
        (exceptions.NodeDiedError, "its node is gone"),
        (exceptions.OutOfMemoryError, "Ray ended its process for want of memory on the node"),
    ):
        if isinstance(error, kind):
            return words
    # An error in a post's own code, such as a version that does not fit, stands at the end of Ray's account of it.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b: ", line)]
    return raised[-1].partition(": ")[2] if raised else "its process died"
