"""Archives: members are the files that were packed, each on its own; damage stays where it is; an archive is read once."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import tarfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.settings import Settings
from tasks.ingest import archives
from tasks.ingest.archives import Contents, Member, contents, opened, random_access
from tasks.ingest.sources import RawFile, raw_files
from tasks.ingest.streams import Unreadable

FILES = {"a.csv": b"x\n1\n", "d/b.csv.gz": gzip.compress(b"x\n2\n"), "d/e/c.jsonl": b'{"x":3}\n' * 999, "empty.csv": b""}


def tar_of(files: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def zip_of(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return sink.getvalue()


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


PACKED: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "x.zip": zip_of,
    "x.tar": tar_of,
    "x.tar.gz": lambda files: gzip.compress(tar_of(files)),
    "x.tgz": lambda files: gzip.compress(tar_of(files)),
    "x.tar.bz2": lambda files: bz2.compress(tar_of(files)),
    "x.tar.zst": lambda files: zstd(tar_of(files)),
}


def listed(home: Path, source: str) -> list[RawFile]:
    return raw_files(Settings.model_validate({"home": home, "tables": {"t": {"source": source}}}))["t"]


def bytes_of(raw: RawFile) -> bytes:
    with opened(raw.uri, modified=raw.modified) as file:
        return file.read()


@pytest.mark.parametrize("name", PACKED)
def test_members_are_the_files_that_were_packed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(PACKED[name](FILES))
    for path, data in FILES.items():
        (tmp_path / "plain" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "plain" / path).write_bytes(data)
    packed, plain = listed(tmp_path, name), listed(tmp_path, "plain")
    assert [raw.path for raw in packed] == [raw.path for raw in plain] == sorted(FILES)
    assert [raw.n_bytes for raw in packed] == [raw.n_bytes for raw in plain]
    assert [bytes_of(raw) for raw in packed] == [bytes_of(raw) for raw in plain] == [FILES[path] for path in sorted(FILES)]


@given(st.dictionaries(st.text("ab./é :", min_size=1, max_size=6).map(lambda s: s + "x.csv"), st.binary(max_size=30), max_size=4))
def test_zip_and_tar_agree_whatever_the_names(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    home = tmp_path_factory.mktemp("packed")
    (home / "x.zip").write_bytes(zip_of(files))
    (home / "x.tar").write_bytes(tar_of(files))
    zipped, tarred = (contents(str(home / name)) for name in ("x.zip", "x.tar"))
    assert not zipped.failure and not tarred.failure
    assert [(m.path, m.n_bytes) for m in zipped.members] == [(m.path, m.n_bytes) for m in tarred.members]
    assert not any(part in ("", ".", "..") for m in zipped.members for part in m.path.split("/"))
    for one in zipped.members:
        assert bytes_of(RawFile("t", f"zip://{one.path}::file://{home}/x.zip", 0, "")) == bytes_of(
            RawFile("t", f"tar://{one.path}::file://{home}/x.tar", 0, "")
        )


@given(st.integers(0, 1 << 14), st.sampled_from([*PACKED]))
def test_a_cut_archive_gives_what_it_holds_and_says_so(tmp_path_factory: pytest.TempPathFactory, cut: int, name: str) -> None:
    files = {f"{n}.csv": os.urandom(700) for n in range(4)}
    whole = PACKED[name](files)
    home = tmp_path_factory.mktemp("cut")
    (home / name).write_bytes(whole[: min(cut, len(whole) - 1)])
    raws = listed(home, name)
    n_failed = 0
    for raw in raws:
        if "::" not in raw.uri:
            assert archives.refusal(raw.uri)
            n_failed += 1
            continue
        with opened(raw.uri, modified=raw.modified) as file:
            try:
                data = b"".join(iter(lambda: file.read(300), b""))
            except Unreadable:
                n_failed += 1
                assert file.read(10) == b""
            else:
                assert data == files[raw.path]
    # The last bytes of an archive may be padding.
    assert n_failed or sorted(raw.path for raw in raws) == sorted(files)


def test_a_changed_archive_is_read_again(tmp_path: Path) -> None:
    place = tmp_path / "x.tar.gz"
    place.write_bytes(PACKED["x.tar.gz"]({"a.csv": b"old"}))
    [before] = listed(tmp_path, "x.tar.gz")
    assert bytes_of(before) == b"old"
    place.write_bytes(PACKED["x.tar.gz"]({"a.csv": b"new!"}))
    os.utime(place, (1, 1))
    with opened(before.uri) as file:
        assert file.read() == b"new!"
    [after] = listed(tmp_path, "x.tar.gz")
    assert (after.uri, bytes_of(after)) == (before.uri, b"new!")
    assert after.modified != before.modified


def test_an_archive_is_decompressed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.tar.gz").write_bytes(PACKED["x.tar.gz"](FILES))
    calls = list[str]()
    read = archives._read  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(archives, "_read", lambda uri, version: calls.append(uri) or read(uri, version))
    raws = listed(tmp_path, "x.tar.gz")
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(bytes_of, raws * 5)) == [FILES[raw.path] for raw in raws] * 5
    assert len(calls) == 1


def test_an_archive_that_did_not_change_is_not_read_to_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(uri: str, version: str) -> None:
        raise AssertionError(uri)

    place, read = tmp_path / "x.tar.gz", archives._read  # pyright: ignore[reportPrivateUsage]
    place.write_bytes(PACKED["x.tar.gz"](FILES))
    before = listed(tmp_path, "x.tar.gz")
    monkeypatch.setattr(archives, "_read", refuse)
    archives._held.by_uri.clear()  # pyright: ignore[reportPrivateUsage]
    assert [(raw.uri, raw.n_bytes, raw.modified, raw.path) for raw in listed(tmp_path, "x.tar.gz")] == [
        (raw.uri, raw.n_bytes, raw.modified, raw.path) for raw in before
    ]
    monkeypatch.setattr(archives, "_read", read)
    place.write_bytes(PACKED["x.tar.gz"]({"other.csv": b"x"}))
    assert [raw.path for raw in listed(tmp_path, "x.tar.gz")] == ["other.csv"]
    [note] = (tmp_path / ".lethe" / "archives").iterdir()
    note.write_text("{}", encoding="utf-8")
    assert [raw.path for raw in listed(tmp_path, "x.tar.gz")] == ["other.csv"]


def test_only_so_many_archives_are_kept_open(tmp_path: Path) -> None:
    def n_open() -> int:
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    for n in range(30):
        (tmp_path / f"{n}.tar.gz").write_bytes(PACKED["x.tar.gz"]({f"{n}.csv": b"x"}))
    listed(tmp_path, "0.tar.gz")
    before = n_open()
    raws = listed(tmp_path, "*.tar.gz")
    assert {bytes_of(raw) for raw in raws} == {b"x"}
    assert n_open() <= before + 10


def test_a_member_is_read_while_its_archive_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_MAX_HELD", 1)
    for name in ("x.tar.gz", "y.zip"):
        packed = PACKED["x.tar.gz"](FILES) if name == "x.tar.gz" else zip_of(FILES)
        (tmp_path / name).write_bytes(packed)
    with opened(f"tar://d/e/c.jsonl::{tmp_path}/x.tar.gz") as tarred, opened(f"zip://d/e/c.jsonl::{tmp_path}/y.zip") as zipped:
        contents(f"{tmp_path}/x.tar.gz")
        assert tarred.read() == zipped.read() == FILES["d/e/c.jsonl"]


def test_random_access_by_eye(tmp_path: Path) -> None:
    (tmp_path / "a.bin.gz").write_bytes(gzip.compress(b"0123456789"))
    (tmp_path / "x.zip").write_bytes(zip_of({"a.bin": b"0123456789"}))
    (tmp_path / "x.tar").write_bytes(tar_of({"a.bin": b"0123456789"}))
    for uri, compression in (
        (f"{tmp_path}/a.bin.gz", "gzip"),
        (f"zip://a.bin::{tmp_path}/x.zip", None),
        (f"tar://a.bin::{tmp_path}/x.tar", None),
    ):
        with random_access(uri, compression=compression) as file:
            assert file.seek(-3, io.SEEK_END) == 7
            assert file.read(2) == b"78"
            file.seek(1)
            assert (file.read(2), file.tell()) == (b"12", 3)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(os.urandom(9000))[:5000])
    with pytest.raises(Unreadable, match="gzip"), random_access(f"{tmp_path}/cut.gz", compression="gzip") as file:
        assert len(file.read()) > 1000


def test_a_file_that_follows_is_read_behind_the_first(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar_of({"a": b"0123", "b": b"45"}))
    uri = f"tar://{{}}::{tmp_path}/x.tar"
    with opened(uri.format("a"), then=uri.format("b")) as file:
        assert b"".join(iter(lambda: file.read(3), b"")) == b"012345"
    with opened(uri.format("a"), then=uri.format("b")) as file:
        assert file.read() == b"012345"


def test_contents_by_eye(tmp_path: Path) -> None:
    files = {"../../etc/a.csv": b"1", "/b.csv": b"22", "./c/d.csv": b"", "e\\f.csv": b"4"}
    (tmp_path / "x.tar").write_bytes(tar_of(files))
    found = contents(f"{tmp_path}/x.tar")
    assert [(m.path, m.n_bytes) for m in found.members] == [("b.csv", 2), ("c/d.csv", 0), ("e/f.csv", 1), ("etc/a.csv", 1)]
    with pytest.raises(FileNotFoundError), opened(f"tar://nope.csv::{tmp_path}/x.tar"):
        pass
    (tmp_path / "x.zip").write_bytes(b"no zip")
    assert contents(f"{tmp_path}/x.zip") == Contents(
        contents(f"{tmp_path}/x.zip").version, (), "the zip archive is damaged: BadZipFile"
    )


def test_links_in_a_tar_by_eye(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        info = tarfile.TarInfo("a.csv")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"x\n"))
        for name, kind in (("hard.csv", tarfile.LNKTYPE), ("soft.csv", tarfile.SYMTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "a.csv"
            tar.addfile(link)
    assert contents(f"{tmp_path}/x.tar").members == (Member("a.csv", 2, "0"), Member("hard.csv", 2, "0"))
    assert [bytes_of(raw) for raw in listed(tmp_path, "x.tar")] == [b"x\n", b"x\n"]


def test_a_damaged_member_harms_no_other(tmp_path: Path) -> None:
    packed = bytearray(zip_of({"a.csv": b"x\n1\n", "b.csv": b"x\n" + b"2\n" * 9}, zipfile.ZIP_STORED))
    packed[packed.index(b"2\n2\n")] = ord("3")
    (tmp_path / "x.zip").write_bytes(packed)
    first, second = listed(tmp_path, "x.zip")
    assert bytes_of(first) == b"x\n1\n"
    with opened(second.uri) as file:
        with pytest.raises(Unreadable, match="damaged in its zip archive"):
            file.read()
        assert file.read() == b""


def test_thousands_of_members_are_listed_and_opened_in_linear_time(tmp_path: Path, shared_data: Path) -> None:
    start = time.process_time()
    raws = listed(tmp_path, str(shared_data / "lake" / "pcm_dpc.tar.gz"))
    listing_s = time.process_time() - start
    assert len(raws) == 3565
    assert sum(len(bytes_of(raw)) for raw in raws) == sum(raw.n_bytes for raw in raws)
    assert listing_s < 3
    assert time.process_time() - start < 8
