"""Layered drawing: parents above children, nothing on top of anything else, the same picture every time."""

from __future__ import annotations

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from tasks.dedup.layers import Pair, Size, laid_out, layered

WIDE = 300.0


@st.composite
def dags(draw: st.DrawFn) -> tuple[list[Size], list[Pair]]:
    """Vertices and links from greater numbers (children) to smaller ones."""
    n = draw(st.integers(1, 14))
    sizes = [Size(draw(st.sampled_from([3.0, 20.0])), draw(st.sampled_from([3.0, 90.0])), 28.0) for _ in range(n)]
    pairs = [(child, parent) for parent, child in combinations(range(n), 2)]
    return sizes, draw(st.lists(st.sampled_from(pairs), unique=True, max_size=25)) if pairs else []


@given(dags())
def test_every_parent_stands_above_its_child_and_nothing_overlaps(dag: tuple[list[Size], list[Pair]]) -> None:
    sizes, links = dag
    laid = laid_out(sizes, links, max_width=WIDE)
    for child, parent in links:
        assert laid.layers[parent] < laid.layers[child]
        assert laid.anchors[parent][1] + 14 < laid.anchors[child][1] - 14
    for a, b in combinations(range(len(sizes)), 2):
        if laid.layers[a] == laid.layers[b]:
            left, right = sorted((a, b), key=lambda v: laid.anchors[v][0])
            assert laid.anchors[left][0] + sizes[left].right < laid.anchors[right][0] - sizes[right].left + 1e-6
    for size, (x, y) in zip(sizes, laid.anchors, strict=True):
        assert x - size.left >= -1e-6 and x + size.right <= laid.width + 1e-6 and 0 <= y <= laid.height
    assert laid == laid_out(sizes, links[::-1], max_width=WIDE)


@given(dags())
def test_every_link_is_a_way_down_between_its_ends(dag: tuple[list[Size], list[Pair]]) -> None:
    sizes, links = dag
    laid = laid_out(sizes, links, max_width=WIDE)
    assert set(laid.routes) == set(links)
    for (child, parent), way in laid.routes.items():
        assert (way[0], way[-1]) == (laid.anchors[parent], laid.anchors[child])
        assert all(upper[1] <= lower[1] for upper, lower in pairwise(way))


@given(dags())
def test_without_a_bound_a_childs_layer_is_its_longest_way_down(dag: tuple[list[Size], list[Pair]]) -> None:
    sizes, links = dag
    layers = layered([size.width for size in sizes], links, max_width=1e9)
    for v in range(len(sizes)):
        above = [layers[parent] for child, parent in links if child == v]
        below = [layers[child] for child, parent in links if parent == v]
        assert layers[v] == (1 + max(above) if above else min(below, default=1) - 1)


def test_a_diamond_is_symmetric_and_crosses_nothing() -> None:
    laid = laid_out([Size(5, 5, 10)] * 4, [(1, 0), (2, 0), (3, 1), (3, 2)], max_width=WIDE)
    assert laid.layers == (0, 1, 1, 2)
    (top, _), (left, _), (right, _), (low, _) = laid.anchors
    assert abs(top - (left + right) / 2) < 1 and abs(low - top) < 1


def test_crossings_that_need_not_be_are_taken_out() -> None:
    laid = laid_out([Size(5, 5, 10)] * 6, [(3, 2), (4, 1), (5, 0)], max_width=WIDE)
    parents = sorted(range(3), key=lambda v: laid.anchors[v][0])
    children = sorted(range(3, 6), key=lambda v: laid.anchors[v][0])
    assert [5 - child for child in children] == parents


def test_a_layer_that_is_too_wide_is_broken() -> None:
    laid = laid_out([Size(10, 90, 28)] * 9, [(child, 0) for child in range(1, 9)], max_width=WIDE)
    assert laid.width < 400 and max(laid.layers) == 4  # two boxes and the six lines that pass


def test_nothing_is_a_picture_too() -> None:
    assert laid_out([], [], max_width=WIDE).height == 0.0
