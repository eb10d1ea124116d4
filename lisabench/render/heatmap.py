"""The figure `speedup`: how many times as fast as the baseline each operator is, over tokens and batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex, to_rgba_array
from matplotlib.figure import Figure

from lisabench import units
from lisabench.render.curves import PANEL_KEYS, SUBJECT, Floats, common, complete, cut, narrowed, not_shown, own_up
from lisabench.render.page import INK, Page, Sign, arrange
from lisabench.render.palette import CVPR_FULL, FAILURES, LEADING, Font, Look, Style, contrast_with_white, text_size, token_labels
from lisabench.results import WORKLOAD

KEYS = tuple(name for name in PANEL_KEYS if name != "batch")
_TIME, _RATIO = "latency_s.median", "ratio.median"
_WIDEST, _GAP = 46.0, 5.0  # points: a cell at the most, and between panels
_SMALLEST = 4.5  # points of a font
_TALLEST = 560.0  # points of all panels: what a page has room for
_MOST_TIMES = 10  # the colours reach so many times slower and faster at the most
_STEP = 0.08  # share of all colours that is left out on both sides of 1
_EMPTY, _NOT_RUN, _NO_PAIR = "#FFFFFF", "not\nrun", "no\npair"
# From dark over grey to light: what is slower and what is faster are told apart on a grey printout and by colour-blind readers.
# Source: J. R. Nuñez, C. R. Anderton, R. S. Renslow, "Optimizing colormaps with consideration for color vision deficiency", 2018.
_COLOURS = "cividis"


@dataclass(frozen=True)
class _Panel:
    """An operator's cells [batch, tokens]: how many times as fast it is (NaN for no figure), and what is written."""

    title: tuple[str, ...]
    label: str
    speedups: Floats
    texts: list[list[str]]


def speedups(frame: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """The rows of all operators but the baseline, with `speedup`, the baseline's median time over the operator's at the same workload of
    the same run: of the rounds that both shared where there are such (`shared`), else of all; NaN where one of both has no time. Of
    several grids with as many tokens only the one nearest to a square."""
    frame = narrowed(frame, [_TIME, _RATIO], "run")
    by = ["device_name", *WORKLOAD, *(["run"] if "run" in frame else [])]
    finished = frame.assign(time=frame[_TIME].where((frame["status"] == "ok") & (frame[_TIME] > 0)))
    of_baseline = finished[finished["op"] == baseline].sort_values("label").drop_duplicates(by)
    rows = finished[finished["op"] != baseline].merge(of_baseline[[*by, "time", _RATIO]], on=by, how="left", suffixes=("", ".baseline"))
    # A baseline that has a ratio itself was not the run's: then ratios are to something else.
    shared = rows["time"].notna() & (rows[_RATIO] > 0) & rows[f"{_RATIO}.baseline"].isna() & rows["time.baseline"].notna()
    quotient = rows["time.baseline"] / rows["time"]
    rows = rows.assign(
        shared=shared, speedup=quotient.where(~shared, 1 / rows[_RATIO]), oblong=np.abs(np.log(rows["height"] / rows["width"]))
    )
    return rows.sort_values(["tokens", "oblong", "height"], kind="stable").drop_duplicates(
        ["device_name", *KEYS, "label", "batch", "tokens"]
    )


def draw(frame: pd.DataFrame, *, baseline: str | None = None, style: Style = CVPR_FULL) -> Figure | None:
    """Speed-ups over the baseline as a heat map, tokens across and batch up: an operator a panel, and each device, scope, mode, dtype,
    dim and heads. A cell without a figure says why. None without a baseline, or where fewer than two token counts or two batches have
    a figure."""
    if baseline is None or frame.empty:
        return None
    frame = complete(frame, [])
    cells = speedups(frame, baseline)
    known = cells[cells["speedup"].notna()]
    if min(known["tokens"].nunique(), known["batch"].nunique()) < 2:
        return None
    tokens, batches = (sorted(int(size) for size in cells[name].unique()) for name in ("tokens", "batch"))
    panels = _panels(cells, tokens, batches)
    reach = float(np.clip(np.abs(np.log(known["speedup"])).max(), np.log(2), np.log(_MOST_TIMES)))
    with mpl.rc_context(style.settings):
        return _figure(panels, (tokens, batches), _note(frame, cells, panels, baseline), _key(reach, baseline), reach, style)


def _panels(cells: pd.DataFrame, tokens: Sequence[int], batches: Sequence[int]) -> list[_Panel]:
    """A panel for each operator that has a speed-up, LiSA's first."""
    panels = []
    for title, group in cut(cells, KEYS):
        for label, rows in sorted(group.groupby("label"), key=lambda pair: (pair[1]["op"].iloc[0] != SUBJECT, pair[0])):
            found = {(row.batch, row.tokens): row for row in rows.itertuples()}
            grid = [[found.get((batch, count)) for count in tokens] for batch in batches]
            figures = np.array([[row.speedup if row else np.nan for row in line] for line in grid], dtype=float)
            if np.isfinite(figures).any():
                panels.append(_Panel((*title, str(label)), str(label), figures, [[_text(row) for row in line] for line in grid]))
    return panels


def _text(row: Any) -> str:
    """What is written in a cell: a speed-up, or in a word why there is none."""
    if row is None:
        return _NOT_RUN
    if row.status != "ok":
        word: str = FAILURES[row.status][1] if row.status in FAILURES else row.status
        return word.replace(" ", "\n")
    return _NO_PAIR if np.isnan(row.speedup) else ("" if row.shared else "~") + _times(row.speedup)


def _times(value: float) -> str:
    return "<0.01" if value < 0.01 else ">9999" if value >= 9999.5 else units.significant(value, 2)


def _colour(speedup: float, reach: float) -> str:
    """A step apart at 1, so that what is hardly slower is not taken for what is hardly faster."""
    if not np.isfinite(speedup):
        return _EMPTY
    share = float(np.clip(np.log(speedup) / reach, -1, 1))
    return to_hex(mpl.colormaps[_COLOURS](0.5 + np.sign(share) * (_STEP + (0.5 - _STEP) * abs(share))))


def _key(reach: float, baseline: str) -> list[Sign]:
    """The colours of as many times slower and faster as the scale reaches, and of what lies between."""
    times = [float(np.exp(share * reach)) for share in (-1, -0.5, 0, 0.5, 1)]
    less, more = (" or less", " or more") if reach == np.log(_MOST_TIMES) else ("", "")
    texts = [_times(value) for value in times]
    texts = [texts[0] + less, texts[1], "1", texts[3], f"{texts[4]}{more} times as fast as {baseline}"]
    colours = [_colour(value, reach) for value in times]
    return [Sign(text, colour, Look(colour, "s")) for text, colour in zip(texts, colours, strict=True)]


def _note(frame: pd.DataFrame, cells: pd.DataFrame, panels: Sequence[_Panel], baseline: str) -> list[str]:
    texts = {text for panel in panels for line in panel.texts for text in line}
    said = [*common(frame), f"median time of {baseline} over the operator's, of rounds that both shared"]
    said += ["~: not shared, of all rounds"] if any(text.startswith("~") for text in texts) else []
    said += [f"no pair: {baseline} has no time there"] if _NO_PAIR in texts else []
    return [*said, *not_shown(cells, {panel.label for panel in panels}, {}), *own_up(frame)]


def _figure(
    panels: Sequence[_Panel], sizes: tuple[list[int], list[int]], note: Sequence[str], key: Sequence[Sign], reach: float, style: Style
) -> Figure:
    """As many panels side by side as their texts leave room for."""
    tokens, batches = sizes
    texts = [text for panel in panels for line in panel.texts for text in line]
    left = 1.2 * style.text + 8 + max(text_size(str(batch), style.font(style.text - 0.5))[0] for batch in batches)
    room, name = style.width * 72 - left, max(text_size(panel.label, style.font(style.text))[0] for panel in panels)
    for points in np.arange(style.small, min(_SMALLEST, style.small) - 0.1, -0.5).tolist():
        font = style.font(points)
        wide, tall = (max(parts) for parts in zip(*(text_size(text, font) for text in texts), strict=True))
        rows = -(-len(panels) // max(1, int(room / (max(len(tokens) * (wide + 3), name + 8) + _GAP))))
        columns = -(-len(panels) // rows)
        across = min(room / columns - _GAP, len(tokens) * _WIDEST)
        height = len(batches) * max(2 * points, tall + 3)
        if wide <= across / len(tokens) - 2 and rows * (height + 2 * style.text) <= _TALLEST:
            break
    if wide > across / len(tokens) - 1:
        note = ["where there is no room for a figure, its colour tells", *note]
    titles = [panel.title for panel in panels]
    page = arrange(
        titles, note, style, columns=columns, left=left, gutter=room / columns - _GAP - across, height=height, gap=_GAP, key=key, small=True
    )
    figure = page.start()
    for index, panel in enumerate(panels):
        _draw_panel(figure, page, index, panel, sizes, font, reach)
    page.write_key(figure)
    page.write_footnote(figure)
    return figure


def _draw_panel(
    figure: Figure, page: Page, index: int, panel: _Panel, sizes: tuple[list[int], list[int]], font: Font, reach: float
) -> None:
    """A row of cells a batch; as a page's axes are logarithmic, the cells stand at powers of 2."""
    (tokens, batches), box = sizes, page.boxes[index]
    columns, rows = (2.0 ** np.arange(len(part)) for part in sizes)
    centres = box.left + (np.arange(len(tokens)) + 0.5) * (box.right - box.left) / len(tokens)
    names = token_labels(tokens, centres.tolist(), page.style.font(page.style.text - 0.5))
    limits = [(2**-0.5, 2 ** (len(part) - 0.5)) for part in sizes]
    axes = page.add_axes(
        figure,
        index,
        limits=(limits[0], limits[1]),
        ticks=((columns.tolist(), names), (rows.tolist(), [str(batch) for batch in batches])),
        names=("Tokens N", "Batch"),
    )
    axes.grid(visible=False)
    colours = [[_colour(value, reach) for value in line] for line in panel.speedups]
    edges = [2 ** (np.arange(len(part) + 1) - 0.5) for part in sizes]
    axes.pcolormesh(*edges, np.array([to_rgba_array(line) for line in colours]), edgecolors="white", linewidth=0.5)
    narrow = (box.right - box.left) / len(tokens) - 1
    for y, (line, shades) in enumerate(zip(panel.texts, colours, strict=True)):
        for x, (text, shade) in enumerate(zip(line, shades, strict=True)):
            ink = INK if shade == _EMPTY else "white" if contrast_with_white(shade) >= 4.5 else "black"
            if text_size(text, font)[0] <= narrow:
                place: dict[str, Any] = {"ha": "center", "va": "center", "linespacing": LEADING}
                axes.text(
                    columns[x],
                    rows[y],
                    text,
                    fontproperties=font.properties,
                    color=ink,
                    parse_math=False,
                    gid=f"cell:{panel.label}",
                    **place,
                )
