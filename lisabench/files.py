"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lisabench.errors import RunError


@contextlib.contextmanager
def writing_whole(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` to write to; at the end, when the disk has it, it takes the place of `path` in one step.

    Raises:
        RunError: the folder cannot be made or the file cannot be written; what stood there stands still.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise RunError(
            f"{str(path)!r} cannot be written ({error.strerror or error}); make room or give a folder that can be written"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def write_whole(path: Path, content: bytes) -> None:
    """Writes `content` whole, or raises RunError; see `writing_whole`."""
    with writing_whole(path) as file:
        file.write(content)
