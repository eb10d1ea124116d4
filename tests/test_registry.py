from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lisabench import registry
from lisabench.contract import FAMILIES, SYMMETRIES
from lisabench.errors import InputError
from lisabench.sweep import check_options
from lisabench.workload import Grid, Workload

TOP = Path(__file__).parent.parent


def test_built_in_names_are_the_files_and_come_first() -> None:
    files = sorted(path.stem for path in (TOP / "operators").glob("*.py") if not path.stem.startswith("_"))
    assert list(registry.built_in()) == files
    assert registry.names()[: len(files)] == files


@pytest.mark.parametrize("name", registry.built_in())
def test_it_can_be_built_without_memory(name: str) -> None:
    """As a plan is checked before it runs: on the meta device, where tensors hold no numbers."""
    check_options(name, registry.load(name).resolve({}), Workload(grid=Grid(11, 17), dim=24, heads=2))


@pytest.mark.parametrize("name", registry.built_in())
def test_a_file_describes_the_operator_of_its_name(name: str) -> None:
    operator = registry.load(name)
    assert operator.name == name
    for text in (operator.title, operator.source, operator.formula, operator.time_order, operator.memory_order):
        assert text
    assert operator.reference is not None
    assert operator.cost is not None
    assert operator.family in FAMILIES
    assert operator.origin == "built in"
    assert operator.symmetries(**operator.resolve({})) <= set(SYMMETRIES)


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'performer'"):
        registry.load("perfromer")
    with pytest.raises(InputError, match=r"valid: .*lisa.*FILE.py:CLASS"):
        registry.load("zebra")


def test_own_file(own_operators: Path) -> None:
    operator = registry.load(f"{own_operators}:Plain")
    assert operator.title == "One linear layer."
    assert operator.reference is None
    assert operator.cost is None
    assert operator.options["scale"].parse("0.5") == 0.5


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("{path}:Plane", "did you mean 'Plain'"),
        ("{path}", "names no class"),
        ("{path}:not a class", "names no class"),
        ("{folder}/nowhere.py:Plain", "is not there"),
        ("{path}:time", "is no torch.nn.Module class"),
        ("{path}:Needy", r"requires \(dim, colour\)"),
    ],
)
def test_own_file_refuses(own_operators: Path, spec: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        registry.load(spec.format(path=own_operators, folder=own_operators.parent))


@pytest.mark.parametrize("text", ["import nothing_of_that_name", "1 +", "raise SystemExit(4)", "raise ValueError"])
def test_a_file_that_cannot_be_imported_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(InputError, match="cannot be imported") as found:
        registry.load(f"{path}:Mixer")
    assert "\n" not in str(found.value)


def test_a_file_may_import_its_neighbour_and_describe_itself(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_mine.py").write_text("from torch import nn\nclass Base(nn.Module):\n    pass\n")
    path = tmp_path / "mine.py"
    path.write_text(
        "from neighbour_of_mine import Base\nfrom lisabench.contract import Operator\n\n\nclass Mine(Base):\n    def forward(self, x):\n        return x\n\n\n"
        "OPERATOR = Operator(name='mine', title='My title', module=Mine, source='me', formula='y = x', time_order='N', memory_order='N')\n"
    )
    operator = registry.load(f"{path}:Mine")
    assert operator.title == "My title"
    assert operator.name == f"{path}:Mine"


def test_digest_follows_the_content(own_operators: Path) -> None:
    name = f"{own_operators}:Plain"
    before = registry.digest(name)
    own_operators.write_text(own_operators.read_text() + "\n# changed\n")
    assert registry.digest(name) != before
    assert registry.digest("lisa") is None


def test_installed_packages_bring_operators(tmp_path: Path) -> None:
    (tmp_path / "other_operators.py").write_text(
        "from torch import nn\nclass Other(nn.Module):\n    'Another one.'\n    def forward(self, x):\n        return x\n"
    )
    info = tmp_path / "other_operators-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-operators\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[lisabench.operators]\nother = other_operators:Other\nbroken = other_operators:Missing\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from lisabench import registry\nfrom lisabench.errors import InputError\n"
        "assert {'other', 'broken'} <= set(registry.names())\n"
        "assert registry.load('other').origin == 'package other-operators 1.2'\n"
        "found, broken = registry.load_all()\n"
        "assert 'other' in [operator.name for operator in found]\n"
        "assert list(broken) == ['broken'] and 'Missing' in broken['broken'], broken\n"
        "try:\n    registry.load('broken')\nexcept InputError as error:\n    assert 'other-operators' in str(error)\n"
        "else:\n    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
