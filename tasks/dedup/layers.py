"""Layered drawing of a DAG: parents above children, few crossings, straight lines where there is room. Pure.

The steps are those of Sugiyama, Tagawa and Toda (IEEE Trans. SMC 11(2), 1981): layers by the longest path, vertices for what
passes through a layer, orders by barycentres; then positions by isotonic regression. Lengths are in pixels, y grows downwards.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import isotonic_regression

Pair = tuple[int, int]  # (child, parent)
Point = tuple[float, float]
_SWEEPS = 12
_GAP_X, _GAP_Y = 22.0, 40.0
_PASSING = 1.0  # half the width of what passes through a layer
_STIFF = 4.0  # how much more a passing line stays straight than a box stays centred


@dataclass(frozen=True)
class Size:
    """What a vertex takes up to the left and to the right of its anchor, and its height."""

    left: float
    right: float
    height: float

    @property
    def width(self) -> float:
        return self.left + self.right


@dataclass(frozen=True)
class Laid:
    """Anchors by vertex, and for each link the points from the parent's anchor to the child's."""

    width: float
    height: float
    layers: tuple[int, ...]
    anchors: tuple[Point, ...]
    routes: dict[Pair, tuple[Point, ...]]


def laid_out(sizes: Sequence[Size], links: Collection[Pair], *, max_width: float) -> Laid:
    """Places for the vertices of a DAG; layers wider than `max_width` are broken where their children allow it."""
    layers = layered([size.width for size in sizes], links, max_width=max_width)
    threads, every, steps = _threads(sizes, layers, links)
    rows = _ordered(_rows(every, steps), steps)
    x = _columns(rows, [size for size, _ in every], steps, max_width)
    tops, heights = _tops(rows, [size for size, _ in every])
    anchors = tuple((x[v], tops[layers[v]] + heights[layers[v]] / 2) for v in range(len(sizes)))
    routes = dict[Pair, tuple[Point, ...]]()
    for pair, thread in threads.items():
        bends = [(x[v], tops[every[v][1]] + down) for v in thread for down in (0.0, heights[every[v][1]])]
        routes[pair] = (anchors[pair[1]], *bends, anchors[pair[0]])
    width = max((x[v] + size.right for v, (size, _) in enumerate(every)), default=0.0)
    return Laid(width, tops[-1] + heights[-1] if heights else 0.0, tuple(layers), anchors, routes)


def layered(widths: Sequence[float], links: Collection[Pair], *, max_width: float) -> list[int]:
    """Each vertex's layer, 0 at the top and greater than its parents'; no layer is wider than `max_width` by more than one."""
    above, below = _both(links)
    order = _downwards(len(widths), above, below)
    height = [0] * len(widths)
    for v in reversed(order):
        height[v] = 1 + max((height[c] for c in below[v]), default=-1)
    deepest = _longest(order, above)
    wanted = [min((deepest[c] for c in below[v]), default=1) - 1 if not above[v] else deepest[v] for v in range(len(widths))]
    layer, filled = [0] * len(widths), defaultdict[int, float](float)
    # Those with the most layers below them choose first: what overflows is the ends.
    for v in sorted(order, key=lambda v: (deepest[v], -height[v], v)):
        at = max(wanted[v], 1 + max((layer[p] for p in above[v]), default=-1))
        while filled[at] and filled[at] + widths[v] > max_width:
            at += 1
        layer[v] = at
        filled[at] += widths[v] + _GAP_X
    used = {at: i for i, at in enumerate(sorted(set(layer)))}
    return [used[at] for at in layer]


def _longest(order: Sequence[int], above: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """Links on the longest way down to each vertex."""
    deepest = dict[int, int]()
    for v in order:
        deepest[v] = 1 + max((deepest[p] for p in above[v]), default=-1)
    return deepest


def _downwards(n: int, above: Mapping[int, Sequence[int]], below: Mapping[int, Sequence[int]]) -> list[int]:
    """The vertices, parents before children."""
    waiting = [len(above[v]) for v in range(n)]
    order = [v for v in range(n) if not waiting[v]]
    for v in order:  # grows while it is read
        for child in below[v]:
            waiting[child] -= 1
            if not waiting[child]:
                order.append(child)
    return order


def _both(links: Collection[Pair]) -> tuple[defaultdict[int, list[int]], defaultdict[int, list[int]]]:
    """Parents and children of each vertex."""
    above, below = defaultdict[int, list[int]](list), defaultdict[int, list[int]](list)
    for child, parent in sorted(links):
        above[child].append(parent)
        below[parent].append(child)
    return above, below


def _threads(
    sizes: Sequence[Size], layers: Sequence[int], links: Collection[Pair]
) -> tuple[dict[Pair, list[int]], list[tuple[Size, int]], list[Pair]]:
    """A vertex in every layer that a link passes through: by link from the top down, all vertices with their layers, and the
    links as steps from one layer to the next.
    """
    every = list(zip(sizes, layers, strict=True))
    threads, steps = dict[Pair, list[int]](), list[Pair]()
    for child, parent in sorted(links):
        passed = range(layers[parent] + 1, layers[child])
        threads[child, parent] = list(range(len(every), len(every) + len(passed)))
        every.extend((Size(_PASSING, _PASSING, 0.0), layer) for layer in passed)
        way = [parent, *threads[child, parent], child]
        steps.extend((lower, upper) for upper, lower in pairwise(way))
    return threads, every, steps


# --- orders --------------------------------------------------------------------------------------------------------------------


def _rows(every: Sequence[tuple[Size, int]], steps: Collection[Pair]) -> list[list[int]]:
    """The vertices of each layer in the order in which a walk down from the roots meets them."""
    rows: list[list[int]] = [[] for _ in range(max((layer for _, layer in every), default=-1) + 1)]
    above, below = _both(steps)
    met, waiting = set[int](), [v for v in reversed(range(len(every))) if not above[v]]
    while waiting:
        v = waiting.pop()
        if v not in met:
            met.add(v)
            rows[every[v][1]].append(v)
            waiting.extend(reversed(below[v]))
    return rows


def _ordered(rows: list[list[int]], steps: Collection[Pair]) -> list[list[int]]:
    """The order with the fewest crossings among those that barycentre sweeps come by."""
    above, below = _both(steps)
    best, fewest = rows, _n_crossings(rows, above)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        rows = _swept(rows, above) if sweep % 2 == 0 else _swept(rows[::-1], below)[::-1]
        n = _n_crossings(rows, above)
        best, fewest = (rows, n) if n < fewest else (best, fewest)
    return best


def _swept(rows: Sequence[Sequence[int]], fixed: Mapping[int, Sequence[int]]) -> list[list[int]]:
    """Each layer after the first sorted by where its vertices' neighbours in the layer before lie."""
    place, swept = dict[int, float](), list[list[int]]()
    for row in rows:
        centre = {
            v: sum(place[u] for u in fixed[v]) / len(fixed[v]) if fixed[v] else (i + 0.5) / len(row) for i, v in enumerate(row)
        }
        ordered = sorted(row, key=centre.__getitem__)
        place.update({v: (i + 0.5) / len(row) for i, v in enumerate(ordered)})
        swept.append(ordered)
    return swept


def _n_crossings(rows: Sequence[Sequence[int]], above: Mapping[int, Sequence[int]]) -> int:
    n = 0
    for upper, lower in pairwise(rows):
        place = {v: i for i, v in enumerate(upper)}
        seen = list[int]()
        for v in lower:
            ends = sorted(place[u] for u in above[v])
            n += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return n


# --- places --------------------------------------------------------------------------------------------------------------------


def _columns(rows: Sequence[Sequence[int]], sizes: Sequence[Size], steps: Collection[Pair], max_width: float) -> list[float]:
    """Each vertex's x: near the mean of its neighbours', in the order given, nothing on top of anything else, and no wider than
    `max_width` where the fullest layer is not.
    """
    above, below = _both(steps)
    x = [0.0] * len(sizes)
    for row in rows:
        for v, left in zip(row, _packed(row, sizes), strict=True):
            x[v] = left
    room = max((x[row[-1]] + sizes[row[-1]].right for row in rows), default=0.0)
    room = max(room, max_width)
    for sweep in range(_SWEEPS):
        near = (above, below)[sweep % 2]
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            _straighten(row, sizes, x, near, room)
    least = min((x[v] - size.left for v, size in enumerate(sizes)), default=0.0)
    return [one - least for one in x]


def _packed(row: Sequence[int], sizes: Sequence[Size]) -> list[float]:
    """The least anchors of a layer's vertices, side by side."""
    at, end = list[float](), 0.0
    for v in row:
        at.append(end + sizes[v].left)
        end += sizes[v].width + _GAP_X
    return at


def _straighten(
    row: Sequence[int], sizes: Sequence[Size], x: list[float], near: Mapping[int, Sequence[int]], room: float
) -> None:
    """Move a layer's vertices to the means of their neighbours, as near as the others allow: least squares under x[i + 1] - x[i]
    >= d[i], which is an isotonic regression once the least distances are taken off, and 0 <= x <= `room`.
    """
    least = np.array(_packed(row, sizes))
    wish = np.array([sum(x[u] for u in near[v]) / len(near[v]) if near[v] else x[v] for v in row])
    weight = np.array([(_STIFF if not sizes[v].height else 1.0) if near[v] else 0.1 for v in row])
    free = room - float(least[-1]) - sizes[row[-1]].right
    for v, place in zip(row, isotonic_regression(wish - least, weights=weight).x.clip(0.0, free) + least, strict=True):
        x[v] = float(place)


def _tops(rows: Sequence[Sequence[int]], sizes: Sequence[Size]) -> tuple[list[float], list[float]]:
    """Where each layer begins, and its height."""
    heights = [max(sizes[v].height for v in row) for row in rows]
    return [sum(heights[:i]) + i * _GAP_Y for i in range(len(heights))], heights
