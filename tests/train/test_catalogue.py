"""The image sets by name: split once and for all, nothing of the test part seen in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lisabench.errors import InputError
from lisabench.train import catalogue
from lisabench.train.data import Part, Split


def test_digits_are_those_of_scikit_learn_each_once() -> None:
    images = catalogue.find("digits")
    split, again = images.read(), images.read()
    assert (images.grid, len(split.train), len(split.test)) == ((8, 8), 1347, 450)
    assert split.train.images.shape[1:] == (images.channels, images.height, images.width)
    everything = torch.cat([split.train.images, split.test.images]).flatten(1)
    assert len(torch.unique(everything, dim=0)) == 1797
    for part, other in ((split.train, again.train), (split.test, again.test)):
        assert (part.images.dtype, part.labels.dtype) == (torch.float32, torch.int64)
        assert torch.equal(part.images, other.images)
    shares = [part.labels.bincount(minlength=images.classes) / len(part) for part in (split.train, split.test)]
    torch.testing.assert_close(*shares, atol=0.005, rtol=0)
    assert abs(split.train.images.mean()) < 1e-4
    assert abs(split.train.images.std() - 1) < 1e-3


@pytest.mark.parametrize("given", ["digit", "/nowhere/at/all", ""])
def test_unknown_name(given: str) -> None:
    with pytest.raises(InputError, match=r"digits") as told:
        catalogue.find(given)
    assert repr(given) in str(told.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"patch": 9}, "--patch got 9; the images of digits are 8 x 8"),
        ({"patch": 3}, "--patch got 3; valid: a number that divides 8 and 8"),
        ({"image_size": 32}, "--image-size got 32, but the images of digits have a size of their own"),
    ],
)
def test_what_does_not_fit(settings: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        catalogue.find("digits", **settings)


def test_a_path_is_found_again_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image")
    for place in ("here", "there"):
        for label in "ab":
            (tmp_path / place / "photos" / label).mkdir(parents=True)
            for number in range(5):
                shade = np.full((8, 8), 100 * (place == "there") + number, np.uint8)
                image.fromarray(shade).save(tmp_path / place / "photos" / label / f"{number}.png")
    found = []
    for place, given in (("here", "./photos"), ("there", "photos"), ("there/photos", ".")):
        monkeypatch.chdir(tmp_path / place)
        found.append(catalogue.find(given))
    assert [one.name for one in found] == [f"{tmp_path}/{place}/photos" for place in ("here", "there", "there")]
    assert found[1] is found[2] is catalogue.find(found[1].name)
    assert found[0].digest != found[1].digest
    assert found[0].read().train.images.max() < 100 <= found[1].read().train.images.min()


def test_a_built_in_set_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert (catalogue.find("digits").name, catalogue.find("digits").classes) == ("digits", 10)


def test_patches() -> None:
    assert catalogue.find("digits", patch=4).grid == (2, 2)


def test_brightness_is_standardised_by_the_training_part() -> None:
    images = torch.tensor([[[[0, 255]], [[51, 102]]]], dtype=torch.uint8)  # one image of two channels
    part = Part(images=images, labels=torch.tensor([0]))
    split = Split(train=part, test=part, mean=(0.5, 0.3), deviation=(0.5, 0.1))
    torch.testing.assert_close(split.standardised(images), torch.tensor([[[[-1.0, 1.0]], [[-1.0, 1.0]]]]))
    torch.testing.assert_close(split.standardised(images.float()), images.float())
