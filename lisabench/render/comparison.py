"""The figure of two runs compared: the ratio of every cell with its interval, operator by operator; of very many cells their quantiles."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lisabench.analysis.compare import Verdict, mean_ratio
from lisabench.journal import Record
from lisabench.render.curves import PANEL_KEYS, SUBJECT
from lisabench.render.labels import Box, Placed
from lisabench.render.page import INK, Page, Ticks, marker_of
from lisabench.render.palette import CVPR_FULL, LEADING, Font, Look, Style, looks, padded, text_size, value_ticks, wrap
from lisabench.render.plane import Plane, add_axes, page_of, round_ticks, texts_of
from lisabench.results import Run

Row = tuple[Record, Record, Verdict]

_TALLEST = 540.0  # points for all operators together: what a page leaves beside a caption
_READABLE = 7.2  # points from cell to cell that leave room for a text at each
_STEPS = (_READABLE, 5.0, 3.5, 2.4, 1.6)  # points from cell to cell to try: below the last, intervals would be a grey area
_PAD = 3.0  # points above and below an operator's cells
_MOST_POINTS = 60  # changed cells of an operator that are drawn over its quantiles
_CHANGED = ("slower", "faster")


@dataclass(frozen=True)
class _Block:
    """An operator's cells, in the order in which they are drawn; its name as it is written, and its place: points below the panel's top."""

    rows: tuple[Row, ...]
    label: str
    look: Look
    top: float = 0.0
    height: float = 0.0

    @property
    def tally(self) -> str:
        """How many of the cells changed, "" for none."""
        counts: Counter[str] = Counter(verdict.verdict for *_, verdict in self.rows)
        told = ", ".join(f"{counts[name]:,} {name}" for name in _CHANGED if counts[name])
        return f"{told} of {len(self.rows):,}" if told else ""


@dataclass(frozen=True)
class _Sheet:
    """What is drawn and where: `step` points from cell to cell, None for quantiles; the texts of cells, "" for none."""

    blocks: tuple[_Block, ...]
    step: float | None
    texts: dict[str, str]
    dropped: int
    height: float


def draw(rows: Sequence[Row], new: Run, *, threshold: float, style: Style = CVPR_FULL) -> Figure:
    """The ratios new / base of cells (at least one), of which `new` has the second: a block an operator on a kind of device, the slowest
    above, a cell a line in order of tokens; where they are too many for lines, the operator's quantiles. A band holds what counts as the same."""
    sheet = _arranged(_blocks(rows, new, style), rows, new, style)
    left = max(text_size(block.label, _name_font(style))[0] for block in sheet.blocks)
    fine = style.font(style.small)
    right = max((text_size(text, fine)[0] for text in (*sheet.texts.values(), *(block.tally for block in sheet.blocks))), default=0.0)
    with mpl.rc_context(style.settings):
        page = page_of(
            [()], _note(rows, new, sheet, threshold), style, columns=1, tick_width=left, named=False, gutter=right + 6, height=sheet.height
        )
        drawn = [row for block in sheet.blocks for row in block.rows]
        plane = Plane(page.boxes[0], _limits(drawn, page.across, threshold, many=sheet.step is None), (0.0, sheet.height), log=True)
        figure = page.start()
        ticks = _ticks(plane.x)
        axes = add_axes(page, figure, 0, plane, ticks=(ticks, ([], [])), names=("Time a call, new / base (below 1: faster)", ""))
        axes.axvspan(1 / (1 + threshold), 1 + threshold, color="#EFEFEF", linewidth=0, zorder=0, gid="threshold")
        axes.axvline(1, color=INK, linewidth=0.6, zorder=1, gid="same")
        for block in sheet.blocks:
            _draw_block(axes, block, sheet)
            _write_block(page, figure, plane, block, sheet)
        page.write_footnote(figure)
    return figure


def _name_font(style: Style) -> Font:
    return style.font(style.text - 0.5)


def _blocks(rows: Sequence[Row], new: Run, style: Style) -> list[_Block]:
    """Operators with their cells, in order of their mean ratio, the slowest first; one kind of device after the other."""
    found: dict[tuple[str, str], list[Row]] = {}
    several = len({new.device_of(after) for _, after, _ in rows}) > 1
    for row in rows:
        found.setdefault((new.device_of(row[1]) * several, new.label_of(row[1])), []).append(row)
    drawn = looks(row[1]["op"] for row in rows)
    means = {key: mean_ratio(row[2] for row in of)[0] for key, of in found.items()}
    narrow, blocks = 0.3 * style.width * 72, []
    for device, label in sorted(found, key=lambda key: (key[0], -means[key], key[1])):
        words = re.split(r"(?<=[,:/])|(?= \()", f"{label}, {device}" if several else label)
        of = found[device, label]
        blocks.append(_Block(tuple(of), wrap(words, "", narrow, _name_font(style)), drawn[of[0][1]["op"]]))
    return blocks


def _arranged(blocks: Sequence[_Block], rows: Sequence[Row], new: Run, style: Style) -> _Sheet:
    """As large as a page allows: a line a cell, with texts or without; else quantiles, and if need be without what changed least."""

    def stacked(chosen: Sequence[_Block], step: float | None) -> tuple[tuple[_Block, ...], float]:
        placed, top = [], 0.0
        for block in chosen:
            least = text_size(block.label, _name_font(style))[1] + 1
            height = max(least, (step or 0) * len(block.rows) + 2 * _PAD)
            rows = sorted(block.rows, key=_order) if step else block.rows
            placed.append(replace(block, rows=tuple(rows), top=top, height=height))
            top += height
        return tuple(placed), top

    for step in _STEPS:
        if step * len(rows) > _TALLEST:
            continue
        placed, height = stacked(blocks, step)
        if height <= _TALLEST:
            return _Sheet(placed, step, _texts(rows, new) if step == _READABLE else {}, 0, height)
    kept = list(blocks)
    placed, height = stacked(kept, None)
    while height > _TALLEST:
        kept.remove(min(kept, key=lambda block: abs(np.log(mean_ratio(verdict for *_, verdict in block.rows)[0]))))
        placed, height = stacked(kept, None)
    return _Sheet(placed, None, {}, len(blocks) - len(kept), height)


def _order(row: Row) -> tuple[Any, ...]:
    return *(row[1][name] for name in PANEL_KEYS if name in row[1]), row[1]["tokens"]


def _varied(rows: Sequence[Row], new: Run) -> list[str]:
    """The fields in which cells differ; a device's index only where two have one name."""
    devices = {(new.device_of(after), after["device"]) for _, after, _ in rows}
    one_each = len(devices) == len({name for name, _ in devices})
    names = [name for name in PANEL_KEYS if name != "device_name" and not (name == "device" and one_each)]
    return [name for name in names if len({after[name] for _, after, _ in rows}) > 1]


def _texts(rows: Sequence[Row], new: Run) -> dict[str, str]:
    """What is written at a cell: its tokens and the axes that vary; the grid where two of as many tokens differ in it."""
    varied = _varied(rows, new)
    grids = {(after["tokens"], after["height"], after["width"]) for _, after, _ in rows}
    oblong = len(grids) > len({tokens for tokens, *_ in grids})
    found = {}
    for _, after, _ in rows:
        size = f"{after['height']}x{after['width']}" if oblong else f"{after['tokens']:,}"
        found[after["cell"]] = ", ".join([size, *(PANEL_KEYS[name](after[name]) for name in varied)])
    return found


def _limits(rows: Sequence[Row], across: float, threshold: float, *, many: bool) -> tuple[float, float]:
    """All ratios with their intervals, of many without the intervals, and the band."""
    verdicts = [verdict for *_, verdict in rows]
    low, high = (min(one.ratio if many else one.ci_low for one in verdicts), max(one.ratio if many else one.ci_high for one in verdicts))
    return padded(min(low, 1 / (1 + threshold)), max(high, 1 + threshold), across, 6.0, least=1.2)


def _ticks(limits: tuple[float, float]) -> Ticks:
    """Round ratios: evenly spaced ones where the range is narrow."""
    low, high = limits
    ticks = round_ticks(low, high, 8) if high / low < 5 else value_ticks(low, high, 10)
    return ticks, texts_of(ticks, percent=False) if high / low < 5 else [f"{tick:g}" for tick in ticks]


def _draw_block(axes: Axes, block: _Block, sheet: _Sheet) -> None:
    """Cells that changed in full colour with the operator's marker; the others thin. All from the top, over a line under the block."""
    top = sheet.height - block.top
    look, gid = block.look, block.label.replace("\n", "")
    axes.axhline(top - block.height, color="#E4E4E4", linewidth=0.4, zorder=0.5)
    if sheet.step is None:
        _draw_quantiles(axes, block, top - block.height / 2)
        return
    start = top - (block.height - sheet.step * len(block.rows)) / 2
    for place, (*_, verdict) in enumerate(block.rows):
        y = start - (place + 0.5) * sheet.step
        changed = verdict.verdict in _CHANGED
        line: dict[str, Any] = {"color": look.colour, "linewidth": 1.1 if changed else 0.5, "alpha": 1.0 if changed else 0.6}
        axes.plot([verdict.ci_low, verdict.ci_high], [y, y], zorder=2, gid=f"interval:{gid}", solid_capstyle="butt", **line)
        marker = marker_of(look, min(4.0, sheet.step + 0.8)) if changed else {"marker": "o", "markersize": 1.6, "markeredgewidth": 0}
        axes.plot([verdict.ratio], [y], color=look.colour, linestyle="", zorder=3, gid=f"{verdict.verdict}:{gid}", **marker)


def _draw_quantiles(axes: Axes, block: _Block, y: float) -> None:
    """From the 5th to the 95th percentile thin, the middle half thick, the median a gap; the cells that changed most as points."""
    ratios = np.array([verdict.ratio for *_, verdict in block.rows])
    low, first, median, last, high = np.quantile(ratios, (0.05, 0.25, 0.5, 0.75, 0.95))
    look, gid = block.look, block.label.replace("\n", "")
    axes.plot([low, high], [y, y], color=look.colour, linewidth=0.7, zorder=2, gid=f"range:{gid}", solid_capstyle="butt")
    axes.plot([first, last], [y, y], color=look.colour, linewidth=3.5, zorder=2, gid=f"half:{gid}", solid_capstyle="butt")
    axes.plot([median], [y], color="white", marker="|", markersize=5, markeredgewidth=0.9, linestyle="", zorder=2.5, gid=f"median:{gid}")
    changed = sorted((verdict.ratio for *_, verdict in block.rows if verdict.verdict in _CHANGED), key=lambda ratio: -abs(np.log(ratio)))
    shown = changed[:_MOST_POINTS]
    axes.plot(shown, [y] * len(shown), color=look.colour, linestyle="", zorder=3, gid=f"changed:{gid}", **marker_of(look, 2.6))


def _write_block(page: Page, figure: Figure, plane: Plane, block: _Block, sheet: _Sheet) -> None:
    """The operator's name left of its cells, right of them what each is, or how many changed."""
    font, fine, box = _name_font(page.style), page.style.font(page.style.small), plane.box
    middle = box.top - block.top - block.height / 2
    width, height = text_size(block.label, font)
    name = Box(box.left - 5 - width, middle - height / 2, box.left - 5, middle + height / 2)
    page.write(figure, Placed(block.label, font, name), "operator", block.look.ink)
    if sheet.texts:
        start = box.top - block.top - (block.height - _READABLE * len(block.rows)) / 2
        texts = [(sheet.texts[after["cell"]], start - (place + 0.5) * _READABLE) for place, (_, after, _) in enumerate(block.rows)]
    else:
        texts = [(block.tally, middle)]
    for text, y in texts:
        half = LEADING * fine.points / 2
        page.write(figure, Placed(text, fine, Box(box.right + 5, y - half, box.right + 5, y + half)), "cell", INK)


def _note(rows: Sequence[Row], new: Run, sheet: _Sheet, threshold: float) -> list[str]:
    """What holds for all cells, what lines and points mean, and what is not shown."""
    first, varied = rows[0][1], _varied(rows, new)
    environments = {(after["environment"], after["device"]): after for _, after, _ in rows}
    parts = [" and ".join(sorted({new.device_of(after) for after in environments.values()}))]
    parts += [PANEL_KEYS[name](first[name]) for name in PANEL_KEYS if name not in ("device", "device_name", *varied)]
    parts.append(f"band: up to {100 * threshold:g}%, the same")
    if sheet.step is None:
        parts.append("middle half of an operator's cells, the gap their median; thin: 5th to 95th percentile; points: changed cells")
    else:
        order = "right: its tokens" if sheet.texts else "an operator's cells in order of tokens"
        parts.append(f"a cell's ratio of medians with its 95% interval; {order}; bold with the operator's marker: changed")
    counts = Counter(verdict.verdict for *_, verdict in rows)
    parts.append(
        f"{', '.join(f'{count:,} {verdict}' for verdict, count in counts.most_common())} of {len(rows):,} cell{'s' if len(rows) > 1 else ''}"
    )
    if sheet.dropped:
        parts.append(f"{sheet.dropped} operators that changed least are not shown")
    return parts + (["LiSA: reconstruction from the paper's abstract"] if any(after["op"] == SUBJECT for _, after, _ in rows) else [])
