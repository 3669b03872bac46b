"""Listings and names: what a glob finds, what a collection's tables are called, which collisions are refused; archives, HTTP and
S3."""

from __future__ import annotations

import gzip
import http.server
import io
import socket
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import boto3
import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.settings import Settings
from infra.settings_check import NAME
from tasks.ingest.archives import opened, random_access, refusal
from tasks.ingest.formats import format_of
from tasks.ingest.sources import RawFile, SourceError, fixed_prefix, raw_files, table_name, why_empty
from tests.local_bucket import local_bucket


def settings(home: Path, **sections: dict[str, dict[str, str]]) -> Settings:
    return Settings.model_validate({"home": home, **sections})


def touch(home: Path, *paths: str) -> None:
    for path in paths:
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text("a\n1\n", encoding="utf-8")


def test_a_collection_names_a_table_for_each_path(tmp_path: Path) -> None:
    touch(tmp_path, "in/2024/jan.csv", "in/2024/feb 1.csv.gz", "in/top.parquet", "in/_SUCCESS", "in/.hidden.csv", "in/.git/a.csv")
    found = raw_files(settings(tmp_path, collections={"c": {"source": "in/**/*"}}))
    assert list(found) == ["c/2024/feb_1", "c/2024/jan", "c/top"]
    assert [f.uri for f in found["c/2024/jan"]] == [str(tmp_path / "in/2024/jan.csv")]


def test_a_table_has_all_files_of_its_globs_once(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.csv", "in/b.csv", "in/x.tsv")
    sections = {"tables": {"t": {"source": ["in/*.csv", "in/b.csv", "in/x.tsv"]}}}
    found = raw_files(Settings.model_validate({"home": tmp_path, **sections}))
    assert [Path(f.uri).name for f in found["t"]] == ["a.csv", "b.csv", "x.tsv"]


@pytest.mark.parametrize("paths", [("in/a.csv", "in/a.tsv"), ("in/a b.csv", "in/a_b.csv")])
def test_two_files_with_one_name_are_refused(tmp_path: Path, paths: tuple[str, str]) -> None:
    touch(tmp_path, *paths)
    with pytest.raises(SourceError, match="would both be table c/a"):
        raw_files(settings(tmp_path, collections={"c": {"source": "in/*"}}))


def test_names_narrow_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.csv", "in/b.csv", "t.csv")
    sections = settings(tmp_path, tables={"t": {"source": "t.csv"}}, collections={"c": {"source": "in/*.csv"}})
    assert list(raw_files(sections, ("c/b",))) == ["c/b"]
    assert list(raw_files(sections, ("c", "t"))) == ["t", "c/a", "c/b"]
    for name in ("nope", "c/nope"):
        with pytest.raises(SourceError, match=name):
            raw_files(sections, (name,))


@given(st.text(st.characters(blacklist_characters="/", blacklist_categories=("Cs",)), min_size=1, max_size=12))
def test_every_path_becomes_a_valid_name(part: str) -> None:
    name = table_name(f"{part}/{part}.csv")
    assert NAME.match(name)
    assert ".." not in name


def test_prefixes_by_eye() -> None:
    assert fixed_prefix("/data/in/**/*.csv") == "/data/in/"
    assert fixed_prefix("/data/in/a.csv") == "/data/in/"
    assert fixed_prefix("/data/x*/a.csv") == "/data/"
    assert fixed_prefix("https://host/in/a.csv?x=[1]") == "https://host/in/"


# --- archives and pairs -------------------------------------------------------------------------------------------------------


def pack(home: Path, name: str, *paths: str) -> None:
    (home / name).parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(home / name, "w") as archive:
        for path in paths:
            archive.writestr(path, "a\n1\n")


def tables(home: Path, source: str | list[str], **options: str) -> dict[str, str]:
    """The tables of a collection with the paths of their files."""
    section = {"c": {"source": source, **options}}
    found = raw_files(Settings.model_validate({"home": home, "collections": section}))
    return {name: raw.path for name, [raw] in found.items()}


def paths(home: Path, source: str | list[str], **options: str) -> list[str]:
    section = {"t": {"source": source, **options}}
    return [raw.path for raw in raw_files(Settings.model_validate({"home": home, "tables": section}))["t"]]


def test_members_of_archives_name_tables_by_eye(tmp_path: Path) -> None:
    pack(tmp_path, "in/a.zip", "x/one.csv", "x/two.csv.gz", "notes.xyz", ".hidden.csv", "_SUCCESS", "__MACOSX/x/one.csv")
    pack(tmp_path, "in/b.zip", "x/one.csv")
    assert tables(tmp_path, "in/a.zip") == {"c/x/one": "x/one.csv", "c/x/two": "x/two.csv.gz"}
    assert tables(tmp_path, "in/*.zip") == {"c/a/x/one": "a/x/one.csv", "c/a/x/two": "a/x/two.csv.gz", "c/b/x/one": "b/x/one.csv"}
    assert tables(tmp_path, "in") == tables(tmp_path, "in/*.zip")
    assert tables(tmp_path, "zip://x/*.csv::in/a.zip") == {"c/one": "one.csv"}
    assert tables(tmp_path, "zip://**/one.*::in/*.zip") == {"c/a/x/one": "a/x/one.csv", "c/b/x/one": "b/x/one.csv"}
    assert paths(tmp_path, "in/a.zip", format="csv") == ["notes.xyz", "x/one.csv", "x/two.csv.gz"]
    with pytest.raises(SourceError, match="would both be table c/one"):
        tables(tmp_path, ["zip://x/*.csv::in/a.zip", "zip://x/*.csv::in/b.zip"])


def test_files_come_archive_by_archive(tmp_path: Path) -> None:
    touch(tmp_path, "z.csv")
    for name in ("a.zip", "b.zip"):
        pack(tmp_path, name, "1.csv", "2.csv")
    assert paths(tmp_path, "*") == ["z.csv", "a/1.csv", "a/2.csv", "b/1.csv", "b/2.csv"]


def test_uris_of_members_are_chained_by_eye(tmp_path: Path) -> None:
    pack(tmp_path, "a b.zip", "x/one.csv")
    [raw] = raw_files(settings(tmp_path, tables={"t": {"source": "a b.zip"}}))["t"]
    assert raw.uri == f"zip://x/one.csv::file://{tmp_path}/a b.zip"
    assert (raw.n_bytes, raw.path) == (4, "x/one.csv")
    with fsspec.open(raw.uri, "rb") as file:
        assert file.read() == b"a\n1\n"


def test_a_broken_or_useless_archive_is_one_raw_file(tmp_path: Path) -> None:
    pack(tmp_path, "good.zip", "a.csv")
    pack(tmp_path, "useless.zip", "a.xyz")
    pack(tmp_path, "nested.zip", "inner.tar")
    (tmp_path / "broken.zip").write_bytes(b"PK")
    (tmp_path / "empty.tar.gz").write_bytes(b"")
    found = raw_files(settings(tmp_path, tables={"t": {"source": "*"}}))["t"]
    assert [raw.path for raw in found] == ["broken.zip", "empty.tar.gz", "useless.zip", "good/a.csv", "nested/inner.tar"]
    said = {raw.path: refusal(raw.uri) for raw in found if format_of(raw.uri).is_archive}
    assert list(said) == ["broken.zip", "empty.tar.gz", "useless.zip", "nested/inner.tar"]
    assert "damaged" in said["broken.zip"] and "format" in said["useless.zip"] and "Unpack" in said["nested/inner.tar"]


def test_labels_are_read_with_their_images(tmp_path: Path) -> None:
    touch(tmp_path, "in/train-images-idx3-ubyte.gz", "in/train-labels-idx1-ubyte.gz", "in/test-labels-idx1-ubyte.gz")
    found = raw_files(settings(tmp_path, collections={"c": {"source": "in/*"}}))
    assert list(found) == ["c/test-labels-idx1-ubyte", "c/train-images-idx3-ubyte"]
    [images] = found["c/train-images-idx3-ubyte"]
    assert images.labels == f"{tmp_path}/in/train-labels-idx1-ubyte.gz"
    assert images.n_bytes == 8 and len(images.modified.split()) == 2
    [alone] = raw_files(settings(tmp_path, tables={"t": {"source": "in/*images*"}}))["t"]
    assert (alone.labels, alone.n_bytes) == ("", 4)


def test_a_path_says_nothing_of_the_machine(tmp_path: Path) -> None:
    for home in ("here", "there/deep"):
        touch(tmp_path / home, "in/a/1.txt", "in/b/1.txt")
    for source, expected in (("in/**/*.txt", ["a/1.txt", "b/1.txt"]), ("in", ["a/1.txt", "b/1.txt"]), ("in/a/1.txt", ["1.txt"])):
        assert paths(tmp_path / "here", source) == paths(tmp_path / "there/deep", source) == expected


def test_why_a_source_is_empty_by_eye(tmp_path: Path) -> None:
    touch(tmp_path, "in/_x.csv")
    pack(tmp_path, "a.zip", "a.csv")
    assert why_empty(tmp_path, "nope.csv") == "nope.csv does not exist"
    assert why_empty(tmp_path, "*.csv") == "no file matches *.csv"
    assert "a marker" in why_empty(tmp_path, "in/*")
    assert why_empty(tmp_path, "zip://*.tsv::a.zip") == "nothing in a.zip matches *.tsv"
    assert why_empty(tmp_path, "zip://*.tsv::b.zip") == "b.zip does not exist"


# --- servers ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A web server over the folder `web` that knows no ranges."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    (tmp_path / "web").mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "web")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def bytes_of(raw: RawFile) -> bytes:
    with opened(raw.uri, modified=raw.modified) as file:
        return file.read()


def test_files_of_a_web_server_by_eye(tmp_path: Path, site: str) -> None:
    touch(tmp_path, "web/in/a.csv")
    pack(tmp_path, "web/in/b.zip", "x/c.csv")
    sources = {"source": [f"{site}/in/a.csv?key=1", f"{site}/in/b.zip"]}
    found = raw_files(Settings.model_validate({"home": tmp_path, "collections": {"c": sources}}))
    assert {name: raw.path for name, [raw] in found.items()} == {"c/a": "a.csv", "c/x/c": "x/c.csv"}
    assert [raw.n_bytes for [raw] in found.values()] == [4, 4]
    assert all("GMT" in raw.modified for [raw] in found.values())
    assert [bytes_of(raw) for [raw] in found.values()] == [b"a\n1\n"] * 2
    with random_access(found["c/a"][0].uri) as file:
        assert (file.seek(2), file.read()) == (2, b"1\n")


def test_a_server_that_is_away_is_no_empty_folder(tmp_path: Path, site: str) -> None:
    assert raw_files(settings(tmp_path, tables={"t": {"source": f"{site}/nope.csv"}})) == {"t": []}
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{closed.getsockname()[1]}/a.csv"
        with pytest.raises(SourceError, match="cannot be listed: ClientConnector"):
            raw_files(settings(tmp_path, tables={"t": {"source": away}}))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with local_bucket("raw", monkeypatch) as uri:
        yield uri


@pytest.mark.s3
def test_files_and_archives_of_a_bucket_by_eye(tmp_path: Path, bucket: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for n in range(40):
            info = tarfile.TarInfo(f"x/{n}.csv")
            info.size = 4
            tar.addfile(info, io.BytesIO(b"a\n1\n"))
    client = boto3.client("s3")
    client.put_object(Bucket="raw", Key="in/d/a.csv.gz", Body=gzip.compress(b"a\n1\n"))
    client.put_object(Bucket="raw", Key="in/b.tar.gz", Body=packed.getvalue())
    found = [raw for [raw] in raw_files(settings(tmp_path, collections={"c": {"source": f"{bucket}/in/**"}})).values()]
    assert {raw.table for raw in found} == {"c/d/a", *(f"c/b/x/{n}" for n in range(40))}
    assert {raw.uri for raw in found} == {
        f"{bucket}/in/d/a.csv.gz",
        *(f"tar://x/{n}.csv::{bucket}/in/b.tar.gz" for n in range(40)),
    }
    start = time.monotonic()
    assert {bytes_of(raw) for raw in found if "::" in raw.uri} == {b"a\n1\n"}
    assert time.monotonic() - start < 2  # no request for each member
