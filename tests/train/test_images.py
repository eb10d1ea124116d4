"""A user's own images, on real files made here: what is read is what was written, and what cannot be read is told in one line."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import socket
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import psutil
import pyarrow as arrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from lisabench.cli.train_small import train_small
from lisabench.errors import InputError, LisaBenchError, UnavailableError
from lisabench.train import augment, images, stored
from lisabench.train.data import Part
from lisabench.units import size_in_bytes

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


# What is read.


def test_a_folder_by_class_is_split_and_read_pixel_for_pixel(tmp_path: Path) -> None:
    path = folder(tmp_path / "set", "abc", 10)
    (path / "a" / "notes.txt").write_text("no image")
    (path / "a" / ".hidden.png").write_text("no image")
    found = images.find(str(path))
    assert (found.height, found.width, found.channels, found.classes, found.patch) == (8, 8, 3, 3, 4)
    assert (found.epochs, found.augment) == (100, "shift-flip")
    split = found.read()
    assert (split.train.images.dtype, split.train.images.is_contiguous()) == (torch.uint8, True)
    assert split.test.labels.bincount().tolist() == [2, 2, 2]
    for part in (split.train, split.test):
        assert [seed // 10 for seed in seeds_of(part)] == part.labels.tolist()
    assert sorted(seeds_of(split.train) + seeds_of(split.test)) == list(range(30))
    assert seeds_of(images.find(str(path)).read().test) == seeds_of(split.test)


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "val"), ("training", "validation"), ("train", "valid")])
def test_a_folder_with_parts(tmp_path: Path, names: tuple[str, str]) -> None:
    folder(tmp_path / names[0], "ab", 3)
    folder(tmp_path / names[1] / "", "ab", 2, first=20)
    split = images.find(str(tmp_path)).read()
    assert (seeds_of(split.train), split.train.labels.tolist()) == (list(range(6)), [0] * 3 + [1] * 3)
    assert dict(zip(seeds_of(split.test), split.test.labels.tolist(), strict=True)) == {20: 0, 21: 0, 22: 1, 23: 1}


@pytest.mark.parametrize("whole", [True, False])
def test_the_first_test_images_are_of_all_classes(tmp_path: Path, whole: bool) -> None:
    if whole:
        folder(tmp_path / "train", "abcd", 1, first=90)
    classes, first = "abcd", 0 if whole else 100
    folder(tmp_path / "test" if whole else tmp_path, classes, 20 if whole else 100, first=first)
    found = images.find(str(tmp_path)).read().test
    assert found.labels[:16].unique().tolist() == [0, 1, 2, 3]
    assert found.labels.bincount().tolist() == [20] * 4
    assert [(seed - first) // (20 if whole else 100) for seed in seeds_of(found, 500)] == found.labels.tolist()
    assert torch.equal(images.find(str(tmp_path)).read().test.images, found.images)


def test_a_test_part_without_classes_gives_way_to_the_validation_part(tmp_path: Path) -> None:
    folder(tmp_path / "train", each=3)
    folder(tmp_path / "val", each=2, first=20)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "0.png").write_bytes(png(pixels(0)))
    assert sorted(seeds_of(images.find(str(tmp_path)).read().test)) == [20, 21, 22, 23]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    folder(tmp_path / "train-and-bus", "ab")
    (tmp_path / "train-and-bus" / "b").rename(tmp_path / "train-and-bus" / "train")
    assert images.find(str(tmp_path / "train-and-bus")).classes == 2


def test_mean_and_deviation_are_those_of_the_training_part(tmp_path: Path) -> None:
    split = images.find(str(folder(tmp_path, each=20))).read()
    deviation, mean = torch.std_mean(split.train.images.double() / 255, dim=(0, 2, 3), correction=0)
    np.testing.assert_allclose(split.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(split.deviation, deviation, rtol=1e-12)


def test_images_of_one_brightness_can_be_standardised(tmp_path: Path) -> None:
    for label in "ab":
        for number in range(5):
            (tmp_path / label).mkdir(exist_ok=True)
            (tmp_path / label / f"{number}.png").write_bytes(png(np.full((8, 8, 3), 51, np.uint8)))
    split = images.find(str(tmp_path)).read()
    assert split.mean == pytest.approx((0.2, 0.2, 0.2))
    assert split.standardised(split.train.images).abs().max() < 1e-6


def test_grey_images_keep_one_channel(tmp_path: Path) -> None:
    found = images.find(str(folder(tmp_path, grey=True)))
    split = found.read()
    assert (found.channels, split.train.images.shape, len(split.mean)) == (1, (8, 1, 8, 8), 1)
    assert (
        len(set(seeds_of(Part(images=split.train.images[:, 0, :, :, None].permute(0, 3, 1, 2), labels=split.train.labels), grey=True))) == 8
    )


@pytest.mark.parametrize(
    ("height", "width", "given", "side", "patch"),
    [
        (28, 28, None, 28, 4),
        (30, 30, None, 30, 5),
        (48, 64, None, 224, 16),
        (80, 80, None, 224, 16),
        (24, 24, 100, 100, 20),
        (90, 70, 16, 16, 4),
    ],
)
def test_size_and_patch_by_default(tmp_path: Path, height: int, width: int, given: int | None, side: int, patch: int) -> None:
    found = images.find(str(folder(tmp_path, height=height, width=width)), image_size=given)
    assert (found.height, found.width, found.patch) == (side, side, patch)
    assert (found.augment, found.epochs) == (("shift-flip", 100) if side <= 64 else ("crop-flip", 300))
    assert found.read().test.images.shape == (2, 3, side, side)


def test_the_middle_is_kept_and_upright(tmp_path: Path) -> None:
    """An image of three colours beside each other, stored turned with a note that says so, shows its middle one alone."""
    stripes = np.zeros((16, 48, 3), np.uint8)
    for place in range(3):
        stripes[:, 16 * place : 16 * place + 16, place] = 255
    turned = Image.fromarray(np.rot90(stripes).copy())
    note = Image.Exif()
    note[0x0112] = 6  # to be shown turned clockwise by a quarter
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(5):
            turned.save(tmp_path / label / f"{number}.png", exif=note)
    found = images.find(str(tmp_path), image_size=8).read().test.images
    assert found[:, :, 1:-1, 2:-2].amin((0, 2, 3)).tolist() == [0, 255, 0]
    assert found[:, :, 1:-1, 2:-2].amax((0, 2, 3)).tolist() == [0, 255, 0]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_other_modes_become_three_channels_beside_colours(tmp_path: Path, mode: str) -> None:
    folder(tmp_path)
    Image.fromarray(pixels(50)).convert(mode).save(tmp_path / "a" / "other.tiff")
    assert images.find(str(tmp_path)).read().train.images.shape[1] == 3


@pytest.mark.parametrize("labels", [["x", "y"] * 5, [3, 11] * 5, [False, True] * 5])
@pytest.mark.parametrize("column", ["label", "fine_label"])
def test_a_parquet_file_is_split_and_read(tmp_path: Path, labels: list[Any], column: str) -> None:
    found = images.find(str(table(tmp_path / "all.parquet", labels, column=column, also={"coarse_label": [0] * 10})))
    split = found.read()
    for part in (split.train, split.test):
        assert [seed % 2 for seed in seeds_of(part)] == part.labels.tolist()
    assert (found.classes, split.test.labels.tolist().count(0), len(split.test)) == (2, 1, 2)


@pytest.mark.parametrize("below", ["", "data"])
def test_a_folder_of_parquet_files(tmp_path: Path, below: str) -> None:
    table(tmp_path / below / "train-00000-of-00002.parquet", [0, 1])
    table(tmp_path / below / "train-00001-of-00002.parquet", [1, 0], first=2)
    table(tmp_path / below / "validation-00000-of-00001.parquet", [1, 0], first=10)
    table(tmp_path / below / "test-00000-of-00001.parquet", arrow.array([None, None], arrow.int64()), first=20)
    split = images.find(str(tmp_path)).read()
    assert (seeds_of(split.train), split.train.labels.tolist()) == ([0, 1, 2, 3], [0, 1, 1, 0])
    assert sorted(zip(seeds_of(split.test), split.test.labels.tolist(), strict=True)) == [(10, 1), (11, 0)]


def test_parquet_files_in_a_folder_and_in_its_data_count_once(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", [0, 1] * 5)
    table(tmp_path / "data" / "train.parquet", [0, 1] * 5)
    split = images.find(str(tmp_path)).read()
    assert sorted(seeds_of(split.train) + seeds_of(split.test)) == list(range(10))


def test_minus_one_is_a_class_of_a_file(tmp_path: Path) -> None:
    split = images.find(str(table(tmp_path / "all.parquet", [-1, 1] * 5))).read()
    assert [seed % 2 for seed in seeds_of(split.train)] == split.train.labels.tolist()
    table(tmp_path / "parts" / "train.parquet", [0, 1])
    table(tmp_path / "parts" / "test.parquet", [-1, -1])
    assert "train alone has 0, 1 and test alone has -1; valid: the same classes" in told(tmp_path / "parts")


@pytest.mark.parametrize("label", [datasets.ClassLabel(names=["dog", "cat"]), datasets.Value("int64")])
def test_minus_one_is_kept_back_in_sets_of_the_hub(label: Any) -> None:
    features = datasets.Features({"img": datasets.Image(), "label": label})
    rows = {"img": [{"bytes": png(pixels(0)), "path": None}] * 2, "label": [-1, -1]}
    assert stored._stored_hub("hub:x", datasets.Dataset.from_dict(rows, features=features)).labels == [None, None]


def test_a_copy_of_a_set_whose_test_part_is_kept_back(tmp_path: Path) -> None:
    written_by_datasets(tmp_path / "train.parquet")
    written_by_datasets(tmp_path / "validation.parquet", 4, 20)
    written_by_datasets(tmp_path / "test.parquet", 4, 30, hidden=True)
    assert sorted(seeds_of(images.find(str(tmp_path)).read().test)) == [20, 21, 22, 23]


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


def test_features_that_datasets_wrote_tell_the_columns(tmp_path: Path) -> None:
    split = images.find(str(written_by_datasets(tmp_path / "all.parquet"))).read()
    assert [1 - seed % 2 for seed in seeds_of(split.train)] == split.train.labels.tolist()  # cat before dog


def test_digest_is_of_what_the_set_holds(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one"), folder(tmp_path / "two")
    assert images.find(str(one)).digest == images.find(str(two)).digest is not None
    file = two / "a" / "0.png"
    os.utime(file, (0, 0))
    assert images.find(str(one)).digest == images.find(str(two)).digest
    content = file.read_bytes()
    file.write_bytes(content[:60] + bytes([content[60] ^ 1]) + content[61:])  # of the same size
    assert images.find(str(one)).digest != images.find(str(two)).digest
    file.write_bytes(content)
    file.rename(two / "a" / "other.png")
    assert images.find(str(one)).digest != images.find(str(two)).digest


@pytest.mark.parametrize(("changed", "seen"), [(-1, True), (-100, True), (-101, False), (0, False)])
def test_of_a_large_set_the_ends_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: int, seen: bool) -> None:
    monkeypatch.setattr(stored, "HASHED", 300)
    files = {name: tmp_path / name for name in "abc"}
    for file in files.values():
        file.write_bytes(bytes(1000))
    before, content = stored._digest_of_files(files), bytearray(1000)
    content[changed] = 1
    files["b"].write_bytes(content)
    assert (stored._digest_of_files(files) != before) == seen
    files["b"].write_bytes(bytes(1001))
    assert stored._digest_of_files(files) != before


# What is refused.


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


# The hub, or what answers in its place; the network is never asked.


class Refusing(BaseHTTPRequestHandler):
    """Answers as the hub does for a set that it has not, or that not everyone may have."""

    def do_GET(self) -> None:
        status, code = (403, "GatedRepo") if "gated" in self.path else (401, "RepoNotFound")
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing listens there; a folder for what `datasets` keeps."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "kept")
    return tmp_path / "kept"


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", ["no-such-owner/no-such-set", "a/b/c", "", "sp ace/x"])
def test_a_name_that_is_not_on_the_hub(name: str) -> None:
    assert f"the Hugging Face hub has no image set {name!r}; valid: the name of a set there" in told(f"hub:{name}")


@pytest.mark.usefixtures("hub")
def test_a_set_that_is_not_open_to_all() -> None:
    with pytest.raises(UnavailableError, match="hub:owner/gated is open only to whom its owners let in"):
        images.find("hub:owner/gated")


@pytest.mark.usefixtures("no_hub")
def test_no_network(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        LisaBenchError, match=r"the Hugging Face hub does not answer \(ConnectError.*no copy is kept here; connect"
    ) as error:
        images.find("hub:no-such-owner/no-such-set")
    assert error.value.exit_code == 3
    assert capfd.readouterr() == ("", "")


def test_a_copy_that_is_kept_is_read_without_network(tmp_path: Path, no_hub: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = {"train": str(written_by_datasets(tmp_path / "a.parquet")), "test": str(written_by_datasets(tmp_path / "b.parquet", 4, 20))}
    from datasets.packaged_modules.parquet.parquet import Parquet

    builder = Parquet(cache_dir=str(no_hub), dataset_name="here", config_name="small", hash="0" * 8, data_files=files)
    builder.download_and_prepare()
    shutil.move(builder.cache_dir, no_hub / "made___here" / "small" / "0.0.0" / builder.hash)  # where a set of the hub is kept
    capfd.readouterr()
    for name in ("hub:made/here", "hub:made/here:small"):
        split = images.find(name).read()
        assert seeds_of(split.train) == list(range(10))
        assert sorted(zip(seeds_of(split.test), split.test.labels.tolist(), strict=True)) == [(20, 1), (21, 0), (22, 1), (23, 0)]
    assert capfd.readouterr() == ("", "")
    assert "hub:made/here:large cannot be loaded: Couldn't find cache for made/here" in told("hub:made/here:large")


# The page.


def test_the_page_names_what_the_code_takes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    words = set(re.findall(r"`([^`\n]+)`", page))
    assert {*stored.TRAIN, *stored.TESTS, *stored.ENDINGS, *stored.LABELS, *augment.KINDS} <= words
    lines = " ".join(page.split())
    assert f"at least {images.FEWEST} images a class" in lines
    assert f"where {stored.LOOKED_AT} of them are squares of one size up to {images.SMALL} pixels, or else {images.USUAL}" in lines
    assert f"of 3 x 32 x 32 take {size_in_bytes(60_000 * 3 * 32 * 32)}" in lines
    assert f"of 3 x 224 x 224 take {size_in_bytes(130_000 * 3 * 224 * 224)}" in lines
    assert (augment.AREA, augment.RATIO, "8% to 100% of the image, 3/4 to 4/3 as wide" in lines) == ((0.08, 1), (3 / 4, 4 / 3), True)
    assert f"up to {size_in_bytes(stored.HASHED)} of files" in lines
    known = {f"--{name.replace('_', '-')}" for name in inspect.signature(train_small).parameters} | {"--compile", "--nproc-per-node"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page)) <= known
