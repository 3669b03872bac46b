"""What a scan leaves for the next one: profiles of data files, and the pairs it counted. Neither is needed; both save reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infra.contracts import CONTAINMENT, PROFILES, CommitConflict, DataFile, LetheError, Lineage, Snapshot
from infra.files import Part, read_part_table, write_part
from infra.foreign import PREFIX as FOREIGN
from infra.ids import key_of
from infra.lake import Lake
from infra.lineage import code_digest
from tasks.dedup.beyond import Answer, Answers, Question
from tasks.dedup.edges import Cover, Rename
from tasks.dedup.exact import Counted
from tasks.dedup.known import Change, change_of
from tasks.dedup.logs import as_text
from tasks.dedup.profiles import Profile, as_table, of_table
from tasks.dedup.scan import Facts, Settled, file_of
from tasks.dedup.settle import Before

PROFILED, LOG = "profiles", "log"
CONTAINED, NEAR, REFUTED = "contained", "approximate", "refuted"
COVER, RENAME, ANSWERED = "cover", "renamed", "answered no"
_FILE_PROFILES = 20_000  # a data file of profiles holds no more, so that dropping some rewrites little


# --- profiles and logs ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Held:
    """One data file of the table `profiles`: sketches of files, and what logs said, by table and version."""

    file: DataFile
    profiles: tuple[Profile, ...]
    logs: dict[tuple[str, int], str]


@dataclass(frozen=True)
class Kept:
    """What earlier scans left, as it lies in `snapshot`; nothing where other code made it."""

    snapshot: Snapshot | None = None
    held: tuple[_Held, ...] = ()

    @property
    def logs(self) -> dict[tuple[str, int], str]:
        """What logs said, by table and version."""
        return {key: said for one in self.held for key, said in one.logs.items()}

    def profiles(self, facts: Sequence[Facts]) -> list[Profile]:
        """The profiles of the tables' files that are there."""
        files = _files(facts)
        return [p for one in self.held for p in one.profiles if p.file in files.get(p.table, ())]


def load(lake: Lake) -> Kept:
    """Read what is kept."""
    if not lake.exists(PROFILED) or lake.lineage(snapshot := lake.snapshot(PROFILED)).code != _code():
        return Kept()
    return Kept(snapshot, tuple(_held(part) for part in lake.parts(snapshot)))


def _held(part: Part) -> _Held:
    rows = read_part_table(part)
    is_log = pc.equal(rows["what"], LOG)
    logs = rows.filter(is_log).select(["table", "n_rows", "log"]).to_pylist()
    return _Held(part.file, tuple(of_table(rows.filter(pc.invert(is_log)))), {(r["table"], r["n_rows"]): r["log"] for r in logs})


def save(lake: Lake, kept: Kept, profiles: Sequence[Profile], facts: Sequence[Facts]) -> None:
    """Bring the table `profiles` up to these: new ones are added, and data files that hold some of what is gone are written anew
    without it, for nothing of a row that was erased may stay.

    Where another scan was first its profiles stay; nothing is lost but time.
    """
    files, versions = _files(facts), {(one.name, one.snapshot.version) for one in facts}
    new = _new(kept, profiles, facts)
    stale, stay, said = list[DataFile](), list[Profile](), dict[tuple[str, int], str]()
    for one in kept.held:
        current = [p for p in one.profiles if p.file in files.get(p.table, ())]
        if len(current) < len(one.profiles) or not versions.issuperset(one.logs):
            stale.append(one.file)
            stay += current
            said |= {key: text for key, text in one.logs.items() if key in versions}
    if new[0] or new[1] or stale:
        with suppress(CommitConflict):
            _put(lake, [*stay, *new[0]], {**said, **new[1]}, stale, overwrite=kept.snapshot is None)


def _new(kept: Kept, profiles: Sequence[Profile], facts: Sequence[Facts]) -> tuple[list[Profile], dict[tuple[str, int], str]]:
    """What is not kept yet. Logs of other writers are not: they are opened at every scan to see how they moved."""
    had, logs = {p.key for one in kept.held for p in one.profiles}, kept.logs
    ours = (one for one in facts if (one.name, one.snapshot.version) not in logs)
    said = {(one.name, one.snapshot.version): as_text(parts) for one in ours if (parts := own_parts(one)) is not None}
    return [one for one in profiles if one.key not in had], said


def own_parts(table: Facts) -> list[Part] | None:
    """The files of a table of ours; None for one of another writer."""
    parts = [part for part in table.parts if isinstance(part, Part)]
    return parts if len(parts) == len(table.parts) and not table.snapshot.table.startswith(FOREIGN) else None


def _files(facts: Sequence[Facts]) -> dict[str, set[str]]:
    return {one.name: {file_of(part) for part in one.parts} for one in facts}


def _put(
    lake: Lake, profiles: Sequence[Profile], logs: Mapping[tuple[str, int], str], remove: Sequence[DataFile], *, overwrite: bool
) -> None:
    folder = lake.folder(PROFILED)
    tables = [as_table(profiles[i : i + _FILE_PROFILES]) for i in range(0, len(profiles), _FILE_PROFILES)]
    tables.append(_log_rows(logs))
    files = [write_part(folder, one.to_batches(), PROFILES) for one in tables if one.num_rows]
    lineage = Lineage(PROFILED, key_of(PROFILED, _code(), [file.digest for file in files]), _code())
    lake.commit(PROFILED, PROFILES, files, remove=remove or None, lineage=lineage, overwrite=overwrite)


def _log_rows(logs: Mapping[tuple[str, int], str]) -> pa.Table:
    rows = [{"table": table, "what": LOG, "n_rows": version, "log": text} for (table, version), text in logs.items()]
    return pa.Table.from_pylist(rows, schema=PROFILES)


def _code() -> str:
    return code_digest("tasks.dedup.sketches", "tasks.dedup.profiles", "tasks.dedup.logs", "infra.rowhash")


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
