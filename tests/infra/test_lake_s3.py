"""The same lake on S3: commits, conflicts, reads and purges against a server on loopback."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pyarrow as pa
import pytest

from infra.contracts import Lineage, Snapshot
from infra.decisions import merged, ranges, spill
from infra.files import filesystem, write_part
from infra.lake import Lake
from infra.settings import load_settings

pytestmark = pytest.mark.s3
TABLE = "records/t"
ROWS = pa.table({"row_id": pa.array([1, 2, 3], pa.int64()), "x": [10, 20, 30]})


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A server in a process of its own: delta-rs keeps the interpreter's lock while it waits for an answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
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
def lake(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = tmp_path.name.lower().replace("_", "-")
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=bucket)
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
