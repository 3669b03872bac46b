"""What a retention plan saves, which constraints bound it, and what it would need to save more. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.dedup.access import Accesses
from tasks.dedup.options import (
    ALONE,
    APART,
    ARCHIVE,
    COPIES,
    DEAR,
    GOING,
    NAMED,
    NEEDED,
    RETIRE,
    SLOW,
    SLOW_ARCHIVE,
    SMALL,
    SOURCE,
    Option,
    Terms,
)
from tasks.dedup.prices import dollars

_SHOWN = 100  # needs that a summary names


@dataclass(frozen=True)
class Bound:
    """One constraint: the tables that it keeps, and the US dollars a month that these would save without it."""

    constraint: str
    n_tables: int
    n_bytes: int
    monthly_saving: float


@dataclass(frozen=True)
class Need:
    """The smallest `change` that would let the plan do `action` with `table`, all others as they are.

    `monthly_saving` is what that saves in US dollars; where accesses would have to be fewer, what it saves without any.
    """

    table: str
    action: str
    constraints: tuple[str, ...]
    change: str
    monthly_saving: float


@dataclass(frozen=True)
class Savings:
    """What a plan comes to. `bytes_freed` are stored no more, `bytes_archived` elsewhere; costs are US dollars a month at prices
    `dated` then.

    `gb_s` is the throughput that rebuilding was reckoned with, `n_log_lines` counts lines of access logs. `needs` are those of
    all `n_needs` that save most. `gap` is the share of a part's cost that a better plan might still save, 0.0 where proven.
    """

    n_retired: int
    n_archived: int
    bytes_freed: int
    bytes_archived: int
    monthly_cost: float
    monthly_saving: float
    dated: str
    gb_s: float
    bound: tuple[Bound, ...]
    needs: tuple[Need, ...]
    n_needs: int
    gap: float
    n_log_lines: int
    n_bad_log_lines: int


def savings_from(document: Mapping[str, Any]) -> Savings:
    """A summary read back from JSON."""
    read: dict[str, Any] = dict(document)
    read["bound"] = tuple(Bound(**one) for one in document["bound"])
    read["needs"] = tuple(_need_from(one) for one in document["needs"])
    return Savings(**read)


def _need_from(document: dict[str, Any]) -> Need:
    read: dict[str, Any] = {**document, "constraints": tuple(document["constraints"])}
    return Need(**read)


def sentence(need: Need) -> str:
    """A need for people: `max_rebuild_s >= 1200 would retire t1: 3.20 $ a month`."""
    upto = "up to " if DEAR in need.constraints else ""
    return f"{need.change} would {need.action} {need.table}: {upto}{dollars(need.monthly_saving)} a month"


def summarise(
    options: Sequence[Option],
    chosen: Mapping[str, Option],
    why: Mapping[str, str],
    terms: Terms,
    *,
    logged: Accesses,
    gap: float,
) -> Savings:
    """`chosen` are the tables that are not kept; `why` is the constraint that keeps each other one."""
    needs = needs_of(options, chosen, terms)
    retired, archived = ([o for o in chosen.values() if o.action == action] for action in (RETIRE, ARCHIVE))
    before = sum(terms.keep(table) for table in terms.n_bytes)
    saved = sum(terms.keep(o.table) - o.monthly for o in chosen.values())
    return Savings(
        n_retired=len(retired),
        n_archived=len(archived),
        bytes_freed=sum(o.freed_bytes for o in retired),
        bytes_archived=sum(o.freed_bytes for o in archived),
        monthly_cost=before - saved,
        monthly_saving=saved,
        dated=terms.prices.dated,
        gb_s=terms.gb_s,
        bound=tuple(_bounds(why, needs, terms)),
        needs=tuple(needs[:_SHOWN]),
        n_needs=len(needs),
        gap=gap,
        n_log_lines=logged.n_lines,
        n_bad_log_lines=logged.n_bad,
    )


def _bounds(why: Mapping[str, str], needs: Sequence[Need], terms: Terms) -> list[Bound]:
    """One for each constraint that keeps a table, that which costs most first."""
    saving = {need.table: 0.0 if DEAR in need.constraints else need.monthly_saving for need in needs}
    by = defaultdict[str, list[str]](list)
    for table, constraint in why.items():
        by[constraint].append(table)
    bounds = [
        Bound(constraint, len(some), sum(terms.n_bytes[t] for t in some), sum(saving.get(t, 0.0) for t in some))
        for constraint, some in by.items()
    ]
    return sorted(bounds, key=lambda one: (-one.monthly_saving, -one.n_tables, one.constraint))


# --- why a table is kept -------------------------------------------------------------------------------------------------------


def why_kept(table: str, options: Sequence[Option], parents: Collection[str], heads: Collection[str], terms: Terms) -> str:
    """The constraint that keeps a table: `options` are its own, `parents` those that rebuild others, `heads` the sources among
    equal tables.
    """
    if table in terms.needed:
        return NEEDED
    if terms.prices.kept_by(table) is not None:
        return NAMED
    if table in terms.apart:
        return APART
    if any(not option.blocks for option in options):
        return SOURCE if table in parents else GOING
    return _blocked(table, options, heads)


def _blocked(table: str, options: Sequence[Option], heads: Collection[str]) -> str:
    """Where no option is open: the constraint that forbids one that would pay, else that none pays, else that there is none."""
    paying = {block for option in options if DEAR not in option.blocks for block in option.blocks}
    for constraint in (SLOW, SMALL, SLOW_ARCHIVE):
        if constraint in paying:
            return constraint
    retiring = [option for option in options if option.action == RETIRE]
    if not retiring:
        return COPIES if table in heads else ALONE
    return SLOW if all(SLOW in option.blocks for option in retiring) else DEAR


def said(table: str, constraint: str, terms: Terms) -> str:
    """A constraint in a plan's row."""
    if constraint == NEEDED:
        return terms.needed[table]
    if constraint == APART:
        return terms.apart[table]
    return f"{constraint}: {terms.prices.kept_by(table)}" if constraint == NAMED else constraint


# --- what it would need --------------------------------------------------------------------------------------------------------


def needs_of(options: Iterable[Option], chosen: Mapping[str, Option], terms: Terms) -> list[Need]:
    """For each table that could save more if some setting were different, the smallest change; that which saves most first,
    those that want fewer accesses last.
    """
    parents = {parent for option in chosen.values() for parent in option.parents}
    best = dict[str, tuple[tuple[bool, int, float, float], Need]]()
    for option in options:
        if option.table in parents or not option.blocks or any(parent in chosen for parent in option.parents):
            continue
        need = _need(option, chosen.get(option.table), terms)
        rank = (DEAR in option.blocks, len(option.blocks), option.wait_s, option.monthly)
        if need is not None and (option.table not in best or rank < best[option.table][0]):
            best[option.table] = rank, need
    return sorted((need for _, need in best.values()), key=lambda one: (DEAR in one.constraints, -one.monthly_saving, one.table))


def _need(option: Option, now: Option | None, terms: Terms) -> Need | None:
    """What would open a forbidden option; None where nothing does, or it saves nothing more than the plan."""
    paid = terms.keep(option.table) if now is None else now.monthly
    saving = paid - (option.cost.fixed if DEAR in option.blocks else option.monthly)
    fewer = DEAR in option.blocks
    # That any table would be archived if nobody read it goes without saying.
    if saving <= 0.0 or (fewer and (now is not None or option.action == ARCHIVE)):
        return None
    changes = [_change(block, option, terms) for block in option.blocks]
    known = [change for change in changes if change is not None]
    if len(known) < len(changes):
        return None
    return Need(option.table, option.action, option.blocks, " and ".join(known), saving)


def _change(block: str, option: Option, terms: Terms) -> str | None:
    """The least change that lifts a constraint from an option, as lethe.toml says it."""
    table, prices = option.table, terms.prices
    if block == NEEDED:
        return f"no need of it ({terms.needed[table]})"
    if block == NAMED:
        return f"keep without {prices.kept_by(table)!r}"
    if block == APART:
        return f"min_evidence_bits <= {math.floor(terms.bits[table] * 10) / 10}" if table in terms.bits else None
    if block in (SLOW, SLOW_ARCHIVE):
        pattern = prices.limit_pattern(table)
        key = "max_rebuild_s" if pattern is None else f"max_rebuild_s_of.{pattern!r}"
        return f"{key} >= {math.ceil(option.wait_s)}"
    if block == SMALL:
        return f"min_saving_month <= {_floor3(terms.keep(table) - option.monthly)}"
    return f"fewer than {_floor3((terms.keep(table) - option.cost.fixed) / option.cost.per_access)} accesses a month"


def _floor3(value: float) -> float:
    """Three digits, rounded down."""
    if value <= 0.0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{math.floor(value / step) * step:.3g}")
