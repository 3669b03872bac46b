"""Retiring and restoring tables: what would go is shown, a person approves, and nothing is removed before.

A run of Prefect's pauses and waits for the answer (see `Approval`); the command line asks whoever sits there. While anybody
thinks, the lake's lease is free, and what was proposed is looked at again before it is done.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path

from prefect import flow
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput

from flows.curate import contained_in
from flows.progress import count_tables, say
from flows.workspace import RECORDS, Workspace, opened
from infra.contracts import LetheError
from infra.retired import retired
from infra.settings import Settings
from infra.tracking import inputs_of, open_tracking, versions
from tasks.dedup import give_up as giving_up
from tasks.dedup import restore as restoring
from tasks.dedup import retire as retiring
from tasks.dedup.give_up import GivenUp
from tasks.dedup.lost import listed
from tasks.dedup.prices import dollars
from tasks.dedup.restore import Restored
from tasks.dedup.retire import Proposal, RetireRefused
from tasks.dedup.task import DedupResult, dedup
from tasks.forget.plan import knows
from tasks.forget.returns import refuse_returns
from tasks.ingest import ledger
from tasks.ingest.sources import raw_files
from tasks.ingest.task import ingest
from tasks.train.task import held_models

WAIT = timedelta(days=1)
_RETIRE = "retire"
_SHOWN = 200  # tables that a page names


class NotApproved(LetheError):
    """Nobody approved of a proposal in time; nothing was removed."""


class NoRawFiles(LetheError):
    """A table is to be taken in from raw files that are not there."""


class Approval(RunInput):
    """What a paused run asks: whether the tables it showed may go. `plan` is the digest of what was shown, `approver` whoever
    answers; both are noted in the log of `recipes`."""

    approve: bool = False
    plan: str = ""
    approver: str = ""


@dataclass(frozen=True)
class Answer:
    """Whether a proposal was approved, and what to note about it."""

    approved: bool
    how: str
    approver: str = ""


Ask = Callable[[Proposal], Answer]


@dataclass(frozen=True)
class RetireResult:
    """What was proposed, whether it was approved, and the tables that are gone."""

    proposal: Proposal
    scanned: DedupResult
    approved: bool
    retired: tuple[str, ...]


# --- asking --------------------------------------------------------------------------------------------------------------------


def paused(proposal: Proposal, *, poll_s: int = 10) -> Answer:
    """Pause the flow's run until somebody answers in Prefect. Raises `NotApproved` when nobody does."""
    shown = Approval.with_initial_data(description=as_markdown(proposal), approve=False, plan=proposal.digest, approver="")
    try:
        told = pause_flow_run(wait_for_input=shown, timeout=int(WAIT.total_seconds()), poll_interval=poll_s, key=proposal.digest)
    except FlowPauseTimeout:
        raise NotApproved(f"nobody approved of plan {proposal.digest} within {WAIT}; nothing was removed. Run it again") from None
    if told.approve and told.plan != proposal.digest:
        raise NotApproved(f"the answer approves of plan {told.plan!r}, and {proposal.digest} was shown; nothing was removed")
    return Answer(told.approve, "prefect", told.approver)


_ask: ContextVar[Ask] = ContextVar("lethe_ask", default=paused)


@contextmanager
def asking(ask: Ask) -> Iterator[None]:
    """Whom the flows of this block ask, in place of Prefect."""
    token = _ask.set(ask)
    try:
        yield
    finally:
        _ask.reset(token)


def as_markdown(proposal: Proposal) -> str:
    """A proposal for the eyes of whoever approves: tables, parents, kinds of recipes, bytes, dollars and seconds."""
    cells = [
        (t.table, ", ".join(t.parents), t.recipe.kind, f"{t.n_bytes:,}", dollars(t.monthly_saving), f"{t.rebuild_s:.1f}")
        for t in proposal.tables
    ]
    rows = [f"| {' | '.join(row)} |" for row in cells[:_SHOWN]]
    rows += [f"| ... and {len(cells) - _SHOWN} more | | | | | |"] if len(cells) > _SHOWN else []
    total = sum(t.n_bytes for t in proposal.tables), dollars(sum(t.monthly_saving for t in proposal.tables))
    return "\n".join(
        [
            f"### Retire {len(cells)} tables? Plan `{proposal.digest}`",
            "Each was rebuilt by its recipe, row for row. `lethe restore` brings it back.",
            "",
            "| table | rebuilt from | recipe | bytes saved | saved a month | rebuilt in s |",
            "|---|---|---|---:|---:|---:|",
            *rows,
            f"| | | | {total[0]:,} | {total[1]} | |",
            *(f"\nNot retired: {table}: {reason}" for table, reason in proposal.refused.items()),
        ]
    )


# --- the flows -----------------------------------------------------------------------------------------------------------------


@flow(name="retire", persist_result=False, validate_parameters=False)
def retire(
    tables: list[str] | None = None,
    plan: bool = False,
    parents: list[str] | None = None,
    config: str = "lethe.toml",
    dry_run: bool = False,
) -> RetireResult:
    """Retire the named tables, or with `plan` those of the retention plan: find recipes, prove them, ask, remove. `parents` names
    what to rebuild them from; `dry_run` stops before it asks.

    Raises `RetireRefused` where a named table may not be retired, and then nothing is.
    """
    _end_killed(config)
    scanned, proposal = _proposal(config, tuple(tables or ()), plan=plan, parents=tuple(parents or ()))
    try:
        _refuse(proposal, tables or ())
        answer = Answer(False, "dry run") if dry_run or not proposal.tables else _ask.get()(proposal)
        done = _retired(config, proposal, answer) if answer.approved else ()
    finally:
        _drop_unused(config, proposal)
    return RetireResult(proposal, scanned, answer.approved, done)


@flow(name="restore", persist_result=False, validate_parameters=False)
def restore(tables: list[str], config: str = "lethe.toml", from_raw: bool = False) -> tuple[Restored, ...]:
    """Bring retired tables back, equal by digest to what they were. `from_raw`: tables that nothing rebuilds any more, from their
    raw files; they are compared with what was retired."""
    with opened(config) as work:
        say("restore %s", ", ".join(tables))
        if from_raw:
            return _from_raw(work, tuple(dict.fromkeys(tables)))
        return restoring.restore(work.settings, tables, scheduler=work.scheduler)


@flow(name="give-up", persist_result=False, validate_parameters=False)
def give_up(tables: list[str], config: str = "lethe.toml") -> tuple[tuple[GivenUp, ...], dict[str, list[str]]]:
    """Give up retired tables that nothing rebuilds any more; also the datasets of lethe.toml that still name each of them."""
    with opened(config) as work:
        say("give up %s", ", ".join(tables))
        done = giving_up.give_up(work.settings, tables, scheduler=work.scheduler)
        datasets = work.settings.datasets.items()
        return done, {one.table: [name for name, d in datasets if one.table in (*d.pool, *d.beside)] for one in done}


def _from_raw(work: Workspace, tables: tuple[str, ...]) -> tuple[Restored, ...]:
    """Give tables up and have ingest take them in. Where it fails, they are retired as they were; a run that is killed leaves
    them given up, and the next one goes on. A table that a killed run committed is there."""
    found = listed(work.lake, tables)
    retiring.settle(work.lake, keep=tables)
    waiting = tuple(name for name in tables if not work.lake.exists(RECORDS + name))
    _refuse_without_raw(work.settings, waiting)
    refuse_returns(work.lake, work.settings, [found[name] for name in waiting])
    giving_up.give_up(work.settings, tables, keep=True, scheduler=work.scheduler)
    try:
        if waiting:
            ingest(work.settings, waiting, prune=True, anew=waiting, scheduler=work.scheduler, progress=count_tables)
    except LetheError:
        giving_up.retired_still(work.settings, {name: found[name] for name in waiting})
        raise
    n_suppressed = Counter[str]()
    for (table, _), entry in ledger.read(work.lake).items():
        n_suppressed[table] += entry.n_suppressed
    return giving_up.taken_in(work.settings, tables, n_suppressed=n_suppressed)


def _refuse_without_raw(settings: Settings, tables: Sequence[str]) -> None:
    """Tables that lethe.toml does not know, or that have no raw file, cannot be taken in."""
    unknown = [name for name in tables if not knows(settings, name)]
    files = raw_files(settings, tuple(name for name in tables if name not in unknown)) if len(unknown) < len(tables) else {}
    for name in (name for name in tables if not files.get(name)):
        why = "lethe.toml does not have it" if name in unknown else "none of its raw files is there"
        raise NoRawFiles(f"{name}: {why}. Correct that, or give it up: lethe restore {name} --give-up")


def _end_killed(config: str) -> None:
    """Finish what a killed run began."""
    with opened(config, shared=True) as work:
        waiting = retiring.leftovers(work.lake)
    if waiting:
        with opened(config) as work:
            retiring.settle(work.lake)


def _proposal(config: str, tables: tuple[str, ...], *, plan: bool, parents: tuple[str, ...]) -> tuple[DedupResult, Proposal]:
    with opened(config, shared=True) as work:
        say("dedup")
        scanned = dedup(work.settings, work.all_records(), scheduler=work.scheduler)
        planned = {row.table: tuple(row.parents) for row in scanned.plan if plan and row.action == _RETIRE}
        wanted = {**planned, **dict.fromkeys(tables, parents)}
        asked = {
            table: replace(retiring.asked_of(scanned, table, named), must_save=table not in tables)
            for table, named in wanted.items()
        }
        against, among = needs(work, asked, scanned)
        say("retire: find recipes of %d tables", len(asked))
        return scanned, retiring.propose(work.settings, asked, among=among, refused=against, scheduler=work.scheduler)


def _refuse(proposal: Proposal, named: Sequence[str]) -> None:
    """What somebody named must go, or nothing does; what only the plan named is left out."""
    refused = [f"{table}: {reason}" for table, reason in proposal.refused.items() if table in named]
    if refused:
        raise RetireRefused(f"nothing was retired. {'. '.join(refused)}")


def _retired(config: str, proposal: Proposal, answer: Answer) -> tuple[str, ...]:
    with opened(config) as work:
        say("retire %d tables", len(proposal.tables))
        return retiring.retire(work.settings, proposal, approved={"approved": answer.how, "approver": answer.approver})


def _drop_unused(config: str, proposal: Proposal) -> None:
    """Drop what the recipes of tables need that were not retired."""
    with opened(config, shared=True) as work:
        gone = retired(work.lake)
        retiring.discard(work.lake, [one.table for one in proposal.tables if one.table not in gone])


# --- who needs a table ---------------------------------------------------------------------------------------------------------


def needs(
    work: Workspace, tables: Mapping[str, object], scanned: DedupResult
) -> tuple[dict[str, str], dict[str, frozenset[str]]]:
    """What readers, datasets and models have against retiring tables; and for tables that a pool names, its tables that may stand
    for them there."""
    found = [needed_by_readers(work.settings, tables), needed_by_models(work, tables), needed_by_training_sets(work, tables)]
    among = defaultdict[str, list[frozenset[str]]](list)
    for name, dataset in work.settings.datasets.items():
        left_out = contained_in(dataset.pool, scanned.edges)
        found.append({t: f"dataset {name} compares its pool with it" for t in tables if t in dataset.beside})
        found.append({t: f"dataset {name} is curated from it" for t in tables if t in dataset.pool and t not in left_out})
        for table in (table for table in tables if table in left_out):
            among[table].append(frozenset(dataset.pool))
    against = {table: reason for reasons in reversed(found) for table, reason in reasons.items()}
    return against, {table: frozenset.intersection(*pools) for table, pools in among.items()}


def needed_by_readers(settings: Settings, tables: Mapping[str, object]) -> dict[str, str]:
    """Tables that a section [readers.NAME] names; patterns are those of a shell."""
    return {
        table: f"[readers.{name}] reads it ({pattern})"
        for name, reader in settings.readers.items()
        for pattern in reader.tables
        for table in tables
        if fnmatchcase(table, pattern)
    }


def needed_by_training_sets(work: Workspace, tables: Mapping[str, object]) -> dict[str, str]:
    """Tables that a training set of the lake was decided on, whatever lethe.toml says by now."""
    lake = work.lake
    return {
        table: f"{training_set} was decided on it"
        for training_set in lake.tables("training_set")
        for used in lake.lineage(lake.snapshot(training_set)).inputs
        if (table := used.table.removeprefix(RECORDS)) in tables
    }


def needed_by_models(work: Workspace, tables: Mapping[str, object]) -> dict[str, str]:
    """Tables that a version of a model was trained on that is not revoked."""
    uri = work.settings.tracking_uri
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return {}
    tracking = open_tracking(work.settings)
    return {
        table: f"model {model} version {record.version} was trained on it"
        for model in held_models(work.settings)
        for record in versions(tracking, model)
        if not record.revoked
        for used in inputs_of(tracking, record.run_id)
        if (table := used.removeprefix(RECORDS)) in tables
    }
