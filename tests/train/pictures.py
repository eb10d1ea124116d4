"""What the tests of a user's own images share: made pictures, folders and Parquet files."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as arrow
import pytest
from PIL import Image
from pyarrow import parquet

from lisabench.errors import InputError
from lisabench.train import images
from lisabench.train.data import Part

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def pixels(seed: int, height: int = 8, width: int = 8, *, grey: bool = False) -> Pixels:
    shape = (height, width) if grey else (height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png(picture: Pixels, **options: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(picture).save(file, "png", **options)
    return file.getvalue()


def folder(path: Path, classes: str = "ab", each: int = 5, *, first: int = 0, **shape: Any) -> Path:
    """Images named by their seed, in a folder for each class."""
    for at, seed in enumerate(range(first, first + len(classes) * each)):
        file = path / classes[at // each] / f"{seed}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(pixels(seed, **shape)))
    return path


def table(path: Path, labels: list[Any], *, first: int = 0, column: str = "label", also: Mapping[str, list[Any]] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = [{"bytes": png(pixels(first + row)), "path": None} for row in range(len(labels))]
    parquet.write_table(arrow.table({"image": kept, column: labels} | dict(also or {})), path)
    return path


def told(name: Path | str, **options: Any) -> str:
    """The one line that this set is refused with, when it is found or when it is read."""
    with pytest.raises(InputError) as error:
        images.find(str(name), **options).read()
    assert "\n" not in str(error.value)
    return str(error.value)


def seeds_of(part: Part, count: int = 40, **shape: Any) -> list[int]:
    """Which of the made pictures these are, pixel for pixel."""
    made = {pixels(seed, **shape).tobytes(): seed for seed in range(count)}
    return [made[image.permute(1, 2, 0).numpy().tobytes()] for image in part.images]


def features_of_the_hub() -> datasets.Features:
    return datasets.Features(
        {"img": datasets.Image(), "fine_label": datasets.ClassLabel(names=["dog", "cat"]), "id": datasets.Value("int64")}
    )


def written_by_datasets(path: Path, count: int = 10, first: int = 0, *, hidden: bool = False) -> Path:
    kept = [{"bytes": png(pixels(first + row)), "path": None} for row in range(count)]
    rows = {"img": kept, "fine_label": [-1 if hidden else row % 2 for row in range(count)], "id": list(range(count))}
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.table(rows, schema=features_of_the_hub().arrow_schema), path)
    return path
