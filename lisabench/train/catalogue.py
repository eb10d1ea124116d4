"""The image sets by name: the built-in ones, folders, Parquet files and sets of the Hugging Face hub."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from lisabench.errors import InputError, unknown
from lisabench.train.data import DataSet, Split

HUB = "hub:"


def names() -> list[str]:
    """The sets that are a part of lisabench."""
    from lisabench.train import structures

    return ["digits", *structures.names()]


def find(name: str, *, patch: int | None = None, image_size: int | None = None) -> DataSet:
    """The data set of that name, cut into patches of so many pixels a side; None for what the set usually has.

    `name`: one of `names()`, a folder of images by class, a Parquet file or a folder of them, or `hub:NAME`. A path becomes the set's name
    in full, so that it is found again from another folder. `image_size`: what images from a disk or the hub are brought to.

    Raises:
        InputError: there is none of that name, or its images do not fit patch or size.
        UnavailableError: an optional part or the network is not there.
    """
    if name not in names() and not name.startswith(HUB):
        if not (name and Path(name).exists()):
            raise unknown("--data", name, names(), more="; or a folder of images by class, a Parquet file, hub:NAME")
        name = str(Path(name).resolve())
    return _find(name, patch, image_size)


@lru_cache(maxsize=8)
def _find(name: str, patch: int | None, image_size: int | None) -> DataSet:
    found = _by_kind(name, patch, image_size)
    if found.patch < 1 or found.patch > min(found.height, found.width):
        raise InputError(
            f"--patch got {found.patch}; the images of {name} are {found.height} x {found.width}: valid: 1 to their shorter side"
        )
    if found.height % found.patch or found.width % found.patch:
        raise InputError(f"--patch got {found.patch}; valid: a number that divides {found.height} and {found.width}, the images of {name}")
    return found


def _by_kind(name: str, patch: int | None, image_size: int | None) -> DataSet:
    from lisabench.train import structures

    if name not in names():
        from lisabench.train import images

        return images.find(name, patch=patch, image_size=image_size)
    if image_size is not None:
        raise InputError(f"--image-size got {image_size}, but the images of {name} have a size of their own; leave it out")
    return _digits(patch) if name == "digits" else structures.find(name, patch=patch)


def _digits(patch: int | None) -> DataSet:
    def read() -> Split:
        from lisabench.train import digits

        return digits.read()

    # A token a pixel: in patches of 2 pixels a model that mixes nothing finds nearly all of them.
    recipe = {"positions_deviation": 1.0}
    return DataSet(name="digits", height=8, width=8, channels=1, classes=10, patch=patch or 1, epochs=30, read=read, recipe=recipe)
