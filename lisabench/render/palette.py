"""How a figure looks: an operator's colour and marker, which only its name decides, so that they are the same in every run; fonts and
the texts on the axes."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

# Okabe-Ito (M. Okabe and K. Ito, "Color Universal Design", 2008) for the five operators that most papers show, and the rest of it with
# Paul Tol's "muted" scheme (personal.sron.nl/~pault, 2021) for the others; both are made for colour-blind readers. Left out are the
# colours that are too pale for a thin line on white (Okabe-Ito yellow, Tol sand).
_OTHER_COLOURS = ("#E69F00", "#332288", "#44AA99", "#882255", "#999933", "#56B4E9", "#AA4499", "#117733", "#CC6677", "#4477AA", "#7A5230")
_SHAPES = ("o", "s", "D", "^", "v", "<", ">", "p", "P", "*", "h", "d")  # no cross: crosses mean failure
_FILLS = ("full", "none", "bottom")  # a shape drawn three ways is still three markers on a grey printout

# Ratio of luminances that WCAG 2.1 (success criterion 1.4.3) asks of small text.
_READABLE_CONTRAST = 4.5


@dataclass(frozen=True)
class Look:
    """An operator's colour (line and marker), marker shape and how the shape is filled ("full", "none", "bottom")."""

    colour: str
    marker: str
    fill: str = "full"

    @property
    def ink(self) -> str:
        """The colour for text: the same hue, darkened until small text in it is readable on white."""
        return readable(self.colour)


_KNOWN = {
    "lisa": Look("#D55E00", "o"),
    "softmax": Look("#000000", "s"),
    "softmax_dense": Look("#CC79A7", "D"),
    "performer": Look("#0072B2", "^"),
    "linear": Look("#009E73", "v"),
}

# The order is for ever: a name put anywhere but at the end would change the looks of those after it. One more name needs one more
# marker in _OTHERS_MARKERS.
_KNOWN_OTHERS = (
    "softmax_rpe", "nprf", "topvit", "urpe", "rsa", "gfnet", "afno", "fnet", "nystrom", "linformer", "xcit", "efficientvit", "focused",
    "agent", "cosformer", "soft", "lambda", "toeplitz", "hydra", "separable", "window", "sra", "identity", "pool", "depthwise",
)  # fmt: skip


# Strangers, mostly a user's own operators, keep the solid shapes to themselves; the known others take what is not solid.
_STRANGERS_SHAPES = ("<", ">", "p", "P", "h", "d")
_OTHERS_MARKERS = [("*", "full"), *((shape, fill) for fill in _FILLS[1:] for shape in _SHAPES)]

_FIXED = _KNOWN | {
    name: Look(_OTHER_COLOURS[place % len(_OTHER_COLOURS)], *marker)
    for place, (name, marker) in enumerate(zip(_KNOWN_OTHERS, _OTHERS_MARKERS, strict=True))
}
_FOR_STRANGERS = [
    Look(_OTHER_COLOURS[(place + turn) % len(_OTHER_COLOURS)], shape)
    for turn in range(len(_OTHER_COLOURS))
    for place, shape in enumerate(_STRANGERS_SHAPES)
]


def looks(names: Iterable[str]) -> dict[str, Look]:
    """The look of each name. A known operator's is fixed; a stranger's comes from a hash of its name, and where two strangers of one
    figure want the same marker, the one later in the alphabet takes the next free one."""
    found: dict[str, Look] = {}
    for name in sorted(set(names), key=lambda name: (name not in _FIXED, name)):
        if name in _FIXED:
            found[name] = _FIXED[name]
            continue
        start = zlib.crc32(name.encode()) % len(_FOR_STRANGERS)
        wanted = _FOR_STRANGERS[start:] + _FOR_STRANGERS[:start]
        markers = {(look.marker, look.fill) for look in found.values()}
        new_looks = [look for look in wanted if look not in found.values()] or wanted
        found[name] = next((look for look in new_looks if (look.marker, look.fill) not in markers), new_looks[0])
    return found


def _channels(colour: str) -> list[float]:
    return [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]


def contrast_with_white(colour: str) -> float:
    """The WCAG contrast ratio of '#RRGGBB' on white, from 1 (white) to 21 (black)."""
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in _channels(colour)]
    return 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)


def readable(colour: str) -> str:
    """'#RRGGBB' darkened, hue kept, until small text in it is readable on white."""
    share = 1.0
    while contrast_with_white(colour) < _READABLE_CONTRAST:
        share = 0.97
        colour = "#" + "".join(f"{int(255 * share * value):02X}" for value in _channels(colour))
    return colour


LEADING = 1.15
"""Height of a line of text, in font sizes."""


@dataclass(frozen=True)
class Font:
    """Families (the first that has a glyph draws it), size in points, weight and slant of a text."""

    families: tuple[str, ...]
    points: float
    weight: Literal["normal", "bold"] = "normal"
    slant: Literal["normal", "italic"] = "normal"

    @property
    def properties(self) -> FontProperties:
        """The same for matplotlib."""
        return FontProperties(family=list(self.families), size=self.points, weight=self.weight, style=self.slant)


@lru_cache(maxsize=4096)
def _line_width(line: str, font: Font) -> float:
    return float(TextToPath().get_text_width_height_descent(line, font.properties, ismath=False)[0])


def text_size(text: str, font: Font) -> tuple[float, float]:
    """Width and height that a text of one or more lines takes."""
    lines = text.split("\n")
    return max(_line_width(line, font) for line in lines), len(lines) * LEADING * font.points


def wrap(parts: Sequence[str], separator: str, width: float, font: Font) -> str:
    """The parts joined, with a line break wherever the next one would pass the width; a part that is wider loses its middle."""
    lines: list[str] = []
    for part in parts:
        part = _shortened(part, width, font)
        longer = f"{lines[-1]}{separator}{part}" if lines else part
        if lines and _line_width(longer, font) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return "\n".join(line.strip() for line in lines)


def wrap_words(parts: Sequence[str], separator: str, width: float, font: Font) -> str:
    """As `wrap`, but a part that is wider than a line is broken between its words."""
    lines = [line for part in parts for line in wrap(part.split(" "), " ", width, font).split("\n")]
    return wrap(lines, separator, width, font)


def _shortened(text: str, width: float, font: Font) -> str:
    short, kept = text, len(text)
    while kept > 4 and _line_width(short, font) > width:
        kept -= 1
        short = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return short


SERIF, SANS = ("STIXGeneral", "DejaVu Sans"), ("DejaVu Sans",)
"""Families that come with matplotlib, so that every machine draws the same bytes; the first has the look of Times."""


@dataclass(frozen=True)
class Style:
    """Width in inches and font of a figure, `text` and `small` in points. The default is the text width of a CVPR paper in a Times look;
    see `venues` for others."""

    width: float = 6.875
    families: tuple[str, ...] = SERIF
    text: float = 7.5
    small: float = 6.0

    def font(self, points: float, **more: Any) -> Font:
        """The font of this style in a size."""
        return Font(self.families, points, **more)

    @property
    def unit(self) -> float:
        """How much more room a small text takes than in the default style."""
        own, usual = (text_size("layer 12", style.font(style.small))[0] for style in (self, Style()))
        return own / usual

    @property
    def settings(self) -> dict[Any, Any]:
        """What matplotlib is set to: its own defaults (no matplotlibrc of the user's changes a figure) and this style."""
        defaults = {key: value for key, value in mpl.rcParamsDefault.items() if key not in {"backend", "backend_fallback", "interactive"}}
        return defaults | {
            "font.family": list(self.families),
            "font.size": self.text,
            "text.usetex": False,
            "text.hinting": "none",
            "pdf.fonttype": 42,
            "ps.fonttype": 42,
            "pgf.rcfonts": False,
            "svg.hashsalt": "lisabench",
            "axes.linewidth": 0.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.unicode_minus": False,
        }


CVPR_FULL = Style()
CVPR_COLUMN = Style(width=3.28125)


def padded(low: float, high: float, length: float, pad: float, least: float) -> tuple[float, float]:
    """Limits of a log axis of this length that leave `pad` points free at both ends and span at least a factor `least`."""
    if high / low < least:
        middle = np.sqrt(low * high)
        low, high = middle / np.sqrt(least), middle * np.sqrt(least)
    margin = (high / low) ** (pad / (length - 2 * pad))
    return low / margin, high * margin


def value_ticks(low: float, high: float, base: int, most: int = 7) -> list[float]:
    """Round values in a range: decades, or 1, 2 and 5 of each if those are few; in base 2 powers of two."""
    steps = (1, 2, 4, 5, 10, 20) if base == 2 else (1, 2, 3, 6)
    exponents = np.arange(np.floor(np.log(low) / np.log(base)), np.ceil(np.log(high) / np.log(base)) + 1)
    choices = [[float(base) ** power for power in exponents if power % step == 0] for step in steps]
    if base == 10:
        choices.insert(0, [factor * 10.0**power for power in exponents for factor in (1, 2, 5)])
    inside = [[tick for tick in ticks if low <= tick <= high] for ticks in choices]
    return next((ticks for ticks in inside if len(ticks) <= most), inside[-1])


def token_labels(tokens: Sequence[int], centres: Sequence[float], font: Font, gap: float = 3.0) -> list[str]:
    """A text for each token count, "" where it would touch another: every one, or every second (third, fourth) from the last and what
    fits well between."""
    binary = all(count % 1024 == 0 for count in tokens if count >= 1024)
    texts = [f"{count // 1024}k" if binary and count >= 1024 else f"{count:,}" for count in tokens]
    widths = [text_size(text, font)[0] for text in texts]

    def touch(one: int, other: int, gap: float = gap) -> bool:
        return abs(centres[one] - centres[other]) < (widths[one] + widths[other]) / 2 + gap

    last = len(tokens) - 1
    steps = (range(last, -1, -step) for step in (1, 2, 3, 4))
    shown = next((list(indices) for indices in steps if not any(touch(index, index - indices.step) for index in indices[1:])), [last])
    for index in range(last + 1):
        if not any(touch(index, other, 5 * gap) for other in shown):
            shown.append(index)
    return [text if index in shown else "" for index, text in enumerate(texts)]


DASHES: tuple[Any, ...] = ("-", (0, (4, 1.2)), (0, (5, 1.2, 1, 1.2)), (0, (7, 1.5)), (0, (4, 1.2, 1, 1.2, 1, 1.2)))
"""Line styles for one operator with several options. Dots are kept for what was not measured."""

FAILURES: dict[str, tuple[Any, str]] = {
    "oom": ("x", "OOM"),
    "timeout": ([(-1, 1), (1, 1), (-1, -1), (1, -1), (-1, 1)], "time limit"),
}
"""The statuses that end a curve in sight: their marker (a cross, an hourglass) and word."""
