"""`lisabench new`: a commented file to start an operator of one's own from."""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
import shlex
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from lisabench.errors import InputError, RunError

TEMPLATE, ITS_CLASS = "my_mixer", "MyMixer"


def new(
    file: Annotated[Path, typer.Argument(help="The file to write, such as my_op.py; its class is then MyOp.", show_default=False)],
) -> None:
    """Write a file to start an operator of your own from: small, complete, commented, and right by all laws."""
    class_name = _class_name(file)
    template = template_text()
    _check(file, class_name, template)
    text = re.sub(rf"\b{ITS_CLASS}\b", class_name, re.sub(rf"\b{TEMPLATE}\b", file.stem, template))
    _write(file, text)
    spec = shlex.quote(f"{file}:{class_name}")
    print(f"{file} holds the operator {class_name}; it keeps all laws as it is. What next:")
    print(f"  lisabench verify --op {spec}            it against its reference and the laws")
    print(f"  lisabench verify --flops --op {spec}    its FLOPs against two counters")
    print(f"  lisabench scale --op {spec}             how it grows, beside softmax")
    print(f"  lisabench ops {spec}                    what it says of itself")


def template_text() -> str:
    """The file that a new operator starts as."""
    return resources.files("lisabench").joinpath("templates", f"{TEMPLATE}.py").read_text(encoding="utf-8")


def _class_name(file: Path) -> str:
    """my_op.py -> MyOp."""
    if file.suffix != ".py":
        raise InputError(f"{str(file)!r} is no Python file; write a name that ends in .py, such as my_op.py")
    name = "".join(word[:1].upper() + word[1:] for word in file.stem.split("_"))
    if not file.stem.isidentifier() or keyword.iskeyword(file.stem) or not name.isidentifier() or keyword.iskeyword(name):
        raise InputError(f"{file.name!r} makes no name of a class; write letters, digits and _, such as my_op.py for MyOp")
    return name


def _check(file: Path, class_name: str, template: str) -> None:
    """InputError for what cannot become such a file; nothing is written."""
    if not os.path.isdir(file.parent):  # False too where the name is too long to ask
        raise InputError(f"folder {str(file.parent)!r} is not there; make it first, or write the file elsewhere")
    if os.path.lexists(file):
        raise InputError(f"{str(file)!r} is there already and is left as it is; choose another name")
    if class_name != ITS_CLASS and re.search(rf"\b{class_name}\b", template):
        raise InputError(
            f"{file.name!r} would hold a class {class_name}, which the file's text uses for something else; choose another name"
        )
    # While the file is imported its folder comes first on the path: a math.py would be found in the place of Python's.
    if importlib.util.find_spec(file.stem) is not None:
        raise InputError(f"{file.name!r} would hide the module {file.stem} from what stands beside it; choose another name")


def _write(file: Path, text: str) -> None:
    try:
        with open(file, "x", encoding="utf-8", newline="\n") as opened:
            try:
                opened.write(text)
                opened.flush()
            except OSError:
                file.unlink()
                raise
    except OSError as error:
        raise RunError(f"{str(file)!r} cannot be written ({error.strerror or error}); give a folder that can be") from error
