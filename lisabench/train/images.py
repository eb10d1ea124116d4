"""A user's own images: what of them is trained on and tested on, decoded once and kept in memory."""

from __future__ import annotations

import os
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import psutil
import torch

from lisabench import units
from lisabench.errors import InputError, LisaBenchError, UnavailableError
from lisabench.train.data import DataSet, Part, Split
from lisabench.train.stored import HUB, TESTS, TRAIN, Encoded, Named, Stored, first_line, folder, hub_set, parquet_files

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile
    from torch import Tensor

    Array: TypeAlias = NDArray[np.uint8]

TEST_SHARE = 0.2
FEWEST = 5  # of a class, where a fifth of it is to be the test part
SPLIT_SEED, ORDER_SEED = 0, 0
SMALL, USUAL = 64, 224
AT_ONCE = 256  # images decoded before the next are asked for


def find(name: str, *, patch: int | None = None, image_size: int | None = None) -> DataSet:
    """The data set of a folder, a Parquet file, a folder of Parquet files, or `hub:NAME` or `hub:NAME:CONFIG`.

    Images become squares of `image_size` pixels: by default what they are, where a look at some finds equal squares of up to 64 pixels,
    or else 224. `patch`: by default the divisor of that which is nearest to 4, above 64 pixels to 16. Test images stand in an order drawn
    once and for all, so that the first of them are not of one class.

    Raises:
        InputError: these are no images that one can train on, or too many for the memory.
        UnavailableError: the packages of `lisabench[data]` or the network are not there.
    """
    if missing := [module for module in ("datasets", "PIL") if find_spec(module) is None]:
        raise UnavailableError(f"--data {name} takes the package {missing[0]}, which is not here; pip install 'lisabench[data]'")
    if image_size is not None and image_size < 1:
        raise InputError(f"--image-size got {image_size}; valid: 1 or more pixels, such as 32 or 224")
    try:
        parts, digest = (
            hub_set(name) if name.startswith(HUB) else folder(Path(name)) if Path(name).is_dir() else parquet_files({"": [Path(name)]})
        )
    except OSError as error:
        raise InputError(f"{name} cannot be read: {first_line(error)}; valid: a path that may be read") from None
    train, test = _divided(name, parts)
    classes = sorted(set(train.labels))
    own_size, channels = _look(train)
    side = image_size or own_size
    _refuse_too_many(name, len(train.labels) + len(test.labels), channels, side)
    small = side <= SMALL
    cut = patch or _nearest_divisor(side, 4 if small else 16)

    def read() -> Split:
        as_stored, mixed = range(len(train.labels)), torch.randperm(len(test.labels), generator=torch.Generator().manual_seed(ORDER_SEED))
        made = _part(train, classes, as_stored, side=side, channels=channels, patch=cut)
        mean, deviation = _brightness(made.images)
        tested = _part(test, classes, mixed.tolist(), side=side, channels=channels, patch=cut)
        return Split(train=made, test=tested, mean=mean, deviation=deviation)

    return DataSet(
        name=name,
        height=side,
        width=side,
        channels=channels,
        classes=len(classes),
        patch=cut,
        epochs=100 if small else 300,
        read=read,
        recipe={"augment": "shift-flip" if small else "crop-flip"},
        digest=digest,
    )


def _divided(name: str, parts: Mapping[str, Callable[[], Stored]]) -> tuple[Stored, Stored]:
    """What is trained on and what is tested on: parts of those names, or a fixed stratified fifth of the only part for the test."""
    chosen = next((part for part in (*TRAIN, "") if part in parts), None)
    if chosen is None:
        raise InputError(f"{name} has the parts {', '.join(parts)}; valid: one called train, and one called test or validation if any")
    train = parts[chosen]()
    tests = (parts[part]() for part in TESTS if part in parts)
    test = next((found for found in tests if not found.labels or any(label is not None for label in found.labels)), None)
    _refuse_without_classes(f"{name}, its train part" if test else name, train)
    if test:
        _refuse_without_classes(f"{name}, its test part", test)
    counts = Counter(train.labels)
    if len(counts) < 2:
        raise InputError(f"{name} has images of one class alone, {train.labels[0]}; valid: images of two classes or more")
    if test:
        only = {"train": counts.keys() - set(test.labels), "test": set(test.labels) - counts.keys()}
        told = [f"{part} alone has {', '.join(sorted(map(str, labels))[:5])}" for part, labels in only.items() if labels]
        if told:
            raise InputError(f"{name}: its parts differ in their classes, {' and '.join(told)}; valid: the same classes in train and test")
        return train, test
    label, fewest = min(counts.items(), key=lambda item: item[1])
    if fewest < FEWEST:
        raise InputError(
            f"{name}: class {label} has {fewest} images; valid: {FEWEST} or more a class, or a test part beside the train part"
        )
    from sklearn.model_selection import train_test_split

    rows = train_test_split(range(len(train.labels)), test_size=TEST_SHARE, stratify=train.labels, random_state=SPLIT_SEED)
    return train.only(rows[0]), train.only(rows[1])


def _refuse_without_classes(where: str, found: Stored) -> None:
    if not found.labels:
        raise InputError(f"{where}: there are no images in it; valid: images of two classes or more")
    if None in found.labels:
        raise InputError(f"{where}: row {found.labels.index(None)} has no class; valid: a class in each row, or in none of a test part")


@contextmanager
def _opened(name: str, picture: Encoded | None) -> Iterator[ImageFile]:
    """The picture, its header read.

    Raises:
        InputError: it cannot be read, or cannot be decoded within the block.
    """
    from PIL import Image

    try:
        if picture is None:
            raise ValueError("there is none")
        with Image.open(picture if isinstance(picture, Path) else BytesIO(picture)) as image:
            yield image
    except (LisaBenchError, MemoryError):
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files, struct.error and SyntaxError among them
        why = "it is damaged or of an unknown format" if "BytesIO" in str(error) else first_line(error)
        raise InputError(f"{name} cannot be read as an image: {why}; mend it or take it out") from None


def _look(stored: Stored) -> tuple[int, int]:
    """The side that images are brought to, and their channels, by a look at the headers of some: 1 where all are grey, or else 3."""
    sizes, grey = set(), True
    with _quiet_pillow():
        for name, picture in stored.look():
            with _opened(name, picture) as image:
                sizes.add(image.size)
                grey = grey and image.mode in ("1", "L", "LA")
    width, height = sizes.pop()
    return (width if not sizes and width == height <= SMALL else USUAL), 1 if grey else 3


def _nearest_divisor(side: int, to: int) -> int:
    return min((size for size in range(1, side + 1) if side % size == 0), key=lambda size: (abs(size - to), -size))


def _refuse_too_many(name: str, count: int, channels: int, side: int) -> None:
    # Torchrun's: each process keeps all images. The first asks for all of them; one that comes later, when others have theirs, for its own.
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if os.environ.get("LOCAL_RANK", "0") == "0" else 1
    taken, free = count * channels * side * side * processes, psutil.virtual_memory().available
    if taken > free:
        each = f" in each of {processes} processes" if processes > 1 else ""
        what = f"{count} images of {channels} x {side} x {side}{each} take {units.size_in_bytes(taken)} of memory"
        raise InputError(f"{name}: {what}, and {units.size_in_bytes(free)} are free; valid: what fits, such as a smaller --image-size")


def _part(stored: Stored, classes: Sequence[Any], places: Sequence[int], *, side: int, channels: int, patch: int) -> Part:
    """Its images decoded, uint8, and the number of each one's class among the classes; row i comes to stand at places[i]."""
    images = np.empty((len(stored.labels), channels, side, side), dtype=np.uint8)

    def place(numbered: tuple[int, Named]) -> None:
        row, (name, picture) = numbered
        images[places[row]] = _square(name, picture, side, channels, patch)

    waiting = enumerate(stored.pictures())
    with _quiet_pillow(), ThreadPoolExecutor(torch.get_num_threads()) as pool:
        while some := list(islice(waiting, AT_ONCE)):
            deque(pool.map(place, some), maxlen=0)
    numbers, labels = {label: number for number, label in enumerate(classes)}, torch.empty(len(places), dtype=torch.int64)
    labels[list(places)] = torch.tensor([numbers[label] for label in stored.labels])
    return Part(images=torch.from_numpy(images), labels=labels)


def _square(name: str, picture: Encoded | None, side: int, channels: int, patch: int) -> Array:
    """The middle square of the picture, upright, of that many pixels a side, (channels, side, side)."""
    from PIL import Image, ImageOps

    with _opened(name, picture) as image:
        if min(image.size) < patch:
            raise InputError(f"{name} has {image.width} x {image.height} pixels; valid: at least a patch, {patch} x {patch} (--patch)")
        if _deep(image):
            raise InputError(f"{name} has over 8 bits a channel; valid: 8; convert it")
        image.draft(None, (2 * side, 2 * side))  # a large JPEG is decoded at a fraction of its size, still twice of what is wanted
        upright = ImageOps.exif_transpose(image)
        if upright.has_transparency_data:
            upright = upright.convert("RGBA")  # a palette's transparency is dropped too
        fitted = ImageOps.fit(upright.convert("L" if channels == 1 else "RGB"), (side, side), Image.Resampling.BICUBIC)
        return np.asarray(fitted).reshape(side, side, channels).transpose(2, 0, 1)


def _deep(image: ImageFile) -> bool:
    """Whether over 8 bits a channel are stored: grey in a mode of its own; colours Pillow cuts to 8 bits and says nothing."""
    from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

    if image.mode.startswith(("I", "F")):
        return True
    if isinstance(image, TiffImageFile):
        return bool(max(image.tag_v2.get(BITSPERSAMPLE, (1,))) > 8)
    stored = image.tile[0][3] if image.tile else None  # how the pixels are read: "RGB;16B" of a PNG; of a PPM ("RGB", its largest value)
    if image.format == "PPM" and isinstance(stored, tuple):
        return int(stored[1]) > 255
    return image.format == "PNG" and ";16" in str(stored)


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata; what cannot be decoded raises
        yield


def _brightness(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel of uint8 images, of brightness from 0 to 1, exact; a deviation of 0 is given as 1."""
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for some in images.split(AT_ONCE):
        counts += torch.stack([some[:, channel].flatten().bincount(minlength=256) for channel in range(len(counts))])
    shares, levels = counts.double() / counts.sum(1, keepdim=True), torch.arange(256).double() / 255
    mean = shares @ levels
    deviation = (shares * (levels - mean[:, None]) ** 2).sum(1).sqrt()
    return tuple(mean.tolist()), tuple(value or 1.0 for value in deviation.tolist())
