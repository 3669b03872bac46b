"""What lies beyond pairs under equal names: tables covered by several others, and tables contained under other column names.

Sketches raise the questions, exact counts answer them, and answers are remembered with the digests of the tables that they are
about, so that a question is not asked twice.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from infra.ids import I64, key_of
from tasks.dedup.covers import Candidate, Tally, add_tallies, choose, questions, tally_of
from tasks.dedup.edges import Cover, Rename
from tasks.dedup.exact import N_RANGES
from tasks.dedup.frames import Reader
from tasks.dedup.profiles import CELLS, ROWS, VALUES, Columns
from tasks.dedup.rename_plan import RenamePlan, rename_plan
from tasks.dedup.renames import Proposal, proposals
from tasks.dedup.runs import ROW_BYTES, Runs, found_in, search, searches, totals
from tasks.dedup.scan import Candidates, Facts, Pair, Settled
from tasks.dedup.schema_graph import SchemaClass
from tasks.dedup.sketches import pack

Question = str
Answer = Cover | Rename | None
_COVER, _RENAME = "cover ", "rename "


@dataclass(frozen=True)
class Asked:
    """A question's answer: about which child, and which other tables it depends on."""

    child: str
    about: tuple[str, ...]
    answer: Answer


@dataclass
class Answers:
    """Answers by question: those that are remembered, and those that were given in this scan."""

    known: Mapping[Question, Asked] = field(default_factory=dict)
    given: dict[Question, Asked] = field(default_factory=dict)

    def recall(self, question: Question) -> bool:
        """Whether the question was answered before; then the answer counts as given."""
        if question in self.known:
            self.given[question] = self.known[question]
        return question in self.known

    def carry(self, kind: type[Cover | Rename], stable: Collection[str], again: Collection[str]) -> None:
        """Count as given what is known about stable tables, but for the children that are asked about again."""
        for question, one in self.known.items():
            about_covers = question.startswith(_COVER)
            if about_covers == (kind is Cover) and one.child not in again and {one.child, *one.about} <= {*stable}:
                self.given[question] = one

    def covers(self) -> list[Cover]:
        return sorted((a.answer for a in self.given.values() if isinstance(a.answer, Cover)), key=lambda one: one.child)

    def renames(self) -> list[Rename]:
        found = (a.answer for a in self.given.values() if isinstance(a.answer, Rename))
        return sorted(found, key=lambda one: (one.child, one.parent, one.columns))


# --- covers --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """A child and candidates for its cover over a range of hashes."""

    child: Runs
    parents: tuple[Runs, ...]
    first_range: int
    last_range: int


def children_to_ask(
    facts: Sequence[Facts],
    candidates: Candidates,
    before: Iterable[tuple[str, str]],
    gone: Collection[str],
    known: Iterable[Asked],
) -> set[int]:
    """The stable tables of which a cover may have come to be, or may have gone: those that may share rows with a table that
    changed, and those that were contained in one, or asked about one, that changed or is gone. `before` are (child, parent).
    """
    number = {facts[table].name: table for table in candidates.groups if table in candidates.stable}
    left = {*gone, *(one.name for i, one in enumerate(facts) if i not in candidates.stable)}
    names = {child for child, parent in before if parent in left}
    names |= {one.child for one in known if not left.isdisjoint(one.about)}
    names |= {facts[child].name for child, _ in (*candidates.pairs, *candidates.overlaps)}
    names -= {child for child, parent in before if parent in number}  # they are contained still
    return {number[name] for name in names if name in number}


def find_covers(
    facts: Sequence[Facts], candidates: Candidates, settled: Iterable[Settled], reader: Reader, answers: Answers
) -> None:
    """Answer for every table that no other one contains whether several together do."""
    held = [one for one in settled if one.counted.set and not one.error]
    contained = {one.child for one in held} | {table for table, equals in candidates.groups.items() if len(equals) > 1}
    above = defaultdict[str, set[str]](set)
    for one in held:
        above[facts[one.child].name].add(facts[one.parent].name)
    pairs = {*candidates.pairs, *candidates.overlaps, *candidates.asked}
    groups = defaultdict[Columns, list[Pair]](list)
    for child, parent in sorted(pairs):
        if child not in contained and len(facts[child].kinds) > 1:
            groups[facts[child].columns].append((child, parent))
    again = {facts[child].name for child, _ in pairs} | {facts[child].name for child in contained}
    answers.carry(Cover, {facts[table].name for table in candidates.stable}, again)
    for columns, some in sorted(groups.items()):
        for child, parents in _asked(facts, some, columns, above, reader).items():
            _answer_cover(facts, child, parents, columns, reader, answers)


def _asked(
    facts: Sequence[Facts], pairs: Sequence[Pair], columns: Columns, above: Mapping[str, set[str]], reader: Reader
) -> dict[int, list[int]]:
    """The children worth counting among pairs over the same columns, each with its parents."""
    tables = sorted({table for pair in pairs for table in pair})
    number = {table: i for i, table in enumerate(tables)}
    packed = pack([reader.profiles.sketch(facts[table], ROWS, columns) for table in tables])
    numbered = np.array([(number[child], number[parent]) for child, parent in pairs], np.int64)
    described = [Candidate(facts[table].name, facts[table].snapshot.n_rows) for table in tables]
    found = questions(packed, packed, numbered, described, above)
    return {tables[child]: sorted((tables[p] for p in some), key=lambda t: facts[t].name) for child, some in found.items()}


def _answer_cover(
    facts: Sequence[Facts], child: int, parents: Sequence[int], columns: Columns, reader: Reader, answers: Answers
) -> None:
    question = _COVER + key_of(list(columns), *(list(facts[table].snapshot.identity) for table in (child, *parents)))
    if answers.recall(question):
        return
    reader.fetch((table, columns) for table in (child, *parents))
    runs = [reader.runs[table, columns] for table in parents]
    tally = _tallied(reader, reader.runs[child, columns], runs)
    choice = choose(tally, [Candidate(facts[table].name, facts[table].snapshot.n_rows) for table in parents])
    one, answer = facts[child], None
    if choice is not None:
        chosen = [facts[parents[i]] for i in choice.parents]
        names, versions = tuple(one.name for one in chosen), tuple(one.snapshot.version for one in chosen)
        answer = Cover(one.name, names, choice.multiset, one.snapshot.version, versions)
    answers.given[question] = Asked(one.name, tuple(facts[table].name for table in parents), answer)


def _tallied(reader: Reader, child: Runs, parents: Sequence[Runs]) -> Tally:
    """How often the parents hold the child's rows, range by range where memory is short."""
    held = ROW_BYTES * (3 + len(parents)) * sum(run.n_distinct for run in child)
    held += ROW_BYTES * max((run.n_distinct for runs in parents for run in runs), default=0)
    n_cuts = min(N_RANGES, max(1, math.ceil(held / max(reader.memory_bytes, 1 << 20))))
    bounds = [N_RANGES * i // n_cuts for i in range(n_cuts + 1)]
    jobs = [_Job(child, tuple(parents), first, last) for first, last in pairwise(bounds)]
    tallies = reader.workers.map(_tally, jobs)
    whole = tallies[0]
    for part in tallies[1:]:
        whole = add_tallies(whole, part)
    return whole


def _tally(job: _Job) -> Tally:
    """Worker: count the child's rows of a range in every parent."""
    rows, found = found_in(job.child, job.parents, job.first_range, job.last_range)
    pieces: list[tuple[I64, I64]] = [(rows.counts, found)]
    return tally_of(pieces, len(job.parents))


# --- other names ---------------------------------------------------------------------------------------------------------------


def planned_renames(facts: Sequence[Facts], candidates: Candidates) -> RenamePlan:
    """Which columns must be compared without their names. Of equal tables the representative takes part."""
    return rename_plan([one.kinds if i in candidates.groups and one.snapshot.n_rows else {} for i, one in enumerate(facts)])


def affected(plan: RenamePlan, stable: Container[int]) -> RenamePlan:
    """The plan for pairs with a table that is not stable: the answers about others stand. Classes are halved for that."""
    classes, columns, halves = list[SchemaClass](), list[Columns](), dict[tuple[int, bool], int]()
    for number, one in enumerate(plan.classes):
        for is_stable in (False, True):
            members = tuple(table for table in one.members if (table in stable) == is_stable)
            if members:
                halves[number, is_stable] = len(classes)
                classes.append(replace(one, members=members))
                columns.append(plan.columns[number])
    pairs = [
        (halves[child, a], halves[parent, b])
        for child, parent in plan.pairs.tolist()
        for a, b in ((False, False), (False, True), (True, False))
        if (child, a) in halves and (parent, b) in halves
    ]
    part_of = {number for pair in pairs for number in pair}
    wanted = tuple(names if i in part_of else () for i, names in enumerate(columns))
    return replace(plan, classes=tuple(classes), pairs=np.array(sorted(pairs), np.int64).reshape(-1, 2), columns=wanted)


def find_renames(facts: Sequence[Facts], plan: RenamePlan, stable: frozenset[int], reader: Reader, answers: Answers) -> None:
    """Answer for every proposal whether it holds. What is known about stable tables outside the plan stands."""
    sketches = {
        (table, name): reader.profiles.sketch(facts[table], VALUES, (name,))
        for table, names in plan.wanted().items()
        for name in names
    }
    named = {
        (table, name): reader.profiles.sketch(facts[table], CELLS, (name,))
        for table in plan.wanted()
        for name in facts[table].columns
        if not reader.profiles.unknown(facts[table], CELLS, (name,))
    }
    answers.carry(Rename, {facts[table].name for table in stable}, ())
    open_questions = list[tuple[Question, Proposal]]()
    for one in proposals(plan, sketches, [table.snapshot.n_rows for table in facts], named=named):
        identities = [list(facts[table].snapshot.identity) for table in (one.child, one.parent)]
        question = _RENAME + key_of([list(pair) for pair in one.columns], *identities)
        if not answers.recall(question):
            open_questions.append((question, one))
    _answer_renames(facts, open_questions, reader, answers)


def _answer_renames(facts: Sequence[Facts], asked: Sequence[tuple[Question, Proposal]], reader: Reader, answers: Answers) -> None:
    """Count the children's rows, hashed under the parents' names, in the parents."""
    if not asked:
        return
    ways = list(dict.fromkeys((one.child, one.columns) for _, one in asked))
    reader.fetch((one.parent, _columns(one)) for _, one in asked)
    found = reader.fetch_as([(child, {theirs: facts[child].names[ours] for ours, theirs in columns}) for child, columns in ways])
    parents = {("parent", *key): some for key, some in reader.runs.items()}
    children = {("child", *way): some for way, some in zip(ways, found, strict=True)}
    runs: dict[Hashable, Runs] = {**parents, **children}
    pairs = [(("child", one.child, one.columns), ("parent", one.parent, _columns(one))) for _, one in asked]
    jobs = searches(pairs, runs, memory_bytes=reader.memory_bytes, limit_fraction=0.0)
    counts = totals(jobs, reader.workers.map(search, jobs), len(pairs))
    for (question, one), counted in zip(asked, counts, strict=True):
        child, parent = facts[one.child], facts[one.parent]
        said = Rename(child.name, parent.name, one.columns, counted.multiset, child.snapshot.version, parent.snapshot.version)
        answers.given[question] = Asked(child.name, (parent.name,), said if counted.set else None)


def _columns(one: Proposal) -> Columns:
    return tuple(sorted(theirs for _, theirs in one.columns))


def at_versions(answers: Answers, versions: Mapping[str, int]) -> None:
    """Bring remembered answers up to the versions that the tables have now: their rows are the same."""
    for question, asked in answers.given.items():
        one = asked.answer
        if isinstance(one, Cover):
            parents = tuple(versions[name] for name in one.parents)
            now = replace(one, child_version=versions[one.child], parent_versions=parents)
            answers.given[question] = replace(asked, answer=now)
        elif isinstance(one, Rename):
            now = replace(one, child_version=versions[one.child], parent_version=versions[one.parent])
            answers.given[question] = replace(asked, answer=now)
