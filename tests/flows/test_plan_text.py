"""What people read of a retention plan."""

from __future__ import annotations

from flows import documents as d
from flows import show
from flows.plan_text import plan_lines, plan_rows
from infra.price_book import RetentionSettings
from tasks.dedup.edges import EXACT, Edge
from tasks.dedup.retention import Plan, retention_plan

GB = 10**9


def plan() -> Plan:
    sizes = {"a": 10 * GB, "b": 11 * GB, "big": 2000 * GB, "part": 1900 * GB}
    edges = [Edge(child, parent, 1.0, True, True, True, EXACT, 0, 0) for child, parent in (("a", "b"), ("part", "big"))]
    return retention_plan(sizes, dict.fromkeys(sizes, 9), edges, (), {}, RetentionSettings(dated="2026-01-02"))


def document(made: Plan) -> d.DedupDocument:
    rows = [
        d.PlanRow(table=row.table, action=row.action, bytes=row.n_bytes, monthly_saving=row.monthly_saving) for row in made.rows
    ]
    return d.DedupDocument(n_tables=4, edges=[], plan=rows, savings=show.plan_savings(made.savings), bytes_read=0, seconds=0.0)


def test_a_plan_in_four_lines() -> None:
    doc = document(plan())
    assert plan_rows(doc.plan) == [("a", "retire", "10,000.0", "0.17 $", "", "")]
    assert plan_lines(doc) == [
        "Nothing was removed.",
        "The plan frees 10.00 GB (retired: 1), and saves 0.17 $ a month at prices of 2026-01-02.",
        "Kept: too slow to rebuild 1 (32.47 $ a month), no table contains it 2.",
        "To save more, max_rebuild_s >= 10000 would retire part: 32.47 $ a month",
    ]


def test_scripts_may_rely_on_its_keys() -> None:
    found = document(plan()).model_dump()
    assert {"table", "action", "bytes"} <= set(found["plan"][0])
    assert found["savings"]["bytes_freed"] == 10 * GB and found["savings"]["needs"][0]["constraints"] == ["too slow to rebuild"]


def test_a_plan_that_keeps_everything_says_so() -> None:
    doc = d.DedupDocument(n_tables=0, edges=[], plan=[], bytes_read=0, seconds=0.0)
    assert plan_lines(doc) == ["The plan keeps every table."]
