"""The table `neighbours/<dataset>`: records nearest to evaluation items by embedding, for a person to review."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from infra.cluster import Workers
from infra.columns import CONTENT
from infra.contracts import Lineage, Snapshot
from infra.files import write_part
from infra.ids import Keys, sample_level
from infra.lake import Lake
from tasks.kernels.embedding import Embedding, embed, fit_embedding
from tasks.select.contamination_neighbours import NEIGHBOURS, nearest, neighbours
from tasks.select.counts import rows_of_file, texts_in
from tasks.select.plan import Plan, Source
from tasks.select.spaces import Rows, joined_rows

FIT_ROWS = 20_000
ITEMS = 5_000  # evaluation items at most, of each table: a keyed draw
SCHEMA = NEIGHBOURS.append(pa.field("table", pa.string()))


def reviewed(lake: Lake, workers: Workers, plan: Plan) -> Snapshot | None:
    """The list of a dataset's neighbours, made or found; None where none is asked for."""
    asked = plan.select.decontaminate
    if asked is None or not asked.neighbours:
        return None
    table = f"neighbours/{plan.dataset}"
    found = lake.reuse(table, plan.key)
    if found is not None:
        return found
    rows = _neighbours(lake, workers, plan, asked.neighbours) if plan.pool else SCHEMA.empty_table()
    file = write_part(lake.folder(table), rows.to_batches(), SCHEMA)
    lineage = Lineage("select", plan.key, plan.code, plan.inputs, plan.params)
    return lake.commit(table, SCHEMA, [file], lineage=lineage, overwrite=True)


def _neighbours(lake: Lake, workers: Workers, plan: Plan, k: int) -> pa.Table:
    """NEIGHBOURS rows of all evaluation tables, with the table's name."""
    level = sample_level(plan.n_rows, FIT_ROWS)
    sample = joined_rows(workers.map(drawn_texts, plan.pool, lake.keys, level))
    embedding = fit_embedding("text", sample.content, sample.row_ids, seed=plan.select.seed)
    found = [SCHEMA.empty_table()]
    for name, sources in plan.evaluations.items():
        items = _items(lake, workers, sources)
        near = nearest(workers.map(neighbours_of_file, plan.pool, lake.keys, embedding, items, k), k)
        found.append(near.append_column(SCHEMA.field("table"), pa.array([name] * near.num_rows, pa.string())))
    return pa.concat_tables(found)


def _items(lake: Lake, workers: Workers, sources: Sequence[Source]) -> Rows:
    level = sample_level(sum(source.part.file.n_rows for source in sources), ITEMS)
    parts = workers.map(drawn_texts, sources, lake.keys, level)
    return joined_rows(parts, limit=ITEMS) if parts else Rows(np.zeros(0, np.int64), _content(pa.array([], pa.string())))


# --- in the workers ------------------------------------------------------------------------------------------------------------


def drawn_texts(source: Source, keys: Keys, level: int) -> Rows:
    """Row ids and texts of the rows of a file that a keyed sample holds."""
    ids, texts = [np.zeros(0, np.int64)], [_content(pa.array([], pa.string()))]
    for batch, row_ids, which in rows_of_file(source, keys, level):
        ids.append(row_ids[which])
        texts.append(_content(texts_in(batch, source, which)))
    return Rows(np.concatenate(ids), pa.concat_tables(texts))


def neighbours_of_file(source: Source, keys: Keys, embedding: Embedding, items: Rows, k: int) -> pa.Table:
    """The records of a file that are nearest to each item."""
    points = embed(embedding, items.content)
    found = [NEIGHBOURS.empty_table()]
    for batch, row_ids, _ in rows_of_file(source, keys, 0):
        texts = _content(texts_in(batch, source, np.ones(batch.num_rows, np.bool_)))
        found.append(neighbours(embed(embedding, texts), row_ids, points, items.row_ids, k))
    return nearest(found, k)


def _content(texts: pa.Array) -> pa.Table:
    return pa.table({CONTENT: texts.cast(pa.large_string())})
