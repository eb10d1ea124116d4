"""Finds operators: files in `operators/`, installed entry points of the group `lisabench.operators`, and FILE.py:CLASS."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lisabench.errors import InputError, unknown

if TYPE_CHECKING:
    from lisabench.contract import Operator

PACKAGE = "lisabench.operators"


@lru_cache
def built_in() -> tuple[str, ...]:
    """The names of our own operators."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    return tuple(sorted(path.stem for folder in folders for path in Path(folder).glob("*.py") if not path.stem.startswith("_")))


def _installed() -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=PACKAGE)}


def names() -> list[str]:
    """The names of all operators that need no file: ours first, then those of installed packages. Imports none of them."""
    ours = built_in()
    return [*ours, *sorted(set(_installed()) - set(ours))]


def is_file_spec(name: str) -> bool:
    """Whether `name` means a user's own file, FILE.py:CLASS."""
    return ".py:" in name or name.endswith(".py")


def check_name(name: str) -> None:
    """InputError when no operator can be meant by `name`; imports nothing."""
    if is_file_spec(name):
        _split(name)
    elif name not in built_in() and name not in names():  # installed packages take milliseconds to look through
        raise unknown("operator", name, names(), more="; your own: FILE.py:CLASS")


def load(name: str) -> Operator:
    """The operator of that name, or the user's own module at FILE.py:CLASS.

    Raises:
        InputError: there is no such operator, or its file cannot be imported.
    """
    check_name(name)
    return _load(name)


def load_all() -> tuple[list[Operator], dict[str, str]]:
    """The operators of `names()` that can be imported, and of each one of an installed package that cannot be why, in a line."""
    found: list[Operator] = []
    broken: dict[str, str] = {}
    for name in names():
        try:
            found.append(_load(name))
        except InputError as error:
            broken[name] = str(error)
    return found, broken


def digest(name: str) -> str | None:
    """A content hash of a user's own file, so that a changed file is a changed operator; None for the others."""
    if not is_file_spec(name):
        return None
    path, _ = _split(name)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise InputError(f"operator file {str(path)!r} cannot be read ({error.strerror}); give a file that can") from error


@lru_cache
def _load(name: str) -> Operator:
    if is_file_spec(name):
        return _load_file(name)
    if name in built_in():
        operator: Operator = importlib.import_module(f"{PACKAGE}.{name}").OPERATOR
        return operator
    found = _load_installed(name)
    if isinstance(found, InputError):
        raise found
    return found


@lru_cache
def _load_installed(name: str) -> Operator | InputError:
    """An installed package's operator, or why it cannot be had; kept either way, since an import that fails may take its time."""
    point = _installed()[name]
    try:
        with redirect_stdout(sys.stderr):  # on stdout only results may stand
            return _as_operator(point.load(), name=name, origin=_origin(point))
    except InputError as error:
        why = str(error)
    except (Exception, SystemExit) as error:
        why = _words(error)
    return InputError(f"operator {name!r} of {_origin(point)} cannot be imported ({why}); reinstall or remove that package")


def _origin(point: metadata.EntryPoint) -> str:
    return f"package {point.dist.name} {point.dist.version}" if point.dist else point.value


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0] if str(error) else type(error).__name__


def _split(name: str) -> tuple[Path, str]:
    file, colon, class_name = name.rpartition(":")
    if not colon or not class_name.isidentifier():
        raise InputError(f"operator {name!r} names no class; write FILE.py:CLASS")
    path = Path(file)
    try:
        there = path.is_file()
    except OSError:  # a name that is too long, a folder that may not be searched
        there = False
    if not there:
        raise InputError(f"operator file {file!r} is not there; write FILE.py:CLASS with a path that exists")
    return path, class_name


def _load_file(name: str) -> Operator:
    path, class_name = _split(name)
    module_name = f"_lisabench_user_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    sys.path.insert(0, str(path.resolve().parent))  # the file may import its neighbours, as it does when it is run
    try:
        with redirect_stdout(sys.stderr):  # on stdout only results may stand
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise InputError(f"operator file {str(path)!r} cannot be imported ({_words(error)}); run it with python to see where") from error
    finally:
        sys.path.pop(0)
    classes = [key for key, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module_name]
    if class_name not in vars(module):
        raise unknown(f"class in {path}", class_name, classes)
    found = vars(module)[class_name]
    described = vars(module).get("OPERATOR")
    if described is not None and getattr(described, "module", None) is found:
        found = described
    return _as_operator(found, name=name, origin=str(path))


def _as_operator(found: Any, *, name: str, origin: str) -> Operator:
    """A description for what a user brought: an Operator as it is, or a bare module class with what can be said of it."""
    from torch import nn

    from lisabench.contract import Operator

    if isinstance(found, Operator):
        return replace(found, name=name, origin=origin)
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise InputError(f"operator {name!r} is no torch.nn.Module class; give a class (B, N, C) -> (B, N, C)")
    required = [
        p.name
        for p in list(inspect.signature(found.__init__).parameters.values())[1:]
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    if required[:3] != ["dim", "num_heads", "grid"][: len(required)] or len(required) > 3:
        raise InputError(
            f"{name}: __init__ requires ({', '.join(required)}); it must take (dim, num_heads, grid), other arguments with defaults"
        )
    title = (found.__dict__.get("__doc__") or found.__name__).strip().splitlines()[0]
    return Operator(name=name, title=title, module=found, source=origin, formula="", time_order="", memory_order="", origin=origin)
