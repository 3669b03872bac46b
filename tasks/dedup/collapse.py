"""Boxes and links of a drawing, and what of it collapses into one box. Pure.

Runs of boxes with one parent and one child, boxes with the same neighbours, very wide fans, and small parts of one shape are each
drawn as one. None of these steps makes a way lead back to where it began.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

ACTIONS = ("keep", "foreign", "archive", "retire", "retired")
COPIES, ROWS, RENAME, NEAR, COVER = LINKS = ("copies", "rows", "rename", "near", "cover")
TABLE, EQUAL, CHAIN, SIBLINGS, PILE, JOIN = "table", "equal", "chain", "siblings", "pile", "join"
_MIN_CHAIN = _MIN_SIBLINGS = 3
_MAX_FAN = 12
_MIN_PILE = 4
_ROUNDS = 20

Pair = tuple[int, int]  # (child, parent)


@dataclass(frozen=True, order=True)
class Table:
    """A table as the picture knows it. `action` is one of ACTIONS; tables of one `schema` (any word) look alike."""

    name: str
    n_bytes: int
    n_rows: int
    action: str = "keep"
    schema: str = ""


@dataclass(frozen=True)
class Box:
    """One mark of the picture and the tables that it stands for, the one that names it first; a JOIN stands for none."""

    kind: str
    tables: tuple[Table, ...] = ()
    n_groups: int = 1

    @property
    def n_bytes(self) -> int:
        return sum(table.n_bytes for table in self.tables)

    @property
    def label(self) -> str:
        """What is written beside the mark."""
        n = len(self.tables)
        if self.kind == JOIN:
            return ""
        if self.kind == TABLE:
            return self.tables[0].name
        if self.kind == EQUAL:
            return f"{self.tables[0].name} (+{n - 1:,} equal)"
        start = _common_start([table.name for table in self.tables])
        groups = f" in {self.n_groups:,} equal classes" if n > self.n_groups and self.kind == PILE else ""
        return f"… {n:,} tables …" if self.kind == CHAIN else f"{start and start + '… '}{n:,} tables{groups}"

    @property
    def shares(self) -> list[tuple[str, int, int]]:
        """(action, tables, bytes), in the order of ACTIONS."""
        n, n_bytes = Counter[str](), Counter[str]()
        for table in self.tables:
            n[table.action] += 1
            n_bytes[table.action] += table.n_bytes
        return [(action, n[action], n_bytes[action]) for action in ACTIONS if n[action]]


@dataclass(frozen=True)
class Link:
    """`n` drawn as one: `kind` is one of LINKS; the fractions lie from `low` to `high`."""

    kind: str
    low: float = 1.0
    high: float = 1.0
    n: int = 1


@dataclass(frozen=True)
class Drawing:
    """Boxes by number, and links by (child, parent). No way along links leads back to where it began."""

    boxes: dict[int, Box]
    links: dict[Pair, Link]

    @property
    def n_tables(self) -> int:
        return sum(len(box.tables) for box in self.boxes.values())


def _common_start(names: Sequence[str]) -> str:
    """What all names begin with, cut after its last separator."""
    low, high = min(names), max(names)
    n = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[: max((low.rfind(sep, 0, n) for sep in "/-_."), default=-1) + 1]


# --- ways ----------------------------------------------------------------------------------------------------------------------


def parents_of(pairs: Collection[Pair]) -> defaultdict[int, list[int]]:
    above = defaultdict[int, list[int]](list)
    for child, parent in sorted(pairs):
        above[child].append(parent)
    return above


def _neighbours(drawing: Drawing) -> tuple[defaultdict[int, list[int]], defaultdict[int, list[int]]]:
    """Parents and children of each box."""
    return parents_of(drawing.links), parents_of([(parent, child) for child, parent in drawing.links])


def upwards(pairs: Collection[Pair], vertices: Iterable[int] = ()) -> list[int]:
    """The vertices of a DAG, children before parents."""
    above, below = parents_of(pairs), Counter(parent for _, parent in pairs)
    order = sorted(v for v in {*vertices, *(v for pair in pairs for v in pair)} if not below[v])
    for v in order:  # grows while it is read
        for parent in above[v]:
            below[parent] -= 1
            if not below[parent]:
                order.append(parent)
    return order


def connected(drawing: Drawing) -> list[Drawing]:
    """The connected parts."""
    number = {i: n for n, i in enumerate(drawing.boxes)}
    pairs = np.array([(number[c], number[p]) for c, p in drawing.links], np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(len(number), len(number)))
    label = connected_components(graph, directed=False)[1].tolist()
    parts = [Drawing({}, {}) for _ in range(max(label, default=-1) + 1)]
    for i, box in drawing.boxes.items():
        parts[label[number[i]]].boxes[i] = box
    for pair, link in drawing.links.items():
        parts[label[number[pair[0]]]].links[pair] = link
    return parts


# --- what collapses ------------------------------------------------------------------------------------------------------------


def collapsed(drawing: Drawing) -> Drawing:
    """Chains, tables with the same neighbours and wide fans drawn as one box each, until nothing more collapses."""
    for _ in range(_ROUNDS):
        before = len(drawing.boxes)
        for groups, kind in ((_chains, CHAIN), (_alike, SIBLINGS), (_fans, SIBLINGS)):
            drawing = _joined(drawing, groups(drawing), kind)
        if len(drawing.boxes) == before:
            break
    return drawing


def _joined(drawing: Drawing, groups: Iterable[Sequence[int]], kind: str) -> Drawing:
    """Each group of boxes as one."""
    into = {i: i for i in drawing.boxes}
    boxes = dict(drawing.boxes)
    for group in groups:
        first, members = min(group), [drawing.boxes[i] for i in sorted(group)]
        for i in group:
            into[i] = first
            del boxes[i]
        boxes[first] = Box(kind, tuple(t for box in members for t in box.tables), sum(box.n_groups for box in members))
    links = dict[Pair, Link]()
    for (child, parent), link in drawing.links.items():
        pair = (into[child], into[parent])
        if pair[0] != pair[1]:
            links[pair] = _one_link(links[pair], link) if pair in links else link
    return Drawing(boxes, links)


def _one_link(a: Link, b: Link) -> Link:
    kind = max(a.kind, b.kind, key=LINKS.index)  # the weakest, so that nothing looks better than it is
    return Link(kind, min(a.low, b.low), max(a.high, b.high), a.n + b.n)


def _chains(drawing: Drawing) -> list[list[int]]:
    """Runs of boxes between two others that each have one parent and one child."""
    above, below = _neighbours(drawing)
    exact = {pair for pair, link in drawing.links.items() if link.kind in (COPIES, ROWS)}

    def inner(i: int) -> bool:
        up, down = above[i], below[i]
        return len(up) == len(down) == 1 and (i, up[0]) in exact and (down[0], i) in exact

    runs = list[list[int]]()
    for i in (i for i in drawing.boxes if inner(i) and not inner(above[i][0])):
        run = [i]
        while inner(below[run[-1]][0]):
            run.append(below[run[-1]][0])
        runs.append(run)
    return [run for run in runs if len(run) >= _MIN_CHAIN]


def _alike(drawing: Drawing) -> list[list[int]]:
    """Boxes with the same neighbours, schema and actions."""
    return [group for group in _by_neighbours(drawing, _look) if len(group) >= _MIN_SIBLINGS]


def _fans(drawing: Drawing) -> list[list[int]]:
    """Of very many ends of the same neighbours, all but the biggest."""
    above, below = _neighbours(drawing)
    fans = [g for g in _by_neighbours(drawing, lambda _: None) if len(g) > _MAX_FAN and not (above[g[0]] and below[g[0]])]
    return [sorted(fan, key=lambda i: (-drawing.boxes[i].n_bytes, i))[_MAX_FAN - 1 :] for fan in fans]


def _look(box: Box) -> tuple[Hashable, ...]:
    """What boxes have in common that may be drawn as one."""
    return (tuple(sorted({t.schema for t in box.tables})), tuple(sorted({t.action for t in box.tables})))


def _by_neighbours(drawing: Drawing, look: Callable[[Box], Hashable]) -> list[list[int]]:
    above, below = _neighbours(drawing)
    groups = defaultdict[Hashable, list[int]](list)
    for i, box in drawing.boxes.items():
        if box.kind != JOIN and (above[i] or below[i]):
            up = tuple(sorted((p, drawing.links[i, p].kind) for p in above[i]))
            down = tuple(sorted((c, drawing.links[c, i].kind) for c in below[i]))
            groups[up, down, look(box)].append(i)
    return list(groups.values())


def piled(parts: Sequence[Drawing]) -> list[Drawing]:
    """Small parts of one shape (pairs, lone classes of equal tables) whose tables look alike, drawn as one."""
    shapes = defaultdict[Hashable, list[Drawing]](list)
    for part in parts:
        ends = _ends(part)
        kinds = tuple(sorted(link.kind for link in part.links.values()))
        shapes[(kinds, tuple(_look(part.boxes[i]) for i in ends)) if ends else id(part)].append(part)
    piled = list[Drawing]()
    for same in shapes.values():
        piled.extend([_pile(same)] if len(same) >= _MIN_PILE else same)
    return piled


def _ends(part: Drawing) -> tuple[int, ...]:
    """The boxes of a lone class or a pair, the child first; of a larger part, nothing."""
    if len(part.boxes) == 1:
        return tuple(part.boxes)
    return next(iter(part.links)) if len(part.boxes) == 2 else ()


def _pile(parts: Sequence[Drawing]) -> Drawing:
    whole = Drawing(
        {i: b for part in parts for i, b in part.boxes.items()}, {k: v for part in parts for k, v in part.links.items()}
    )
    return _joined(whole, list(zip(*map(_ends, parts), strict=True)), PILE)


# --- what fits -----------------------------------------------------------------------------------------------------------------


def bounded(parts: Sequence[Drawing], max_boxes: int) -> tuple[list[Drawing], int]:
    """The parts that fit, and how many do not; a part takes at most half the room where there are others."""
    drawn, room = list[Drawing](), max_boxes
    for n, part in enumerate(parts):
        small = _folded(part, max_boxes if len(parts) == 1 else max(max_boxes // 2, 1))
        if len(small.boxes) > room:
            return drawn, len(parts) - n
        drawn.extend([part] if small is part else (one for one in connected(small) if one.links))
        room -= len(small.boxes)
    return drawn, 0


def _folded(part: Drawing, max_boxes: int) -> Drawing:
    """A part of at most `max_boxes` boxes: small branches are drawn as one box under the table that they hang from.

    Each box hangs from one of its parents, the one with the most bytes; links to others are left out where an end is folded.
    """
    if len(part.boxes) <= max_boxes:
        return part
    above, _ = _neighbours(part)
    order = list(reversed(upwards(part.links, part.boxes)))
    trunk = {i: min(above[i], key=lambda p: (-part.boxes[p].n_bytes, p)) for i in order if above[i]}
    weight = {i: (box.n_bytes, 1) for i, box in part.boxes.items()}
    for i in reversed(order):
        if i in trunk:
            weight[trunk[i]] = (weight[trunk[i]][0] + weight[i][0], weight[trunk[i]][1] + weight[i][1])
    depth = {i: n for n, i in enumerate(order)}
    kept = set(sorted(order, key=lambda i: (-weight[i][0], -weight[i][1], depth[i]))[: max_boxes // 2])
    return _fold(part, order, trunk, kept)


def _fold(part: Drawing, order: Sequence[int], trunk: Mapping[int, int], kept: set[int]) -> Drawing:
    """The part with everything but the `kept` boxes in one box for each kept one that it hangs from."""
    hangs, below = dict[int, int](), defaultdict[int, list[int]](list)
    for i in order:
        if i not in kept and i in trunk:
            hangs[i] = trunk[i] if trunk[i] in kept else hangs.get(trunk[i], -1)
            if hangs[i] >= 0:
                below[hangs[i]].append(i)
    boxes = {i: box for i, box in part.boxes.items() if i in kept}
    links = {pair: link for pair, link in part.links.items() if kept.issuperset(pair)}
    for parent, some in below.items():
        tables = tuple(t for i in sorted(some) for t in part.boxes[i].tables)
        if tables:
            boxes[min(some)] = Box(SIBLINGS if len(tables) > 1 else TABLE, tables)
            links[min(some), parent] = replace(part.links[some[0], parent], n=len(some))
    return _without_loose_joins(Drawing(boxes, links))


def _without_loose_joins(drawing: Drawing) -> Drawing:
    """The drawing without joins that lost all above or all below them."""
    above, below = _neighbours(drawing)
    loose = {i for i, box in drawing.boxes.items() if box.kind == JOIN and not (above[i] and below[i])}
    boxes = {i: box for i, box in drawing.boxes.items() if i not in loose}
    return Drawing(boxes, {pair: link for pair, link in drawing.links.items() if loose.isdisjoint(pair)})
