"""Tables of other writers on S3: the same rows as in a folder, from a server on loopback."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import s3fs
from deltalake import write_deltalake

from infra.cluster import connect
from infra.foreign import ForeignUnreadable, open_foreign, read_foreign, refreshed, register
from infra.lake import Lake
from infra.settings import Settings

pytestmark = pytest.mark.s3
ROWS = pa.table({"x": pa.array([1, 2, 3], pa.int64()), "p": ["a b", None, "c/d%=é?#"]})


@pytest.fixture(name="store")
def _store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server in a process of its own, one bucket, and an environment that leads every library to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    settings = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_ALLOW_HTTP": "true"}
    for name, value in {**settings, "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        for _ in range(300):
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
                break
            time.sleep(0.1)
        s3fs.S3FileSystem.clear_instance_cache()
        fs = s3fs.S3FileSystem(use_listings_cache=False)
        fs.mkdir("bucket")
        yield fs
        s3fs.S3FileSystem.clear_instance_cache()
        server.terminate()


def rows(uri: str) -> list[dict[str, Any]]:
    table = open_foreign("t", uri)
    found = [row for part in table.parts for batch in read_foreign(part) for row in batch.to_pylist()]
    return sorted(found, key=lambda row: row["x"])


def test_a_table_on_s3_from_its_registration_to_its_loss(store: Any, tmp_path: Path) -> None:
    uri = "s3://bucket/theirs/t"
    write_deltalake(uri, ROWS, partition_by=["p"], storage_options={})
    assert rows(uri) == ROWS.to_pylist()
    lake = Lake.open(Settings.model_validate({"home": tmp_path, "lake": {"root": "s3://bucket/lake"}}))
    with connect(None) as workers:
        assert register(lake, "t", uri, workers).n_rows == 3
        write_deltalake(uri, ROWS.slice(1), mode="append", partition_by=["p"], storage_options={})
        assert refreshed(lake, workers).tables[0].snapshot.n_rows == 5
        write_deltalake(uri, ROWS, mode="append", partition_by=["p"], storage_options={})
        for file in store.find("bucket/theirs/t"):
            if file.endswith(".parquet"):
                store.rm_file(file)
        assert "is gone" in refreshed(lake, workers).unreadable["t"]
        store.rm("bucket/theirs", recursive=True)
        assert "no Delta table" in refreshed(lake, workers).unreadable["t"]
    with pytest.raises(ForeignUnreadable, match="no Delta table"):
        open_foreign("t", "s3://nowhere/t")
