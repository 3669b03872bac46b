"""A retention plan in a few lines for people."""

from __future__ import annotations

from flows import documents as d
from tasks.dedup.prices import dollars

_ACTS, _NEEDS = 60, 5


def plan_rows(plan: list[d.PlanRow]) -> list[tuple[str, str, str, str, str, str]]:
    """(table, action, MB, US dollars saved a month, parent, reason) of the tables not kept, those that save most first."""
    acts = sorted((row for row in plan if row.action != "keep"), key=lambda row: (-row.monthly_saving, row.table))
    return [
        (row.table, row.action, f"{row.bytes / 1e6:,.1f}", dollars(row.monthly_saving), row.parent, row.reason)
        for row in acts[:_ACTS]
    ]


def plan_lines(doc: d.DedupDocument) -> list[str]:
    """What the plan comes to, what kept the other tables, and what it would need to save more."""
    acts = sum(row.action != "keep" for row in doc.plan)
    more = [f"... and {acts - _ACTS:,} more tables"] if acts > _ACTS else []
    first = [*more, "Nothing was removed."] if acts else ["The plan keeps every table."]
    return first if doc.savings is None else [*first, *savings_lines(doc.savings)]


def savings_lines(savings: d.SavingsDocument) -> list[str]:
    moved = [f"frees {_size(savings.bytes_freed)} (retired: {savings.n_retired:,})"] if savings.n_retired else []
    moved += [f"archives {_size(savings.bytes_archived)} (archived: {savings.n_archived:,})"] if savings.n_archived else []
    head = f"The plan {', '.join(moved)}, and saves {dollars(savings.monthly_saving)} a month at prices of {savings.dated}."
    bad = f"{savings.n_bad_log_lines:,} of {savings.n_log_lines:,} lines of access logs could not be read."
    gap = f"The solver ran out of time: a part of the plan may cost up to {savings.gap:.0%} more than it must."
    kept = [f"{one.constraint} {one.n_tables:,}{_lost(one.monthly_saving)}" for one in savings.bound]
    return [
        *([head] if moved else []),
        *([f"Kept: {', '.join(kept)}."] if kept else []),
        *([bad] if savings.n_bad_log_lines else []),
        *([gap] if savings.gap > 0.0 else []),
        *([f"To save more, {need.said}" for need in savings.needs[:_NEEDS]]),
    ]


def _lost(saving: float) -> str:
    return f" ({dollars(saving)} a month)" if saving > 0.0 else ""


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.2f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:,.2f} MB"
