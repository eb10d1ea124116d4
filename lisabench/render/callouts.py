"""Where the names of points that lie anywhere in a panel go: beside their point, with a line to it where they stand off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lisabench.render.labels import Box, Ending, Occupied, Placed, Points, along, beside
from lisabench.render.palette import Font, text_size

_DISTANCES = (4.5, 6.0, 8.0, 11.0, 15.0, 20.0, 27.0, 36.0, 46.0, 58.0, 72.0)
_ROUNDS = 3  # orders in which names choose, until all have room
_PLAINLY_BESIDE = 7.0  # points; a name further off has a line to its point
_CLEAR = 4.5  # points that a line keeps from foreign points where it must not run through any
_SAME = 1.0  # points; what is nearer to each other than that is at one place


def place_callouts(
    occupied: Occupied,
    wanted: Sequence[Ending],
    foreign: Sequence[Points],
    texts: Sequence[Box] = (),
    faint: Occupied | None = None,
    *,
    strict: bool = False,
) -> list[Placed | None]:
    """A place for the name of each point, None where there is no room; those with the least room choose first. `foreign` are the points
    of others, for each: a name that is nearer to one of those than to its own has a line to its own. No line runs through a name, or
    through one of the `texts` that are there already. What is `faint` is covered only where all else is no better. Where
    `strict`, no name has a place from which it could be read as that of another point: no line runs through a foreign point or
    meets another line, and a name without a line is nearest to its own."""
    options = [[box for box in beside(one.point, text_size(one.name, one.font), _DISTANCES) if occupied.is_free(box)] for one in wanted]
    order = sorted(range(len(wanted)), key=lambda index: (len(options[index]), index))
    best: tuple[list[Placed | None], Occupied] | None = None
    for _ in range(_ROUNDS):
        attempt = occupied.copy()
        placed = _place_in(order, attempt, wanted, options, foreign, texts, faint, strict)
        if best is None or placed.count(None) < best[0].count(None):
            best = placed, attempt
        if None not in placed:
            break
        order.sort(key=lambda index: placed[index] is not None)  # what had no room chooses first in the next round, from anywhere
        for index in order[: placed.count(None)]:
            options[index] += _anywhere(occupied, text_size(wanted[index].name, wanted[index].font))
    assert best is not None
    occupied.replace(best[1])
    return best[0]


def _anywhere(occupied: Occupied, size: tuple[float, float]) -> list[Box]:
    """Free boxes of a size all over a panel, some hundreds at most."""
    area, (width, height) = occupied.area, size
    step = max(6.0, np.sqrt((area.right - area.left) * (area.top - area.bottom) / 400))
    lefts, bottoms = np.arange(area.left + 1, area.right - width, step), np.arange(area.bottom + 1, area.top - height, step)
    boxes = [Box(float(left), float(bottom), float(left) + width, float(bottom) + height) for left in lefts for bottom in bottoms]
    return [box for box in boxes if occupied.is_free(box)]


def _place_in(
    order: Sequence[int],
    occupied: Occupied,
    wanted: Sequence[Ending],
    options: Sequence[Sequence[Box]],
    foreign: Sequence[Points],
    texts: Sequence[Box],
    faint: Occupied | None,
    strict: bool,
) -> list[Placed | None]:
    placed: list[Placed | None] = [None] * len(wanted)
    lines: list[Points] = []
    for index in order:
        one = wanted[index]
        names = [*texts, *(other.box for other in placed if other)]
        best: tuple[float, Box, Points | None] | None = None
        for box in options[index]:
            if not occupied.is_free(box):
                continue
            cost = _distance(box, np.array([one.point])) + (0 if faint is None or faint.is_free(box) else 8)
            if best is not None and cost >= best[0]:  # a line to it would only cost more
                continue
            leader = _line_to(one.point, box, foreign[index])
            if strict and _misleads(one.point, box, leader, foreign[index]):
                continue
            if leader is not None:
                if strict and any(_meet(leader, line) for line in lines):
                    continue
                cost += 6 + 25 * occupied.share_hit(along(leader)) + 40 * any(_meet(leader, line) for line in lines)
                cost += 15 * _passed(leader, foreign[index])
            if best is not None and cost >= best[0]:
                continue
            if leader is None or not any(_crosses(leader, name) for name in names):
                best = cost, box, leader
        if best:
            _, box, leader = best
            placed[index] = Placed(one.name, one.font, box, leader)
            occupied.add_box(replace(box, left=box.left - 2, right=box.right + 2))  # two texts side by side are two
            if leader is not None:
                occupied.add_path(leader, radius=1)
                lines.append(leader)
    return placed


def place_pairs(occupied: Occupied, pairs: Sequence[tuple[Ending, Ending]]) -> list[tuple[int, Placed]]:
    """Places close by their points for two texts each, with the pair's index; a pair has room for both, or neither is placed."""
    placed = []
    for index, pair in enumerate(pairs):
        found: list[Placed] = []
        for one in pair:
            boxes = beside(one.point, text_size(one.name, one.font), (3.5, 5.0))
            box = next((box for box in boxes if occupied.is_free(box) and not any(box.overlaps(other.box) for other in found)), None)
            found += [Placed(one.name, one.font, box)] if box else []
        if len(found) == len(pair):
            placed += [(index, text) for text in found]
            for text in found:
                occupied.add_box(text.box)
    return placed


def halved(text: str) -> str:
    """A text on two lines, broken where it has a comma."""
    return text.replace(", ", ",\n")


def place_roof(occupied: Occupied, texts: tuple[str, str], line: Points, font: Font) -> list[Placed | None]:
    """Places for the texts of a roof's flat part and of its slope, `line` being its corners: above the flat part and far right, else
    under it; left of the slope, else right of it; on one line, else on two."""
    peak_text, slope_text = texts
    ridge, right = line[-2:]
    flat, slope, below = [], [], []
    for said in (peak_text, halved(peak_text)):
        width, height = text_size(said, font)
        for x, y in right + np.linspace(0, 0.9, 25)[:, None] * (ridge - right):
            flat += [(said, Box(x - width, bottom, x, bottom + height)) for bottom in (y + 2, y - 2 - height)]
    for said in (slope_text, halved(slope_text)):
        width, height = text_size(said, font)
        for x, y in ridge + np.linspace(0, 1, 25)[:, None] * (line[0] - ridge):
            slope.append((said, Box(x - width - 2, y + 2.5, x - 2, y + 2.5 + height)))
            below.append((said, Box(x + 4, y - height - 3, x + 4 + width, y - 3)))
    placed: list[Placed | None] = []
    for options in (flat, slope + below[::-1]):
        found = next(((said, box) for said, box in options if occupied.is_free(box)), None)
        placed.append(Placed(found[0], font, found[1]) if found else None)
        if found:
            occupied.add_box(found[1])
    return placed


def _nearest(point: tuple[float, float], box: Box) -> tuple[float, float]:
    return float(np.clip(point[0], box.left, box.right)), float(np.clip(point[1], box.bottom, box.top))


def _distance(box: Box, points: Points) -> float:
    """From the box to the nearest of the points."""
    across = np.maximum(0, np.maximum(box.left - points[:, 0], points[:, 0] - box.right))
    up = np.maximum(0, np.maximum(box.bottom - points[:, 1], points[:, 1] - box.top))
    return float(np.hypot(across, up).min(initial=np.inf))


def _line_to(point: tuple[float, float], box: Box, foreign: Points) -> Points | None:
    away = _distance(box, np.array([point]))
    if (away <= _PLAINLY_BESIDE and away <= _distance(box, foreign)) or away < 5:
        return None
    end = _nearest(point, Box(box.left - 1, box.bottom + 1, box.right + 1, box.top - 1))
    way = np.subtract(end, point)
    return np.array([np.add(point, way * min(0.5, 3 / np.hypot(*way))), end])


def _crosses(path: Points, box: Box) -> bool:
    x, y = along(path).T
    return bool(((x > box.left) & (x < box.right) & (y > box.bottom) & (y < box.top)).any())


def _passed(path: Points, points: Points, *, within: float = 3.5) -> int:
    """How many of the points a line runs through, each of which a reader could take for the one that it leads to."""
    apart = along(path)[:, None] - points[None]
    return int((np.hypot(apart[..., 0], apart[..., 1]).min(axis=0, initial=np.inf) < within).sum())


def _misleads(point: tuple[float, float], box: Box, leader: Points | None, foreign: Points) -> bool:
    """Whether a name at this place could be read as that of a foreign point; one that lies on its own point is no other place."""
    others = foreign[np.hypot(*(foreign - point).T) > _SAME]
    if leader is None:
        return _distance(box, others) < _distance(box, np.array([point]))
    return _passed(leader, others, within=_CLEAR) > 0


def _meet(one: Points, other: Points) -> bool:
    """Whether two lines cross, or come within a point of it."""
    apart = along(one)[:, None] - along(other)[None]
    return bool((np.hypot(apart[..., 0], apart[..., 1]) < 1).any())
