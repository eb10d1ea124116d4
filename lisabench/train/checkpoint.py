"""Weights and unfinished trainings on disk: written whole or not at all, read without running what is in them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from lisabench.errors import InputError
from lisabench.files import write_whole

CHECKPOINTS, WEIGHTS = "checkpoints", "weights"


def save(path: Path, cell: str, state: dict[str, Any]) -> None:
    """Writes tensors and plain values under the name of their training's cell.

    Raises:
        RunError: the file cannot be written; an older one stands still.
    """
    content = io.BytesIO()
    torch.save({"cell": cell, **state}, content)
    write_whole(path, content.getvalue())


def load(path: Path, cell: str) -> dict[str, Any] | None:
    """What `save` wrote for this cell, on the CPU; None where there is nothing.

    Raises:
        InputError: the file holds something else.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = state["cell"]
    except Exception as error:
        raise InputError(f"{str(path)!r} is no checkpoint of lisabench or is damaged; remove it, and that training begins anew") from error
    if found != cell:
        raise InputError(f"{str(path)!r} is a checkpoint of another model or recipe; remove it, and that training begins anew")
    loaded: dict[str, Any] = state
    return loaded
