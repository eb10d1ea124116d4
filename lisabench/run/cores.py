"""Which worker measures on which cores of this machine: no core is two workers', whichever program or cluster started them.

A core is claimed by a lock on a file of its name, which the system takes back from a process that is gone, however it died.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Self

from lisabench.errors import UnavailableError
from lisabench.provenance import cores_in_words

FOLDER = "lisabench-cores"


class Cores:
    """Cores that are claimed, until they are released or the process ends."""

    def __init__(self, held: dict[int, int]) -> None:
        self._held = held

    @property
    def numbers(self) -> list[int]:
        return sorted(self._held)

    @classmethod
    def claim(cls, count: int) -> Cores:
        """So many cores that nobody measures on, of those that this process may run on; the lowest that are free.

        Raises:
            UnavailableError: there are fewer.
        """
        allowed = sorted(os.sched_getaffinity(0))
        held: dict[int, int] = {}
        for core in allowed:
            if len(held) < count and (lock := _locked(core)) is not None:
                held[core] = lock
        found = cls(held)
        if len(held) < count:
            taken = [core for core in allowed if core not in held]
            found.release()
            raise UnavailableError(
                f"{count} cores are wanted and {len(held)} are free: others measure on {cores_in_words(taken)}"
                if taken
                else f"{count} cores are wanted and this process may run on {len(allowed)}"
            )
        return found

    def release(self) -> None:
        for lock in self._held.values():
            os.close(lock)
        self._held.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _locked(core: int) -> int | None:
    """An open file that holds the core; None where another process has it."""
    import fcntl

    folder = Path(tempfile.gettempdir()) / FOLDER
    try:
        folder.mkdir(mode=0o777, exist_ok=True)
        if folder.stat().st_uid == os.getuid():
            folder.chmod(0o1777)  # cores are no user's own
        path = folder / str(core)
        try:  # others' files in a folder of all are opened where they are there, and not made: fs.protected_regular
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            os.fchmod(file, 0o666)
    except OSError as error:
        raise UnavailableError(f"cores cannot be claimed: {str(folder)!r} cannot be written ({error.strerror})") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file
