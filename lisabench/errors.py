"""What can go wrong, as one tree. The command line turns each into one line and an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LisaBenchError(Exception):
    """Base of every error that lisabench raises on purpose; the text is one line made for the user."""

    exit_code = 1


class InputError(LisaBenchError):
    """Wrong usage or input: says what was given, what is valid and what to do."""

    exit_code = 2


class UnavailableError(LisaBenchError):
    """A device or an optional part that was asked for is not there."""

    exit_code = 3


class RunError(LisaBenchError):
    """A run's folder cannot be written, is locked or is damaged."""

    exit_code = 4


def unknown(what: str, given: str, valid: Iterable[str], *, more: str = "") -> InputError:
    """An InputError for a name that is none of the valid ones: offers the nearest, or else lists them all."""
    names = list(valid)
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(map(repr, near))}? valid: " if near else "valid: "
    return InputError(f"unknown {what} {given!r}; {hint}{', '.join(names) or 'none'}{more}")
