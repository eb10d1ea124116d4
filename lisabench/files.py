"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from lisabench.errors import RunError


def write_whole(path: Path, content: bytes) -> None:
    """Writes `content` beside `path`, waits until the disk has it, and puts it in the place of `path` in one step.

    Raises:
        RunError: the folder cannot be made or the file cannot be written; what stood there stands still.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "wb") as file:
            file.write(content)
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
