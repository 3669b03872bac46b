"""Cuts of the selection: carried to every row of the training set, unseen by embeddings, and part of a shard's digest."""

from __future__ import annotations

from prune_lake import House, notes

from tasks.prune.places import moved_shards


def test_cuts_are_carried_and_move_their_shard_only(house: House) -> None:
    pool = house.put(notes())
    ids = sorted(house.records(pool))
    keep = [i % 3 > 0 for i in range(len(ids))]
    plain = house.prune(pool, house.choose(ids, keep), method="none", holdout=0.0)
    before, whole = house.shard_digests(plain), house.decisions(plain)
    cuts = {ids[0]: [0, 3], ids[1]: [2, 4, 6, 9]}  # one that selection keeps, one that only the control may train on
    cut = house.prune(pool, house.choose(ids, keep, cuts), method="none", holdout=0.0)
    after = house.decisions(cut)
    assert {i: row["cuts"] for i, row in after.items() if row["cuts"] is not None} == cuts
    assert all({**row, "cuts": None} == whole[i] for i, row in after.items())
    assert moved_shards(before, house.shard_digests(cut)) == [whole[ids[1]]["shard"]]
    other = house.prune(pool, house.choose(ids, keep, cuts | {ids[1]: [2, 4]}), method="none", holdout=0.0)
    assert moved_shards(house.shard_digests(cut), house.shard_digests(other)) == [whole[ids[1]]["shard"]]


def test_embeddings_see_no_text_that_is_cut(house: House) -> None:
    pool = house.put([{**row, "body": row["body"] + " tea for two"} for row in notes()])
    bodies = {i: row["body"] for i, row in sorted(house.records(pool).items())}
    cuts = {i: [0, len(body) - len("tea for two")] for i, body in bodies.items()}
    cut = house.prune(pool, house.choose(list(bodies), [True] * len(bodies), cuts), method="density")
    assert cut.scores and len(set(house.lake.read(cut.scores)["score"].to_pylist())) == 1  # all alike
    whole = house.prune(pool, house.choose(list(bodies), [True] * len(bodies)), method="density")
    assert whole.scores and len(set(house.lake.read(whole.scores)["score"].to_pylist())) > 1
