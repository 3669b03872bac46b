"""The same lake on S3: commits, conflicts, leases, reads and purges against a server on loopback.

Or against any other store: LETHE_TEST_S3_ENDPOINT names it, with the usual AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Buckets
are made for each test and removed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import boto3
import pyarrow as pa
import pytest

from infra import store
from infra.contracts import CommitConflict, Lineage, Snapshot
from infra.decisions import merged, ranges, spill
from infra.files import filesystem, write_part
from infra.lake import Lake, no_table
from infra.lease import leased
from infra.settings import load_settings

pytestmark = pytest.mark.s3
TABLE = "records/t"
ROWS = pa.table({"row_id": pa.array([1, 2, 3], pa.int64()), "x": [10, 20, 30]})


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A server in a process of its own: delta-rs keeps the interpreter's lock while it waits for an answer."""
    if named := os.environ.get("LETHE_TEST_S3_ENDPOINT"):
        yield named
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        for _ in range(300):
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
                break
            time.sleep(0.1)
        yield url
        server.terminate()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket, and an environment that leads every library to it."""
    if "LETHE_TEST_S3_ENDPOINT" not in os.environ:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    region = os.environ.get("AWS_REGION", "us-east-1")
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"lethe-test-{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=name)
    yield name
    made = boto3.resource("s3", endpoint_url=endpoint).Bucket(name)
    made.objects.all().delete()
    made.delete()


@pytest.fixture
def lake(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setattr(store, "probe", partial(store.probe, rounds=1))
    (tmp_path / "lethe.toml").write_text(f'[lake]\nroot = "s3://{bucket}/lake"\n', encoding="utf-8")
    return Lake.open(load_settings(tmp_path))


def put(lake: Lake, key: str = "k", rows: pa.Table = ROWS, *, overwrite: bool = False) -> Snapshot:
    file = write_part(lake.folder(TABLE), rows.to_batches(), rows.schema)
    return lake.commit(TABLE, rows.schema, [file], overwrite=overwrite, lineage=Lineage("test", key, "code"))


def test_what_is_written_is_read_and_found(lake: Lake) -> None:
    snapshot = put(lake, "one")
    assert lake.read(snapshot).to_pylist() == ROWS.to_pylist()
    assert lake.tables() == [TABLE]
    assert lake.find(TABLE, "one") == snapshot
    assert not lake.exists("records/nothing")


def test_writers_at_once_lose_nothing(lake: Lake) -> None:
    put(lake)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: put(lake, str(n)), range(6)))
    assert lake.snapshot(TABLE).n_rows == 21
    assert lake.read(lake.snapshot(TABLE)).num_rows == 21


def test_a_purge_leaves_the_current_rows_only(lake: Lake) -> None:
    put(lake, "one")
    kept = put(lake, "two", ROWS.slice(1), overwrite=True)
    with lake.writing():
        (report,) = lake.purge([TABLE])
    assert lake.snapshot(TABLE).digest == kept.digest
    assert lake.read(lake.snapshot(TABLE))["row_id"].to_pylist() == [2, 3]
    fs, path = filesystem(lake.uri(TABLE))
    assert len([f for f in fs.find(path) if "_delta_log" not in f]) == 1
    assert report.n_files_deleted == 1


def test_scratch_parts_are_merged_and_removed(lake: Lake) -> None:
    with lake.scratch() as scratch:
        parts = [spill(scratch, ROWS), spill(scratch, ROWS.slice(1))]
        assert merged(parts, *ranges(3)[0])["row_id"].to_pylist() == [1, 2, 3]
    fs, path = filesystem(f"{lake.root}/_scratch")
    assert not fs.exists(path) or not fs.find(path)


# --- several writers ----------------------------------------------------------------------------------------------------


def test_the_store_gives_an_object_to_one_of_those_who_make_it_at_once(bucket: str) -> None:
    assert store.probe(f"s3://{bucket}/race", rounds=8) == 8
    assert store.names(f"s3://{bucket}/race") == []


def test_a_put_whose_answer_was_lost_is_known_when_it_is_sent_again(bucket: str) -> None:
    uri = f"s3://{bucket}/one"
    assert store.create(uri, b"mine")
    assert store.create(uri, b"mine")
    assert not store.create(uri, b"other")
    assert store.read(uri) == b"mine"
    store.delete(uri)
    assert store.read(uri) is None


def test_the_race_is_run_once_a_lake(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not lake.single_writer
    monkeypatch.setattr(store, "probe", lambda *_: pytest.fail("raced again"))
    assert not Lake.open(load_settings(tmp_path)).single_writer


def test_a_store_that_ignores_the_condition_has_one_writer(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    careless = lambda uri, data: not store.put(uri, data)  # noqa: E731
    monkeypatch.setattr(store, "probe", lambda place, probe=store.probe: probe(place, make=careless))
    with lake.writing(shared=True):
        assert lake.single_writer
        assert not any(name.startswith("shared") for name in store.names(f"{lake.root}/_locks"))
    assert "SINGLE-WRITER" in caplog.text


def test_an_exclusive_lease_waits_for_the_shared_ones(bucket: str) -> None:
    place, seen = f"s3://{bucket}/lake/_locks", list[str]()
    held, go = threading.Event(), threading.Event()

    def share() -> None:
        with leased(place, shared=True):
            held.set()
            go.wait(30)
            seen.append("shared ended")

    with ThreadPoolExecutor(1) as pool:
        sharing = pool.submit(share)
        assert held.wait(30)
        threading.Timer(0.5, go.set).start()
        with leased(place):
            seen.append("exclusive")
        sharing.result()
    assert seen == ["shared ended", "exclusive"]


def test_the_first_commit_is_refused_where_another_was_first(lake: Lake) -> None:
    put(lake)
    file = write_part(lake.folder(TABLE), ROWS.to_batches(), ROWS.schema)
    with pytest.raises(CommitConflict):
        lake.commit(TABLE, ROWS.schema, [file], lineage=Lineage("test", "k", "c"), expect=no_table(TABLE))


def test_a_tidy_takes_what_no_log_names(lake: Lake) -> None:
    kept = put(lake)
    write_part(lake.folder(TABLE), ROWS.to_batches(), ROWS.schema)
    write_part(lake.folder("records/never"), ROWS.to_batches(), ROWS.schema)
    with lake.writing():
        assert {report.table: report.n_files_deleted for report in lake.tidy()} == {TABLE: 1, "records/never": 1}
        assert lake.tidy() == []
    assert lake.read(kept).num_rows == 3


def test_a_partitioned_table_is_read_back(lake: Lake) -> None:
    files = [
        write_part(lake.folder(TABLE), ROWS.slice(n, 1).to_batches(), ROWS.schema, partition={"x": str(10 * (n + 1))})
        for n in range(3)
    ]
    snapshot = lake.commit(TABLE, ROWS.schema, files[:2], lineage=Lineage("test", "k", "c"), partition_by=["x"])
    snapshot = lake.commit(TABLE, ROWS.schema, files[2:], lineage=Lineage("test", "l", "c"), remove=files[:1])
    assert sorted(part.file.partition["x"] or "" for part in lake.parts(snapshot)) == ["20", "30"]
    plain = write_part(lake.folder(TABLE), ROWS.slice(0, 1).to_batches(), ROWS.schema)
    anew = lake.commit(TABLE, ROWS.schema, [plain], lineage=Lineage("test", "m", "c"), overwrite=True, partition_by=[])
    assert lake.partitioning(anew) == ()
    assert lake.read(anew)["x"].to_pylist() == [10]
