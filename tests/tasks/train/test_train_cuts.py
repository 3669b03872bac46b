"""Training never sees a cut span: features are those of what is left, and a checkpoint is that of the rows and of their cuts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.train import frames
from tasks.train.features import encode, from_arrow, infer_spec
from tasks.train.frames import MAIN, PoolPart, group_name, members
from tasks.train.task import train

SECRET = "naïve question: "


def secretive(table: pa.Table) -> tuple[pa.Table, dict[str, list[int]]]:
    """The table with the same words put before every body, and the cuts that take them away."""
    bodies = pc.binary_join_element_wise(SECRET, table["body"], "")
    longer = table.set_column(table.schema.get_field_index("body"), "body", bodies)
    return longer, {person: [0, len(SECRET.encode())] for person in table["person"].to_pylist()}


def test_features_are_those_of_what_is_left(build: Callable, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    plain = pa.table({"person": [f"p{i}" for i in range(80)], "body": [f"w{i} {rng.integers(9)}" for i in range(80)]})
    plain = plain.append_column("topic", pa.array(["a", "b"] * 40))
    longer, cuts = secretive(plain)
    house = build("text", longer, cuts=cuts)
    index = frames.write_index(str(tmp_path / "scratch"), members(house.lake.parts(house.training_set)))
    (part,) = house.lake.parts(house.pool)
    spec = infer_spec("text", [part.schema], text="body", exclude=["row_id", "topic", "person"], n_pixels=0)
    wanted = frozenset(group_name(MAIN, shard) for shard in range(2))
    pool = PoolPart(part, "topic", (), house.settings.table("notes").subject, "body")
    made = frames.extract(pool, index, str(tmp_path / "scratch"), spec, wanted, 1, house.lake.keys)
    assert made is not None
    with pa.OSFile(made.uri.removeprefix("file://")) as file, pa.ipc.open_file(file) as reader:
        found = pa.Table.from_batches([reader.get_batch(i) for i in range(reader.num_record_batches)])
    records = house.lake.read(house.pool).to_pylist()
    left = {row["row_id"]: row["body"].removeprefix(SECRET) for row in records}
    bodies = pa.table({"body": [left[i] for i in found["row_id"].to_pylist()]})
    ours, expected = from_arrow(found.combine_chunks(), spec), encode(bodies, spec)
    assert found.num_rows > 20
    assert np.array_equal(ours.tokens, expected.tokens) and np.array_equal(ours.offsets, expected.offsets)


def test_a_shard_is_trained_again_when_a_cut_moves(build: Callable) -> None:
    people = [f"p{i}" for i in range(24) for _ in range(2)]
    plain = pa.table({"person": people, "body": [f"w{i}" for i in range(48)], "topic": ["a", "b"] * 24})
    table, cuts = secretive(plain)
    first = _run(build("text", table, cuts=cuts))
    house = build("text", table, cuts=cuts, n_files=3, shuffle=1)
    again = _run(house)
    assert again.found and again.digest == first.digest
    kept = house.lake.read(house.training_set).filter(pc.field("keep"))["row_id"].to_pylist()
    person = next(row["person"] for row in house.lake.read(house.pool).to_pylist() if row["row_id"] in kept)
    other = _run(build("text", table, cuts=cuts | {person: [0, 1]}))
    assert sorted(shard.found for shard in other.shards) == [False, True] and other.digest != first.digest


def _run(house):
    return train.fn(house.settings, "m", (house.pool,), house.training_set)


def test_members_without_cuts_are_what_they_were(build: Callable, kind: str, table: pa.Table) -> None:
    house = build(kind, table)
    chosen = members(house.lake.parts(house.training_set))
    assert chosen.cuts is None and chosen.contents is chosen.row_ids
    person = house.lake.read(house.pool, ["person"])["person"][0].as_py()
    cut_house = build(kind, table, cuts={person: [0, 1]})
    cut = members(cut_house.lake.parts(cut_house.training_set))
    assert cut.digest() != chosen.digest() and np.array_equal(cut.row_ids, chosen.row_ids)
    assert len(cut.by_slice(MAIN, 0, 2)) == 2
