"""What a trained model learned: the kernels by which its operators mix values, how alike they are, and the tables behind them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lisabench.files import write_whole
from lisabench.measure.numerics import TOLERANCES
from lisabench.train.vit import ViT

MOST_TOKENS = 1024
MOST_IMAGES = 32
SAMPLES = 3
TABLES = ("kernel_patterns", "context_patterns")
"""A mixer whose parameters of these names are (heads, patterns, height, width) has structural patterns, whatever its name."""
_BYTES_AT_ONCE = 2**28
_MOST_PAIRS = 2**23  # of tokens, in the images that similarity is taken over: mixing the identity costs far more than mixing values
_WITHIN = {torch.float64: TOLERANCES["fp64"], torch.float32: TOLERANCES["fp32"]}
_ROUNDING = 1e-6  # a kernel whose rows vary by less than this share of it varies by rounding alone

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Learned:
    """What one trained model learned. A file of it holds an array a field; a field that is None is left out.

    `kernel_patterns`, `context_patterns`: (layers, heads, patterns, height, width), None for operators without tables. `images`: the
    samples as the model takes them, (samples, channels, height, width). `queries`: (samples, 2), row and column of a token of each
    (see `chosen_queries`). `rows`: the kernel of that query over the grid, (layers, samples, heads, H, W), None where `kernels`
    gives none. `similarity`: see `similarity`; over the first MOST_IMAGES images, or less beyond 512 tokens.
    """

    op: str
    options: Mapping[str, Any]
    seed: int
    grid: tuple[int, int]
    kernel_patterns: Array | None
    context_patterns: Array | None
    images: Array
    queries: Array
    rows: Array | None
    similarity: dict[str, float | int | None] | None

    def save(self, path: Path) -> None:
        """Writes the file, an .npz without pickles; it is whole or not there. RunError where it cannot be written."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {name: json.dumps(values[name], default=str) for name in ("options", "similarity") if values[name] is not None}
        held = io.BytesIO()
        np.savez_compressed(held, **{name: value for name, value in (values | plain).items() if value is not None})
        write_whole(path, held.getvalue())


def learned(model: ViT, images: Tensor, *, op: str, options: Mapping[str, Any], seed: int) -> Learned:
    """What a trained model learned, seen on the first of `images`, (B, channels, height, width), float as the model takes them.

    The first SAMPLES of them are the samples. Beyond MOST_TOKENS tokens kernels are not made: `rows` and `similarity` are None.
    """
    weights = model.embedding.weight
    images = images[:MOST_IMAGES].to(weights)
    samples = images[:SAMPLES]
    queries = chosen_queries(model, samples)
    tables = {name: _tables(model, name) for name in TABLES}
    found = kernels(model, samples) if model.grid.tokens <= MOST_TOKENS else None
    return Learned(
        op=op,
        options=dict(options),
        seed=seed,
        grid=(model.grid.height, model.grid.width),
        images=_array(samples),
        queries=_array(queries),
        rows=None if found is None else _array(_rows(found, queries, model.grid)),
        similarity=None if found is None else model_similarity(model, images),
        **tables,
    )


def kernels(model: ViT, images: Tensor) -> Tensor | None:
    """The kernels of all blocks for these images, in evaluation: (layers, B, heads, N, N), with y_i = sum_j kernel[i, j] v_j.

    For softmax attention they are its weights, for LiSA the transformed kernel kappa. They are what `mix` makes of the identity in
    place of the values, which are the last of what `prepare` gives: (B, heads, N, d), or (B, N, d) for all heads. None where that
    does not give again what `mix` makes of the values, and of random ones, to rounding: for operators that have no such parts, that
    mix channels, or that are not linear in the values.
    """
    was_training = model.training
    model.eval()
    found: list[Tensor] = []
    try:
        with torch.no_grad():
            x = model.tokens(images)
            block: Any
            for block in model.blocks:
                kernel = _kernel(block.mixer, block.mixer_norm(x))
                if kernel is None:
                    return None
                found.append(kernel)
                x = block(x)
    finally:
        model.train(was_training)
    return torch.stack(found)


def _kernel(mixer: Any, x: Tensor) -> Tensor | None:
    """The kernel of one mixer for x (B, N, C): (B, heads, N, N)."""
    if not (hasattr(mixer, "prepare") and hasattr(mixer, "mix")):
        return None
    prepared = mixer.prepare(x)
    if not isinstance(prepared, (tuple, list)) or len(prepared) < 2:
        return None
    *others, value = prepared
    tokens = x.shape[1]
    if value.ndim not in (3, 4) or value.shape[-2] != tokens:
        return None
    kernel = _mixed(mixer, others, torch.eye(tokens).to(value).expand(*value.shape[:-1], tokens).contiguous())
    if kernel is None or kernel.ndim != 4 or kernel.shape[-2:] != (tokens, tokens):
        return None
    # Trained values may span few directions: random ones show what they would hide.
    random = torch.randn(value.shape, generator=torch.Generator().manual_seed(0)).to(value)
    return kernel if all(_gives_again(kernel, given, _mixed(mixer, others, given)) for given in (value, random)) else None


def _mixed(mixer: Any, others: list[Tensor], value: Tensor) -> Tensor | None:
    """What `mix` makes of values; None where it cannot take them."""
    try:
        mixed: Tensor = mixer.mix(*others, value)
    except Exception:  # an operator, perhaps a user's own, may need values of its own number of channels, and says so in its own way
        return None
    return mixed if isinstance(mixed, Tensor) else None


def _gives_again(kernel: Tensor, value: Tensor, mixed: Tensor | None) -> bool:
    """Whether kernel @ value is `mixed` to rounding, against the sizes of what is summed: signed kernels cancel."""
    value = value if value.ndim == 4 else value.unsqueeze(1)
    if mixed is None or value.shape[1] not in (1, kernel.shape[1]) or mixed.shape != (*kernel.shape[:3], value.shape[-1]):
        return False
    error = torch.linalg.vector_norm(kernel @ value - mixed)
    return bool(error <= _WITHIN.get(kernel.dtype, TOLERANCES["bf16"]) * torch.linalg.vector_norm(kernel.abs() @ value.abs()))


def similarity(kernels: Tensor) -> dict[str, float | int | None] | None:
    """How alike the kernels (layers, B, heads, N, N) of an image are; None for a single one.

    The mean cosine of two of them, each as one vector of N x N numbers: `heads` over the pairs of heads in a layer, then over
    layers; `all` over all pairs of heads of all layers; each then over images, of which there are `images`. Kernels stand as they
    come. Weights that are all positive have a high cosine whatever they show: `heads_centred` and `all_centred` are the same with
    the mean over the keys taken from each row. The sign of a signed kernel is free (the projection after it takes it up), and
    cosines of either sign would cancel: `heads_absolute` and `all_absolute` are means of absolute cosines of the centred kernels.
    A kernel whose rows are constant has the cosine 0 to any other when centred. `heads` is None where a layer has one.
    """
    layers, images, heads = kernels.shape[:3]
    if layers * heads < 2:
        return None
    centred = _cosines(kernels - kernels.mean(dim=-1, keepdim=True), least=_ROUNDING * _lengths(kernels))
    found: dict[str, float | int | None] = {}
    for ending, cosines in (("", _cosines(kernels)), ("_centred", centred), ("_absolute", centred.abs())):
        found |= {f"{over}{ending}": value for over, value in zip(("heads", "all"), _means(cosines, layers, heads), strict=True)}
    return found | {"images": images}


def _lengths(kernels: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(kernels, dim=(-2, -1), keepdim=True)
    return lengths


def _cosines(kernels: Tensor, *, least: Tensor | float = 0.0) -> Tensor:
    """(B, layers * heads, layers * heads), of any two kernels of an image; one that is shorter than `least` is taken to be that long."""
    lengths = torch.maximum(_lengths(kernels), torch.as_tensor(least).to(kernels)).clamp_min(torch.finfo(kernels.dtype).tiny)
    flat = (kernels / lengths).movedim(0, 1).flatten(1, 2).flatten(2)  # (B, layers * heads, N * N)
    return (flat @ flat.transpose(-1, -2)).double()


def _means(cosines: Tensor, layers: int, heads: int) -> tuple[float | None, float]:
    """The mean over the pairs of a layer, None where there are none, and over all pairs."""
    layer = torch.arange(layers, device=cosines.device).repeat_interleave(heads)
    pairs = torch.ones_like(cosines[0], dtype=torch.bool).triu(diagonal=1)
    within = pairs & (layer[:, None] == layer)
    return float(cosines[:, within].mean()) if heads > 1 else None, float(cosines[:, pairs].mean())


def model_similarity(model: ViT, images: Tensor) -> dict[str, float | int | None] | None:
    """`similarity` over the first MOST_IMAGES images, so many at a time as fit in memory; None beyond MOST_TOKENS tokens."""
    if model.grid.tokens > MOST_TOKENS:
        return None
    images = images[:MOST_IMAGES].to(model.embedding.weight)
    pairs = model.grid.tokens**2
    images = images[: max(1, _MOST_PAIRS // pairs)]
    bytes_each = model.size.depth * model.size.heads * pairs * images.element_size()
    total: dict[str, float | None] = {}
    for part in images.split(max(1, _BYTES_AT_ONCE // bytes_each)):
        found = kernels(model, part)
        alike = None if found is None else similarity(found)
        if alike is None:
            return None
        for name, value in alike.items():
            if name != "images":
                total[name] = None if value is None else (total.get(name) or 0.0) + value * len(part) / len(images)
    return total | {"images": len(images)}


def chosen_queries(model: ViT, images: Tensor) -> Tensor:
    """The token of each image that stands out most in the middle half of its rows and columns, (B, 2), row and column.

    The pixels of that token are, in the mean of their squares, furthest from the image's mean colour; the first of equals. In the
    middle, because what a kernel shows around a query at the rim is cut off.
    """
    grid, (top, left) = model.grid, (side // 4 for side in model.grid)
    apart = (images - images.mean(dim=(-2, -1), keepdim=True)).square()
    ink = model.patches(apart).mean(dim=-1).unflatten(-1, tuple(grid))
    middle = ink[:, top : grid.height - top, left : grid.width - left]
    places = middle.flatten(1).argmax(dim=-1)
    return torch.stack([places // middle.shape[2] + top, places % middle.shape[2] + left], dim=-1)


def _rows(kernels: Tensor, queries: Tensor, grid: tuple[int, int]) -> Tensor:
    """The rows of each image's query, over the grid: (layers, B, heads, H, W)."""
    tokens = queries[:, 0] * grid[1] + queries[:, 1]
    images = torch.arange(len(tokens), device=tokens.device)
    chosen = kernels[:, images, :, tokens].movedim(0, 1)  # indices that stand apart bring their axis to the front
    rows: Tensor = chosen.unflatten(-1, grid)
    return rows


def _tables(model: ViT, name: str) -> Array | None:
    """The tables of that name of all layers; None where one layer has none."""
    found = [getattr(block.mixer, name, None) for block in model.blocks]
    tables: list[Tensor] = [table for table in found if isinstance(table, nn.Parameter) and table.ndim == 4]
    return _array(torch.stack(tables)) if len(tables) == len(found) and len({table.shape for table in tables}) == 1 else None


def _array(tensor: Tensor) -> Array:
    tensor = tensor.detach().cpu()
    return tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
