"""The image sets: split once and for all, nothing of the test part seen in training."""

from __future__ import annotations

import numpy as np
import pytest

from lisabench.errors import InputError
from lisabench.train import data


@pytest.mark.parametrize("name", data.names())
def test_split_is_fixed_and_fits_the_description(name: str) -> None:
    images = data.find(name)
    split, again = images.read(), images.read()
    shape = (images.channels, images.height, images.width)
    assert (images.grid.height * images.patch, images.grid.width * images.patch) == shape[1:]
    for part in ("train", "test"):
        found, labels = (getattr(split, f"{part}_{what}") for what in ("images", "labels"))
        assert found.shape == (len(labels), *shape)
        assert (found.dtype, labels.dtype) == (np.float32, np.int64)
        assert set(labels) == set(range(images.classes))
        np.testing.assert_array_equal(found, getattr(again, f"{part}_images"))
    shares = [np.bincount(labels) / len(labels) for labels in (split.train_labels, split.test_labels)]
    np.testing.assert_allclose(*shares, atol=0.005)
    assert abs(split.train_images.mean()) < 1e-4
    assert abs(split.train_images.std() - 1) < 1e-4


def test_digits_are_those_of_scikit_learn_each_once() -> None:
    split = data.find("digits").read()
    images = np.concatenate([split.train_images, split.test_images]).reshape(1797, 64)
    assert (len(split.train_labels), len(split.test_labels)) == (1347, 450)
    assert len(np.unique(images, axis=0)) == 1797


@pytest.mark.parametrize("given", ["digit", "/nowhere/at/all", ""])
def test_unknown_name(given: str) -> None:
    with pytest.raises(InputError, match=r"valid: digits") as told:
        data.find(given)
    assert repr(given) in str(told.value)
