"""Attention shapes of published models, for `--preset`."""

from __future__ import annotations

from dataclasses import dataclass

from lisabench.workload import Grid


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A grid with the width of the model at it."""

    grid: Grid
    dim: int
    heads: int


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Attention shapes of a published model, one or several stages."""

    shapes: tuple[Shape, ...]
    source: str


def _one(height: int, width: int, dim: int, heads: int, source: str) -> Preset:
    return Preset(shapes=(Shape(grid=Grid(height, width), dim=dim, heads=heads),), source=source)


_DEIT = "Touvron et al., Training data-efficient image transformers, ICML 2021, table 1; 224 px, patch 16"
PRESETS: dict[str, Preset] = {
    "deit-t": _one(14, 14, 192, 3, _DEIT),
    "deit-s": _one(14, 14, 384, 6, _DEIT),
    "deit-b": _one(14, 14, 768, 12, _DEIT),
    "vit-l": _one(14, 14, 1024, 16, "Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021, table 1; 224 px, patch 16"),
    "sam-b": _one(
        64, 64, 768, 12, "Kirillov et al., Segment Anything, ICCV 2023, app. A; ViT-B, 1024 px, patch 16, global attention blocks"
    ),
    "dit-xl-2": _one(
        16, 16, 1152, 16, "Peebles and Xie, Scalable Diffusion Models with Transformers, ICCV 2023, table 1; 32 x 32 latents, patch 2"
    ),
    "swin-t": Preset(
        shapes=tuple(
            Shape(grid=Grid(side, side), dim=dim, heads=heads)
            for side, dim, heads in ((56, 96, 3), (28, 192, 6), (14, 384, 12), (7, 768, 24))
        ),
        source="Liu et al., Swin Transformer, ICCV 2021, table 7; 224 px, the grids of its four stages (attention over the whole grid here)",
    ),
}
