"""Generated 2-D tasks on which attention operators part ways, each with a control that must stay at chance.

An image is a sheet of cells; a cell is empty or holds a mark of one kind, and each kind has a channel of its own, 0 or 1.

    offset    two marks stand at one of 8 offsets to each other, among marks of the same kinds that do not: which offset
    same      two shapes among noise: the same shape or not
    count     how many of the four pieces are squares
    copy      which symbol stands at a fixed offset from the pointer, on a sheet full of symbols
    position  in which of nine regions a pair of marks stands, among pairs of the same marks otherwise put together

Every image of a task holds the same number of marks of each kind, whatever its class, and the classes are equally many: what is
left without a look at where the marks stand is chance. The control `<name>-shuffled` shows it: the same images with the same
labels, each with its cells in an order of its own. Chance is not what is left without a look at two marks together: a sum over
single marks, each weighed by its place, is above it on offset and count, and finds most of position
(benchmarks/structures_linear.py).

Images are trained on at 12 x 12 and tested at 12 x 12, 16 x 16 and 10 x 20; marks keep their size. All is drawn from seeds that
are the names of task and part, with numpy's generator, whose numbers may change with its version: the tests hold a hash of each set.

Source: copy and position are in the spirit of the synthetic tasks of Luo et al., Your Transformer May Not Be as Powerful as You
Expect, NeurIPS 2022 (even token prediction, position identification), on a grid and with one label an image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lisabench.errors import InputError, unknown
from lisabench.train.data import DataSet, Part, Split

Integers = NDArray[np.int64]
Sheets = NDArray[np.int8]  # (B, rows, columns): 0 for an empty cell, or the kind of its mark from 1
Draw = Callable[[np.random.Generator, Integers, int, int], Sheets]

PREFIX, CONTROL = "structures-", "-shuffled"
CANVAS = (12, 12)
LARGER = ((16, 16), (10, 20))
PATCHES = (1, 2)  # what divides all canvases; at 1 there are four times the tokens and a training takes many times as long
TRAIN_IMAGES, TEST_IMAGES = 4096, 1152  # about: a multiple of the classes

DIRECTIONS = np.array([(dy, dx) for dy in (-2, 0, 2) for dx in (-2, 0, 2) if dy or dx])
LONE_MARKS = 2 / 36  # of a kind, a cell: two on the sheet that is trained on
COPY_OFFSET = (2, 1)
SYMBOLS = 4
# The first is the one that is looked for.
PAIRS = np.array([[[1, 2]], *2 * [[[2, 1]], [[1, 1]], [[2, 2]]]])
PIECES = 4
NOISE = 4 / 144


def _shapes(*drawn: str) -> Sheets:
    return np.array([[[mark == "#" for mark in row] for row in shape.split()] for shape in drawn], dtype=np.int8)


# The pentominoes that fit into 3 x 3, and the tetrominoes that do, the square first: equally much ink each.
PENTOMINOES = _shapes(
    ".## ##. .#.", "##. ##. #..", "### .#. .#.", "#.# ### ...", "#.. #.. ###", "#.. ##. .##", ".#. ### .#.", "##. .#. .##"
)  # fmt: skip
TETROMINOES = _shapes("##. ##. ...", "### .#. ...", ".## ##. ...", "##. .## ...", "#.. ### ...", "..# ### ...")


@dataclass(frozen=True, kw_only=True)
class Task:
    """`draw` makes sheets for given labels; a cell is `cell` pixels square."""

    classes: int
    kinds: int
    cell: int
    epochs: int
    draw: Draw


def names() -> list[str]:
    """The tasks, each followed by its control."""
    return [f"{PREFIX}{task}{control}" for task in _TASKS for control in ("", CONTROL)]


def find(name: str, *, patch: int | None) -> DataSet:
    """The task or control of that name, in patches of so many pixels a side; None for 2.

    Raises:
        InputError: there is none of that name, or the patch does not divide the canvases.
    """
    if name not in names():
        raise unknown("--data", name, names(), more="; give one of these names")
    if patch is not None and patch not in PATCHES:
        sizes = ", ".join(_size(*canvas) for canvas in (CANVAS, *LARGER))
        raise InputError(f"--patch got {patch}; valid for {name}: {' or '.join(map(str, PATCHES))}, which divide its images: {sizes}")
    task = _TASKS[_task_name(name)]
    return DataSet(
        name=name,
        height=CANVAS[0],
        width=CANVAS[1],
        channels=task.kinds,
        classes=task.classes,
        patch=patch or PATCHES[-1],
        epochs=task.epochs,
        read=lambda: read(name),
    )


def read(name: str) -> Split:
    """The images of one of `names()`: 0 and 1 in float32, a channel for each kind of mark."""
    return Split(
        train=_part(name, "train", TRAIN_IMAGES, CANVAS),
        test=_part(name, "test", TEST_IMAGES, CANVAS),
        elsewhere={_size(*canvas): _part(name, "test", TEST_IMAGES, canvas) for canvas in LARGER},
    )


def _part(name: str, stream: str, images: int, canvas: tuple[int, int]) -> Part:
    import torch

    task_name = _task_name(name)
    task, size = _TASKS[task_name], _size(*canvas)
    rng = _generator(f"{task_name} {stream} {size}")
    labels = rng.permutation(np.arange(task.classes).repeat(images // task.classes))
    sheets = task.draw(rng, labels, canvas[0] // task.cell, canvas[1] // task.cell)
    if name.endswith(CONTROL):
        order = _generator(f"{name} {stream} {size}")
        sheets = order.permuted(sheets.reshape(len(sheets), -1), axis=1).reshape(sheets.shape)
    kinds = np.arange(1, task.kinds + 1)[:, None, None]
    pixels = sheets.repeat(task.cell, axis=1).repeat(task.cell, axis=2)
    return Part(images=torch.from_numpy((pixels[:, None] == kinds).astype(np.float32)), labels=torch.from_numpy(labels))


def _task_name(name: str) -> str:
    return name.removeprefix(PREFIX).removesuffix(CONTROL)


def _size(height: int, width: int) -> str:
    return f"{height} x {width}"


def _generator(words: str) -> np.random.Generator:
    return np.random.default_rng([*words.encode()])


def _offset(rng: np.random.Generator, labels: Integers, rows: int, columns: int) -> Sheets:
    """A mark of kind 1 and one of kind 2, seen from it in direction `labels`; no others of the two kinds stand so.

    Without the lone marks a sum over single marks, each weighed by its place, finds the class; with them it is often right still.
    """
    lone = round(LONE_MARKS * rows * columns)
    sheets, todo = np.zeros((len(labels), rows, columns), np.int8), np.arange(len(labels))
    while len(todo):
        offset = DIRECTIONS[labels[todo]]
        first = rng.integers(np.maximum(0, -offset), np.array([rows, columns]) - np.maximum(0, offset))
        drawn = np.zeros((len(todo), rows, columns), np.int8)
        _stamp(drawn, first, np.array([[1]]))
        _stamp(drawn, first + offset, np.array([[2]]))
        flat = drawn.reshape(len(todo), -1)
        places = _places(rng, flat == 0, 2 * lone)
        np.put_along_axis(flat, places[:, :lone], 1, axis=1)
        np.put_along_axis(flat, places[:, lone:], 2, axis=1)
        good = _pairs(drawn) == 1
        sheets[todo[good]] = drawn[good]
        todo = todo[~good]
    return sheets


def _pairs(sheets: Sheets) -> Integers:
    """How many pairs of marks stand in one of the directions to each other, on each sheet."""
    reach = int(DIRECTIONS.max())
    rows, columns = sheets.shape[1:]
    second = np.pad(sheets == 2, ((0, 0), (reach, reach), (reach, reach)))
    seen = [second[:, reach + dy : reach + dy + rows, reach + dx : reach + dx + columns] for dy, dx in DIRECTIONS]
    return np.asarray(sum(((sheets == 1) & there).sum(axis=(1, 2)) for there in seen))


def _same(rng: np.random.Generator, labels: Integers, rows: int, columns: int) -> Sheets:
    """Two pentominoes, the same where the label is 1, at even corners, so that equal shapes are cut into equal tokens."""
    first = rng.integers(len(PENTOMINOES), size=len(labels))
    other = (first + rng.integers(1, len(PENTOMINOES), size=len(labels))) % len(PENTOMINOES)
    corners = 2 * _apart(rng, len(labels), count=2, rows=rows // 2 - 1, columns=columns // 2 - 1, distance=(2, 2))
    # Noise that touched a shape could make a third one: it keeps a cell off, which on the sheet's edge is outside it.
    around = np.zeros((len(labels), rows + 2, columns + 2), np.int8)
    for which in range(2):
        _stamp(around, corners[:, which], np.ones((5, 5), np.int8))
    taken = around[:, 1:-1, 1:-1]
    sheets = np.zeros((len(labels), rows, columns), np.int8)
    noise = _places(rng, taken.reshape(len(labels), -1) == 0, round(NOISE * rows * columns))
    np.put_along_axis(sheets.reshape(len(labels), -1), noise, 1, axis=1)
    _stamp(sheets, corners[:, 0], PENTOMINOES[first])
    _stamp(sheets, corners[:, 1], PENTOMINOES[np.where(labels == 1, first, other)])
    return sheets


def _count(rng: np.random.Generator, labels: Integers, rows: int, columns: int) -> Sheets:
    """Four tetrominoes that do not touch, of which the label and one more are squares."""
    corners = _apart(rng, len(labels), count=PIECES, rows=rows - 2, columns=columns - 2, distance=(4, 4))
    sheets = np.zeros((len(labels), rows, columns), np.int8)
    for which in range(PIECES):
        other = rng.integers(1, len(TETROMINOES), size=len(labels))
        _stamp(sheets, corners[:, which], TETROMINOES[np.where(which <= labels, 0, other)])
    return sheets


def _copy(rng: np.random.Generator, labels: Integers, rows: int, columns: int) -> Sheets:
    """A pointer, kind 5, and symbols, kinds 1 to 4, equally many of each: some cells stay empty to make it so."""
    images, cells = np.arange(len(labels)), rows * columns
    dy, dx = COPY_OFFSET
    pointer = columns * rng.integers(rows - dy, size=len(labels)) + rng.integers(columns - dx, size=len(labels))
    target = pointer + columns * dy + dx
    each = (cells - 1) // SYMBOLS
    symbols = np.arange(1, SYMBOLS + 1).repeat(each)
    bag = np.tile(np.append(symbols, np.zeros(cells - 1 - len(symbols), np.int64)), (len(labels), 1))
    bag[images, labels * each] = -1  # the one that is put at the target
    rest = rng.permuted(bag, axis=1)
    sheets = np.full((len(labels), cells), -1, np.int8)
    sheets[images, pointer], sheets[images, target] = SYMBOLS + 1, labels + 1
    sheets[sheets < 0] = rest[rest >= 0]
    return sheets.reshape(len(labels), rows, columns)


def _position(rng: np.random.Generator, labels: Integers, rows: int, columns: int) -> Sheets:
    """Pairs of marks side by side; the one of kind 1 left of kind 2 stands in region `labels`, of each other order there are two.

    The left mark decides where the pair lies across two regions. A sum over single marks, each weighed by its place, finds the region where
    there is but one other order, and most of the time here too.
    The regions are thirds of the height by thirds of the width, counted row by row; where these do not divide, the first are larger.
    """
    row_edges, column_edges = (-(-np.arange(4) * side // 3) for side in (rows, columns))
    down, right = np.divmod(labels, 3)
    y = rng.integers(row_edges[down], row_edges[down + 1])
    x = rng.integers(column_edges[right], np.minimum(column_edges[right + 1], columns - 1))
    first = np.stack([y, x], axis=1)
    corners = _apart(rng, len(labels), count=len(PAIRS), rows=rows, columns=columns - 1, distance=(1, 3), first=first)
    sheets = np.zeros((len(labels), rows, columns), np.int8)
    for which, pair in enumerate(PAIRS):
        _stamp(sheets, corners[:, which], pair)
    return sheets


def _places(rng: np.random.Generator, free: NDArray[np.bool_], count: int) -> Integers:
    """Different places among the free ones of each row, at random: (B, N) -> (B, count)."""
    return np.where(free, rng.random(free.shape), 2.0).argsort(axis=1, kind="stable")[:, :count]


def _apart(
    rng: np.random.Generator, images: int, *, count: int, rows: int, columns: int, distance: tuple[int, int], first: Integers | None = None
) -> Integers:
    """Random cells of each image: (images, count, 2); any two are `distance` apart in rows, or in columns, or further.

    `first`: the first of each image, where it is given; there must be room beside it. An image without room for the last is begun again.
    """
    y, x = np.divmod(np.arange(rows * columns), columns)
    chosen, todo = np.zeros((images, count, 2), np.int64), np.arange(images)
    while len(todo):
        free = np.ones((len(todo), rows * columns), np.bool_)
        good = np.ones(len(todo), np.bool_)
        for which in range(count):
            good &= free.any(axis=1)
            place = np.where(free, rng.random(free.shape), -1.0).argmax(axis=1)
            if which == 0 and first is not None:
                place = columns * first[todo, 0] + first[todo, 1]
            chosen[todo, which] = np.stack([y[place], x[place]], axis=1)
            free &= (abs(y - y[place, None]) >= distance[0]) | (abs(x - x[place, None]) >= distance[1])
        todo = todo[~good]
    return chosen


def _stamp(sheets: NDArray[np.int8], corners: Integers, marks: NDArray[Any]) -> None:
    """Puts marks (h, w), or (B, h, w) for each sheet its own, where their upper left corners are to be; 0 leaves a cell as it is."""
    height, width = marks.shape[-2:]
    rows = corners[:, 0, None, None] + np.arange(height)[:, None]
    columns = corners[:, 1, None, None] + np.arange(width)
    images = np.arange(len(sheets))[:, None, None]
    sheets[images, rows, columns] = np.where(marks, marks, sheets[images, rows, columns])


_TASKS: Mapping[str, Task] = {
    "offset": Task(classes=8, kinds=2, cell=2, epochs=12, draw=_offset),
    "same": Task(classes=2, kinds=1, cell=1, epochs=12, draw=_same),
    "count": Task(classes=4, kinds=1, cell=1, epochs=12, draw=_count),
    "copy": Task(classes=4, kinds=5, cell=2, epochs=12, draw=_copy),
    "position": Task(classes=9, kinds=2, cell=2, epochs=12, draw=_position),
}
