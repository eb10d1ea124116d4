"""The image sets that models are trained on, by name. A set's shape is known before its images are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lisabench.errors import unknown
from lisabench.workload import Grid

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPLIT_SEED = 0
TEST_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images (B, channels, height, width) and their classes (B,), those to train on and those to test on."""

    train_images: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.float32]
    test_labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """An image set, `patch` pixels square a token; `read` gives the same split each time."""

    name: str
    height: int
    width: int
    channels: int
    classes: int
    patch: int
    read: Callable[[], Split]

    @property
    def grid(self) -> Grid:
        return Grid(self.height // self.patch, self.width // self.patch)


def names() -> list[str]:
    return list(_DATA)


def find(name: str) -> DataSet:
    """The data set of that name; InputError where there is none."""
    if name not in _DATA:
        raise unknown("--data", name, names(), more="; give one of these names")
    return _DATA[name]


def _read_digits() -> Split:
    """The 1,797 digits that scikit-learn brings, stratified into 1,347 and 450; brightness standardised by the training part.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998, its test part.
    """
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    found = load_digits()
    images = found.images[:, None].astype(np.float32)
    labels = found.target.astype(np.int64)
    parts = train_test_split(images, labels, test_size=TEST_SHARE, stratify=labels, random_state=SPLIT_SEED)
    train_images, test_images, train_labels, test_labels = parts
    mean, deviation = train_images.mean(), train_images.std()
    return Split(
        train_images=(train_images - mean) / deviation,
        train_labels=train_labels,
        test_images=(test_images - mean) / deviation,
        test_labels=test_labels,
    )


_DATA = {"digits": DataSet(name="digits", height=8, width=8, channels=1, classes=10, patch=1, read=_read_digits)}
