"""Where a user's own images are stored: a folder with a folder for each class, Parquet files, a set of the Hugging Face hub.

What is there is listed, with its classes; nothing is decoded here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from lisabench.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from datasets import Features

HUB = "hub:"
ENDINGS = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
TRAIN = ("train", "training")
TESTS = ("test", "testing", "validation", "valid", "val", "dev")  # the first that is there and has classes
LABELS = ("label", "labels", "fine_label", "class", "classes", "target", "category")
HUB_TIMEOUT_S = 3.0
LOOKED_AT = 64  # images, for the size and the channels of a set
AT_ONCE = 256  # rows that are read before the next are asked for
HASHED = 256 * 2**20  # bytes of a set, at most

Encoded: TypeAlias = bytes | Path
Named: TypeAlias = tuple[str, Encoded | None]  # a picture with what a message calls it
Batches: TypeAlias = Callable[[str], Iterator[tuple[str, list[Any]]]]  # a column's values by name, each batch with the file it is of
Parts: TypeAlias = dict[str, Callable[[], "Stored"]]  # by name
Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Images as they are stored: the class of each, in order (text or a whole number); `pictures` gives them all, `look` a few."""

    labels: Sequence[Any]
    pictures: Callable[[], Iterable[Named]]
    look: Callable[[], Iterable[Named]]

    def only(self, rows: Iterable[int]) -> Stored:
        """Those of these rows, in the order in which they are stored."""
        wanted = set(rows)
        labels = [label for row, label in enumerate(self.labels) if row in wanted]
        return replace(self, labels=labels, pictures=lambda: (named for row, named in enumerate(self.pictures()) if row in wanted))


# Folders.


def folder(path: Path) -> tuple[Parts, str]:
    """The parts of a folder, of images by class or of Parquet files, its own or else those of its folder `data`; and its digest."""
    if files := sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet")):
        return parquet_files(_by_part(files))
    inside = _folders(path)
    parts = {found.name.casefold(): found for found in inside if found.name.casefold() in TRAIN + TESTS and _folders(found)}
    if not any(part in parts for part in TRAIN):
        if inside and all(found.name.casefold() in TRAIN + TESTS for found in inside):
            what = ", ".join(found.name for found in inside)
            raise InputError(f"{path} holds {what}, and none for training with a folder for each class; valid: train/CLASS/IMAGE")
        parts = {"": path}
    listed = {part: _by_class(folder) for part, folder in parts.items()}
    if not any(listed.values()):
        raise InputError(f"{path} holds no images; valid: a folder for each class with images ({' '.join(ENDINGS)}), or Parquet files")
    named = {str(file.relative_to(path)): file for pairs in listed.values() for _, file in pairs}
    return {part: partial(_stored_files, pairs) for part, pairs in listed.items()}, _digest_of_files(named)


def _folders(path: Path) -> list[Path]:
    return sorted(found for found in path.iterdir() if found.is_dir() and not found.name.startswith((".", "__")))


def _by_class(path: Path) -> list[tuple[str, Path]]:
    """Each image file at any depth, with the name of the folder in `path` that it is in."""
    walks = (
        (found.name, Path(root, file)) for found in _folders(path) for root, _, files in os.walk(found, followlinks=True) for file in files
    )
    return sorted((label, file) for label, file in walks if file.suffix.lower() in ENDINGS and not file.name.startswith("."))


def _stored_files(pairs: list[tuple[str, Path]]) -> Stored:
    pictures: list[Named] = [(str(file), file) for _, file in pairs]
    return Stored(labels=[label for label, _ in pairs], pictures=lambda: pictures, look=lambda: _spread(pictures))


def _spread(values: Sequence[Value]) -> Sequence[Value]:
    return values[:: -(-len(values) // LOOKED_AT) or 1]


def _digest_of_files(files: Mapping[str, Path]) -> str:
    """A hash of the names (the keys), sizes and contents of the files, of up to 256 MiB in all.

    Of larger sets it is one of names, sizes and the end of each file: the last 256 MiB / files bytes, a Parquet file's footer among them.
    A change before the end that keeps the size is not seen then. Times do not count.
    """
    sizes = [file.stat().st_size for file in files.values()]
    most = max(sizes) if sum(sizes) <= HASHED else HASHED // len(sizes)
    found = []
    for (name, file), size in zip(files.items(), sizes, strict=True):
        with file.open("rb") as content:
            content.seek(max(0, size - most))
            found.append((name, size, hashlib.file_digest(content, "sha256").hexdigest()))
    return _digest(found)


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


# Tables: Parquet files and sets of the hub.


def _by_part(files: list[Path]) -> dict[str, list[Path]]:
    """The files by the first word of their names, such as train; all together where none is called after a part."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(re.split(r"[-_.\d]", file.stem)[0].casefold(), []).append(file)
    return groups if any(part in groups for part in TRAIN + TESTS) else {"": files}


def parquet_files(groups: dict[str, list[Path]]) -> tuple[Parts, str]:
    """The parts that these files are, and their digest, without images that stand beside them and are only named in them."""
    named = {file.name: file for files in groups.values() for file in files}
    return {part: partial(_stored_parquet, files) for part, files in groups.items()}, _digest_of_files(named)


def _stored_parquet(files: list[Path]) -> Stored:
    import pyarrow as arrow
    from datasets import Features
    from pyarrow import parquet

    def batches(column: str) -> Iterator[tuple[str, list[Any]]]:
        for file in files:
            try:
                for batch in parquet.ParquetFile(file).iter_batches(AT_ONCE, columns=[column]):
                    yield str(file), batch.column(column).to_pylist()
            except KeyError:
                raise InputError(f"{file} has no column {column}, but {files[0].name} has; valid: the same columns in each file") from None
            except (arrow.ArrowException, OSError) as error:
                raise InputError(f"{file} cannot be read as Parquet: {first_line(error)}; mend it or take it out") from None

    try:
        features = Features.from_arrow_schema(parquet.read_schema(files[0]))
    except (arrow.ArrowException, OSError) as error:
        valid = "a folder of images by class, a Parquet file or a folder of them, hub:NAME"
        raise InputError(f"{files[0]} is no Parquet file: {first_line(error)}; valid: {valid}") from None
    return _stored_table(str(files[0]), features, batches, files[0].parent)


def _stored_table(where: str, features: Features, batches: Batches, beside: Path) -> Stored:
    image, label = _columns(where, features)

    def pictures() -> Iterator[Named]:
        last, row = None, 0
        for file, values in batches(image):
            row = row if file == last else 0
            for value in values:
                kept = value if isinstance(value, dict) else {"bytes": value}
                data = kept.get("bytes")
                yield f"row {row} of {file}", beside / kept["path"] if data is None and kept.get("path") else data
                row += 1
            last = file

    labels = [value for _, values in batches(label) for value in values]
    if names := getattr(features[label], "names", None):
        labels = [names[value] if value is not None and value >= 0 else None for value in labels]
    return Stored(labels=labels, pictures=pictures, look=lambda: islice(pictures(), LOOKED_AT))


def _columns(where: str, features: Features) -> tuple[str, str]:
    """The columns of the images and of their classes, by what they hold, and then by their names.

    Raises:
        InputError: there is none, or it cannot be told which of several.
    """
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    types = {name: str(getattr(feature, "dtype", "")) for name, feature in features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    images = images or [name for name, f in features.items() if "binary" in types[name] or (isinstance(f, dict) and "bytes" in f)]
    classes = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    named = [name for name in LABELS if types.get(name, "").startswith(("int", "uint", "string", "large_string", "bool"))]
    classes = classes if len(classes) == 1 else named
    for what, found, valid in (
        ("images", images, "one column of images, or of bytes"),
        ("classes", classes, f"one of ClassLabel, or of whole numbers or text, called {', '.join(LABELS)}"),
    ):
        if len(found) != 1:
            which = f"could be any of {', '.join(found)}" if found else "are in none that is known"
            raise InputError(f"{where}: its {what} {which} (its columns: {', '.join(features)}); valid: {valid}")
    return images[0], classes[0]


def hub_set(name: str) -> tuple[Parts, str]:
    """The parts of a set of the hub, downloaded or kept, and a hash of its name, configuration and version, not of its images."""
    import datasets

    repository, _, config = name.removeprefix(HUB).partition(":")
    unreachable = _unreachable(name, repository)
    with _quiet_datasets(offline=unreachable is not None):
        try:
            found = datasets.load_dataset(f"hf://datasets/{repository}", config or None)
        except Exception as error:  # of many kinds, by what the set is made of
            if isinstance(error, ConnectionError):
                why = f"the Hugging Face hub does not answer ({unreachable or first_line(error)}), and no copy is kept here"
                raise UnavailableError(f"{name}: {why}; connect to the network, or give a folder or Parquet files") from None
            why = " ".join(str(error).split())[:300]
            raise InputError(
                f"{name} cannot be loaded: {why}; valid: hub:NAME of a set of images, hub:NAME:CONFIG of one with several"
            ) from None
    digest = _digest({part: table._fingerprint for part, table in found.items()})
    return {part: partial(_stored_hub, f"{name} ({part})", table) for part, table in found.items()}, digest


def _stored_hub(where: str, table: Any) -> Stored:
    def batches(column: str) -> Iterator[tuple[str, list[Any]]]:
        for batch in table.select_columns([column]).with_format("arrow").iter(AT_ONCE):
            yield where, batch.column(column).to_pylist()

    found = _stored_table(where, table.features, batches, Path())
    # Sets of the hub write -1 where the classes of a test part are kept back.
    return replace(found, labels=[None if label == -1 else label for label in found.labels])


def _unreachable(name: str, repository: str) -> str | None:
    """Why the hub does not answer, None if it does: told in seconds, where `datasets` would try for half a minute.

    Raises:
        InputError: the hub says that there is no such set.
    """
    from huggingface_hub import HfApi, errors

    try:
        HfApi().dataset_info(repository, timeout=HUB_TIMEOUT_S)
    except errors.GatedRepoError:
        raise UnavailableError(f"{name} is open only to whom its owners let in; ask them on its page, then: hf auth login") from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        valid = "the name of a set there, such as uoft-cs/cifar10; for a private one: hf auth login"
        raise InputError(f"the Hugging Face hub has no image set {repository!r}; valid: {valid}") from None
    except Exception as error:  # the kinds are those of the client beneath it, which differs by version
        return f"{type(error).__name__}: {first_line(error)}"
    return None


@contextmanager
def _quiet_datasets(*, offline: bool) -> Iterator[None]:
    """Without the bars and notes of `datasets`; `offline`: only what it has kept is looked at."""
    from datasets import are_progress_bars_disabled, config, disable_progress_bars, enable_progress_bars
    from datasets.utils import logging

    before = are_progress_bars_disabled(), logging.get_verbosity(), config.HF_HUB_OFFLINE
    disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)
    config.HF_HUB_OFFLINE = offline or before[2]
    try:
        yield
    finally:
        if not before[0]:
            enable_progress_bars()
        logging.set_verbosity(before[1])
        config.HF_HUB_OFFLINE = before[2]


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
