"""Kernels of a trained model: what mixes the values, how alike they are, and what is kept of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lisabench import registry
from lisabench.contract import Grid, MultiHeadMixer, Operator
from lisabench.errors import RunError
from lisabench.render import patterns
from lisabench.train import kernels
from lisabench.train.vit import Size, ViT

GRID = Grid(2, 4)
HAVE_KERNELS = {
    "cosformer", "lambda", "linear", "linformer", "lisa", "nprf", "nystrom", "performer", "soft", "softmax", "softmax_dense", "softmax_rpe",
    "topvit", "urpe", "window",
}  # fmt: skip


def model(name: str | Operator, *, dim: int = 16, heads: int = 2, depth: int = 2, grid: Grid = GRID, **options: Any) -> ViT:
    """In float64, with weights far from where they begin."""
    torch.manual_seed(0)
    operator = registry.load(name) if isinstance(name, str) else name
    size = Size(dim=dim, depth=depth, heads=heads, mlp_ratio=2)
    vit = ViT(operator, operator.resolve(options), size=size, grid=grid, patch=2, channels=1, classes=3, positions=0.3).double()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return vit


def images(grid: Grid = GRID, count: int = 2) -> Tensor:
    return torch.randn(count, 1, 2 * grid.height, 2 * grid.width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def prepared(vit: ViT, given: Tensor) -> list[Tensor]:
    """What `mix` of the first block is given."""
    block: Any = vit.eval().blocks[0]
    return [tensor.detach() for tensor in block.mixer.prepare(block.mixer_norm(vit.tokens(given)))]


@pytest.mark.parametrize("dim", [24, 16], ids=["more-channels-than-tokens", "as-many"])
@pytest.mark.parametrize("name", registry.built_in())
def test_a_kernel_is_the_derivative_of_the_output_by_the_values(name: str, dim: int) -> None:
    """d y[i, c] / d v[j, e] is kernel[i, j] where c = e, else 0: by automatic differentiation, for each operator that has kernels."""
    vit = model(name, dim=dim)
    found = kernels.kernels(vit, images())
    assert (found is not None) == (name in HAVE_KERNELS)
    if found is None:
        return
    assert found.shape == (2, 2, 2, 8, 8)
    *others, value = prepared(vit, images())
    mixer: Any = vit.blocks[0].mixer
    slopes = torch.autograd.functional.jacobian(lambda values: mixer.mix(*others, values)[0, 1], value)[:, :, 0]
    want = torch.einsum("ij,ce->icje", found[0, 0, 1], torch.eye(value.shape[-1], dtype=torch.float64))
    if value.ndim == 4:  # values of its own for each head
        want = torch.stack([torch.zeros_like(want), want], dim=2)
    torch.testing.assert_close(slopes, want, rtol=1e-9, atol=1e-11)


def test_softmax_gives_its_weights() -> None:
    vit = model("softmax")
    query, key, _ = prepared(vit, images())
    found = kernels.kernels(vit, images())
    assert found is not None
    torch.testing.assert_close(found[0], torch.softmax(query @ key.transpose(-1, -2) / 8**0.5, dim=-1))


@pytest.mark.parametrize("engine", ["fft", "dense"])
def test_lisa_gives_kappa_of_its_definition(engine: str) -> None:
    vit = model("lisa", depth=1, engine=engine, patterns=3)
    query, key, _ = (tensor[0, 1] for tensor in prepared(vit, images(count=1)))
    mixer: Any = vit.blocks[0].mixer
    first, second = (table[1].detach() for table in (mixer.kernel_patterns, mixer.context_patterns))
    at = [(token // 4, token % 4) for token in range(8)]
    want = torch.zeros(8, 8, dtype=torch.float64)
    for i in range(8):
        offsets = [(at[j][0] - at[i][0] + 1, at[j][1] - at[i][1] + 3) for j in range(8)]
        for r in range(3):
            seen = sum(query[i] @ key[j] * first[r, *offsets[j]] for j in range(8))
            want[i] += torch.stack([seen * second[r, *offsets[j]] for j in range(8)])
    found = kernels.kernels(vit, images(count=1))
    assert found is not None
    torch.testing.assert_close(found[0, 0, 1], want)


class Deceptive(MultiHeadMixer):
    """Takes values of any number of channels, and is softmax attention but for what `trick` does to them."""

    def __init__(self, dim: int, num_heads: int, grid: tuple[int, int], *, trick: str = "none") -> None:
        super().__init__(dim, num_heads, grid)
        self.trick = trick

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weights = torch.softmax(query @ key.transpose(-1, -2), dim=-1)
        channels = torch.arange(value.shape[-1], dtype=value.dtype)
        tricks = {"none": value, "bias": value + 0.1, "relu": value.relu(), "channels": value * channels.cos()}
        return weights @ (tricks | {"fewer": value[..., 1:]})[self.trick]

    def finish(self, y: Tensor) -> Tensor:
        return super().finish(y if self.trick != "fewer" else torch.cat([y, y[..., :1]], dim=-1))


@pytest.mark.parametrize(("trick", "has"), [("none", True), ("bias", False), ("relu", False), ("channels", False), ("fewer", False)])
def test_what_is_not_linear_or_mixes_channels_has_no_kernel(trick: str, has: bool) -> None:
    """Heads have as many channels as there are tokens, so that the identity has the shape of the values."""
    own = Operator(name="own", title="", module=Deceptive, source="", formula="", time_order="", memory_order="")
    vit = model(own, trick=trick)
    assert (kernels.kernels(vit, images()) is not None) == has
    assert kernels.kernels(vit.float(), images().float()) is None or has


def test_similarity_is_the_mean_cosine_pair_by_pair() -> None:
    given = torch.randn(3, 2, 4, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = kernels.similarity(given)
    assert found is not None
    assert found["images"] == 2
    for ending, change in (("", lambda cosine: cosine), ("_centred", lambda cosine: cosine), ("_absolute", abs)):
        flat = (given if not ending else given - given.mean(-1, keepdim=True)).numpy()
        within, over_all = [], []
        for image in range(2):
            each = [(layer, flat[layer, image, head].ravel()) for layer in range(3) for head in range(4)]
            for place, (layer, one) in enumerate(each):
                for other_layer, other in each[place + 1 :]:
                    cosine = change(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
                    over_all.append(cosine)
                    within += [cosine] if layer == other_layer else []
        assert found[f"heads{ending}"] == pytest.approx(np.mean(within), abs=1e-12)
        assert found[f"all{ending}"] == pytest.approx(np.mean(over_all), abs=1e-12)


def test_similarity_of_kernels_that_are_known() -> None:
    one = torch.eye(4, dtype=torch.float64).expand(1, 3, 1, 4, 4)
    assert kernels.similarity(one) is None
    layers = kernels.similarity(torch.cat([one, -2 * one]))
    assert layers is not None
    assert layers["heads"] is layers["heads_centred"] is None
    assert [layers[name] for name in ("all", "all_centred", "all_absolute")] == pytest.approx([-1, -1, 1])
    even = torch.full_like(one, 0.25)
    uniform = kernels.similarity(torch.cat([even, even], dim=2))
    assert uniform is not None
    assert [uniform[name] for name in ("heads", "heads_centred")] == pytest.approx([1, 0])


def test_the_query_stands_out_in_the_middle() -> None:
    vit = model("linear", grid=Grid(4, 8))
    given = torch.zeros(2, 1, 8, 16, dtype=torch.float64)
    given[0, 0, 2 * 2 + 1, 2 * 5] = 1.0
    given[1, 0, 2 * 1, 2 * 2] = -1.0
    given[:, 0, 0, 0] = 5.0  # stands out more, at the rim
    assert kernels.chosen_queries(vit, given).tolist() == [[2, 5], [1, 2]]


def test_what_was_learned_is_kept_and_read_again(tmp_path: Path) -> None:
    vit = model("lisa", patterns=3).train()
    random = torch.get_rng_state()
    found = kernels.learned(vit, images(count=5), op="lisa", options=vit.options, seed=7)
    assert vit.training
    assert torch.equal(torch.get_rng_state(), random)
    assert found.similarity is not None
    assert found.similarity["images"] == 5
    all_kernels = kernels.kernels(vit, images(count=5))
    assert all_kernels is not None
    assert found.rows is not None
    for sample, (row, column) in enumerate(found.queries):
        np.testing.assert_allclose(found.rows[:, sample].reshape(2, 2, 8), all_kernels[:, sample, :, row * 4 + column], rtol=1e-6)
    found.save(tmp_path / "patterns" / "cell.npz")
    again = patterns.read(tmp_path / "patterns" / "cell.npz")
    assert [int(again["seed"]), *again["grid"].tolist()] == [7, 2, 4]
    assert str(again["op"]) == "lisa"
    for name in ("kernel_patterns", "context_patterns", "images", "queries", "rows"):
        np.testing.assert_array_equal(again[name], getattr(found, name))
    mixers: list[Any] = [block.mixer for block in vit.blocks]
    assert again["kernel_patterns"].shape == (2, 2, 3, 3, 7)
    np.testing.assert_allclose(again["context_patterns"][1], mixers[1].context_patterns.detach(), rtol=1e-6)
    with pytest.raises(RunError, match="cannot be written"):
        found.save(tmp_path / "patterns" / "cell.npz" / "cell.npz")


def test_an_operator_without_tables_or_kernels_is_kept_without(tmp_path: Path) -> None:
    vit = model("gfnet")
    found = kernels.learned(vit, images(), op="gfnet", options={}, seed=0)
    assert found.rows is None
    assert found.similarity is None
    found.save(tmp_path / "cell.npz")
    assert set(patterns.read(tmp_path / "cell.npz")) == {"op", "options", "seed", "grid", "images", "queries"}


def test_similarity_does_not_depend_on_how_many_images_are_seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    vit = model("softmax")
    whole = kernels.learned(vit, images(count=5), op="softmax", options={}, seed=0).similarity
    monkeypatch.setattr(kernels, "_BYTES_AT_ONCE", 2 * 8 * 4 * 64)  # two images
    parts = kernels.learned(vit, images(count=5), op="softmax", options={}, seed=0).similarity
    assert whole is not None
    assert parts == pytest.approx(whole)


@pytest.mark.parametrize(("grid", "seen"), [(Grid(24, 32), 14), (Grid(33, 32), None)], ids=["fewer-images", "no-kernels"])
def test_many_tokens_are_seen_in_few_images_or_not(grid: Grid, seen: int | None) -> None:
    vit = model("linear", dim=4, heads=2, depth=1, grid=grid).float()
    found = kernels.learned(vit, images(grid, 20).float(), op="linear", options={}, seed=0)
    assert (found.similarity and found.similarity["images"]) == seen
    assert (found.rows is not None) == (seen is not None)


def test_tables_are_parameters_of_that_name_in_every_layer() -> None:
    vit = model("softmax")
    tables = kernels.learned(vit, images(), op="softmax", options={}, seed=0)
    assert tables.kernel_patterns is None
    for block in vit.blocks:
        mixer: Any = block.mixer
        mixer.kernel_patterns = nn.Parameter(torch.ones(2, 1, 3, 7))
    tables = kernels.learned(vit, images(), op="softmax", options={}, seed=0)
    assert tables.kernel_patterns is not None
    assert tables.kernel_patterns.shape == (2, 2, 1, 3, 7)
