"""The list of neighbours as a person reads it: similarities of their texts, kept records first, texts only where asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from infra.columns import CONTENT
from infra.contracts import UnknownTable
from tasks.kernels.embedding import embed, fit_embedding
from tasks.kernels.kmeans import UNIT
from tasks.select.review_task import NotReviewed, n_listed, review, similarity

NOTES = pa.schema([("text", pa.string())])
ITEM = "which small city is the capital of the republic of andorra in the high mountains"
NEAR = "of the republic of andorra in the high mountains which tiny town is the capital"
TALK = [f"engine number {i} of the old car roared along its road for {i} miles" for i in range(30)]
ASKED: dict[str, Any] = {"decontaminate": {"tables": ["exam"], "n": 10, "neighbours": 4}, "target": {}}


@pytest.fixture
def asked(house: Any) -> Callable[[], dict[str, Any]]:
    """A pool with the item itself, its words in another order, and much talk of other things."""
    pool = house.put("notes", [{"text": one} for one in (ITEM, NEAR, *TALK)], NOTES, n_files=3)
    exam = house.put("exam", [{"text": ITEM}], NOTES)

    def run(**more: Any) -> dict[str, Any]:
        options = {**ASKED, **more}
        return house.decisions(house.select([pool], exam, **options))

    return run


def test_kept_records_come_first_with_their_similarity_and_texts_only_where_asked_for(house: Any, asked: Any) -> None:
    made, settings = asked(), house.settings(**ASKED)
    found = review(settings, "d", 5)
    assert (found.n_pairs, found.n_items, found.n_kept) == (4, 1, 3)
    assert [(one.reason, one.table) for one in found.pairs] == [*[("kept", "exam")] * 3, ("contaminated", "exam")]
    assert all(one.text is None and one.item_text is None for one in found.pairs)
    assert [made[one.row_id]["keep"] for one in found.pairs] == [one.keep for one in found.pairs] == [True, True, True, False]
    near, *talk, item = (one.similarity for one in found.pairs)
    assert item == 1.0 and near > max(talk) and talk == sorted(talk, reverse=True)
    with_texts = review(settings, "d", 1, texts=True)
    (pair,) = with_texts.pairs
    assert (pair.item_text, pair.text) == (ITEM, NEAR)
    assert "andorra" not in repr(with_texts)
    assert n_listed(settings, house.lake) == {"d": 4}


def test_a_similarity_is_the_cosine_of_two_embeddings() -> None:
    texts = pa.table({CONTENT: pa.array([ITEM, NEAR, *TALK], pa.large_string())})
    points = embed(fit_embedding("text", texts, np.arange(32), seed=0), texts).astype(np.float64)
    for i, j in ((0, 0), (0, 1), (0, 2)):
        distance = int(((points[i] - points[j]) ** 2).sum())
        cosine = points[i] @ points[j] / np.linalg.norm(points[i]) / np.linalg.norm(points[j])
        assert similarity(distance) == pytest.approx(cosine, abs=0.002)
    assert similarity(4 * UNIT * UNIT) == -1.0


def test_a_list_that_was_not_asked_for_or_is_of_another_selection_is_refused(house: Any, asked: Any) -> None:
    with pytest.raises(UnknownTable, match="lethe select d"):
        review(house.settings(**ASKED), "d")
    asked()
    without = {"decontaminate": {"tables": ["exam"], "n": 10}, "target": {}}
    with pytest.raises(NotReviewed, match="Add neighbours = 3"):
        review(house.settings(**without), "d")
    assert n_listed(house.settings(**without), house.lake) == {}
    asked(**without)  # a new selection, and the list of the old one
    with pytest.raises(NotReviewed, match="Run: lethe select d"):
        review(house.settings(**ASKED), "d")
