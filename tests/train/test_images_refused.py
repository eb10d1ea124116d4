"""A user's own images: what is refused, each with one line."""

from __future__ import annotations

import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as arrow
import pytest
from pictures import folder, pixels, png, table, told
from PIL import Image
from pyarrow import parquet

from lisabench.errors import UnavailableError
from lisabench.train import images


def test_a_folder_of_one_class(tmp_path: Path) -> None:
    assert told(folder(tmp_path, "a")) == f"{tmp_path} has images of one class alone, a; valid: images of two classes or more"


def test_folders_without_images_or_without_classes(tmp_path: Path) -> None:
    assert f"{tmp_path} holds no images; valid: a folder for each class" in told(tmp_path)
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "0.png").write_bytes(png(pixels(0)))
    assert f"{tmp_path} holds test, train, and none for training with a folder for each class" in told(tmp_path)


def test_too_few_of_a_class_to_split(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "b" / "5.png").unlink()
    assert "class b has 4 images; valid: 5 or more a class, or a test part" in told(tmp_path)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"not an image", lambda data: b""])
def test_a_corrupt_image_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    file = folder(tmp_path, each=100) / "b" / "123.png"
    file.write_bytes(damage(file.read_bytes()))
    assert told(tmp_path).startswith(f"{file} cannot be read as an image: ")


@pytest.mark.parametrize(
    "value", [{"bytes": b"not an image", "path": None}, {"bytes": None, "path": None}, {"bytes": None, "path": "gone.png"}]
)
def test_a_corrupt_row_is_named(tmp_path: Path, value: dict[str, Any]) -> None:
    kept = [{"bytes": png(pixels(row)), "path": None} for row in range(10)]
    parquet.write_table(arrow.table({"image": [*kept[:7], value, *kept[8:]], "label": [0, 1] * 5}), tmp_path / "all.parquet")
    assert told(tmp_path / "all.parquet").startswith(f"row 7 of {tmp_path}/all.parquet cannot be read as an image: ")


def test_classes_that_differ(tmp_path: Path) -> None:
    folder(tmp_path / "train", "abc")
    folder(tmp_path / "test", "abd")
    assert f"{tmp_path}: its parts differ in their classes, train alone has c and test alone has d; valid:" in told(tmp_path)


def test_an_image_smaller_than_a_patch(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "b" / "9.png").write_bytes(png(pixels(9, height=3, width=20)))
    line = f"{tmp_path}/b/9.png has 20 x 3 pixels; valid: at least a patch, 4 x 4 (--patch)"
    assert told(tmp_path, image_size=8, patch=4) == line
    assert images.find(str(tmp_path), image_size=8, patch=2).read().train.images.shape[2:] == (8, 8)


def test_sixteen_bits(tmp_path: Path) -> None:
    folder(tmp_path)
    Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(tmp_path / "a" / "deep.png")
    assert told(tmp_path) == f"{tmp_path}/a/deep.png has over 8 bits a channel; valid: 8; convert it"


def deep_png(kind: int, bits: int) -> bytes:
    """A PNG of 8 x 8 pixels, 2: RGB, 4: grey and alpha, 6: RGBA, 3: one of a palette."""
    width = {2: 3, 3: 1, 4: 2, 6: 4}[kind] * bits
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 8, 8, bits, kind, 0, 0, 0), b"PLTE": bytes(3)}
    chunks |= {b"IDAT": zlib.compress(bytes(8 * (1 + width))), b"IEND": b""}
    made = (struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


def tiff(bits: int) -> bytes:
    """A TIFF of 8 x 8 pixels of three channels, not compressed."""
    entries = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 128), (277, 3, 1, 3), (278, 3, 1, 8), (279, 4, 1, 24 * bits)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return (b"II*\0" + struct.pack("<I", 8) + directory).ljust(122, b"\0") + struct.pack("<3H", bits, bits, bits) + bytes(24 * bits)


@pytest.mark.parametrize(
    ("ending", "deep", "eight"),
    [
        *(("png", deep_png(kind, 16), deep_png(kind, 8)) for kind in (2, 4, 6)),
        ("tiff", tiff(16), tiff(8)),
        ("ppm", b"P6 8 8 65535\n" + bytes(384), b"P6 8 8 255\n" + bytes(192)),
        ("ppm", b"P6 8 8 1023\n" + bytes(384), b"P6 8 8 100\n" + bytes(192)),
        ("ppm", b"P3 8 8 4000\n" + b"0 " * 192, b"P3 8 8 15\n" + b"0 " * 192),
        ("pgm", b"P5 8 8 1023\n" + bytes(128), b"P5 8 8 255\n" + bytes(64)),
        ("png", deep_png(6, 16), deep_png(3, 8)),
    ],
)
def test_sixteen_bits_of_colour(tmp_path: Path, ending: str, deep: bytes, eight: bytes) -> None:
    file = folder(tmp_path) / "a" / f"other.{ending}"
    file.write_bytes(eight)
    images.find(str(tmp_path)).read()
    file.write_bytes(deep)
    assert told(tmp_path) == f"{file} has over 8 bits a channel; valid: 8; convert it"


def test_no_rows(tmp_path: Path) -> None:
    empty = table(tmp_path / "train.parquet", arrow.array([], arrow.int64()))
    parquet.write_table(parquet.read_table(table(tmp_path / "some.parquet", [0, 1])).slice(0, 0), empty)
    assert told(empty) == f"{empty}: there are no images in it; valid: images of two classes or more"
    table(tmp_path / "parts" / "train.parquet", [0, 1])
    shutil.copy(empty, tmp_path / "parts" / "test.parquet")
    assert f"{tmp_path}/parts, its test part: there are no images in it" in told(tmp_path / "parts")


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"PAR1" + bytes(100) + b"PAR1"])
def test_no_parquet_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "all.parquet").write_bytes(content)
    assert told(tmp_path / "all.parquet").startswith(f"{tmp_path}/all.parquet is no Parquet file: ")


def test_a_parquet_file_damaged_within(tmp_path: Path) -> None:
    file = table(tmp_path / "all.parquet", [0, 1] * 5)
    content = file.read_bytes()
    file.write_bytes(content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :])
    assert f"{file} cannot be read as Parquet: " in told(file)


def test_columns_that_cannot_be_told(tmp_path: Path) -> None:
    twice = told(table(tmp_path / "twice.parquet", [0, 1], also={"class": [0, 1]}))
    assert "its classes could be any of label, class (its columns: image, label, class); valid: " in twice
    assert "its classes are in none that is known (its columns: image, id)" in told(table(tmp_path / "none.parquet", [0, 1], column="id"))
    assert "its images could be any of image, mask" in told(table(tmp_path / "two.parquet", [0, 1], also={"mask": [b"0", b"1"]}))
    parquet.write_table(arrow.table({"text": ["a"], "label": [0]}), tmp_path / "text.parquet")
    assert "its images are in none that is known (its columns: text, label)" in told(tmp_path / "text.parquet")


def test_files_of_other_columns_and_rows_without_class(tmp_path: Path) -> None:
    table(tmp_path / "files" / "train-0.parquet", [0, 1])
    table(tmp_path / "files" / "train-1.parquet", [0, 1], column="class")
    assert "train-1.parquet has no column label, but train-0.parquet has" in told(tmp_path / "files")
    assert "all.parquet: row 1 has no class; valid: a class in each row" in told(table(tmp_path / "all.parquet", [0, None, 1]))
    table(tmp_path / "tests" / "test.parquet", [0, 1])
    assert f"{tmp_path}/tests has the parts test; valid: one called train" in told(tmp_path / "tests")


def test_what_does_not_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    side = int((psutil.virtual_memory().total / 30) ** 0.5) + 1
    assert f"{tmp_path}: 10 images of 3 x {side} x {side} take " in told(folder(tmp_path), image_size=side)
    most = int((psutil.virtual_memory().available / 30 / 8) ** 0.5)
    images.find(str(tmp_path), image_size=most, patch=1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert f"3 x {most} x {most} in each of 16 processes take " in told(tmp_path, image_size=most, patch=1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    images.find(str(tmp_path), image_size=most, patch=1)
    assert f"{tmp_path}: 10 images of 3 x {side} x {side} take " in told(tmp_path, image_size=side)
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert "in each of 16 processes take " in told(tmp_path, image_size=most, patch=1)


def test_image_size(tmp_path: Path) -> None:
    assert told(folder(tmp_path), image_size=0) == "--image-size got 0; valid: 1 or more pixels, such as 32 or 224"


@pytest.mark.parametrize("package", ["datasets", "PIL"])
def test_without_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    folder(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)  # as where it is not installed
    with pytest.raises(UnavailableError, match=rf"takes the package {package}, which is not here; pip install 'lisabench\[data\]'"):
        images.find(str(tmp_path))
