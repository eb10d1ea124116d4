"""The generated tasks: each label found again by a plain loop over the image, nothing given away by what is not a place."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import structures_linear
from lisabench.errors import InputError
from lisabench.train import structures
from lisabench.train.data import Part, Split

NAMES = structures.names()
TASKS = [name for name in NAMES if not name.endswith("-shuffled")]
LOOKED_AT = 60  # images whose labels are found again, of each part
CELL = {"offset": 2, "same": 1, "count": 1, "copy": 2, "position": 2}  # pixels a side of what a mark fills
SHAPES = [
    [".##", "##.", ".#."],
    ["##.", "##.", "#.."],
    ["###", ".#.", ".#."],
    ["#.#", "###", "..."],
    ["#..", "#..", "###"],
    ["#..", "##.", ".##"],
    [".#.", "###", ".#."],
    ["##.", ".#.", ".##"],
]

CONTENT = {
    "structures-offset": "8aa21ae9f81fa327",
    "structures-offset-shuffled": "fafe95c6461101d5",
    "structures-same": "3c5ad27810f9c609",
    "structures-same-shuffled": "bec6b6136add9c6f",
    "structures-count": "4cf64ca535531aab",
    "structures-count-shuffled": "0d9277d68bed22fb",
    "structures-copy": "1301844ec4d7a260",
    "structures-copy-shuffled": "448993829b0bf7ad",
    "structures-position": "c9c7f7669e81acb5",
    "structures-position-shuffled": "4a9c67a5b5de9d8d",
}
PAGE = Path(__file__).parents[2] / "docs" / "structures.md"

Cells = dict[tuple[int, int], int]  # the kind of the mark in each cell, from 0; empty cells do not stand here

split = lru_cache(structures.read)


def parts(name: str) -> dict[str, Part]:
    found: Split = split(name)
    return {"train": found.train, "test": found.test, **found.elsewhere}


def marks(image: Tensor, cell: int) -> tuple[Cells, int, int]:
    """What stands in the cells of an image (channels, height, width), and how many rows and columns there are."""
    coarse = image[:, ::cell, ::cell]
    assert torch.equal(coarse.repeat_interleave(cell, 1).repeat_interleave(cell, 2), image), "a cell is of one colour"
    places = coarse.nonzero().tolist()
    cells = {(y, x): kind for kind, y, x in places}
    assert len(cells) == len(places), "a cell holds one mark"
    return cells, coarse.shape[1], coarse.shape[2]


def offset(cells: Cells, rows: int, columns: int) -> int:
    directions = [(-2, -2), (-2, 0), (-2, 2), (0, -2), (0, 2), (2, -2), (2, 0), (2, 2)]
    seen = [
        directions.index((b[0] - a[0], b[1] - a[1]))
        for a in cells
        for b in cells
        if (cells[a], cells[b]) == (0, 1) and (b[0] - a[0], b[1] - a[1]) in directions
    ]
    assert len(seen) == 1
    return seen[0]


def same(cells: Cells, rows: int, columns: int) -> int:
    """Shapes stand at even corners, so it is there that they are looked for."""
    found = []
    for y in range(0, rows - 2, 2):
        for x in range(0, columns - 2, 2):
            window = ["".join("#" if (y + i, x + j) in cells else "." for j in range(3)) for i in range(3)]
            if window in SHAPES:
                found.append(SHAPES.index(window))
    assert len(found) == 2
    return int(found[0] == found[1])


def count(cells: Cells, rows: int, columns: int) -> int:
    """Squares, less one."""
    return sum({(y, x), (y + 1, x), (y, x + 1), (y + 1, x + 1)} <= set(cells) for y, x in cells) - 1


def copy(cells: Cells, rows: int, columns: int) -> int:
    ((y, x),) = (place for place, kind in cells.items() if kind == 4)
    return cells[y + 2, x + 1]


def position(cells: Cells, rows: int, columns: int) -> int:
    ((y, x),) = ((y, x) for (y, x), kind in cells.items() if kind == 0 and cells.get((y, x + 1)) == 1)
    return 3 * (3 * y // rows) + 3 * x // columns


LABELS: dict[str, Callable[[Cells, int, int], int]] = {
    "offset": offset,
    "same": same,
    "count": count,
    "copy": copy,
    "position": position,
}


@pytest.mark.parametrize("name", TASKS)
def test_labels_are_what_the_images_show(name: str) -> None:
    task = name.removeprefix("structures-")
    for part in parts(name).values():
        found = [LABELS[task](*marks(image, CELL[task])) for image in part.images[:LOOKED_AT]]
        assert found == part.labels[:LOOKED_AT].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_what_a_set_holds(name: str) -> None:
    images = structures.find(name, patch=None)
    found = parts(name)
    assert images.grid == (6, 6)
    assert structures.find(name, patch=1).grid == (12, 12)
    assert [part.images.shape[2:] for part in found.values()] == [(12, 12), (12, 12), (16, 16), (10, 20)]
    for part in found.values():
        assert (part.images.dtype, part.labels.dtype) == (torch.float32, torch.int64)
        assert part.images.shape[1] == images.channels
        assert part.images.unique().tolist() == [0, 1]
        assert len(part) >= 1000
        assert part.labels.bincount().tolist() == [len(part) // images.classes] * images.classes


@pytest.mark.parametrize("name", NAMES)
def test_no_class_by_the_number_of_marks(name: str) -> None:
    """Every image of a part has the same number of pixels in each channel."""
    for part in parts(name).values():
        assert len(part.images.sum(dim=(2, 3)).unique(dim=0)) == 1


@pytest.mark.parametrize("name", TASKS)
def test_a_control_is_the_task_with_its_cells_out_of_order(name: str) -> None:
    for size, part in parts(name).items():
        control = parts(f"{name}-shuffled")[size]
        assert torch.equal(control.labels, part.labels)
        assert torch.equal(control.images.sum(dim=(2, 3)), part.images.sum(dim=(2, 3)))
        assert (control.images != part.images).flatten(1).any(dim=1).float().mean() > 0.9
        cell = CELL[name.removeprefix("structures-")]
        for image in control.images[:LOOKED_AT]:
            marks(image, cell)  # cells stay whole


@pytest.mark.parametrize("name", TASKS)
def test_an_order_of_its_own_for_each_image(name: str) -> None:
    """With one order for all, a pixel of the control would be as often marked as some pixel of the task, and not all alike."""
    part = parts(f"{name}-shuffled")["train"]
    often = part.images.mean(dim=0)
    mean = often.mean(dim=(1, 2), keepdim=True)
    noise = (mean * (1 - mean) / len(part)).sqrt()
    assert ((often - mean).abs() < 6 * noise).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_each_time_and_nothing_of_the_test_in_training(name: str) -> None:
    again, first = structures.read(name), split(name)
    for one, other in ((again.train, first.train), (again.test, first.test)):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
    train, test = (Counter(image.tobytes() for image in part.images.numpy().astype(np.uint8)) for part in (first.train, first.test))
    twice = name == "structures-count"  # as docs/structures.md says
    assert Counter(train.values()) == ({1: 4090, 2: 3} if twice else {1: len(first.train)})
    assert set(test.values()) == {1}
    assert len(train.keys() & test.keys()) == (1 if twice else 0)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_on_every_machine(name: str) -> None:
    """Where this fails for all, numpy's generator draws otherwise than that of the machine where the hashes were taken."""
    content = hashlib.sha256()
    for part in parts(name).values():
        content.update(part.images.numpy().astype(np.uint8).tobytes())
        content.update(part.labels.numpy().astype("<i8").tobytes())
    assert content.hexdigest()[:16] == CONTENT[name]


@pytest.mark.slow
def test_the_page_has_what_single_marks_tell() -> None:
    """To a point: another version of scikit-learn may stop elsewhere."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `structures-")]
    told = {row[0].strip("`"): [float(word.rstrip("%")) for word in row[1:]] for row in rows if len(row) == 4}
    assert list(told) == TASKS
    found = {name: (100 * accuracy, 100 * chance) for name, accuracy, chance in structures_linear.accuracies()}
    for name, (task, control, chance) in told.items():
        assert (task, chance) == pytest.approx(found[name], abs=1)
        assert (control, chance) == pytest.approx(found[f"{name}-shuffled"], abs=1)


def test_names() -> None:
    assert NAMES[:2] == ["structures-offset", "structures-offset-shuffled"]
    assert len(NAMES) == len(set(NAMES)) == 2 * len(LABELS)


def test_wrong_name() -> None:
    with pytest.raises(InputError, match=r"unknown --data 'structures-ofset'; did you mean 'structures-offset'"):
        structures.find("structures-ofset", patch=None)


@pytest.mark.parametrize("patch", [0, 3, 4, -2])
def test_a_patch_that_does_not_divide_all_sizes(patch: int) -> None:
    with pytest.raises(InputError, match=rf"--patch got {patch}; valid for structures-copy: 1 or 2, .*12 x 12, 16 x 16, 10 x 20"):
        structures.find("structures-copy", patch=patch)
