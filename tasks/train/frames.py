"""The Dask side of training: each function is one file, one shard or one group of held-out rows. Picklable, may run twice.

Rows go from the pool's files to the shards through scratch: every file is read once, its rows are turned into features and laid
down by group (an ensemble's shard, or a group of held-out subjects), and a shard's worker reads its group from every extract.
Memory: one file's chosen rows while extracting, one shard's features while training.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from torch import nn

from infra.contracts import HOLDOUT, LetheError
from infra.files import Part, filesystem, read_part
from infra.ids import I64, U64, Keys, key_of
from infra.settings import SubjectSettings
from infra.spans import CUTS, contents, read_cuts, without_cuts
from infra.subjects import roots, row_places
from tasks.train.checkpoints import load, longest
from tasks.train.ensemble import Makeup, mean_softmax
from tasks.train.environment import OtherEnvironment, choose_device, deterministic, fingerprint
from tasks.train.evaluate import Tally, class_numbers, tally
from tasks.train.features import Features, Spec, encode, from_arrow, joined, label_texts, to_arrow
from tasks.train.fit import Recipe, ShardResult, ShardRows, by_row_id, fit_shard, found_shard
from tasks.train.mixture import TABLE, Mixture, row_weights

Bools = npt.NDArray[np.bool_]

MAIN, CONTROL, HELD_OUT = "main", "control", "holdout"
_ROLES = {MAIN: 1, CONTROL: 2, HELD_OUT: 4}


class StaleTrainingSet(LetheError):
    """The training set and the pool do not belong together."""


# --- who trains where ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Members:
    """The rows of a training set that have a part to play, by ascending row id: 17 bytes a row. `roles` are bits, see `holds`;
    `cuts` what is left out of each row's text, None where none has any.
    """

    row_ids: I64
    shards: npt.NDArray[np.int32]
    slices: npt.NDArray[np.int32]
    roles: npt.NDArray[np.uint8]
    cuts: pa.Array | None = None

    def holds(self, role: str) -> Bools:
        return (self.roles & np.uint8(_ROLES[role])) != 0

    def digest(self) -> str:
        """Of who trains, who is held out, and where: all that a model depends on (ids and cuts cover the rows' content)."""
        return key_of([_sha(a) for a in (self.contents, self.shards, self.slices, self.roles)])

    @cached_property
    def contents(self) -> I64:
        """What is trained on of each row, see `infra.spans.contents`."""
        return contents(self.row_ids, self.cuts)

    def by_slice(self, role: str, shard: int, n_slices: int) -> list[I64]:
        """What each slice of a shard holds: its row ids, or what stands for rows with cuts."""
        mine = self.holds(role) & (self.shards == shard)
        return [self.contents[mine & (self.slices == r)] for r in range(n_slices)]


def _sha(array: npt.NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def members(parts: Sequence[Part]) -> Members:
    """Read a training set, leaving out the rows that nothing is done with."""
    batches = [_playing(b) for part in parts for b in read_part(part, ["row_id", "shard", "slice", "keep", "reason", "control"])]
    columns = [np.concatenate(c) for c in zip(*batches, strict=True)] if batches else [np.empty(0, np.int64)] * 4
    ids, first = np.unique(columns[0], return_index=True)
    shards, slices, roles = (column[first] for column in columns[1:])
    cuts = read_cuts(parts)
    aligned = cuts.of(ids) if len(cuts.row_ids) else None
    return Members(ids, shards.astype(np.int32), slices.astype(np.int32), roles.astype(np.uint8), aligned)


def _playing(batch: pa.RecordBatch) -> tuple[I64, I64, I64, npt.NDArray[np.uint8]]:
    def true(mask: pa.Array) -> npt.NDArray[np.uint8]:
        return np.asarray(pc.fill_null(mask, False)).astype(np.uint8)

    held = true(pc.equal(batch.column("reason"), HOLDOUT))
    roles = (
        true(batch.column("keep")) * (1 - held) * _ROLES[MAIN]
        + true(batch.column("control")) * _ROLES[CONTROL]
        + held * _ROLES[HELD_OUT]
    )
    plays = roles > 0
    ids, shards, slices = (
        np.asarray(batch.column(name).fill_null(0)).astype(np.int64)[plays] for name in ("row_id", "shard", "slice")
    )
    return ids, shards, slices, roles[plays].astype(np.uint8)


def write_index(scratch: str, chosen: Members) -> str:
    """Lay the members down where every worker can read them; returns the uri."""
    cuts = chosen.cuts if chosen.cuts is not None else pa.nulls(len(chosen.row_ids), CUTS)
    columns = {"row_id": chosen.row_ids, "shard": chosen.shards, "slice": chosen.slices, "role": chosen.roles}
    return _write(scratch, [pa.record_batch({**{name: pa.array(values) for name, values in columns.items()}, "cuts": cuts})])


@lru_cache(maxsize=1)
def _read_index(uri: str) -> Members:
    table = pa.concat_tables(_read(uri, None))
    ids, shards, slices, roles, cuts = (column.combine_chunks() for column in table.columns)
    return Members(np.asarray(ids), np.asarray(shards), np.asarray(slices), np.asarray(roles), cuts)


def _write(scratch: str, batches: Sequence[pa.RecordBatch]) -> str:
    uri = f"{scratch.rstrip('/')}/{uuid.uuid4().hex}.arrow"
    fs, path = filesystem(uri)
    fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    with fs.open(path, "wb") as sink, pa.ipc.new_file(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return uri


def _read(uri: str, which: Sequence[int] | None) -> list[pa.Table]:
    fs, path = filesystem(uri)
    with fs.open(path, "rb") as file, pa.ipc.open_file(file) as reader:
        numbers = range(reader.num_record_batches) if which is None else which
        return [pa.Table.from_batches([reader.get_batch(i)]) for i in numbers]


# --- one file ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PoolPart:
    """One file of the pool and what its columns are called: the label, (theirs, ours) where the spec has another name, the text.
    `mixture` says how often its rows come at the end of training, by its table's name or a column."""

    part: Part
    label: str
    renames: tuple[tuple[str, str], ...]
    subject: SubjectSettings | None
    text: str | None = None
    table: str = ""
    mixture: Mixture | None = None


@dataclass(frozen=True)
class Extract:
    """Features of one file's rows on scratch: record batch i of the file holds those of groups[i]."""

    uri: str
    groups: tuple[str, ...]


def probe(wanted: str) -> tuple[str, dict[str, str]]:
    """(device, environment fingerprint) of the worker that runs this, for the setting auto, cpu or gpu."""
    device = choose_device(wanted)
    return device, fingerprint(device)


def labels(part: PoolPart, index: str) -> dict[str, list[str]]:
    """The distinct labels of each ensemble's rows in one file. Reads two columns."""
    chosen = _read_index(index)
    found: dict[str, set[str]] = {MAIN: set(), CONTROL: set()}
    for batch in read_part(part.part, ["row_id", part.label]):
        at, here = _places_in(chosen, batch)
        texts = label_texts(batch.column(part.label).filter(pa.array(here)))
        for role, names in found.items():
            names.update(pc.unique(texts.filter(pa.array(chosen.holds(role)[at]))).drop_null().to_pylist())
    return {role: sorted(names) for role, names in found.items()}


def _places_in(chosen: Members, batch: pa.RecordBatch) -> tuple[npt.NDArray[np.intp], Bools]:
    """(positions among the members of the batch's rows that are members, which rows of the batch those are)."""
    ids = np.asarray(batch.column("row_id"))
    if not len(chosen.row_ids):
        return np.empty(0, np.intp), np.zeros(len(ids), np.bool_)
    at = np.minimum(np.searchsorted(chosen.row_ids, ids), len(chosen.row_ids) - 1)
    here = chosen.row_ids[at] == ids
    return at[here], here


def group_name(role: str, number: int) -> str:
    """The name of a shard's rows, or of a group of held-out rows, in the extracts."""
    return f"{role}/{number}"


def extract(
    part: PoolPart, index: str, scratch: str, spec: Spec, wanted: frozenset[str], n_held_out: int, keys: Keys
) -> Extract | None:
    """Features, labels and places of one file's rows in the wanted groups; None where it has none. Texts stay behind."""
    chosen = _read_index(index)
    by_group: dict[str, list[pa.RecordBatch]] = {}
    for batch in read_part(part.part, _columns(part, spec)):
        at, here = _places_in(chosen, batch)
        if not len(at):
            continue
        cuts = chosen.cuts.take(pa.array(at)) if chosen.cuts is not None else None
        rows = without_cuts(batch.filter(pa.array(here)), part.text, cuts)
        encoded = _encoded(rows, part, spec, chosen.contents[at], chosen.slices[at], keys)
        for group, mine in _groups(chosen, at, np.asarray(encoded.column("place")), n_held_out):
            if group in wanted:
                by_group.setdefault(group, []).append(encoded.filter(pa.array(mine)))
    if not by_group:
        return None
    tables = [pa.Table.from_batches(batches).combine_chunks() for batches in by_group.values()]
    return Extract(_write(scratch, [t.to_batches()[0] for t in tables]), tuple(by_group))


def _columns(part: PoolPart, spec: Spec) -> list[str]:
    """The columns to read, without those that this file's table lacks."""
    back = {ours: theirs for theirs, ours in part.renames}
    whose = roots(part.part.schema, [part.subject] if part.subject else [])
    domains = [part.mixture.by] if part.mixture is not None and part.mixture.by != TABLE else []
    wanted = ["row_id", part.label, *whose, *domains, *(back.get(c, c) for c in spec.columns)]
    return [name for name in dict.fromkeys(wanted) if name in part.part.schema.names]


def _encoded(
    rows: pa.RecordBatch, part: PoolPart, spec: Spec, held: I64, slices: npt.NDArray[np.int32], keys: Keys
) -> pa.RecordBatch:
    named = rows.rename_columns([dict(part.renames).get(name, name) for name in rows.schema.names]) if part.renames else rows
    return pa.record_batch(
        {
            "row_id": rows.column("row_id"),
            "content": pa.array(held),
            "slice": pa.array(slices),
            "label": label_texts(rows.column(part.label)),
            "place": pa.array(row_places(rows, part.subject, keys)),
            **_weights(rows, part),
            **to_arrow(encode(named, spec)),
        }
    )


def _weights(rows: pa.RecordBatch, part: PoolPart) -> dict[str, pa.Array]:
    """The rows' weights at the end of training, where any are asked for."""
    if part.mixture is None:
        return {}
    domains = rows.column(part.mixture.by) if part.mixture.by in rows.schema.names else None
    return {"weight": pa.array(row_weights(part.mixture, part.table, domains, rows.num_rows))}


def _groups(chosen: Members, at: npt.NDArray[np.intp], places: U64, n_held_out: int) -> Iterator[tuple[str, Bools]]:
    """Every group that some of these rows belong to, with those rows. A subject's held-out rows fall into one group."""
    for role in (MAIN, CONTROL):
        plays = chosen.holds(role)[at]
        for shard in np.unique(chosen.shards[at][plays]):
            yield group_name(role, int(shard)), plays & (chosen.shards[at] == shard)
    held = chosen.holds(HELD_OUT)[at]
    numbers = places % np.uint64(max(1, n_held_out))
    for number in np.unique(numbers[held]):
        yield group_name(HELD_OUT, int(number)), held & (numbers == number)


def _gather(extracts: Sequence[Extract], group: str) -> pa.Table | None:
    tables = [t for e in extracts if group in e.groups for t in _read(e.uri, [e.groups.index(group)])]
    return pa.concat_tables(tables) if tables else None


# --- one shard -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShardTask:
    """One shard of one ensemble: its rows' number, and the names that its checkpoints must have."""

    role: str
    shard: int
    n_rows: int
    checkpoints: tuple[str, ...]


def find_shard(task: ShardTask, store: str) -> ShardResult | None:
    """The shard as found, when its last checkpoint is there and whole; None when something is to be trained."""
    last = load(store, task.checkpoints[-1])
    return None if last is None else found_shard(task.shard, task.n_rows, task.checkpoints, last)


def train_shard(
    task: ShardTask, recipes: Mapping[str, Recipe], environment: dict[str, str], extracts: Sequence[Extract], store: str
) -> ShardResult:
    """Train what is missing of a shard. Raises `OtherEnvironment`, or `StaleTrainingSet` when the pool lacks its rows."""
    recipe = recipes[task.role]
    if fingerprint(recipe.device) != environment:
        raise OtherEnvironment(
            "workers differ in versions, processor or device, so their shards cannot be compared. Use equal workers"
        )
    rows = by_row_id(_shard_rows(_gather(extracts, group_name(task.role, task.shard)), recipe))
    if recipe.names(task.shard, rows.by_slice(recipe.plan.slices)) != task.checkpoints:
        raise StaleTrainingSet(
            f"shard {task.shard} has {task.n_rows} rows in the training set, {len(rows.row_ids)} of them in the pool. "
            "Run: lethe curate"
        )
    return fit_shard(recipe, task.shard, rows, store)


def _shard_rows(table: pa.Table | None, recipe: Recipe) -> ShardRows:
    nothing = np.empty(0, np.int64)
    if table is None:
        return ShardRows(nothing, nothing, nothing, joined([], recipe.spec), nothing)
    numbers = class_numbers(table.column("label").to_pylist(), recipe.classes)
    ids, slices, held = (
        np.asarray(table.column(name).combine_chunks()).astype(np.int64) for name in ("row_id", "slice", "content")
    )
    weights = np.asarray(table.column("weight").combine_chunks()) if "weight" in table.schema.names else None
    return ShardRows(ids, slices, numbers, from_arrow(table, recipe.spec), held, weights)


# --- one group of held-out rows ------------------------------------------------------------------------------------------------


def evaluate(
    number: int, recipes: Mapping[str, Recipe], finals: Mapping[str, tuple[str, ...]], extracts: Sequence[Extract], store: str
) -> dict[str, Tally]:
    """The tally of every ensemble on one group of held-out rows. `finals` names the last checkpoints of its shards, in order."""
    table = _gather(extracts, group_name(HELD_OUT, number))
    if table is None:
        return {role: Tally() for role in recipes}
    _, first = np.unique(np.asarray(table.column("row_id").combine_chunks()), return_index=True)
    table = table.take(pa.array(first))
    places = np.asarray(table.column("place").combine_chunks())
    texts = table.column("label").to_pylist()
    scored = dict[str, Tally]()
    for role, recipe in recipes.items():
        chances = _chances(recipe, finals[role], from_arrow(table, recipe.spec), store)
        labelled = np.array([text is not None for text in texts], np.bool_)
        numbers = class_numbers(texts, recipe.classes)
        scored[role] = tally(chances[labelled], numbers[labelled], places[labelled])
    return scored


def _chances(recipe: Recipe, finals: Sequence[str], rows: Features, store: str) -> npt.NDArray[np.float64]:
    makeup = Makeup(recipe.kind, recipe.classes, recipe.spec)

    def models() -> Iterator[nn.Module]:
        for name in finals:
            _, checkpoint = longest(store, [name])
            if checkpoint is None:
                raise StaleTrainingSet(f"checkpoint {name[:16]} was there and is gone. Run: lethe train")
            yield makeup.module(checkpoint.weights, recipe.device)

    with deterministic(recipe.device):
        return mean_softmax(models(), rows, n_classes=len(recipe.classes), device=recipe.device)
