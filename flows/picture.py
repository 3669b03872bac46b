"""The containment graph in pixels: where each mark, line and word of the picture stands, for the template that writes it down.

The area of a mark goes by its bytes, but for the least ones, which would not be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from rich.filesize import decimal

from tasks.dedup.collapse import COVER, JOIN, NEAR, Box, Drawing, Link
from tasks.dedup.graph import Graph
from tasks.dedup.layers import Laid, Point, Size, laid_out

WIDTH = 1240.0
_BIGGEST, _LEAST, _JOIN = 58.0, 9.0, 5.0
_LABEL, _LETTER, _SMALL_LETTER = 34, 6.4, 5.6  # characters of a label, pixels of a character
_PAD, _GAP, _GRID = 12.0, 30.0, 10
_NAMED = 12
_LEGEND = 600.0  # the least width of the legend's words
WORDS = {
    "copies": "every row, with its copies",
    "rows": "every row, not all copies",
    "rename": "every row, other column names",
    "near": "most rows",
    "cover": "every row, in several together",
}


@dataclass(frozen=True)
class Stripe:
    """A part of a mark: the bytes of one action."""

    action: str
    x: float
    width: float


@dataclass(frozen=True)
class Mark:
    """A box of the picture: `x`, `y` are its upper left corner."""

    x: float
    y: float
    side: float
    kind: str
    stripes: tuple[Stripe, ...]
    label: str
    detail: str
    title: str

    @property
    def is_gone(self) -> bool:
        """Whether nothing of it is stored."""
        return {stripe.action for stripe in self.stripes} == {"retired"}


@dataclass(frozen=True)
class Line:
    """A link: `path` as SVG writes it, from the parent down to the child; `note` stands at its lower end."""

    path: str
    kind: str
    note: str
    end: Point
    title: str


@dataclass(frozen=True)
class Scale:
    """A mark of the legend, and how many bytes it stands for."""

    x: float
    side: float
    words: str


@dataclass(frozen=True)
class Key:
    """A line of the legend."""

    x: float
    kind: str
    words: str


@dataclass(frozen=True)
class Picture:
    """Everything that is drawn. `keys` explain the kinds of line there are, `scales` the sizes of marks."""

    width: float
    height: float
    marks: tuple[Mark, ...]
    lines: tuple[Line, ...]
    keys: tuple[Key, ...]
    scales: tuple[Scale, ...]


def picture(graph: Graph) -> Picture:
    """The graph's parts side by side, most bytes first."""
    biggest = max((box.n_bytes for part in graph.parts for box in part.boxes.values()), default=0)
    drawn = [_laid_out(part, biggest) for part in graph.parts]
    places, width, height = _packed([(layout.width, layout.height) for _, layout in drawn])
    marks, lines = list[Mark](), list[Line]()
    for part, (ids, layout), place in zip(graph.parts, drawn, places, strict=True):
        marks.extend(_mark(part.boxes[i], _moved(at, place), biggest) for i, at in zip(ids, layout.anchors, strict=True))
        lines.extend(_lines(part, ids, layout, place, biggest))
    keys, end = _keys({line.kind for line in lines})
    scales, end = _scales(biggest, end)
    return Picture(max(width, end + 2 * _PAD), height, tuple(marks), tuple(lines), keys, scales)


def _keys(kinds: set[str]) -> tuple[tuple[Key, ...], float]:
    """The lines of the legend, side by side, and where it ends."""
    keys, x = list[Key](), 0.0
    for kind in (kind for kind in WORDS if kind in kinds):
        keys.append(Key(x, kind, WORDS[kind]))
        x += 33 + 6.0 * len(WORDS[kind]) + 18
    return tuple(keys), max(x, _LEGEND)


def _scales(biggest: int, start: float) -> tuple[tuple[Scale, ...], float]:
    """Marks of round sizes after the rest of the legend, and where they end."""
    scales, x = list[Scale](), start
    for n_bytes in sorted({_round(biggest // part) for part in (1, 4, 16)} - {0}):
        scales.append(Scale(x, _side(n_bytes, biggest), decimal(n_bytes)))
        x += _side(n_bytes, biggest) + _SMALL_LETTER * len(decimal(n_bytes)) + 24
    return tuple(scales), x


def _round(n: int) -> int:
    """The greatest number of one digit that is no more."""
    power = 10 ** (len(str(n)) - 1)
    return n // power * power


def shortened(name: str, length: int = _LABEL) -> str:
    """A name of bounded length: names that begin alike end differently, so both ends stay."""
    return name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[len(name) - length + length // 2 :]}"


def _laid_out(part: Drawing, biggest: int) -> tuple[list[int], Laid]:
    """The numbers of a part's boxes, and where they stand."""
    ids = sorted(part.boxes)
    number = {i: n for n, i in enumerate(ids)}
    links = [(number[child], number[parent]) for child, parent in part.links]
    return ids, laid_out([_room(part.boxes[i], biggest) for i in ids], links, max_width=WIDTH)


def _side(n_bytes: int, biggest: int) -> float:
    return max(_BIGGEST * (n_bytes / biggest) ** 0.5 if biggest else 0.0, _LEAST)


def _side_of(box: Box, biggest: int) -> float:
    return _JOIN if box.kind == JOIN else _side(box.n_bytes, biggest)


def _room(box: Box, biggest: int) -> Size:
    """The mark is the anchor; its words stand at its right."""
    side = _side_of(box, biggest)
    words = max(_LETTER * len(shortened(box.label)), _SMALL_LETTER * len(_detail(box)))
    return Size(side / 2, side / 2, side) if box.kind == JOIN else Size(side / 2, side / 2 + 6 + words, max(side, 28.0))


def _detail(box: Box) -> str:
    if box.kind == JOIN:
        return ""
    rows = f"{box.tables[0].n_rows:,} rows" if len({t.n_rows for t in box.tables}) == 1 else ""
    return " · ".join(filter(None, (decimal(box.n_bytes), rows)))


def _mark(box: Box, at: Point, biggest: int) -> Mark:
    side = _side_of(box, biggest)
    x, y = at[0] - side / 2, at[1] - side / 2
    stripes, left, total = list[Stripe](), x, max(box.n_bytes, 1)
    for action, n, n_bytes in box.shares:
        width = side * (n_bytes / total if box.n_bytes else n / len(box.tables))
        stripes.append(Stripe(action, left, width))
        left += width
    return Mark(x, y, side, box.kind, tuple(stripes), shortened(box.label), _detail(box), _title(box))


def _title(box: Box) -> str:
    """What a pointer on the mark is told."""
    if box.kind == JOIN:
        return WORDS[COVER]
    more = [f"and {len(box.tables) - _NAMED:,} more"] if len(box.tables) > _NAMED else []
    shares = ", ".join(f"{action} {n:,} ({decimal(n_bytes)})" for action, n, n_bytes in box.shares)
    names = [f"{t.name}: {t.action}, {decimal(t.n_bytes)}, {t.n_rows:,} rows" for t in box.tables[:_NAMED]]
    return "\n".join([f"{len(box.tables):,} tables: {shares}", *names, *more] if len(box.tables) > 1 else names)


def _lines(part: Drawing, ids: Sequence[int], layout: Laid, place: Point, biggest: int) -> list[Line]:
    lines = list[Line]()
    for (child, parent), points in layout.routes.items():
        lower, upper = part.boxes[ids[child]], part.boxes[ids[parent]]
        link = part.links[ids[child], ids[parent]]
        way = [_moved(point, place) for point in points]
        way[0] = (way[0][0], way[0][1] + _side_of(upper, biggest) / 2)
        way[-1] = (way[-1][0], way[-1][1] - _side_of(lower, biggest) / 2)
        names = " in ".join(shortened(box.label, 60) or "…" for box in (lower, upper))
        lines.append(Line(_path(way), link.kind, _note(link), way[-1], f"{names}: {WORDS[link.kind]}{_note(link, ' ')}"))
    return lines


def _note(link: Link, before: str = "") -> str:
    if link.kind != NEAR:
        return ""
    low, high = (f"{int(1000 * fraction) / 10:g} %" for fraction in (link.low, link.high))  # never rounded up to the whole
    return before + (low if low == high else f"{low} to {high}")


def _path(way: Sequence[Point]) -> str:
    """A smooth way down through points: straight within a layer, bent between two."""
    said = [f"M{way[0][0]:.1f} {way[0][1]:.1f}"]
    for (x0, y0), (x1, y1) in pairwise(way):
        middle = (y0 + y1) / 2
        said.append(f"V{y1:.1f}" if abs(x0 - x1) < 0.05 else f"C{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}")
    return "".join(said)


def _moved(point: Point, by: Point) -> Point:
    return (point[0] + by[0], point[1] + by[1])


# --- packing -------------------------------------------------------------------------------------------------------------------


def _packed(sizes: Sequence[Point]) -> tuple[list[Point], float, float]:
    """Where parts of given (width, height) stand, each in turn as high as it fits; and the whole's width and height.

    `filled` says for every column of _GRID pixels how far down it is taken.
    """
    n_columns = ceil(max([WIDTH, *(width + _GAP for width, _ in sizes)]) / _GRID)
    filled, places = np.zeros(n_columns), list[Point]()
    for width, height in sizes:
        n = ceil((width + _GAP) / _GRID)
        tops = sliding_window_view(filled, n).max(axis=1)
        at = int(tops.argmin())
        places.append((at * _GRID + _PAD, float(tops[at]) + _PAD))
        filled[at : at + n] = tops[at] + height + _GAP
    right = max((x + width for (x, _), (width, _) in zip(places, sizes, strict=True)), default=0.0)
    return places, right + _PAD, float(filled.max()) + _PAD
