"""What a run of trainings is to do."""

from __future__ import annotations

import pytest

from lisabench import registry
from lisabench.errors import InputError
from lisabench.train import catalogue
from lisabench.train.plan import stated_operators, stated_recipe, varied

RESOLVED = [(op, registry.load(op).resolve({})) for op in ("lisa", "softmax")]


def keys(*variations: str) -> list[str]:
    return list(stated_operators(varied(RESOLVED, ["lisa"], variations)))


def test_variants_stand_behind_their_operator_each_once() -> None:
    assert keys() == ["lisa", "softmax"]
    assert keys("lisa.patterns=1,4,8") == ["lisa", "lisa (patterns=1)", "lisa (patterns=8)", "softmax"]
    assert keys("patterns=1", "boundary=periodic", "key_dim=none,8") == [
        "lisa",
        "lisa (patterns=1)",
        "lisa (boundary=periodic)",
        "lisa (key_dim=8)",
        "softmax",
    ]
    assert keys("softmax.key_dim=4") == ["lisa", "softmax", "softmax (key_dim=4)"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("patterns", "write NAME=VALUE,VALUE"),
        ("patterns=", "write NAME=VALUE,VALUE"),
        ("patterns=1,,2", "write NAME=VALUE,VALUE"),
        ("=1", "write NAME=VALUE,VALUE"),
        ("colour=1", "unknown option in --vary 'colour'"),
        ("linear.key_dim=1", "unknown operator in --vary 'linear'"),
        ("lisa.patterns=many", "option patterns got 'many'"),
    ],
)
def test_wrong_variations(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        keys(text)


def test_a_recipe_is_what_was_asked_for_then_the_datas_then_the_default() -> None:
    recipe = stated_recipe(catalogue.find("structures-count"), {"learning_rate": 0.5, "epochs": 3})
    assert (recipe["learning_rate"], recipe["weight_decay"], recipe["positions_deviation"]) == (0.5, 0.05, 0.3)
    assert stated_recipe(catalogue.find("digits"), {})["positions_deviation"] == 1.0
