"""How several variants of one operator are drawn: in its hue, but each unlike the others on paper and on a grey printout."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lisabench.analysis.accuracy import Series
from lisabench.render.curves import BASELINE_WEIGHT, SUBJECT, SUBJECT_WEIGHT
from lisabench.render.palette import DASHES, Look, looks

# Shares of white (above 0) or black (below 0) that are mixed into an operator's colour, one after the other for its variants.
_TINTS = (0.0, -0.4, 0.45, -0.2, 0.25, -0.6)
_SHAPES = ("o", "s", "D", "^", "v", "p", "h", "P", "<", ">")
_USUAL, _OF_MANY, _MANY = 1.0, 0.8, 12


@dataclass(frozen=True)
class Manner:
    """Colour and marker, dashes, and line width."""

    look: Look
    dashes: Any
    weight: float


def manners(series: Iterable[Series], baseline: str | None) -> dict[str, Manner]:
    """How the series of each label is drawn, the same in every panel: LiSA without options strongest, then the baseline (a label).

    The variant with the fewest options has the operator's own look. The others have its hue, lighter or darker, and a marker of their
    own: the operator's filled otherwise, then other shapes.
    """
    found = looks(one.op for one in series) if (series := list(series)) else {}
    usual = _OF_MANY if len({one.label for one in series}) > _MANY else _USUAL
    taken = {(look.marker, look.fill) for look in found.values()}
    drawn: dict[str, Manner] = {}
    for op, own in found.items():
        members = {one.label: one for one in series if one.op == op}
        ordered = sorted(members, key=lambda label: (len(members[label].given), label))
        for place, label in enumerate(ordered):
            weight = SUBJECT_WEIGHT if op == SUBJECT and place == 0 else BASELINE_WEIGHT if label == baseline else usual
            look = own if place == 0 else _variant(own, place, taken)
            taken.add((look.marker, look.fill))
            drawn[label] = Manner(look, DASHES[place % len(DASHES)], weight)
    return drawn


def _variant(own: Look, place: int, taken: Collection[tuple[str, str]]) -> Look:
    """A marker that no other series has, as long as there are some."""
    markers = _markers(own)
    markers = [marker for marker in markers if marker not in taken][:1] or markers
    return Look(_tinted(own.colour, _TINTS[place % len(_TINTS)]), *markers[place % len(markers)])


def _markers(own: Look) -> Sequence[tuple[str, str]]:
    others = [shape for shape in _SHAPES if shape != own.marker]
    pairs = [(shape, fill) for fill in ("full", "none") for shape in others]
    return list(dict.fromkeys([(own.marker, own.fill), (own.marker, "none"), (own.marker, "full"), *pairs]))


def _tinted(colour: str, share: float) -> str:
    """'#RRGGBB' mixed with white, or with black for a share below 0. Black has no darker shade: it is made lighter all the same."""
    channels = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    if max(channels) == 0:
        share = abs(share)
    end = 255 if share > 0 else 0
    return "#" + "".join(f"{round(value + abs(share) * (end - value)):02X}" for value in channels)
