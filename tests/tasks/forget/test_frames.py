"""Worker functions: picklable, indifferent to files and their order, and they take away exactly what they are told."""

from __future__ import annotations

import pickle
import stat
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.contracts import MIXED, Snapshot
from infra.files import SOURCE, Folder, Part, read_part, read_part_table, source_key, source_number, write_part
from infra.ids import Digest, derive_keys, subject_token
from infra.settings import SubjectSettings
from tasks.forget.frames import Rewrite, locate_part, rewrite_part
from tasks.forget.residue import Target, Wanted
from tasks.forget.seal import Entry, Seal, digest_of, drop, load, lost_rows, save

KEYS = derive_keys(b"k" * 32)
SUBJECT = SubjectSettings(kind="user", column="who")
ROWS = st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 3)), min_size=1, max_size=30)


def part_of(folder: Path, rows: list[tuple[str | None, int]], source: str = "") -> Part:
    who, n = zip(*rows, strict=True)
    table = pa.table({"row_id": pa.array(range(len(rows)), pa.int64()), "who": pa.array(who, pa.string()), "n": pa.array(n)})
    to = Folder(str(folder), KEYS.row)
    file = write_part(to, table.to_batches(), table.schema, source=source, stats=["n"], digest_columns=["who", "n"])
    return Part(f"{folder}/{file.path}", file, table.schema)


@given(ROWS)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_erased_and_kept_make_the_whole(tmp_path: Path, rows: list[tuple[str | None, int]]) -> None:
    part = part_of(tmp_path, rows)
    sought = {"user": frozenset({subject_token(KEYS, "user", "a")})}
    located, *arguments = pickle.loads(pickle.dumps((locate_part, part, [SUBJECT], sought, [("n",)], KEYS)))
    hits = located(*arguments)
    assert hits.positions.tolist() == [i for i, (who, _) in enumerate(rows) if who == "a"]
    assert hits.row_ids.tolist() == hits.positions.tolist()
    assert len(hits.projected[0]) == len(hits.positions)
    file = rewrite_part(Rewrite(part, hits.positions, "raw.csv"), Folder(str(tmp_path), KEYS.row))
    left = Digest.parse(part.file.digest) - Digest.of(hits.hashes)
    assert (Digest() if file is None else Digest.parse(file.digest)) == left
    if file is not None:
        kept = read_part_table(Part(f"{tmp_path}/{file.path}", file, part.schema))
        assert list(zip(kept["who"].to_pylist(), kept["n"].to_pylist(), strict=True)) == [r for r in rows if r[0] != "a"]
        assert {name for name, said in file.stats.items() if "min" in said} == {"n"}


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from(["x.csv", "y.csv"])), min_size=1, max_size=30))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_of_a_mixed_file_keep_their_sources(tmp_path: Path, rows: list[tuple[str | None, str]]) -> None:
    """What is found says which raw files it came from, one by one; what stays says so still, in the same partition."""
    who, uris = zip(*rows, strict=True)
    numbers = [source_number(source_key(uri)) for uri in uris]
    table = pa.table({"row_id": pa.array(range(len(rows)), pa.int64()), "who": pa.array(who, pa.string())})
    full, folder = table.append_column(SOURCE, pa.array(numbers, pa.int64())), Folder(str(tmp_path), KEYS.row)
    file = write_part(folder, full.to_batches(), table.schema, digest_columns=["who"], mixed=True, partition={"p": "7"})
    part = Part(f"{tmp_path}/{file.path}", file, table.schema)
    hits = locate_part(part, [SUBJECT], {"user": frozenset({subject_token(KEYS, "user", "a")})}, (), KEYS)
    assert hits.sources.tolist() == [n for n, name in zip(numbers, who, strict=True) if name == "a"]
    left = rewrite_part(Rewrite(part, hits.positions, ""), folder)
    if "a" not in who:
        assert left is not None and left.digest == file.digest
    assert (left is None) == (set(who) == {"a"})
    if left is not None:
        assert (left.source, left.partition) == (MIXED, {"p": "7"})
        assert left.digest == str(Digest.parse(file.digest) - Digest.of(hits.hashes))
        kept = pa.Table.from_batches(read_part(Part(f"{tmp_path}/{left.path}", left, table.schema), with_source=True))
        stay = [i for i, name in enumerate(who) if name != "a"]
        assert (kept["row_id"].to_pylist(), kept[SOURCE].to_pylist()) == (stay, [numbers[i] for i in stay])


def test_a_source_that_the_ledger_does_not_know_is_not_lost(tmp_path: Path) -> None:
    part = part_of(tmp_path, [("a", 1), ("b", 2)], source="raw/unknown.csv")
    left = rewrite_part(Rewrite(part, np.array([0]), ""), Folder(str(tmp_path), KEYS.row))
    assert left is not None
    (rows,) = read_part(Part(f"{tmp_path}/{left.path}", left, part.schema), with_source=True)
    assert rows.column(rows.schema.names.index(SOURCE)).to_pylist() == [source_number(source_key("raw/unknown.csv"))]


def test_wanted_travels_and_shows_nothing() -> None:
    wanted = Wanted(KEYS, {"user": frozenset({"ab" * 32})}, {"t": (SUBJECT,)}, np.array([5], np.int64), frozenset({1}))
    assert pickle.loads(pickle.dumps((wanted, Target("u", "n"))))[0].sought == wanted.sought
    assert "ab" not in repr(wanted)


def test_a_seal_is_private_and_lasts_until_all_are_certified(tmp_path: Path) -> None:
    hashes = np.array([[1, 2], [3, 4]], np.uint64)
    rows = lost_rows("records/t", np.array([7, 8]), hashes, np.array([True, False]))
    entry = Entry("records/t", "subject", Snapshot("records/t", 3, "9:00", 9), 1, ("raw.csv",))
    path = save(tmp_path / "requests", Seal(("r1", "r2"), (entry,), rows))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    [found] = load(tmp_path / "requests", ["r2"])
    assert found.entries == (entry,)
    assert digest_of(found.of("records/t")) == Digest.of(hashes)
    assert load(tmp_path / "requests", ["r3"]) == []
    drop([found], {"r1"})
    assert path.exists()
    drop([found], {"r1", "r2"})
    assert not path.exists()
