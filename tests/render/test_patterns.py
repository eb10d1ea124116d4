"""Figures of tables and kernels, rendered: each picture shows its numbers where it says it does, texts are apart, bad files are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from field_figures import check_apart
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.text import Text

from lisabench.errors import RunError
from lisabench.render import patterns
from lisabench.render.training_notes import noise_floor
from lisabench.results import Run

LONG = "mine (alpha=0.001, boundary=periodic, engine=dense, key_dim=16, patterns=8, something=else, and=more, to=come)"


def found(
    *, depth: int = 3, heads: int = 4, ranks: int = 4, grid: tuple[int, int] = (3, 4), seed: int = 0, samples: int = 3, **more: Any
) -> patterns.Found:
    """Made-up numbers in the shapes of a trained model's; `periodic` tables, none with `tables` False, positive kernels with `positive`."""
    random = np.random.default_rng(seed)
    shape = grid if more.get("periodic") else (2 * grid[0] - 1, 2 * grid[1] - 1)
    rows = random.normal(size=(depth, samples, heads, *grid))
    arrays = {"seed": np.array(seed), "grid": np.array(grid), "rows": np.abs(rows) if more.get("positive") else rows}
    arrays["images"] = np.random.default_rng(1).normal(size=(samples, more.get("channels", 1), 2 * grid[0], 2 * grid[1]))
    arrays["queries"] = np.tile([grid[0] - 1, grid[1] // 3], (samples, 1))
    tables = {name: random.normal(size=(depth, heads, ranks, *shape)) for name in ("kernel_patterns", "context_patterns")}
    return arrays | (tables if more.get("tables", True) else {})


def run(
    path: Path, trained: dict[str, list[patterns.Found]], operators: dict[str, dict[str, Any]] | None = None, **similarity: float
) -> Run:
    """A run on disk: under each key its trainings, a seed each."""
    plan, records = {}, []
    for place, (key, each) in enumerate(trained.items()):
        plan[key] = (operators or {}).get(key, {"op": key.partition(" ")[0], "options": {"variant": place}})
        for one in each:
            cell = f"{place}-{one['seed']}"
            (path / patterns.FOLDER).mkdir(exist_ok=True)
            np.savez(path / patterns.FOLDER / f"{cell}.npz", **one)  # type: ignore[arg-type]
            alike = {name: value + float(one["seed"]) / 10 for name, value in similarity.items()} or None
            stated = {"op": plan[key]["op"], "options": plan[key]["options"], "seed": int(one["seed"]), "kernel_similarity": alike}
            records.append({"kind": "accuracy", "cell": cell, "status": "ok", **stated})
    return Run(path=path, plan={"operators": plan, "baseline": "softmax"}, records=records, environments={})


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible() and text.get_gid()]


def pictures(figure: Figure, kind: str) -> dict[str, AxesImage]:
    return {str(image.get_gid()): image for image in figure.findobj(AxesImage) if str(image.get_gid()).startswith(kind)}


def numbers(image: AxesImage, shape: tuple[int, ...]) -> Any:
    """What a picture shows, a number once."""
    drawn: Any = image.get_array()
    assert all(side % count == 0 for side, count in zip(drawn.shape, shape, strict=True))
    return drawn[:: drawn.shape[0] // shape[0], :: drawn.shape[1] // shape[1]]


SHAPES: dict[str, dict[str, Any]] = {
    "micro": {},
    "one-pattern": {"ranks": 1},
    "eight-patterns": {"ranks": 8, "depth": 2, "samples": 1},
    "one-of-all": {"depth": 1, "heads": 1, "ranks": 1, "samples": 1},
    "one-token": {"depth": 1, "grid": (1, 1)},
    "line": {"grid": (1, 32), "depth": 1},
    "tall": {"grid": (12, 3), "depth": 2, "channels": 2},
    "large-grid": {"grid": (12, 12), "channels": 3, "heads": 2},
    "deep": {"depth": 12, "heads": 1},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_all_is_on_the_page_and_texts_are_apart(shape: str) -> None:
    one = found(**SHAPES[shape])
    drawn = draw_both(LONG, one)
    for figure in drawn:
        check_apart(figure, texts(figure))
        width, height = 72 * figure.get_size_inches()
        assert width == pytest.approx(6.875 * 72)
        assert height < 639  # the text of a CVPR page
        assert all(0 <= x <= width for image in pictures(figure, "").values() for x in image.get_extent()[:2])
    depth, heads, ranks = one["kernel_patterns"].shape[:3]
    assert len(pictures(drawn[0], "table")) == 2 * depth * heads * ranks
    assert len(pictures(drawn[1], "kernel")) == 2 * min(depth, 4) * heads * len(one["images"])


def draw_both(key: str, one: patterns.Found) -> tuple[Figure, Figure]:
    other = one | {"rows": np.abs(one["rows"])}
    kernels = patterns.draw_kernels({key: one, "softmax": other})
    assert kernels is not None
    return patterns.draw_patterns(key, one), kernels


def test_a_table_shows_its_numbers_in_one_scale_around_0() -> None:
    one = found(ranks=2)
    drawn = pictures(patterns.draw_patterns("lisa", one), "table")
    most = max(float(np.abs(one[name]).max()) for name in ("kernel_patterns", "context_patterns"))
    for kind, name in enumerate(("kernel_patterns", "context_patterns")):
        for layer, head, rank in np.ndindex(3, 4, 2):
            image = drawn[f"table:{(kind, layer, head, rank)}"]
            np.testing.assert_array_equal(numbers(image, (5, 7)), one[name][layer, head, rank])
            assert image.get_clim() == (-most, most)


def test_layers_go_down_heads_across() -> None:
    drawn = pictures(patterns.draw_patterns("lisa", found()), "table")

    def corner(*place: int) -> tuple[float, float]:
        extent = drawn[f"table:{place}"].get_extent()
        return extent[0], extent[3]

    assert corner(0, 1, 0, 0)[1] > corner(1, 0, 0, 0)[1] > corner(0, 0, 0, 0)[1]  # layers, and P over G in each
    assert corner(0, 0, 1, 0)[0] > corner(0, 0, 0, 3)[0] > corner(0, 0, 0, 0)[0]
    assert len({corner(kind, layer, 2, 1)[0] for kind in range(2) for layer in range(3)}) == 1


def test_periodic_tables_are_drawn_around_offset_0() -> None:
    one = found(periodic=True, grid=(3, 4))
    figure = patterns.draw_patterns("lisa", one)
    image = pictures(figure, "table")["table:(0, 0, 0, 0)"]
    assert numbers(image, (3, 4))[1, 2] == one["kernel_patterns"][0, 0, 0, 0, 0]
    assert [text.get_text() for text in texts(figure) if text.get_gid() == "offset"] == ["−2", "1", "dx", "−1", "1", "dy"]
    assert any("modulo the grid" in text.get_text() for text in texts(figure))


def test_a_kernel_shows_its_numbers_and_its_query() -> None:
    one = found(positive=True, tables=False)
    figure = patterns.draw_kernels({"lisa": found(), "softmax": one})
    assert figure is not None
    drawn = pictures(figure, "kernel")
    for layer, sample, head in np.ndindex(3, 3, 4):
        signed, positive = (drawn[f"kernel:{(place, layer, head, sample)}"] for place in (0, 1))
        np.testing.assert_array_equal(numbers(positive, (3, 4)), one["rows"][layer, sample, head])
        most = np.abs(found()["rows"][layer, sample, head]).max()
        assert (signed.get_cmap(), signed.get_clim()) == (patterns.SIGNED, (-most, most))
        assert (positive.get_cmap(), positive.get_clim()) == (patterns.POSITIVE, (0, one["rows"][layer, sample, head].max()))
        left, right, bottom, top = positive.get_extent()
        boxes = [line.get_xydata() for line in figure.findobj(Line2D) if line.get_gid() == f"query:{sample}"]
        corner = left + (right - left) / 4, top + (bottom - top) * 2 / 3  # the query is row 2 of 3, column 1 of 4
        assert any(np.allclose(np.asarray(box)[0], corner) for box in boxes)


def test_deep_models_show_some_layers_and_say_so() -> None:
    figure = patterns.draw_kernels({"lisa": found(depth=12, heads=1)})
    assert figure is not None
    assert [text.get_text() for text in texts(figure) if text.get_gid() == "layer"] == ["layer 1", "layer 5", "layer 8", "layer 12"]
    assert any("4 of 12 layers" in text.get_text() for text in texts(figure))


def test_files_are_written_of_first_seeds_and_similarity_is_the_mean_of_all(tmp_path: Path) -> None:
    first, softmax = found(ranks=1, depth=1), found(tables=False, positive=True, depth=1)
    trained = {
        "lisa": [found(seed=2, ranks=1, depth=1), first],
        "lisa (patterns=8)": [found(ranks=8, depth=1)],
        "softmax": [softmax],
        "gfnet": [{name: array for name, array in softmax.items() if name != "rows"}],
        "linear": [softmax | {"images": softmax["images"] + 1}],
    }
    made = run(tmp_path, trained, heads=0.1, all=-0.1, heads_absolute=0.5)
    paths = patterns.write_figures(made, tmp_path / "figures", formats=("png",))
    assert [path.name for path in paths] == ["patterns-lisa.png", "patterns-lisa-patterns=8.png", "kernels.png"]
    assert all(path.stat().st_size > 1000 for path in paths)
    again = patterns.write_figures(made, tmp_path / "again", formats=("png",))
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]
    seeds = dict(patterns._first_seeds(made))
    np.testing.assert_array_equal(seeds["lisa"]["rows"], first["rows"])
    assert list(patterns._chosen(made, seeds)) == ["lisa", "softmax"]
    for record in made.records:
        record["tokens"] = 12
        record["kernel_similarity"] |= {"images": 32.0} | (
            {"untrained_heads": 0.9, "untrained_all": 0.8} if record["op"] == "softmax" else {}
        )
    assert patterns.similarity_note(made, ["lisa", "softmax"]) == [
        "mean cosine of two kernels of a layer / of all layers on 32 test images (absolute, without each row's mean): "
        "lisa 0.20 / 0.00 (0.60 / –), 2 seeds",
        "softmax 0.10 / −0.10 (0.50 / –), before training 0.90 / 0.80 (– / –), 1 seed",
        "unrelated random kernels have an absolute cosine of about 0.069 at 12 tokens",
    ]


def test_unrelated_kernels_are_as_alike_as_the_note_says() -> None:
    kernels = np.random.default_rng(0).normal(size=(400, 9, 9))
    kernels -= kernels.mean(axis=-1, keepdims=True)
    flat = kernels.reshape(400, -1) / np.linalg.norm(kernels.reshape(400, -1), axis=1, keepdims=True)
    measured = np.abs(flat @ flat.T)[np.triu_indices(400, 1)].mean()
    (told,) = noise_floor([9])
    assert told.endswith("0.094 at 9 tokens")
    assert measured == pytest.approx(0.094, rel=0.03)


def test_operators_that_have_no_kernel_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run(tmp_path, {"softmax": [found(tables=False, positive=True, depth=1)]}, heads=0.1)
    made.plan["operators"] |= {"gfnet": {"op": "gfnet", "options": {}}, "fnet": {"op": "fnet", "options": {}}}
    made.records.append(made.records[0] | {"op": "gfnet", "options": {}, "kernel_similarity": None, "cell": "without"})
    drawn = list[Figure]()

    def keep(figure: Figure, *_: object) -> list[Path]:
        drawn.append(figure)
        return []

    monkeypatch.setattr(patterns, "save", keep)
    patterns.write_figures(made, tmp_path)
    (figure,) = drawn
    (footnote,) = [text.get_text() for text in texts(figure) if text.get_gid() == "footnote"]
    assert "no kernel: gfnet" in footnote
    assert "fnet" not in footnote.replace("gfnet", "")  # it was not trained


def test_trainings_that_failed_and_trials_of_a_search_are_left_out(tmp_path: Path) -> None:
    made = run(tmp_path, {"lisa": [found(depth=1, ranks=1), found(seed=1)]})
    made.records[0]["status"] = "error"
    made.records[1]["kind"] = "search"
    assert patterns.write_figures(made, tmp_path) == []


def test_old_plans_state_no_operator(tmp_path: Path) -> None:
    made = run(tmp_path, {"lisa": [found(depth=1, ranks=1)]})
    del made.plan["operators"]["lisa"]["op"]
    assert next(iter(patterns._first_seeds(made)))[0] == "lisa"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("lisa", "lisa"),
        ("lisa (key_dim=8, patterns=2)", "lisa-key_dim=8-patterns=2"),
        ("../my ops/ü.py:Own", None),
        ("…", None),
        (LONG, None),
    ],
)
def test_names_of_files_are_plain(key: str, name: str | None) -> None:
    made = patterns._file_name(key)
    assert made == name if name else made != patterns._file_name(key + "!")
    assert made.isascii()
    assert not set(made) & set("/\\: .*") - {"."}
    assert len(made) < 100


@pytest.mark.parametrize("content", [b"", b"no archive", "without", "pickled", "cut"])
def test_a_file_that_is_damaged_is_told(content: bytes | str, tmp_path: Path) -> None:
    made = run(tmp_path, {"lisa": [found(depth=1)]})
    path = next((tmp_path / patterns.FOLDER).iterdir())
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "without":
        np.savez(path, seed=np.array(0))
    elif content == "pickled":
        np.savez(path, **(found(depth=1) | {"images": np.array([{}], dtype=object)}))  # type: ignore[arg-type]
    else:
        path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(RunError, match=r"cannot be read \(.*\); train again, or remove it"):
        patterns.write_figures(made, tmp_path)


def test_nothing_is_drawn_where_nothing_was_kept(tmp_path: Path) -> None:
    made = run(tmp_path, {"lisa": []})
    assert patterns.write_figures(made, tmp_path) == []
    assert patterns.similarity_note(made, ["lisa"]) == []
