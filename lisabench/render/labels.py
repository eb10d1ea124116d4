"""Where text goes in a panel, so that it hides nothing: plain geometry in points (1/72 inch) from the figure's lower left corner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lisabench.render.palette import Font, text_size

Points = NDArray[np.float64]
"""(n, 2): x, y."""


@dataclass(frozen=True)
class Box:
    """A rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two have an area in common."""
        return self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top

    def within(self, other: Box) -> bool:
        """Whether no part of this one is outside the other."""
        return self.left >= other.left and self.right <= other.right and self.bottom >= other.bottom and self.top <= other.top


def spread(wanted: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Centres for texts of these heights that overlap nowhere, keep the order and lie as near to the wanted centres as they can.

    The sum of squared moves is smallest: neighbours that would overlap are merged into a block that sits at its mean, as in isotonic
    regression. Texts that do not fit between `low` and `high` together stick out at the bottom.
    """
    order = sorted(range(len(wanted)), key=lambda index: (wanted[index], index))
    # A block: the indices in it, the sum of where its bottom would like to be, its height.
    blocks: list[tuple[list[int], float, float]] = []

    def bottom(block: tuple[list[int], float, float]) -> float:
        members, hopes, height = block
        return min(max(hopes / len(members), low), high - height)

    for index in order:
        block = ([index], wanted[index] - heights[index] / 2, heights[index])
        while blocks and bottom(blocks[-1]) + blocks[-1][2] > bottom(block):
            members, hopes, height = blocks.pop()
            block = (members + block[0], hopes + block[1] - len(block[0]) * height, height + block[2])
        blocks.append(block)
    centres = [0.0] * len(wanted)
    for block in blocks:
        edge = bottom(block)
        for index in block[0]:
            centres[index] = edge + heights[index] / 2
            edge += heights[index]
    return centres


class Occupied:
    """A raster, a point a cell, of what is drawn in a panel already. Whatever lies outside the panel counts as occupied."""

    def __init__(self, area: Box) -> None:
        self.area = area
        self._cells = np.zeros((max(1, int(area.right - area.left)), max(1, int(area.top - area.bottom))), dtype=bool)

    def copy(self) -> Occupied:
        """The same, to be drawn in by itself."""
        found = Occupied(self.area)
        found.replace(self)
        return found

    def replace(self, other: Occupied) -> None:
        """Takes over what is drawn in another one of the same panel."""
        self._cells = other._cells.copy()

    def _to_cells(self, points: Points) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        cells = np.floor(points - [self.area.left, self.area.bottom]).astype(np.intp)
        return cells[:, 0], cells[:, 1]

    def add_path(self, points: Points, radius: float = 2.0) -> None:
        """Occupies what is as near as the radius to the line through the points (to the point, if there is one)."""
        reach = int(np.ceil(radius))
        around = np.arange(-reach, reach + 1)
        x, y = self._to_cells(along(points))
        columns, rows = np.broadcast_arrays(x[:, None, None] + around[:, None], y[:, None, None] + around)
        inside = (columns >= 0) & (columns < self._cells.shape[0]) & (rows >= 0) & (rows < self._cells.shape[1])
        self._cells[columns[inside], rows[inside]] = True

    def add_box(self, box: Box) -> None:
        """Occupies a rectangle."""
        self._cells[self._slices(box)] = True

    def _slices(self, box: Box) -> tuple[slice, slice]:
        (left, right), (bottom, top) = self._to_cells(np.array([[box.left, box.bottom], [box.right, box.top]]))
        return slice(max(0, left), max(0, right + 1)), slice(max(0, bottom), max(0, top + 1))

    def is_free(self, box: Box) -> bool:
        """Whether the box lies in the panel and on nothing."""
        return box.within(self.area) and not self._cells[self._slices(box)].any()

    def share_hit(self, points: Points) -> float:
        """The share of the points that lie on something or outside."""
        x, y = self._to_cells(points)
        inside = (x >= 0) & (x < self._cells.shape[0]) & (y >= 0) & (y < self._cells.shape[1])
        hit = ~inside
        hit[inside] = self._cells[x[inside], y[inside]]
        return float(hit.mean())


def along(points: Points, step: float = 1.0) -> Points:
    """The line through the points as points that are at most a step apart."""
    if len(points) == 2:  # as most are: leaders
        (start, end), length = points, float(np.hypot(*(points[1] - points[0])))
        return np.asarray(start + np.linspace(0, 1, int(np.ceil(length / step)) + 1)[:, None] * (end - start))
    way = np.append(0, np.hypot(*np.diff(points, axis=0).T).cumsum())
    places = np.linspace(0, way[-1], int(np.ceil(way[-1] / step)) + 1)
    return np.column_stack([np.interp(places, way, points[:, 0]), np.interp(places, way, points[:, 1])])


def beside(point: tuple[float, float], size: tuple[float, float], distances: Iterable[float]) -> list[Box]:
    """Boxes of a size around a point, the preferred first: near before far, and right, above, left, below before the corners."""
    x, y = point
    width, height = size
    corners = []
    for gap in distances:
        slant = 0.6 * gap
        corners += [
            (x + gap, y - height / 2), (x - width / 2, y + gap), (x - gap - width, y - height / 2), (x - width / 2, y - gap - height),
            (x + slant, y + slant), (x - slant - width, y + slant),
            (x + slant, y - slant - height), (x - slant - width, y - slant - height),
        ]  # fmt: skip
    return [Box(left, bottom, left + width, bottom + height) for left, bottom in corners]


@dataclass(frozen=True)
class Ending:
    """Where a curve ends, the name that belongs there, and the word for the failure that ended it ("" for none)."""

    point: tuple[float, float]
    name: str
    font: Font
    failure: str = ""


@dataclass(frozen=True)
class Placed:
    """A text with its place, and the ends of a line to the point it speaks of, where it stands off."""

    text: str
    font: Font
    box: Box
    leader: Points | None = None


def place_failures(occupied: Occupied, endings: Sequence[Ending], font: Font) -> list[Placed | None]:
    """Places for the words of the failures, each by its mark; None where there is no failure or no room. Marks of one kind that are close
    together share the word of the first."""
    found: list[Placed | None] = []
    for ending in endings:
        shared = None
        for other, placed in zip(endings, found, strict=False):
            if placed and other.failure == ending.failure and np.hypot(*np.subtract(other.point, ending.point)) < 16:
                shared = placed
        options = beside(ending.point, text_size(ending.failure, font), (5, 7, 9, 12)) if ending.failure and not shared else []
        # Right of the mark is where the name goes.
        box = next((box for box in options if box.left < ending.point[0] and occupied.is_free(box)), None)
        found.append(shared or (Placed(ending.failure, font, box) if box else None))
        if box:
            occupied.add_box(box)
    return found


def place_names(occupied: Occupied, endings: Sequence[Ending], words: Sequence[Placed | None], left: float) -> list[Placed]:
    """Places for the curves' names: in the panel by a curve that ends early, if there is room; otherwise in a column that begins at
    `left`, moved up or down so that no two touch. No line to a name runs through other words."""
    panel, boxes = occupied.area, dict[int, Box]()
    sizes = [text_size(ending.name, ending.font) for ending in endings]
    for index, (ending, size) in enumerate(zip(endings, sizes, strict=True)):
        if ending.point[0] < panel.right - 12:
            box = next((box for box in beside(ending.point, size, (6, 8, 11, 15, 20, 28, 38)) if occupied.is_free(box)), None)
            if box:
                boxes[index] = box
                occupied.add_box(box)
    column = [index for index in range(len(endings)) if index not in boxes]
    centres = spread([endings[index].point[1] for index in column], [sizes[index][1] for index in column], panel.bottom - 3, panel.top)
    for index, centre in zip(column, centres, strict=True):
        width, height = sizes[index]
        boxes[index] = Box(left, centre - height / 2, left + width, centre + height / 2)
    placed = []
    for index, ending in enumerate(endings):
        leader = _leader(ending.point, boxes[index], level=index in column)
        others = [*(word.box for word in words if word), *(box for other, box in boxes.items() if other != index)]
        clear = leader is not None and not any(_crosses(leader, box) for box in others)
        placed.append(Placed(ending.name, ending.font, boxes[index], leader if clear else None))
    return placed


def _leader(point: tuple[float, float], box: Box, *, level: bool) -> Points | None:
    """A line from a curve's end to its name, None where the name is plainly beside it. A name in the column is met at mid-height."""
    x = float(np.clip(point[0], box.left - 1, box.right + 1))
    y = (box.bottom + box.top) / 2 if level else float(np.clip(point[1], box.bottom, box.top))
    way = np.subtract((x, y), point)
    length = float(np.hypot(*way))
    if abs(way[1]) <= 1.5 and length < 20 if level else length < 11:
        return None
    return np.array([np.add(point, way * 3 / length), (x, y)])


def _crosses(path: Points, box: Box) -> bool:
    x, y = along(path).T
    return bool(((x > box.left) & (x < box.right) & (y > box.bottom) & (y < box.top)).any())


@dataclass(frozen=True)
class Area:
    """A panel's axes: where they lie, and the tokens and values at their edges (both scales are logarithmic)."""

    box: Box
    tokens: tuple[float, float]
    values: tuple[float, float]

    def at(self, tokens: ArrayLike, values: ArrayLike) -> Points:
        """Where data lie on the page."""
        share_x = np.log(np.divide(tokens, self.tokens[0])) / np.log(self.tokens[1] / self.tokens[0])
        share_y = np.log(np.divide(values, self.values[0])) / np.log(self.values[1] / self.values[0])
        box = self.box
        return np.column_stack([box.left + share_x * (box.right - box.left), box.bottom + share_y * (box.top - box.bottom)])


LAWS: dict[str, Callable[[Points], Points]] = {"N": lambda n: n, "N log N": lambda n: n * np.log(np.maximum(n, 2)), "N²": lambda n: n**2}
"""The laws of growth that a figure's guides show."""


@dataclass(frozen=True)
class Guide:
    """A curve that shows how a law of growth would look, and where its name stands."""

    name: str
    curve: Points
    label: Box


def _fan(area: Area, anchor: tuple[float, float], size: float, font: Font) -> list[Guide] | None:
    """The laws through one point, over a share of the panel's width and cut at its top; None if too little of one is left."""
    box, (low, high) = area.box, area.tokens
    reach = anchor[0] + size * np.linspace(0, 1, 33)
    x, tokens = box.left + reach * (box.right - box.left), low * (high / low) ** reach
    points_per_log = (box.top - box.bottom) / np.log(area.values[1] / area.values[0])
    curves = []
    for law in LAWS.values():
        y = box.bottom + anchor[1] * (box.top - box.bottom) + np.log(law(tokens) / law(tokens[:1])) * points_per_log
        kept = y <= box.top - 4  # room for half a name
        if kept.mean() < 0.35:
            return None
        curves.append(np.column_stack([x, y])[kept])
    boxes = []
    for name, (x, y) in zip(LAWS, [curve[-1] for curve in curves], strict=True):
        width, height = text_size(name, font)
        boxes.append(Box(x + 2, y - height / 2, x + 2 + width, y + height / 2))
    if boxes[0].left == boxes[1].left and boxes[0].overlaps(boxes[1]):  # N and N log N end too close for their names
        apart = (boxes[0].top - boxes[1].bottom) / 2
        boxes[:2] = [replace(box, bottom=box.bottom + move, top=box.top + move) for box, move in zip(boxes, (-apart, apart), strict=False)]
    return [Guide(name, curve, label) for name, curve, label in zip(LAWS, curves, boxes, strict=True)]


def _tangled(fan: Sequence[Guide]) -> bool:
    """Whether a name lies on another name or on a curve."""
    labels = [replace(guide.label, right=guide.label.right + 3, top=guide.label.top - 0.1) for guide in fan]  # moved apart, two names touch
    return any(
        one.overlaps(other.label) or _crosses(other.curve, one)
        for guide, one in zip(fan, labels, strict=True)
        for other in fan
        if other is not guide
    )


def guides(occupied: Occupied, area: Area, font: Font) -> list[Guide]:
    """Curves for N, N log N and N² through one point, where they lie on nothing: as long as there is room for, low before high.

    Where there is no such room, the short ones that cross the least; none, if their names would lie on something.
    """
    crossing: list[tuple[float, list[Guide]]] = []
    sizes = (0.8, 0.65, 0.5, 0.4, 0.3, 0.22)
    for size in sizes:
        for y in np.linspace(0.03, 0.9, 15):
            for x in np.linspace(0.01, 1 - size, 12):
                fan = _fan(area, (x, y), size, font)
                if fan is None or not all(occupied.is_free(guide.label) for guide in fan):
                    continue
                hit = sum(occupied.share_hit(along(guide.curve, 2)) for guide in fan)
                if (hit == 0 or size == sizes[-1]) and not _tangled(fan):
                    crossing.append((hit, fan))
                    if hit == 0:
                        return fan
    return min(crossing, key=lambda found: found[0])[1] if crossing else []
