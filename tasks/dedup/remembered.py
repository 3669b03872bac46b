"""What a scan leaves for the next one: profiles of data files, and the pairs it counted. Neither is needed; both save reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infra.contracts import CONTAINMENT, PROFILES, LetheError, Lineage, Snapshot
from infra.files import read_part_table, write_part
from infra.ids import key_of
from infra.lake import Lake
from infra.lineage import code_digest
from tasks.dedup.beyond import Answer, Answers, Question
from tasks.dedup.edges import Cover, Rename
from tasks.dedup.exact import Counted
from tasks.dedup.known import Change, change_of
from tasks.dedup.profiles import Profile, as_table, of_table
from tasks.dedup.scan import Facts, Settled, file_of
from tasks.dedup.settle import Before

PROFILED = "profiles"
CONTAINED, NEAR, REFUTED = "contained", "approximate", "refuted"
COVER, RENAME, ANSWERED = "cover", "renamed", "answered no"
_FILE_PROFILES = 20_000  # a data file of profiles holds no more, so that dropping some rewrites little


# --- profiles ------------------------------------------------------------------------------------------------------------------


def load_profiles(lake: Lake, facts: Sequence[Facts]) -> list[Profile]:
    """The profiles of the tables' files that are there; none where other code made them."""
    if not lake.exists(PROFILED):
        return []
    snapshot = lake.snapshot(PROFILED)
    if lake.lineage(snapshot).code != _code():
        return []
    files = {one.name: {file_of(part) for part in one.parts} for one in facts}
    return [p for part in lake.parts(snapshot) for p in of_table(read_part_table(part)) if p.file in files.get(p.table, ())]


def save_profiles(lake: Lake, profiles: Sequence[Profile], found: Sequence[Profile], facts: Sequence[Facts]) -> None:
    """Bring the table `profiles` up to `profiles`, of which `found` were there: new ones are added, and data files that hold some
    of files that are gone are written anew without them, for nothing of a row that was erased may stay.
    """
    had = {one.key for one in found}
    new = [one for one in profiles if one.key not in had]
    if not lake.exists(PROFILED) or lake.lineage(lake.snapshot(PROFILED)).code != _code():
        _put(lake, profiles, (), overwrite=True)
        return
    files = {one.name: {file_of(part) for part in one.parts} for one in facts}
    stale, kept = list[Any](), list[Profile]()
    for part in lake.parts(lake.snapshot(PROFILED)):
        some = of_table(read_part_table(part))
        current = [p for p in some if p.file in files.get(p.table, ())]
        if len(current) < len(some):
            stale.append(part.file)
            kept += current
    if new or stale:
        _put(lake, [*kept, *new], stale, overwrite=False)


def _put(lake: Lake, profiles: Sequence[Profile], remove: Sequence[Any], *, overwrite: bool) -> None:
    folder = lake.folder(PROFILED)
    some = [profiles[i : i + _FILE_PROFILES] for i in range(0, len(profiles), _FILE_PROFILES)]
    files = [write_part(folder, as_table(one).to_batches(), PROFILES) for one in some]
    lineage = Lineage(PROFILED, key_of(PROFILED, _code(), [file.digest for file in files]), _code())
    lake.commit(PROFILED, PROFILES, files, remove=remove or None, lineage=lineage, overwrite=overwrite)


def _code() -> str:
    return code_digest("tasks.dedup.sketches", "tasks.dedup.profiles", "infra.rowhash")


# --- pairs ---------------------------------------------------------------------------------------------------------------------


def before(lake: Lake, snapshot: Snapshot | None, facts: Sequence[Facts], code: str, params: Mapping[str, Any]) -> Before:
    """What the scan of `snapshot` counted, and how its tables changed since; nothing where it was another code's or asked for
    other things.
    """
    if snapshot is None or (lineage := lake.lineage(snapshot)).code != code or lineage.params != params:
        return Before()
    old = {one.table: one for one in lineage.inputs}
    changes, recast = dict[str, Change](), set[str]()
    for one in facts:
        was = old.get(one.snapshot.table)
        if was is None:
            continue
        change, same_columns = _change(lake, was, one)
        if change is not None:
            changes[one.name] = change
        if not same_columns:
            recast.add(one.name)
    return Before(_counted(lake, snapshot), changes, frozenset(recast))


def _change(lake: Lake, was: Snapshot, now: Facts) -> tuple[Change | None, bool]:
    """How a table changed since, if that can be told, and whether its columns are the ones it had."""
    if was.version == now.snapshot.version:
        return Change(), True
    try:
        parts = lake.parts(was)
        names = {name.lower() for name in lake.schema(was).names} - {"row_id"}
    except LetheError:
        return None, False
    same_columns = names == set(now.kinds)
    if was.digest == now.snapshot.digest:
        return Change(), same_columns
    return change_of(parts, now.parts), same_columns


def _counted(lake: Lake, snapshot: Snapshot) -> dict[tuple[str, str], Settled]:
    found = dict[tuple[str, str], Settled]()
    rows = lake.read(snapshot, [name for name in CONTAINMENT.names if name not in ("child_digest", "parent_digest", "parents")])
    for row in rows.filter(pc.is_in(rows["relation"], pa.array([CONTAINED, NEAR, REFUTED]))).to_pylist():
        complete = row["exact"] and row["relation"] != REFUTED
        counted = Counted(row["n_rows"], row["n_distinct"], row["n_missing"], row["n_residual"], complete=complete)
        found[row["child"], row["parent"]] = Settled(-1, -1, counted, row["step"], row["error"])
    return found


# --- covers and renames ---------------------------------------------------------------------------------------------------------


def answered(lake: Lake, snapshot: Snapshot) -> dict[Question, Answer]:
    """The questions that a scan answered. Versions are not kept, for answers are about rows."""
    names = ["relation", "question", "child", "parent", "parents", "columns", "multiset"]
    rows = lake.read(snapshot, names)
    rows = rows.filter(pc.is_in(rows["relation"], pa.array([COVER, RENAME, ANSWERED])))
    return {row["question"]: _answer(row) for row in rows.to_pylist()}


def _answer(row: Mapping[str, Any]) -> Answer:
    if row["relation"] == COVER:
        return Cover(row["child"], tuple(row["parents"]), row["multiset"], -1, (-1,) * len(row["parents"]))
    if row["relation"] == RENAME:
        columns = tuple((ours, theirs) for ours, theirs in row["columns"])
        return Rename(row["child"], row["parent"], columns, row["multiset"], -1, -1)
    return None


def answer_rows(answers: Answers) -> list[dict[str, Any]]:
    """Rows of `containment` that say what was answered, no as well as yes."""
    return [{**_answer_row(answer), "question": question} for question, answer in answers.given.items()]


def _answer_row(answer: Answer) -> dict[str, Any]:
    if isinstance(answer, Cover):
        parents = {"parents": list(answer.parents), "multiset": answer.multiset}
        return {"relation": COVER, "child": answer.child, "child_version": answer.child_version, "set": True, **parents}
    if isinstance(answer, Rename):
        versions = {"child_version": answer.child_version, "parent_version": answer.parent_version}
        said = {"columns": [list(pair) for pair in answer.columns], "set": True, "multiset": answer.multiset}
        return {"relation": RENAME, "child": answer.child, "parent": answer.parent, **versions, **said}
    return {"relation": ANSWERED}
