"""What a user wrote about a sweep, read: numbers, grids, words, operators and their options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lisabench import registry
from lisabench.errors import InputError, unknown
from lisabench.presets import PRESETS, Shape
from lisabench.workload import Grid, most_square

LARGEST = 10**9


def numbers(text: str, what: str) -> list[int]:
    """'1,2,8' or the doubling range '256..16384' or both, as whole numbers of 1 or more, each once."""
    found: list[int] = []
    for part in _parts(text, what):
        low, dots, high = part.partition("..")
        first = _whole(low, what, text)
        if not dots:
            found.append(first)
            continue
        last = _whole(high, what, text)
        if last < first:
            raise InputError(f"{what} got {text!r}; a range a..b doubles from a up to b: write the smaller number first")
        while first <= last:
            found.append(first)
            first *= 2
    return list(dict.fromkeys(found))


def grids(tokens: str | None, resolution: str | None, patch: int) -> list[Grid]:
    """Grids from token counts (the most square grid of each) or from image resolutions with a patch size."""
    if resolution is None:
        return [most_square(count) for count in numbers(tokens or "", "--tokens")]
    if patch < 1:
        raise InputError(f"--patch got {patch}; valid: 1 or more")
    found = []
    for part in _parts(resolution, "--resolution"):
        sides = part.split("x")
        if len(sides) == 2:
            images = [(_whole(sides[0], "--resolution", resolution), _whole(sides[1], "--resolution", resolution))]
        elif len(sides) == 1:
            images = [(side, side) for side in numbers(part, "--resolution")]
        else:
            raise InputError(f"--resolution got {part!r}; write 224 or HEIGHTxWIDTH such as 384x640")
        for height, width in images:
            if height % patch or width % patch:
                near = "x".join(str(max(patch, round(side / patch) * patch)) for side in (height, width))
                raise InputError(f"--resolution {height}x{width} is not a multiple of --patch {patch}; the nearest that is: {near}")
            found.append(Grid(height // patch, width // patch))
    return list(dict.fromkeys(found))


def choices(text: str, what: str, valid: Sequence[str]) -> list[str]:
    """A comma list of words, each one of the valid ones."""
    found = _parts(text, what)
    for word in found:
        if word not in valid:
            raise unknown(what, word, valid)
    return list(dict.fromkeys(found))


def presets(text: str) -> list[Shape]:
    """The shapes of the presets in a comma list."""
    return [shape for name in choices(text, "--preset", list(PRESETS)) for shape in PRESETS[name].shapes]


def _parts(text: str, what: str) -> list[str]:
    found = [part.strip() for part in text.split(",")]
    if not all(found):
        raise InputError(f"{what} got {text!r}; write values with commas between them, none empty")
    return found


def _whole(text: str, what: str, given: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= LARGEST:
        raise InputError(f"{what} got {given!r}; valid: whole numbers of 1 to {LARGEST:,}, as a list a,b,c or a doubling range a..b")
    return number


def resolve_operators(given: Sequence[str], baseline: str | None, assignments: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """The operators asked for, the baseline last, each with all its options; every assignment must be taken by one.

    `given` holds names, comma lists, or "all"; an assignment is [OP.]NAME=VALUE. "all" are those that can be imported
    (see `left_out`); one that is named must be.
    """
    ops: list[str] = []
    for name in _names(given):
        ops += [operator.name for operator in registry.load_all()[0]] if name == "all" else [name]
    named = list(dict.fromkeys(ops))
    ops = named if baseline is None or baseline in named else [*named, baseline]
    for op in ops:
        registry.check_name(op)
    options: dict[str, dict[str, Any]] = {op: {} for op in ops}
    for assignment in assignments:
        target, value = _assignment(assignment)
        op, dot, name = target.rpartition(".")
        if dot and op not in ops:
            raise unknown("operator in --op-option", op, ops)
        candidates = [op] if dot else named  # the baseline that stands beside them stays as it is
        takers = [candidate for candidate in candidates if name in registry.load(candidate).options]
        if not takers:
            raise unknown("option in --op-option", name, sorted({f"{o}.{n}" for o in candidates for n in registry.load(o).options}))
        for taker in takers:
            options[taker][name] = registry.load(taker).options[name].parse(value)
    return [(op, registry.load(op).resolve(options[op])) for op in ops]


def left_out(given: Sequence[str]) -> list[str]:
    """What "all" in `given` leaves out: a line on each operator of an installed package that cannot be imported."""
    return list(registry.load_all()[1].values()) if "all" in _names(given) else []


def _names(given: Sequence[str]) -> list[str]:
    return [name for text in given for name in _parts(text, "--op")]


def _assignment(text: str) -> tuple[str, str]:
    target, equals, value = text.partition("=")
    if not equals or not target:
        raise InputError(f"--op-option got {text!r}; write NAME=VALUE or OPERATOR.NAME=VALUE")
    return target.strip(), value.strip()
