"""The steps of a containment scan from what the log says to the pairs that need a look at the rows, and what follows from
each. Pure.

Pairs of tables pass through schema, fingerprints, bounds and witnesses; every pair is settled by exactly one step, and
`settled` counts them. The steps are R2D2's (SIGMOD 2024, arXiv 2312.13427), exact from the start.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from infra.contracts import Snapshot
from infra.files import Part
from infra.foreign import ForeignPart
from infra.ids import I64
from tasks.dedup.bounds import Boxes, Ranks, compare_extents, extents, has_witnesses
from tasks.dedup.edges import BOUNDS, EXACT, FINGERPRINT, TRANSITIVE, WITNESS, Edge
from tasks.dedup.exact import Verdict
from tasks.dedup.fingerprints import equal_groups, equal_tables
from tasks.dedup.schema_graph import SchemaClass, class_pairs, n_table_pairs, schema_classes
from tasks.dedup.transitive import Known

AnyPart = Part | ForeignPart


@dataclass(frozen=True)
class Facts:
    """What the log says of one table.

    `names` and `kinds` go by lower-case column name; both are empty where no column can be compared.
    """

    name: str
    snapshot: Snapshot
    parts: tuple[AnyPart, ...]
    names: Mapping[str, str]
    kinds: Mapping[str, str]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(sorted(self.kinds))

    @property
    def n_bytes(self) -> int:
        return sum(part.file.n_bytes for part in self.parts)


@dataclass(frozen=True)
class Candidates:
    """Pairs that the log could not settle. Tables are positions in the scan; of equal tables only the representative takes
    part.

    `groups` maps representatives to the tables equal to them; `children` maps a parent to (child, may be contained as a
    multiset).
    """

    n_pairs: int
    settled: dict[str, int]
    groups: dict[int, list[int]]
    children: dict[int, list[tuple[int, bool]]]

    def tables(self) -> set[int]:
        """The tables whose rows are to be read."""
        return set(self.children) | {child for some in self.children.values() for child, _ in some}


def candidates(facts: Sequence[Facts]) -> Candidates:
    """Schema graph, fingerprints, bounds and witnesses: everything that needs no data."""
    classes = schema_classes([table.kinds if table.snapshot.n_rows else {} for table in facts])
    pairs = list(class_pairs(classes))
    n_pairs = sum(n_table_pairs(classes[child], classes[parent]) for child, parent in pairs)
    groups = _equal(facts, classes)
    distinct = [SchemaClass(c.columns, c.kinds, tuple(t for t in c.members if t in groups)) for c in classes]
    n_distinct = sum(n_table_pairs(distinct[child], distinct[parent]) for child, parent in pairs)
    boxes = _boxes(facts, distinct)
    inside = list(_within_bounds(distinct, pairs, boxes))
    children = defaultdict[int, list[tuple[int, bool]]](list)
    n_left = 0
    for child, parent, multiset, columns in inside:
        if len(boxes[parent].low) < 2 or has_witnesses(boxes[child], boxes[parent], columns):
            children[parent].append((child, multiset))
            n_left += 1
    settled = {FINGERPRINT: n_pairs - n_distinct, BOUNDS: n_distinct - len(inside), WITNESS: len(inside) - n_left}
    return Candidates(n_pairs, settled, groups, dict(children))


def _equal(facts: Sequence[Facts], classes: Sequence[SchemaClass]) -> dict[int, list[int]]:
    class_of = {table: number for number, one in enumerate(classes) for table in one.members}
    numbers = [class_of.get(table, -1 - table) for table in range(len(facts))]
    return equal_groups(equal_tables(numbers, [table.snapshot.digest for table in facts]))


def _boxes(facts: Sequence[Facts], classes: Sequence[SchemaClass]) -> dict[int, Boxes]:
    tables = [table for one in classes for table in one.members]
    ranks = Ranks()
    for table in tables:
        ranks.add([part.file for part in facts[table].parts], facts[table].names, facts[table].kinds)
    return dict(zip(tables, ranks.boxes(), strict=True))


def _within_bounds(
    classes: Sequence[SchemaClass], pairs: Sequence[tuple[int, int]], boxes: Mapping[int, Boxes]
) -> Iterator[tuple[int, int, bool, I64]]:
    """(child, parent, may be a multiset, positions of the child's columns) of the pairs that the tables' extents allow."""
    wide = [extents([boxes[table] for table in one.members]) for one in classes]
    for c, p in pairs:
        child, parent = classes[c], classes[p]
        position = {name: j for j, name in enumerate(parent.columns)}
        columns = np.array([position[name] for name in child.columns], np.int64)
        for start, as_set, as_multiset in compare_extents(wide[c], wide[p], columns):
            for i, j in np.argwhere(as_set):
                if child.members[start + i] != parent.members[j]:
                    yield child.members[start + i], parent.members[j], bool(as_multiset[i, j]), columns


# --- settling ------------------------------------------------------------------------------------------------------------------


@dataclass
class Ledger:
    """The verdicts as they come in: what they imply, the true pairs as (child, parent, multiset, step), and how many each
    step settled.
    """

    edges: list[tuple[int, int, bool, str]] = field(default_factory=list)
    settled: dict[str, int] = field(default_factory=lambda: {TRANSITIVE: 0, EXACT: 0})
    _sets: Known = field(default_factory=Known)
    _multisets: Known = field(default_factory=Known)

    def inferred(self, child: int, parent: int, *, multiset: bool) -> Verdict | None:
        """What follows from earlier verdicts, if that answers both questions; `multiset` says whether the second is still
        open.
        """
        as_set = self._sets.infer(child, parent)
        as_multiset = self._multisets.infer(child, parent) if multiset else False
        if as_set is False:
            return Verdict(False, False)
        if as_multiset:
            return Verdict(True, True)
        return Verdict(True, False) if as_set and as_multiset is False else None

    def record(self, child: int, parent: int, verdict: Verdict, step: str) -> None:
        self.settled[step] += 1
        self._sets.record(child, parent, holds=verdict.set)
        self._multisets.record(child, parent, holds=verdict.multiset)
        if verdict.set:
            self.edges.append((child, parent, verdict.multiset, step))


def edges_of(facts: Sequence[Facts], groups: Mapping[int, Sequence[int]], ledger: Ledger) -> list[Edge]:
    """The true containments of all tables, sorted by child and parent: those of the representatives hold for their equals."""
    found = list[Edge]()
    for equals in groups.values():
        found += [_edge(facts[a], facts[b], True, FINGERPRINT) for a in equals for b in equals if a != b]
    for child, parent, multiset, step in ledger.edges:
        for a in groups[child]:
            for b in groups[parent]:
                found.append(_edge(facts[a], facts[b], multiset, step if (a, b) == (child, parent) else FINGERPRINT))
    return sorted(found, key=lambda edge: (edge.child, edge.parent))


def _edge(child: Facts, parent: Facts, multiset: bool, step: str) -> Edge:
    return Edge(child.name, parent.name, 1.0, True, multiset, True, step, child.snapshot.version, parent.snapshot.version)
