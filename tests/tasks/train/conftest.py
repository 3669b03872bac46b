"""Small lakes for training tests: records and a training set, written in a chosen order and number of files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from infra import tracking
from infra.contracts import HOLDOUT, KEPT, NOT_SELECTED, TRAINING_SET, DataFile, Lineage, Snapshot
from infra.files import write_part
from infra.ids import keyed_bits
from infra.lake import Lake
from infra.rowhash import row_hashes, row_ids
from infra.settings import Settings
from infra.subjects import row_places

WORDS = [
    ["ball", "goal", "match", "team", "score", "league"],
    ["stock", "market", "bank", "price", "share", "profit"],
    ["rain", "wind", "storm", "cloud", "sun", "snow"],
]


def settings_for(home: Path, kind: str, *, device: str = "cpu", **model: Any) -> Settings:
    shape = {"dataset": "d", "kind": kind, "label": "topic", "shards": 2, "slices": 2, "epochs": 2, "batch_size": 16, "seed": 3}
    table = {"source": "raw/*", "subject": {"kind": "person", "column": "person"}, "label": "topic"}
    return Settings.model_validate(
        {
            "home": home,
            "tables": {"notes": {**table, **({"text": "body"} if kind == "text" else {})}},
            "datasets": {"d": {"pool": "notes"}},
            "models": {"m": {**shape, **model}},
            "cluster": {"device": device, "local_bytes": 0},
        }
    )


def texts(n_people: int = 30, n_each: int = 4) -> pa.Table:
    """Notes about three topics, each person's in words of all of them."""
    rng = np.random.default_rng(0)
    rows = [(p, int(rng.integers(3))) for p in range(n_people) for _ in range(n_each)]
    bodies = [" ".join([*rng.choice(WORDS[t], 6), f"w{rng.integers(40)}"]) for _, t in rows]
    topics = [("sport", "money", "weather")[t] for _, t in rows]
    return pa.table({"person": [f"p{p}" for p, _ in rows], "body": bodies, "topic": topics})


def columns(n_people: int = 30, n_each: int = 4) -> pa.Table:
    """Numbers (some NULL), a category and a day; the topic depends on the first two."""
    rng = np.random.default_rng(1)
    n = n_people * n_each
    size, colour = rng.normal(size=n) * 100, rng.choice(["red", "blue"], n)
    topic = np.where((size > 0) == (colour == "red"), 1, 0)
    height = pa.array(rng.normal(size=n), mask=rng.random(n) < 0.1)
    day = pa.array(rng.integers(0, 9000, n).astype(np.int32)).cast(pa.date32())
    people = np.repeat([f"p{p}" for p in range(n_people)], n_each)
    return pa.table({"person": people, "size": size, "height": height, "colour": colour, "day": day, "topic": topic})


def images(n_people: int = 20, n_each: int = 4) -> pa.Table:
    """8x8 pictures 0..16 of a bright top or left half."""
    rng = np.random.default_rng(2)
    topic = rng.integers(0, 2, n_people * n_each)
    pixels = rng.integers(0, 6, (len(topic), 8, 8)).astype(np.float64)
    pixels[topic == 0, :4] += 10
    pixels[topic == 1, :, :4] += 10
    people = np.repeat([f"p{p}" for p in range(n_people)], n_each)
    return pa.table({"person": people, "pixels": list(pixels.reshape(len(topic), 64)), "topic": topic})


@dataclass(frozen=True)
class House:
    """A lake with one pool table and its training set."""

    settings: Settings
    lake: Lake
    pool: Snapshot
    training_set: Snapshot


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs: making one takes seconds, copying it does not."""
    home = tmp_path_factory.mktemp("mlflow")
    tracking.MlflowClient(f"sqlite:///{home}/mlflow.db", f"sqlite:///{home}/mlflow.db").search_experiments()
    return home / "mlflow.db"


@pytest.fixture
def build(tmp_path: Path, empty_store: Path) -> Callable[..., House]:
    """Make, or make anew, the lake `folder` holding a table; the same secret in every lake. `cuts` are of a person's rows."""

    def make(
        kind: str,
        table: pa.Table,
        folder: str = "a",
        *,
        n_files: int = 1,
        shuffle: int | None = None,
        cuts: dict[str, list[int]] | None = None,
        **model: Any,
    ) -> House:
        settings = settings_for(tmp_path / folder, kind, **model)
        database = settings.home / "tracking" / "mlflow.db"
        if not database.exists():
            database.parent.mkdir(parents=True)
            shutil.copyfile(empty_store, database)
            _write_secret(settings)
        lake = Lake.open(settings)
        if shuffle is not None:
            table = table.take(pa.array(np.random.default_rng(shuffle).permutation(table.num_rows)))
        ids = row_ids("notes", row_hashes(table, table.column_names, lake.keys.row), lake.keys.row)
        records = table.add_column(0, "row_id", pa.array(ids))
        pool = _commit(lake, "records/notes", records, n_files)
        return House(settings, lake, pool, _commit(lake, "training_set/d", _decisions(settings, records, lake, cuts or {}), 1))

    return make


def _write_secret(settings: Settings) -> None:
    settings.private_dir.mkdir(parents=True, exist_ok=True)
    file = settings.private_dir / "secret"
    file.write_text("5" * 64, encoding="ascii")
    file.chmod(0o600)


@pytest.fixture(params=["text", "tabular", "image"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def table(kind: str) -> pa.Table:
    """A labelled table for the kind: people p0, p1, ... with four rows each."""
    return {"text": texts, "tabular": columns, "image": images}[kind]()


@pytest.fixture
def without() -> Callable[[pa.Table, str], pa.Table]:
    """The table as if a person had never been in it."""
    return lambda table, person: table.filter(pa.array([p != person for p in table["person"].to_pylist()]))


def _decisions(settings: Settings, records: pa.Table, lake: Lake, cuts: dict[str, list[int]]) -> pa.Table:
    model = settings.model("m")
    _, first = np.unique(np.asarray(records["row_id"]), return_index=True)
    records = records.take(pa.array(first))
    places = row_places(records, settings.table("notes").subject, lake.keys)
    bits = keyed_bits(places, "test")
    held = bits % np.uint64(5) == 0
    keep = ~held & (bits % np.uint64(7) != 0)
    reasons = np.where(held, HOLDOUT, np.where(keep, KEPT, NOT_SELECTED))
    columns_ = {
        "row_id": records["row_id"],
        "shard": pa.array((places % np.uint64(model.shards)).astype(np.int32)),
        "slice": pa.array(((places >> np.uint64(20)) % np.uint64(model.slices)).astype(np.int32)),
        "keep": pa.array(keep),
        "reason": pa.array(reasons.tolist()),
        "control": pa.array(~held & (bits % np.uint64(3) != 0)),
        "cuts": pa.array([cuts.get(person) for person in records["person"].to_pylist()], TRAINING_SET.field("cuts").type),
    }
    return pa.table(columns_, schema=TRAINING_SET)


def _commit(lake: Lake, name: str, table: pa.Table, n_files: int) -> Snapshot:
    size = -(-table.num_rows // n_files)
    files: list[DataFile] = []
    for start in range(0, table.num_rows, size):
        piece = table.slice(start, size).combine_chunks()
        files.append(write_part(lake.folder(name), piece.to_batches(), table.schema))
    return lake.commit(name, table.schema, files, lineage=Lineage("test", f"{name} of {table.num_rows}", ""), overwrite=True)
