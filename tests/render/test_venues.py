"""Venues: the widths that their templates set, known from elsewhere too, and the styles that follow."""

from __future__ import annotations

import pytest
from tueplots import figsizes

from lisabench.errors import InputError
from lisabench.render.palette import CVPR_COLUMN, CVPR_FULL
from lisabench.render.venues import VENUES, WIDTHS, style_of

# What tueplots says by its own reading of the templates, and by how much it rounds them.
TUEPLOTS = {
    ("cvpr", "full"): (figsizes.cvpr2024_full, 0.0),
    ("cvpr", "column"): (figsizes.cvpr2024_half, 0.032),  # the guide's words, 3 1/4 inches, in place of what cvpr.sty sets
    ("eccv", "full"): (figsizes.eccv2024, 0.004),
    ("neurips", "full"): (figsizes.neurips2024, 0.0),
    ("icml", "full"): (figsizes.icml2024_full, 0.0),
    ("icml", "column"): (figsizes.icml2024_half, 0.0),
    ("iclr", "full"): (figsizes.iclr2024, 0.0),
    ("aaai", "full"): (figsizes.aaai2024_full, 0.026),  # the text is 7 inches wide
    ("aaai", "column"): (figsizes.aaai2024_half, 0.013),
    ("slides", "full"): (lambda: figsizes.beamer_169(rel_width=1.0), 0.0),
}


@pytest.mark.parametrize(("venue", "width"), TUEPLOTS)
def test_widths_are_those_of_tueplots_but_for_what_it_rounds(venue: str, width: str) -> None:
    source, rounded = TUEPLOTS[venue, width]
    assert style_of(venue, width).width == pytest.approx(source()["figure.figsize"][0], abs=rounded + 1e-6)


def test_widths_are_those_that_tex_says() -> None:
    points = {
        "cvpr": (237.13594, 496.85625),
        "eccv": (347.12361, 347.12361),
        "neurips": (397.48499, 397.48499),
        "icml": (234.8775, 487.8225),
        "iclr": (397.48499, 397.48499),
        "ieee": (252.0, 516.0),
        "ijcv": (216.24094, 455.24408),
        "aaai": (239.39438, 505.89),
        "slides": (398.3386, 398.3386),
        "poster": (1075.5142, 2239.2321),
    }
    assert set(VENUES) == {*points, "iccv"}
    for name, told in points.items():
        venue = VENUES[name]
        assert [72.27 * venue.scale * width for width in (venue.column, venue.full)] == pytest.approx(told, abs=1e-3)
        assert venue.source


def test_the_default_is_cvprs() -> None:
    assert style_of("cvpr", "full") == style_of("iccv", "full") == CVPR_FULL
    assert style_of("cvpr", "column") == CVPR_COLUMN


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("venue", VENUES)
def test_texts_are_smaller_than_a_caption_and_none_too_small(venue: str, width: str) -> None:
    style, caption = style_of(venue, width), VENUES[venue].caption
    assert 6 <= style.small < style.text <= max(caption, 7)


@pytest.mark.parametrize(
    ("venue", "width", "told"),
    [
        ("cvrp", "full", "unknown venue 'cvrp'; did you mean 'cvpr'"),
        ("nature", "full", "unknown venue 'nature'; valid: .*ijcv"),
        ("cvpr", "half", "unknown width 'half'; valid: column, full"),
        ("", "", "unknown venue ''"),
    ],
)
def test_what_is_unknown_is_told_with_what_is_valid(venue: str, width: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        style_of(venue, width)
