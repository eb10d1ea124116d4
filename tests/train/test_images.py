"""A user's own images: what is read of folders and Parquet files, and what the page on them says."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as arrow
import pytest
import torch
from pictures import folder, pixels, png, seeds_of, table, told, written_by_datasets
from PIL import Image

from lisabench.cli.train_small import train_small
from lisabench.train import augment, images, stored
from lisabench.train.data import Part
from lisabench.units import size_in_bytes


def test_a_folder_by_class_is_split_and_read_pixel_for_pixel(tmp_path: Path) -> None:
    path = folder(tmp_path / "set", "abc", 10)
    (path / "a" / "notes.txt").write_text("no image")
    (path / "a" / ".hidden.png").write_text("no image")
    found = images.find(str(path))
    assert (found.height, found.width, found.channels, found.classes, found.patch) == (8, 8, 3, 3, 4)
    assert (found.epochs, found.recipe["augment"]) == (100, "shift-flip")
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
    assert (found.recipe["augment"], found.epochs) == (("shift-flip", 100) if side <= 64 else ("crop-flip", 300))
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
