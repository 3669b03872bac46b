"""The containment graph made small enough to be seen: what is drawn as one box, and which links are left. Pure.

Equal tables are one box. Of the containments only those stay that no others imply (the transitive reduction). Of what is nearly
contained, or contained under other column names, each table shows its best parent. Then runs of tables with one parent and one
child, and tables with the same neighbours, collapse. The result does not depend on the order of the input.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tasks.dedup.collapse import (
    ACTIONS,
    COPIES,
    COVER,
    EQUAL,
    JOIN,
    NEAR,
    RENAME,
    ROWS,
    TABLE,
    Box,
    Drawing,
    Link,
    Pair,
    Table,
    bounded,
    collapsed,
    connected,
    parents_of,
    piled,
    upwards,
)
from tasks.dedup.edges import Cover, Edge, Rename


@dataclass(frozen=True)
class Graph:
    """What is drawn, connected part by connected part, most bytes first, and what is only counted.

    n_tables = n_boxes (without joins) + n_collapsed + n_isolated + n_apart + n_beyond: tables that a box is named for, further
    tables in boxes, tables linked to none, those listed apart, and those of parts that did not fit.
    """

    parts: tuple[Drawing, ...]
    n_tables: int
    n_isolated: int
    n_apart: int
    n_beyond: int
    n_parts_beyond: int

    @property
    def n_boxes(self) -> int:
        return sum(box.kind != JOIN for part in self.parts for box in part.boxes.values())

    @property
    def n_collapsed(self) -> int:
        return sum(part.n_tables for part in self.parts) - self.n_boxes


def containment_graph(
    tables: Iterable[Table],
    edges: Iterable[Edge],
    covers: Iterable[Cover] = (),
    renames: Iterable[Rename] = (),
    *,
    apart: Collection[str] = (),
    max_boxes: int = 400,
) -> Graph:
    """The graph to draw, of at most about `max_boxes` boxes. Links from tables listed `apart` prove nothing and are left out."""
    tables, apart = sorted(tables), set(apart)
    whole = _linked(tables, [e for e in edges if e.child not in apart], covers, [r for r in renames if r.child not in apart])
    linked = {box for pair in whole.links for box in pair}
    shown = {i: box for i, box in whole.boxes.items() if i in linked or _is_class(box, apart)}
    rest = [table for i, box in whole.boxes.items() if i not in shown for table in box.tables]
    n_apart = sum(table.name in apart for table in rest)
    parts = piled(connected(collapsed(Drawing(shown, whole.links))))
    drawn, beyond = bounded(sorted(parts, key=_by_bytes), max_boxes)
    n_beyond = sum(len(box.tables) for box in whole.boxes.values()) - len(rest) - sum(part.n_tables for part in drawn)
    return Graph(tuple(drawn), len(tables), len(rest) - n_apart, n_apart, n_beyond, beyond)


def reduced(pairs: Collection[Pair]) -> set[Pair]:
    """The pairs of a DAG that no way through others implies: its transitive reduction."""
    above, order = parents_of(pairs), upwards(pairs)
    number = {v: i for i, v in enumerate(reversed(order))}  # parents before children: a table's number exceeds its ancestors'
    reach, kept = dict[int, int](), set[Pair]()
    for v in number:
        seen = 0
        for parent in sorted(above[v], key=lambda p: -number[p]):
            if not seen >> number[parent] & 1:
                kept.add((v, parent))
                seen |= reach[parent] | 1 << number[parent]
        reach[v] = seen
    return kept


# --- from tables to boxes and links --------------------------------------------------------------------------------------------


def _linked(tables: Sequence[Table], edges: Sequence[Edge], covers: Iterable[Cover], renames: Iterable[Rename]) -> Drawing:
    """One box for each class of equal tables, and all links that are worth drawing."""
    boxes = _classes(tables, edges)
    of = {table.name: i for i, box in boxes.items() for table in box.tables}
    inside = [e for e in edges if e.child in of and e.parent in of and of[e.child] != of[e.parent]]
    rows = _acyclic({(of[e.child], of[e.parent]) for e in inside if e.set}, boxes)
    copies = {(of[e.child], of[e.parent]) for e in inside if e.multiset} & rows
    links = dict.fromkeys(sorted(reduced(rows)), Link(ROWS)) | dict.fromkeys(sorted(reduced(copies)), Link(COPIES))
    sound = _joins(covers, of, rows)
    ways = rows | {pair for _, some in sound for pair in some}
    place = _places(boxes, ways)
    renamed = [(of[r.child], of[r.parent], 1.0) for r in renames if r.child in of and r.parent in of]
    near = [(of[e.child], of[e.parent], e.fraction) for e in inside if not e.set]
    links |= _best(near, NEAR, boxes, place, rows) | _best(renamed, RENAME, boxes, place, rows)
    return _with_covers(Drawing(boxes, links), sound)


def _classes(tables: Sequence[Table], edges: Iterable[Edge]) -> dict[int, Box]:
    """Equal tables, each contained in the other with all copies, as one box; the one that stays longest gives the name."""
    number = {table.name: i for i, table in enumerate(tables)}
    pairs = {(number[e.child], number[e.parent]) for e in edges if e.multiset and e.child in number and e.parent in number}
    groups = defaultdict[int, list[Table]](list)
    for table, label in zip(tables, _strong(len(tables), pairs), strict=True):
        groups[label].append(table)
    members = [sorted(group, key=lambda t: (ACTIONS.index(t.action), t.name)) for group in groups.values()]
    members.sort(key=lambda group: group[0].name)
    return {i: Box(EQUAL if len(group) > 1 else TABLE, tuple(group)) for i, group in enumerate(members)}


def _acyclic(pairs: set[Pair], boxes: Mapping[int, Box]) -> set[Pair]:
    """Without ways back: of tables with the same distinct rows, the one with fewer copies is the child."""
    label = _strong(len(boxes), pairs)
    return {(c, p) for c, p in pairs if label[c] != label[p] or _size(boxes[c]) < _size(boxes[p])}


def _strong(n: int, pairs: Collection[Pair]) -> list[int]:
    """Strongly connected components, as a label for each of `n` vertices."""
    child, parent = np.array(sorted(pairs), np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs), np.int8), (child, parent)), shape=(n, n))
    return connected_components(graph, directed=True, connection="strong")[1].tolist()


def _size(box: Box) -> tuple[int, str]:
    return (box.tables[0].n_rows, box.tables[0].name)


def _places(boxes: Mapping[int, Box], pairs: Collection[Pair]) -> dict[int, int]:
    """Each box's place in one line in which children stand before parents and, where that leaves a choice, few rows before
    many. Every link leads up this line, so no ways lead back.
    """
    below = Counter(parent for _, parent in pairs)
    above = parents_of(pairs)
    ready = [(_size(box), i) for i, box in boxes.items() if not below[i]]
    heapq.heapify(ready)
    place = dict[int, int]()
    while ready:
        _, i = heapq.heappop(ready)
        place[i] = len(place)
        for parent in above[i]:
            below[parent] -= 1
            if not below[parent]:
                heapq.heappush(ready, (_size(boxes[parent]), parent))
    return place


def _best(
    found: Iterable[tuple[int, int, float]], kind: str, boxes: Mapping[int, Box], place: Mapping[int, int], pairs: set[Pair]
) -> dict[Pair, Link]:
    """For each child the parent with the greatest fraction, then the fewest rows, among those that no containment relates to;
    nothing where a table that contains the child shows the same parent.
    """
    best = dict[int, tuple[float, tuple[int, str], int]]()
    for child, parent, fraction in found:
        if place[child] < place[parent] and (child, parent) not in pairs:
            one = (-fraction, _size(boxes[parent]), parent)
            best[child] = min(best.get(child, one), one)
    chosen = {child: (parent, -minus) for child, (minus, _, parent) in sorted(best.items())}
    above = parents_of(pairs)
    told = {child for child, (parent, _) in chosen.items() if any(chosen.get(q, (-1, 0.0))[0] == parent for q in above[child])}
    return {(child, parent): Link(kind, f, f) for child, (parent, f) in chosen.items() if child not in told}


def _joins(covers: Iterable[Cover], of: Mapping[str, int], rows: set[Pair]) -> list[tuple[int, list[Pair]]]:
    """For each covered box its best cover, as pairs that lead to no way back.

    Parents that are themselves parts of the child (the months of a year) stand below it, others above. A cover that fits neither
    way is not drawn.
    """
    above, found = parents_of(rows), dict[int, list[Pair]]()
    for cover in sorted(covers, key=lambda c: (c.child, len(c.parents), c.parents)):
        if not all(name in of for name in (cover.child, *cover.parents)) or of[cover.child] in found:
            continue
        child, parents = of[cover.child], sorted({of[name] for name in cover.parents} - {of[cover.child]})
        down = any((parent, child) in rows for parent in parents)
        pairs = [(parent, child) if down else (child, parent) for parent in parents]
        if pairs and not any(_leads(above, to, back) for back, to in pairs):
            found[child] = pairs
            for lower, upper in pairs:
                above[lower].append(upper)
    return sorted(found.items())


def _leads(above: Mapping[int, Sequence[int]], start: int, end: int) -> bool:
    """Whether a way up leads from one box to another."""
    met, waiting = {start}, [start]
    while waiting:
        v = waiting.pop()
        new = [p for p in above.get(v, ()) if p not in met]
        met.update(new)
        waiting.extend(new)
    return end in met


def _with_covers(drawing: Drawing, joins: Iterable[tuple[int, Sequence[Pair]]]) -> Drawing:
    """Each cover as a join between the child and its parents, in place of links straight between them."""
    boxes, links = dict(drawing.boxes), dict(drawing.links)
    for child, pairs in joins:
        join, up = len(boxes), pairs[0][0] == child
        boxes[join] = Box(JOIN)
        links[(child, join) if up else (join, child)] = Link(COVER)
        for lower, upper in pairs:
            links.pop((lower, upper), None)
            links[(join, upper) if up else (lower, join)] = Link(COVER)
    return Drawing(boxes, links)


def _by_bytes(part: Drawing) -> tuple[int, str]:
    return (-sum(box.n_bytes for box in part.boxes.values()), min(t.name for box in part.boxes.values() for t in box.tables))


def _is_class(box: Box, apart: Collection[str]) -> bool:
    return box.kind == EQUAL and not any(table.name in apart for table in box.tables)
