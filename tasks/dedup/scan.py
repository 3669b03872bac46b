"""The steps of a containment scan from what the log says to the pairs that need a look at the rows, and what follows from
each. Pure.

Pairs of tables pass through schema, fingerprints, bounds and witnesses; every pair is settled by exactly one step, and
`settled` counts them. The steps are R2D2's (SIGMOD 2024, arXiv 2312.13427), exact from the start.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from infra.contracts import Snapshot
from infra.files import Part
from infra.foreign import ForeignPart
from infra.ids import I64
from tasks.dedup.bounds import Bools, Boxes, Extents, Ranks, compare_extents, extents, has_witnesses, may_overlap
from tasks.dedup.edges import BOUNDS, FINGERPRINT, WITNESS, Edge
from tasks.dedup.exact import Counted
from tasks.dedup.fingerprints import equal_groups, equal_tables
from tasks.dedup.schema_graph import SchemaClass, class_pairs, n_table_pairs, schema_classes
from tasks.dedup.transitive import Known

AnyPart = Part | ForeignPart
Pair = tuple[int, int]


def file_of(part: AnyPart) -> str:
    """What tells a data file from every other of its table: equal names, equal rows."""
    return part.key if isinstance(part, ForeignPart) else part.file.path


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

    `groups` maps representatives to the tables equal to them; `pairs` are (child, parent) that may be containments, and
    `overlaps` those that are none and may yet share rows. Pairs of two `stable` tables are not among them: `n_carried` of them
    keep what was found of them before, and `asked` are those that may share rows and must be looked at for covers.
    """

    n_pairs: int
    settled: dict[str, int]
    groups: dict[int, list[int]]
    pairs: tuple[Pair, ...]
    overlaps: tuple[Pair, ...]
    stable: frozenset[int] = frozenset()
    n_carried: int = 0
    asked: tuple[Pair, ...] = ()


Block = tuple[SchemaClass, SchemaClass]


@dataclass(frozen=True)
class Board:
    """The tables of a scan by schema: how many pairs fit, which tables are equal, and classes of those that are not, by which of
    them fit into which.
    """

    facts: Sequence[Facts]
    n_pairs: int
    groups: dict[int, list[int]]
    classes: tuple[SchemaClass, ...]
    fitting: tuple[Pair, ...]

    def candidates(self, *, overlaps: bool, stable: frozenset[int] = frozenset()) -> Candidates:
        """Fingerprints, bounds and witnesses: everything that needs no data. `overlaps`: look for those as well. Pairs of two
        `stable` tables are left to what is known of them.
        """
        blocks = self._blocks(stable)
        n_distinct = sum(n_table_pairs(self.classes[c], self.classes[p]) for c, p in self.fitting)
        n_looked = sum(len(c.members) * len(p.members) - len({*c.members}.intersection(p.members)) for c, p in blocks)
        boxes = _boxes(self.facts, blocks)
        inside = list(_within_bounds(blocks, boxes))
        pairs = [
            (child, parent)
            for child, parent, columns in inside
            if len(boxes[parent].low) < 2 or has_witnesses(boxes[child], boxes[parent], columns)
        ]
        met = {*_overlapping(blocks, boxes)}.difference(pairs) if overlaps else set[Pair]()
        settled = {
            FINGERPRINT: self.n_pairs - n_distinct,
            BOUNDS: n_looked - len(inside),
            WITNESS: len(inside) - len(pairs),
        }
        return Candidates(*(self.n_pairs, settled, self.groups, tuple(pairs), tuple(sorted(met)), stable, n_distinct - n_looked))

    def overlapping(self, children: Collection[int], parents: Collection[int]) -> tuple[Pair, ...]:
        """The pairs of these children and these parents that may share rows."""
        asked, held = ([_only(one, some) for one in self.classes] for some in (children, parents))
        blocks = _filled((asked[c], held[p]) for c, p in self.fitting)
        return tuple(sorted(_overlapping(blocks, _boxes(self.facts, blocks))))

    def _blocks(self, stable: frozenset[int]) -> list[Block]:
        """Classes against classes, so that every pair with a table that is not stable is looked at once."""
        same = [_only(one, stable) for one in self.classes]
        moved = [_only(one, {*one.members} - stable) for one in self.classes]
        blocks = [(moved[c], self.classes[p]) for c, p in self.fitting]
        return _filled((*blocks, *((same[c], moved[p]) for c, p in self.fitting)))


def board(facts: Sequence[Facts]) -> Board:
    """Schema graph and fingerprints."""
    classes = schema_classes([table.kinds if table.snapshot.n_rows else {} for table in facts])
    fitting = tuple(class_pairs(classes))
    n_pairs = sum(n_table_pairs(classes[child], classes[parent]) for child, parent in fitting)
    groups = _equal(facts, classes)
    return Board(facts, n_pairs, groups, tuple(_only(one, groups) for one in classes), fitting)


def _filled(blocks: Iterable[Block]) -> list[Block]:
    """The blocks that hold a pair."""
    return [(child, parent) for child, parent in blocks if child.members and parent.members]


def _only(one: SchemaClass, tables: Container[int]) -> SchemaClass:
    """The class with no other members."""
    return SchemaClass(one.columns, one.kinds, tuple(table for table in one.members if table in tables))


def _equal(facts: Sequence[Facts], classes: Sequence[SchemaClass]) -> dict[int, list[int]]:
    class_of = {table: number for number, one in enumerate(classes) for table in one.members}
    numbers = [class_of.get(table, -1 - table) for table in range(len(facts))]
    return equal_groups(equal_tables(numbers, [table.snapshot.digest for table in facts]))


def _boxes(facts: Sequence[Facts], blocks: Iterable[Block]) -> dict[int, Boxes]:
    tables = sorted({table for block in blocks for one in block for table in one.members})
    ranks = Ranks()
    for table in tables:
        ranks.add([part.file for part in facts[table].parts], facts[table].names, facts[table].kinds)
    return dict(zip(tables, ranks.boxes(), strict=True))


def _within_bounds(blocks: Sequence[Block], boxes: Mapping[int, Boxes]) -> Iterator[tuple[int, int, I64]]:
    """(child, parent, positions of the child's columns) of the pairs that the tables' extents allow."""
    for child, parent, wide, wider in _wide(blocks, boxes):
        columns = _positions(child, parent)
        for start, as_set, _ in compare_extents(wide, wider, columns):
            yield from ((a, b, columns) for a, b in _members(child, parent, start, as_set))


def _overlapping(blocks: Sequence[Block], boxes: Mapping[int, Boxes]) -> Iterator[Pair]:
    """The pairs that may share rows."""
    for child, parent, wide, wider in _wide(blocks, boxes):
        for start, met in may_overlap(wide, wider, _positions(child, parent)):
            yield from _members(child, parent, start, met)


def _wide(blocks: Sequence[Block], boxes: Mapping[int, Boxes]) -> Iterator[tuple[SchemaClass, SchemaClass, Extents, Extents]]:
    """The blocks with their extents, which are made once for each class."""
    known = dict[tuple[int, ...], Extents]()
    for child, parent in blocks:
        for one in (child, parent):
            if one.members not in known:
                known[one.members] = extents([boxes[table] for table in one.members])
        yield child, parent, known[child.members], known[parent.members]


def _positions(child: SchemaClass, parent: SchemaClass) -> I64:
    """Where the child's columns are among the parent's."""
    position = {name: j for j, name in enumerate(parent.columns)}
    return np.array([position[name] for name in child.columns], np.int64)


def _members(child: SchemaClass, parent: SchemaClass, start: int, chosen: Bools) -> Iterator[Pair]:
    """The pairs of different tables that a slice of a comparison chose, bools (n_slice, n_parents)."""
    for i, j in np.argwhere(chosen).tolist():
        if child.members[start + i] != parent.members[j]:
            yield child.members[start + i], parent.members[j]


# --- settling ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settled:
    """What was found of one pair that may be a containment or nearly one; `error` is 0 where it was counted."""

    child: int
    parent: int
    counted: Counted
    step: str
    error: float = 0.0
    is_refuted: bool = False


class Inference:
    """The verdicts as they come in, and what they imply: sets and multisets each obey both rules of `transitive`."""

    def __init__(self) -> None:
        self._sets, self._multisets = Known(), Known()

    def record(self, child: int, parent: int, counted: Counted) -> None:
        self._sets.record(child, parent, holds=counted.set)
        self._multisets.record(child, parent, holds=counted.multiset)

    def holds(self, child: int, parent: int) -> bool:
        """Whether the child is known to be contained in the parent, copies and all."""
        return self._multisets.infer(child, parent) is True

    def refuted(self, child: int, parent: int) -> bool:
        """Whether the child is known to have a row that the parent lacks."""
        return self._sets.infer(child, parent) is False


def edges_of(
    facts: Sequence[Facts], groups: Mapping[int, Sequence[int]], settled: Iterable[Settled]
) -> list[tuple[Edge, Counted]]:
    """The edges of all tables and what was counted, sorted by child and parent: those of the representatives hold for their
    equals.
    """
    found = list[tuple[Edge, Counted]]()
    for equals in groups.values():
        for a, b in permutations(equals, 2):
            found.append(_edge(facts, Settled(a, b, Counted(facts[a].snapshot.n_rows, 0, 0, 0), FINGERPRINT)))
    for one in settled:
        for a in groups[one.child]:
            for b in groups[one.parent]:
                step = one.step if (a, b) == (one.child, one.parent) else FINGERPRINT
                found.append(_edge(facts, replace(one, child=a, parent=b, step=step)))
    return sorted(found, key=lambda pair: (pair[0].child, pair[0].parent))


def _edge(facts: Sequence[Facts], one: Settled) -> tuple[Edge, Counted]:
    child, parent, counted, exact = facts[one.child], facts[one.parent], one.counted, one.error == 0.0
    edge = Edge(
        *(child.name, parent.name, counted.fraction, exact and counted.set, exact and counted.multiset, exact, one.step),
        *(child.snapshot.version, parent.snapshot.version, counted.n_residual, one.error),
    )
    return edge, counted
