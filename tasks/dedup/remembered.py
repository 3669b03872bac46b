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
from tasks.dedup.beyond import Answer, Answers, Asked, Question
from tasks.dedup.edges import Cover, Rename
from tasks.dedup.exact import Counted
from tasks.dedup.known import Change, change_of
from tasks.dedup.logs import as_text
from tasks.dedup.profiles import Profiles, Shelf, as_table
from tasks.dedup.scan import Facts, Settled, file_of
from tasks.dedup.settle import Before

PROFILED, LOG = "profiles", "log"
CONTAINED, NEAR, REFUTED = "contained", "approximate", "refuted"
COVER, RENAME, ANSWERED = "cover", "renamed", "answered no"
_BETWEEN = "\0"  # in no name
_FILE_PROFILES = 20_000  # a data file of profiles holds no more, so that dropping some rewrites little


# --- profiles and logs ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Held:
    """One data file of the table `profiles`: sketches of files, and what logs said, by table and version."""

    file: DataFile
    rows: pa.Table
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

    def profiles(self) -> Profiles:
        """The profiles of files."""
        return Profiles([Shelf(one.rows) for one in self.held if one.rows.num_rows])


def load(lake: Lake) -> Kept:
    """Read what is kept."""
    if not lake.exists(PROFILED) or lake.lineage(snapshot := lake.snapshot(PROFILED)).code != _code():
        return Kept()
    return Kept(snapshot, tuple(_held(part) for part in lake.parts(snapshot)))


def _held(part: Part) -> _Held:
    rows = read_part_table(part).cast(PROFILES)  # Delta calls the elements of lists otherwise
    is_log = pc.equal(rows["what"], LOG)
    logs = rows.filter(is_log).select(["table", "n_rows", "log"]).to_pylist()
    return _Held(part.file, rows.filter(pc.invert(is_log)), {(r["table"], r["n_rows"]): r["log"] for r in logs})


def save(lake: Lake, kept: Kept, profiles: Profiles, facts: Sequence[Facts]) -> None:
    """Bring the table `profiles` up to date: what is new is added, and data files that hold some of what is gone are written anew
    without it, for nothing of a row that was erased may stay.

    Where another scan was first its profiles stay; nothing is lost but time.
    """
    files = pa.array([_address(one.name, file_of(part)) for one in facts for part in one.parts], pa.string())
    versions = {(one.name, one.snapshot.version) for one in facts}
    stale, stay, said = list[DataFile](), [as_table(profiles.new)], _new_logs(kept, facts)
    for one in kept.held:
        current = pc.is_in(pc.binary_join_element_wise(one.rows["table"], one.rows["file"], _BETWEEN), files)
        if not (pc.all(current).as_py() is not False and versions.issuperset(one.logs)):
            stale.append(one.file)
            stay.append(one.rows.filter(current))
            said |= {key: text for key, text in one.logs.items() if key in versions}
    if profiles.new or said or stale:
        with suppress(CommitConflict):
            _put(lake, pa.concat_tables(stay), said, stale, overwrite=kept.snapshot is None)


def _address(table: str, file: str) -> str:
    return table + _BETWEEN + file


def _new_logs(kept: Kept, facts: Sequence[Facts]) -> dict[tuple[str, int], str]:
    """Logs that are not kept yet. Those of other writers are not: they are opened at every scan to see how they moved."""
    logs = kept.logs
    ours = (one for one in facts if (one.name, one.snapshot.version) not in logs)
    return {(one.name, one.snapshot.version): as_text(parts, one.kinds) for one in ours if (parts := own_parts(one)) is not None}


def own_parts(table: Facts) -> list[Part] | None:
    """The files of a table of ours; None for one of another writer."""
    parts = [part for part in table.parts if isinstance(part, Part)]
    return parts if len(parts) == len(table.parts) and not table.snapshot.table.startswith(FOREIGN) else None


def _put(lake: Lake, rows: pa.Table, logs: Mapping[tuple[str, int], str], remove: Sequence[DataFile], *, overwrite: bool) -> None:
    folder = lake.folder(PROFILED)
    tables = [rows.slice(i, _FILE_PROFILES) for i in range(0, rows.num_rows, _FILE_PROFILES)]
    tables.append(_log_rows(logs))
    files = [write_part(folder, one.to_batches(), PROFILES) for one in tables if one.num_rows]
    lineage = Lineage(PROFILED, key_of(PROFILED, _code(), [file.digest for file in files]), _code())
    lake.commit(PROFILED, PROFILES, files, remove=remove or None, lineage=lineage, overwrite=overwrite)


def _log_rows(logs: Mapping[tuple[str, int], str]) -> pa.Table:
    rows = [{"table": table, "what": LOG, "n_rows": version, "log": text} for (table, version), text in logs.items()]
    return pa.Table.from_pylist(rows, schema=PROFILES)


def _code() -> str:
    return code_digest(*(f"tasks.dedup.{name}" for name in ("sketches", "profiles", "logs", "schema_graph")), "infra.rowhash")


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
    bits, apart = lineage.summary["bits"], lineage.summary["apart"]
    empty = {name for name in bits if apart.get(name) == "all null"}
    gone = {table_of(one) for one in lineage.inputs} - {one.name for one in facts}
    return Before(_counted(lake, snapshot), changes, frozenset(recast), frozenset(gone), bits, frozenset(empty))


def table_of(snapshot: Snapshot) -> str:
    """A table's name as edges have it."""
    return snapshot.table.removeprefix("records/")


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
        refuted = row["relation"] == REFUTED
        found[row["child"], row["parent"]] = Settled(-1, -1, counted, row["step"], row["error"], refuted)
    return found


# --- covers and renames ---------------------------------------------------------------------------------------------------------


def answered(lake: Lake, snapshot: Snapshot) -> dict[Question, Asked]:
    """The questions that a scan answered. Versions are not kept, for answers are about rows."""
    names = ["relation", "question", "child", "parent", "parents", "columns", "multiset", "asked"]
    rows = lake.read(snapshot, names)
    rows = rows.filter(pc.is_in(rows["relation"], pa.array([COVER, RENAME, ANSWERED])))
    return {row["question"]: Asked(row["child"], tuple(row["asked"]), _answer(row)) for row in rows.to_pylist()}


def _answer(row: Mapping[str, Any]) -> Answer:
    if row["relation"] == COVER:
        return Cover(row["child"], tuple(row["parents"]), row["multiset"], -1, (-1,) * len(row["parents"]))
    if row["relation"] == RENAME:
        columns = tuple((ours, theirs) for ours, theirs in row["columns"])
        return Rename(row["child"], row["parent"], columns, row["multiset"], -1, -1)
    return None


def answer_rows(answers: Answers) -> list[dict[str, Any]]:
    """Rows of `containment` that say what was answered, no as well as yes."""
    return [
        {**_answer_row(one.answer), "question": question, "child": one.child, "asked": list(one.about)}
        for question, one in answers.given.items()
    ]


def _answer_row(answer: Answer) -> dict[str, Any]:
    if isinstance(answer, Cover):
        parents = {"parents": list(answer.parents), "multiset": answer.multiset}
        return {"relation": COVER, "child_version": answer.child_version, "set": True, **parents}
    if isinstance(answer, Rename):
        versions = {"child_version": answer.child_version, "parent_version": answer.parent_version}
        said = {"columns": [list(pair) for pair in answer.columns], "set": True, "multiset": answer.multiset}
        return {"relation": RENAME, "parent": answer.parent, **versions, **said}
    return {"relation": ANSWERED}
