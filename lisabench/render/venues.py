"""Where a figure goes: the widths and font sizes of conferences, journals, slides and posters, as their LaTeX classes set them.

Each width is what TeX says of `\\columnwidth` and `\\textwidth` under the template that is named; `tueplots.figsizes` has most of them too, and
is followed where the two agree. A point of TeX is 1/72.27 inch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lisabench.errors import unknown
from lisabench.render.palette import SANS, SERIF, Style

WIDTHS = ("column", "full")
_POINT = 1 / 72.27  # inch
_LEAST_TEXT, _LEAST_SMALL = 7.0, 6.0  # points: what LNCS and IEEE still take, and a reader can read


@dataclass(frozen=True, kw_only=True)
class Venue:
    """Widths of a column and of the page's text in inches; where there is one column the two are equal. `body` and `caption` are the
    template's font sizes in points; `scale` is how many times larger a figure is shown than it is written."""

    column: float
    full: float
    source: str
    body: float = 10.0
    caption: float = 9.0
    families: tuple[str, ...] = SERIF
    scale: float = 1.0

    def style(self, width: str) -> Style:
        """How a figure for it looks: its text 1.5 points smaller than a caption, its notes 3, but none too small to be read."""
        text, small = max(_LEAST_TEXT, self.caption - 1.5), max(_LEAST_SMALL, self.caption - 3)
        return Style(width=self.column if width == "column" else self.full, families=self.families, text=text, small=small)


_CVPR = Venue(
    column=(6.875 - 0.3125) / 2,
    full=6.875,
    source="CVPR/ICCV author kit of 2026, cvpr.sty: textwidth 6.875in, columnsep 0.3125in, caption font=small; tueplots rounds the column to 3.25",
)
_POSTER = 3.0

VENUES: Mapping[str, Venue] = {
    "cvpr": _CVPR,
    "iccv": _CVPR,
    "eccv": Venue(
        column=12.2 / 2.54,
        full=12.2 / 2.54,
        source="llncs.cls in the ECCV 2024 template: textwidth 12.2cm, one column; eccv.sty: caption font=small",
    ),
    "neurips": Venue(column=5.5, full=5.5, caption=10.0, source="neurips_2025.sty: textwidth=5.5in, one column; tueplots neurips2024"),
    "icml": Venue(
        column=(6.75 - 0.25) / 2,
        full=6.75,
        source="icml2025.sty: textwidth 6.75in, columnsep 0.25in, caption font=small; tueplots icml2024_half, icml2024_full",
    ),
    "iclr": Venue(
        column=5.5, full=5.5, caption=10.0, source="iclr2026_conference.sty: textwidth 5.5 true in, one column; tueplots iclr2024"
    ),
    "ieee": Venue(
        column=252 * _POINT,
        full=516 * _POINT,
        caption=8.0,
        source="IEEEtran.cls, journal and conference: columnwidth 252pt, textwidth 516pt, caption footnotesize; with compsoc 252.9 and 517.9pt",
    ),
    "ijcv": Venue(
        column=76 / 25.4,
        full=160 / 25.4,
        caption=8.0,
        source="sn-jnl.cls with iicol: columnhsize 76mm, text 160mm, figurecaptionfont 8pt",
    ),
    "aaai": Venue(
        column=(7.0 - 0.375) / 2,
        full=7.0,
        caption=10.0,
        source="aaai2026.sty: textwidth 7.0in, columnsep 0.375in; tueplots aaai2024 keeps 0.025in off",
    ),
    "slides": Venue(
        column=398.3386 * _POINT,
        full=398.3386 * _POINT,
        body=10.95,
        caption=10.0,
        families=SANS,
        source="beamer.cls, aspectratio=169: textwidth 398.3386pt, one column, captions small; tueplots beamer_169",
    ),
    # Text of 20 points beside lines of one would look thin: a poster's figure is a page's, shown larger.
    "poster": Venue(
        column=1075.5142 * _POINT / _POSTER,
        full=2239.2321 * _POINT / _POSTER,
        body=24.88 / _POSTER,
        caption=20.74 / _POSTER,
        families=SANS,
        scale=_POSTER,
        source="tikzposter.cls, 25pt, a0paper, portrait: linewidth 1075.5pt in a block of one of two columns, 2239.2pt in one across; a third of it",
    ),
}
"""By the name that the command line takes."""


def style_of(venue: str, width: str) -> Style:
    """The style of figures for a venue, as wide as its "column" or the "full" text.

    Raises: InputError for a venue or a width that there is not.
    """
    if venue not in VENUES:
        raise unknown("venue", venue, VENUES)
    if width not in WIDTHS:
        raise unknown("width", width, WIDTHS)
    return VENUES[venue].style(width)
