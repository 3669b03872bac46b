"""Which pool tables are left out: what is left must still hold every row, and nothing in it is contained in another."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from flows.curate import contained_in
from tasks.dedup.edges import Edge

TABLES = st.dictionaries(st.sampled_from("abcdef"), st.frozensets(st.integers(0, 4), min_size=1), min_size=1)


def edge(child: str, parent: str, *, multiset: bool = True) -> Edge:
    return Edge(child, parent, 1.0, True, multiset, True, "exact", 0, 0)


@given(tables=TABLES)
def test_what_stays_covers_all_and_holds_no_copy(tables: dict[str, frozenset[int]]) -> None:
    edges = [edge(c, p) for c, p in permutations(tables, 2) if tables[c] <= tables[p]]
    left_out = contained_in(sorted(tables), edges)
    stays = [t for t in tables if t not in left_out]
    assert frozenset().union(*(tables[t] for t in stays)) == frozenset().union(*tables.values())
    assert all(tables[child] <= tables[parent] and parent in stays for child, parent in left_out.items())
    assert not any(tables[a] <= tables[b] for a, b in permutations(stays, 2))


def test_only_copies_with_their_counts_count_and_only_inside_the_pool() -> None:
    edges = [edge("a", "b", multiset=False), edge("c", "outside"), edge("d", "b")]
    assert contained_in(["a", "b", "c", "d"], edges) == {"d": "b"}


def test_of_equal_tables_the_first_name_stays() -> None:
    assert contained_in(["y", "x"], [edge("x", "y"), edge("y", "x")]) == {"y": "x"}
