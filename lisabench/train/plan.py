"""What a run of trainings is to do: plan.json, and the points that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import torch

from lisabench import __version__, registry
from lisabench.errors import InputError, unknown
from lisabench.train.data import DataSet
from lisabench.train.match import matched_hidden
from lisabench.train.point import Point, Recipe
from lisabench.train.search import trial_recipes
from lisabench.train.vit import SIZES, Size

Plan = dict[str, Any]


def stated_operators(resolved: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """The plan's `operators`: by the name that figures and tables show, which states the options that were given."""
    found: dict[str, Any] = {}
    for op, options in resolved:
        operator = registry.load(op)
        defaults = operator.resolve({})
        given = {name: value for name, value in options.items() if value != defaults[name]}
        short = op.rpartition(":")[2] if operator.origin != "built in" else op
        if any(stated["op"] != op for stated in found.values() if stated["op"].rpartition(":")[2] == short):
            short = op  # two files with a class of that name
        key = f"{short} ({', '.join(f'{name}={value}' for name, value in given.items())})" if given else short
        found[key] = {
            "op": op,
            "options": options,
            "given": given,
            "family": operator.family,
            "caveat": operator.caveat,
            "origin": operator.origin,
            "digest": registry.digest(op),
            "mlp_hidden": None,
        }
    return found


def varied(
    resolved: Sequence[tuple[str, dict[str, Any]]], named: Sequence[str], variations: Sequence[str]
) -> list[tuple[str, dict[str, Any]]]:
    """Behind each operator the same one with one option changed, for each value of each variation: `[OP.]NAME=VALUE,VALUE`.

    Raises:
        InputError: no operator in `named` has the option, or a value is none of it.
    """
    found = {op: [(op, options)] for op, options in resolved}
    for text in variations:
        target, equals, values = text.partition("=")
        op, dot, name = target.strip().rpartition(".")
        if not equals or not name or not all(values.split(",")):
            raise InputError(f"--vary got {text!r}; write NAME=VALUE,VALUE or OPERATOR.NAME=VALUE,VALUE")
        if dot and op not in found:
            raise unknown("operator in --vary", op, found)
        takers = [other for other in ([op] if dot else named) if name in registry.load(other).options]
        if not takers:
            raise unknown(
                "option in --vary", name, sorted({f"{o}.{n}" for o in ([op] if dot else named) for n in registry.load(o).options})
            )
        for taker in takers:
            option = registry.load(taker).options[name]
            found[taker] += [(taker, found[taker][0][1] | {name: option.parse(value)}) for value in values.split(",")]
    return [one for variants in found.values() for place, one in enumerate(variants) if one not in variants[:place]]


def stated_recipe(images: DataSet, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The plan's `recipe`: what was asked for, over the data's ways and the defaults."""
    told = {field.name: asked[field.name] for field in fields(Recipe) if field.name in asked}
    return asdict(Recipe(**{**images.recipe, **told}))


def stated_model(size: str, *, positions: bool) -> dict[str, Any]:
    """The plan's `model`."""
    return {"size": size, **asdict(SIZES[size]), "positions": positions}


def point_of(plan: Plan, key: str, seed: int, **changes: Any) -> Point:
    """The training of an operator of the plan with this seed, by the plan's recipe."""
    stated = plan["operators"][key]
    model = plan["model"]
    told = {
        "op": stated["op"],
        "options": stated["options"],
        "digest": stated["digest"],
        "data": plan["data"],
        "patch": plan["patch"],
        "image_size": plan["image_size"],
        "data_digest": plan["data_digest"],
        "epochs": plan["epochs"],
        "seed": seed,
        "size": Size(**{name: model[name] for name in ("dim", "depth", "heads", "mlp_ratio")}),
        "positions": model["positions"],
        "mlp_hidden": stated["mlp_hidden"],
        "recipe": Recipe(**plan["recipe"]),
        "dtype": plan["dtype"],
        "compiled": plan["compiled"],
    }
    return Point(**(told | changes))


def trials_of(plan: Plan) -> list[tuple[str, Point]]:
    """The search's trials by operator, trial by trial, so that a budget that runs out leaves all with equally many."""
    if not plan["search"]:
        return []
    recipes = trial_recipes(Recipe(**plan["recipe"]), plan["search"])
    return [(key, point_of(plan, key, plan["seeds"][0], recipe=recipe, validating=True)) for recipe in recipes for key in plan["operators"]]


def points_of(plan: Plan, recipes: Mapping[str, Recipe] | None = None) -> list[tuple[str, Point]]:
    """The trainings that count, seed by seed; `recipes` are those that a search found."""
    found = [(key, point_of(plan, key, seed)) for seed in plan["seeds"] for key in plan["operators"]]
    return [(key, replace(point, recipe=recipes[key])) if recipes else (key, point) for key, point in found]


def check(plan: Plan) -> None:
    """InputError for options that an operator does not take in this model; the constructor of a user's file or package is not run for it."""
    ours = registry.built_in()
    for key, stated in plan["operators"].items():
        if stated["op"] not in ours:
            continue
        try:
            point_of(plan, key, 0, mlp_hidden=1).model()
        except (ValueError, RuntimeError, MemoryError) as error:
            raise InputError(f"operator {stated['op']}: {str(error).splitlines()[0]}; see `lisabench ops {stated['op']}`") from error


def match(plan: Plan) -> None:
    """Sets the MLPs' width of each operator so that its model costs what the baseline's does, or the first operator's where there is none.

    Raises:
        InputError: a model cannot be brought there.
    """
    what = plan["match"]
    if what is None:
        return
    first = plan["baseline"] or next(iter(plan["operators"]))
    with torch.device("meta"):
        models = {key: _built(plan, key) for key in plan["operators"]}
        widths = {key: matched_hidden(model, models[first], what) for key, model in models.items()}
    unknown_cost = [key for key, width in widths.items() if width is None]
    if unknown_cost:
        which = first if len(unknown_cost) == len(widths) else ", ".join(unknown_cost)
        raise InputError(f"--match {what}: no FLOPs are stated by {which}; give --match parameters, or leave it out")
    too_dear = [key for key, width in widths.items() if width is not None and width < 1]
    if too_dear:
        raise InputError(
            f"--match {what}: even without MLPs more than the model with {first} costs that with {', '.join(too_dear)}; leave --match or these operators out"
        )
    for key, width in widths.items():
        plan["operators"][key]["mlp_hidden"] = width


def _built(plan: Plan, key: str) -> Any:
    try:
        return point_of(plan, key, 0).model()
    except Exception as error:  # an operator may be the user's own
        raise InputError(f"--match: the model with {key} cannot be built ({type(error).__name__}: {error}); leave it out") from error


def head(**settings: Any) -> Plan:
    """A plan's first fields."""
    return {"schema": 1, "kind": "accuracy", "lisabench": __version__, **settings}
