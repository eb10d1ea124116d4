"""Figures of what trained models learned: tables of structural patterns, and kernels as a query of an image sees them."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lisabench.errors import RunError
from lisabench.render.page import INK, SAFE, Page, save
from lisabench.render.palette import CVPR_FULL, Font, Style, text_size, wrap, wrap_words
from lisabench.render.training_notes import kernels_note, own_up
from lisabench.results import Run

FOLDER = "patterns"  # of a run: holds a file a training, CELL.npz

# White is 0 in both, so that a hue means a sign. Negative ends are darker than positive ones: the strongest are told apart in grey too.
SIGNED: Colormap = LinearSegmentedColormap.from_list("signed", ["#08244F", "#5B8DB8", "#FFFFFF", "#F3AC7C", "#D55E00"])
POSITIVE: Colormap = LinearSegmentedColormap.from_list("positive", ["#FFFFFF", "#F3AC7C", "#D55E00", "#5A1E00"])

_LEAST_CELL, _MOST_CELL = 17.0, 56.0  # points: less is not seen, more shows no more
_TALLEST = 500.0  # points for all rows: the text of a CVPR page is 639 high
_GAPS = (1.6, 5.0, 12.0)  # points between cells, groups of cells, and groups of groups
_MOST_OPERATORS, _MOST_LAYERS = 3, 4  # in the figure of kernels
# What rows and columns of tables stand for.
_ARRANGEMENTS = (("layer", "kind head pattern"), ("layer kind", "head pattern"), ("layer head", "kind pattern"))

Array = NDArray[Any]
Index = tuple[int, ...]
Numbers = Sequence[float]
Found = dict[str, Array]
"""The arrays of a file that `train.kernels.Learned` wrote, by its fields' names; those that are None are not there."""


def read(path: Path) -> Found:
    """What one trained model learned. RunError where the file cannot be read."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as held:
            found = dict(held)
        if missing := {"seed", "grid", "images", "queries"} - set(found):
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
        return found
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RunError(f"{str(path)!r} cannot be read ({error}); train again, or remove it to go without its figures") from error


def write_figures(run: Run, folder: Path, *, formats: Iterable[str] = ("pdf", "png"), style: Style = CVPR_FULL) -> list[Path]:
    """Writes `patterns-KEY` for each operator with tables, and `kernels`, of the first seed of each that has a file; returns the paths.
    RunError where a file of the run cannot be read or a figure cannot be written."""
    found, formats, paths = dict(_first_seeds(run)), list(formats), list[Path]()
    for key in [key for key, one in found.items() if {"kernel_patterns", "context_patterns"} <= set(one)]:
        figure = draw_patterns(key, found[key], note=own_up([_operator(run, key)]), style=style)
        paths += save(figure, folder, f"patterns-{_file_name(key)}", formats)
    chosen = _chosen(run, found)
    left_out = [key for key, one in found.items() if "rows" in one and key not in chosen]
    without = [key for key in run.plan["operators"] if "rows" not in found.get(key, {}) and _has_none(run, key)]
    note = [f"{what}: {', '.join(keys)}" for what, keys in (("not shown", left_out), ("no kernel", without)) if keys]
    note += [*similarity_note(run, chosen), *own_up(_operator(run, key) for key in chosen)]
    kernels = draw_kernels(chosen, note=note, style=style)
    return paths + (save(kernels, folder, "kernels", formats) if kernels else [])


def _first_seeds(run: Run) -> Iterator[tuple[str, Found]]:
    for key in run.plan["operators"]:
        files = [run.path / FOLDER / f"{record['cell']}.npz" for record in sorted(_records(run, key), key=lambda r: int(r["seed"]))]
        yield from ((key, read(path)) for path in [path for path in files if path.exists()][:1])


def _operator(run: Run, key: str) -> str:
    return str(run.plan["operators"][key].get("op", key))


def _records(run: Run, key: str) -> list[dict[str, Any]]:
    """The finished trainings of an operator with the options that its key stands for."""
    options = run.plan["operators"][key].get("options")
    own = [r for r in run.records if r["kind"] == "accuracy" and r["op"] == _operator(run, key) and r["status"] == "ok"]
    return [record for record in own if options is None or record["options"] == options]


def _has_none(run: Run, key: str) -> bool:
    """Whether an operator has been trained, and no training of it has a kernel."""
    records = _records(run, key)
    return bool(records) and not any(record.get("kernel_similarity") for record in records)


def _chosen(run: Run, found: Mapping[str, Found]) -> dict[str, Found]:
    """Whose kernels stand together: the first with tables, the baseline, then others as planned; an operator once, all of equal images."""
    keys = [key for key, one in found.items() if "rows" in one]
    first = next((key for key in keys if "kernel_patterns" in found[key]), None)
    chosen: dict[str, Found] = {}
    for key in sorted(keys, key=lambda key: (key != first, key != run.baseline)):
        one, known = found[key], next(iter(chosen.values()), found[key])
        alike = one["rows"].shape == known["rows"].shape and np.array_equal(one["images"], known["images"])
        if alike and len(chosen) < _MOST_OPERATORS and _operator(run, key) not in [_operator(run, other) for other in chosen]:
            chosen[key] = one
    return chosen


def _file_name(key: str) -> str:
    """The key as a part of a file's name; a hash stands for what is lost of it, but for brackets, commas and blanks."""
    plain = re.sub(r"[ (),]+", "-", key).strip("-")
    short = re.sub(r"[^A-Za-z0-9._=-]+", "-", plain).strip("-.")[-80:]
    return plain if plain == short else f"{short}-{zlib.crc32(key.encode()):08x}"


def similarity_note(run: Run, keys: Iterable[str]) -> list[str]:
    """How alike the kernels of each operator are, after and before training, for a footnote; nothing where no record says it."""
    return kernels_note({key: _records(run, key) for key in keys})


@dataclass(frozen=True)
class _Sheet:
    """A page with one axes over all of it, in points, y from the top. Where the cells of its rows and columns begin; last their end."""

    style: Style
    figure: Figure
    axes: Axes
    cell: Numbers
    xs: Sequence[float]
    ys: Sequence[float]

    def image(self, left: float, top: float, size: Numbers, values: Array, *, most: float, colours: Any, gid: str) -> None:
        """An array in a thin frame, its numbers as sharp squares."""
        times = -(-64 // max(values.shape[:2]))  # a viewer may smooth what it enlarges: each number is some pixels of its own
        large = values.repeat(times, axis=0).repeat(times, axis=1)
        extent, least = (left, left + size[0], top + size[1], top), -most if colours is SIGNED else 0.0
        self.axes.imshow(large, cmap=colours, vmin=least, vmax=most, extent=extent, interpolation="none", aspect="auto", gid=gid)
        self.outline(left, top, size, "frame")

    def outline(self, left: float, top: float, size: Numbers, gid: str, colour: str = "#9A9A9A", width: float = 0.3) -> None:
        xs, ys = left + size[0] * np.array([0, 1, 1, 0, 0]), top + size[1] * np.array([0, 0, 1, 1, 0])
        self.axes.plot(xs, ys, color=colour, linewidth=width, solid_joinstyle="miter", gid=gid)

    def mark(self, left: float, top: float, size: Numbers, place: Numbers, shape: Numbers, gid: str) -> None:
        """Outlines one number of an array of this shape, so that it is seen on any colour."""
        step = size[0] / shape[1], size[1] / shape[0]
        for colour, width in (("white", 1.2), ("black", 0.5)):
            self.outline(left + place[1] * step[0], top + place[0] * step[1], step, gid, colour, width)

    def write(self, x: float, y: float, text: str, gid: str, *, ha: str = "left", font: Font | None = None, most: float = 300) -> None:
        """A text, its middle at this height, small where no font is given; one that is wider than `most` loses its middle."""
        font = font or self.style.font(self.style.small)
        look: dict[str, Any] = {"fontproperties": font.properties, "va": "center_baseline", "color": INK, "parse_math": False}
        self.axes.text(x, y, wrap([text], "", most, font), ha=ha, gid=gid, **look)

    def scale(self, right: float, colours: Colormap, texts: Sequence[str]) -> float:
        """A strip of the colours at the top that ends there, with a text at each end; returns where all of it begins."""
        low, high = (text_size(text, self.style.font(self.style.small))[0] for text in texts)
        strip, values = right - high - 47, np.linspace(-1 if colours is SIGNED else 0, 1, 64)[None]
        self.image(strip, 3.5, (44, 5), values, most=1, colours=colours, gid="strip")
        for x, text in ((right, texts[1]), (strip - 3, texts[0])):
            self.write(x, 6, text, "scale", ha="right")
        return strip - 3 - low


def _sheet(rows: Sequence[Index], columns: Sequence[Index], corner: Numbers, cell: Numbers, note: Sequence[str], style: Style) -> _Sheet:
    """A page with cells of this width and height from this corner on, and the note below."""
    steps = ([step + gap for gap in [*_gaps(way), 0.0]] for way, step in zip((columns, rows), cell, strict=True))
    xs, ys = (np.cumsum([start, *each]).tolist() for start, each in zip(corner, steps, strict=True))
    font, width = style.font(style.small), style.width * 72
    words = wrap_words(note, " · ", SAFE * (width - 4), font)
    page = Page(style, (width, ys[-1] + text_size(words, font)[1] + 20 * style.unit), 0, (), (), (), words, (), True)
    figure = page.start()
    page.write_footnote(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, page.size[0]), ylim=(page.size[1], 0), autoscale_on=False)
    axes.axis("off")
    return _Sheet(style, figure, axes, cell, xs, ys)


def _gaps(indices: Sequence[Index]) -> list[float]:
    """Between neighbours: the wider, the further to the front their indices differ."""
    firsts = ([a == b for a, b in zip(one, other, strict=True)].index(False) for one, other in pairwise(indices))
    return [_GAPS[min(len(_GAPS), len(indices[0]) - first) - 1] for first in firsts]


def _fitting(rows: Sequence[Index], columns: Sequence[Index], size: Numbers, shape: Sequence[int]) -> tuple[float, float]:
    """Width and height of the largest cells that fit into this size, for arrays of this shape: as their numbers are, but no thread."""
    ratio = float(np.clip(shape[0] / shape[1], 0.2, 3.0))
    across, down = ((length - sum(_gaps(way))) / len(way) for way, length in zip((columns, rows), size, strict=True))
    width = min(across, down / ratio, _MOST_CELL, _MOST_CELL / ratio)
    return width, width * ratio


def draw_patterns(key: str, found: Found, *, note: Sequence[str] = (), style: Style = CVPR_FULL) -> Figure:
    """The tables P and G of every layer, head and pattern, in one scale of colours, offset 0 in the middle of each.
    Their rows and columns are the flattest of the ways in which the tables are seen well, or else that of the largest tables."""
    tables = np.stack([found["kernel_patterns"], found["context_patterns"]])  # (kind, layers, heads, patterns, height, width)
    depth, heads, patterns, *shape = tables.shape[1:]
    centre, modulo = (shape[0] // 2, shape[1] // 2), shape == found["grid"].tolist() != [1, 1]
    if modulo:  # offset 0 stands first: it is put in the middle, as it is in the other tables
        tables = np.roll(tables, centre, axis=(-2, -1))
    counts, unit, ways = {"layer": depth, "head": heads, "kind": 2, "pattern": patterns}, style.unit, []
    for down, across in ([names.split() for names in both] for both in _ARRANGEMENTS):
        rows, columns = (list(product(*(range(counts[name]) for name in names))) for names in (down, across))
        ways.append((down, across, rows, columns, _fitting(rows, columns, (style.width * 72 - 64 * unit - 2, _TALLEST), shape)))
    down, across, rows, columns, cell = next((way for way in ways if way[-1][0] >= _LEAST_CELL), max(ways, key=lambda way: way[-1]))
    most = float(np.abs(tables).max()) or 1.0
    text = [f"learned tables of {key}, seed {found['seed']}", "P on the kernel, G on the context", "ticks: offset 0"]
    text += [f"dx, dy: offset of the key from the query in tokens{', modulo the grid' if modulo else ''}"]
    text += [f"side by side: patterns 1 to {patterns}"] if patterns > 1 else []
    with mpl.rc_context(style.settings):
        sheet = _sheet(rows, columns, (64 * unit, 12 + 9 * unit * len({*across} - {"pattern"})), cell, [*text, *note], style)
        left = sheet.scale(style.width * 72 - 3, SIGNED, [f"−{most:.2g}", f"{most:.2g}"])
        sheet.write(2, 6, key, "title", font=style.font(style.text, weight="bold"), most=left - 8)
        for names, indices, starts, step in ((down, rows, sheet.ys, cell[1]), (across, columns, sheet.xs, cell[0])):
            for level, name in enumerate(names):
                for number, middle in _groups(indices, starts, step, level) if name != "pattern" else ():
                    at = (2 + 24 * unit * level, middle) if names is down else (middle, 12 + (4 + 9 * level) * unit)
                    words, ha = "PG"[number] if name == "kind" else f"{name} {number + 1}", "left" if names is down else "center"
                    sheet.write(*at, words, name, ha=ha)
        for (row, y), (column, x) in product(zip(rows, sheet.ys, strict=False), zip(columns, sheet.xs, strict=False)):
            of = dict(zip(down + across, row + column, strict=True))
            place = of["kind"], of["layer"], of["head"], of["pattern"]
            sheet.image(x, y, cell, tables[place], most=most, colours=SIGNED, gid=f"table:{place}")
            for side in (0, 1):  # ticks at two edges in line with offset 0: a mark on it would hide it
                middle = (centre[1 - side] + 0.5) * cell[side] / shape[1 - side]
                ends = np.array([[0, 0.06 * cell[1 - side], np.nan, 0.94 * cell[1 - side], cell[1 - side]], [middle] * 5])
                sheet.axes.plot(*(ends[[1 - side, side]] + [[x], [y]]), color="black", linewidth=0.5, solid_capstyle="butt", gid="centre")
        _offsets(sheet, centre, shape)
    return sheet.figure


def _offsets(sheet: _Sheet, centre: Sequence[int], shape: Sequence[int]) -> None:
    """The first and the last offset of either axis at the table at the bottom left."""
    left, top, style = sheet.xs[0], sheet.ys[-1] - sheet.cell[1], sheet.style
    unit, font = style.unit, style.font(style.small - 1)
    for axis, name in enumerate(("dx", "dy")):
        count, length = shape[1 - axis], sheet.cell[axis]
        texts = {0.5 / count: -centre[1 - axis], 1 - 0.5 / count: count - 1 - centre[1 - axis]} if count > 1 else {}
        beside = 4 + max((text_size(str(each), font)[0] for each in texts.values()), default=1) if axis else 7 * unit
        for share, text, out in [*((share, text, 2.0) for share, text in texts.items()), (0.5, name, beside)]:
            x, y = (left - out, top + share * length) if axis else (left + share * length, sheet.ys[-1] + 3 * unit + out)
            sheet.write(x, y, str(text).replace("-", "−"), "offset", ha="right" if axis else "center", font=font)


def _groups(indices: Sequence[Index], starts: Numbers, step: float, level: int) -> Iterator[tuple[int, float]]:
    """The last number that neighbours have in common up to this level, and the middle of where they stand."""
    for prefix in dict.fromkeys(index[: level + 1] for index in indices):
        at = [start for index, start in zip(indices, starts, strict=False) if index[: level + 1] == prefix]
        yield prefix[-1], (at[0] + at[-1] + step) / 2


def draw_kernels(found: Mapping[str, Found], *, note: Sequence[str] = (), style: Style = CVPR_FULL) -> Figure | None:
    """Each sample with a query, and under it the kernel of that query in each layer and head of every operator; all saw the same images."""
    if not found:
        return None
    first, kernels = next(iter(found.values())), [one["rows"] for one in found.values()]  # (layers, samples, heads, H, W)
    depth, samples, heads, *grid = kernels[0].shape
    layers = sorted({int(layer) for layer in np.linspace(0, depth - 1, min(depth, _MOST_LAYERS)).round()})
    counts = (range(len(kernels)), layers), (range(samples), range(heads))
    rows, columns = ([(outer, 0, inner) for outer, inner in product(*way)] for way in counts)
    unit, right, bold = style.unit, style.width * 72 - 3, style.font(style.text, weight="bold")
    cell = _fitting(rows, columns, (right - 62 * unit - 1, _TALLEST - 60), grid)
    picture = _fitting([(0,)], [(0,)], (min(60, heads * (cell[0] + _GAPS[0])), 60), grid)
    text = ["box: the query; each kernel in colours up to its largest absolute value"]
    text += [f"seed {', '.join(dict.fromkeys(str(one['seed']) for one in found.values()))}"]
    text += [f"{len(layers)} of {depth} layers"] if len(layers) < depth else []
    with mpl.rc_context(style.settings):
        sheet = _sheet(rows, columns, (62 * unit + 2, picture[1] + 14 + 24 * unit), cell, [*text, *note], style)
        for sample, middle in _groups(columns, sheet.xs, cell[0], 0):
            at = middle - picture[0] / 2, 14.0
            sheet.image(*at, picture, _picture(first["images"][sample]), most=1, colours="gray", gid=f"image:{sample}")
            sheet.mark(*at, picture, first["queries"][sample], grid, f"query:{sample}")
        for (_, _, head), x in zip(columns, sheet.xs, strict=False):
            words = f"head {head + 1}" if cell[0] > 20 * unit else f"{head + 1}"
            sheet.write(x + cell[0] / 2, picture[1] + 14 + 19 * unit, words, "head", ha="center")
        for (place, _, layer), y in zip(rows, sheet.ys, strict=False):
            colours = SIGNED if kernels[place].min() < 0 else POSITIVE
            sheet.write(60 * unit, y + cell[1] / 2, f"layer {layer + 1}", "layer", ha="right")
            if layer == 0:
                sheet.write(2, y - (6 if place else 15 * unit), list(found)[place], "title", font=bold, most=right)
            for (sample, _, head), x in zip(columns, sheet.xs, strict=False):
                values, gid = kernels[place][layer, sample, head], f"kernel:{(place, layer, head, sample)}"
                sheet.image(x, y, cell, values, most=float(np.abs(values).max()) or 1.0, colours=colours, gid=gid)
                sheet.mark(x, y, cell, first["queries"][sample], grid, f"query:{sample}")
        for colours, texts in ((SIGNED, ("−max", "max")), (POSITIVE, ("0", "max"))):
            if any((each.min() < 0) == (colours is SIGNED) for each in kernels):
                right = sheet.scale(right, colours, texts) - 12
    return sheet.figure


def _picture(image: Array) -> Array:
    """An image (channels, height, width) by its own range from 0 to 1: (height, width), with two or three channels in colour."""
    image = (image - image.min()) / (float(np.ptp(image)) or 1.0)
    colours = np.concatenate([image, np.zeros_like(image)])[:3]
    return np.moveaxis(colours, 0, -1) if len(image) in (2, 3) else image.mean(axis=0)
