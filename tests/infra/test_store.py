"""Objects by name: one maker each, whatever the store; and a race that finds out stores which do not keep to it."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra import store


@given(n=st.integers(2, 12))
@hypothesis_settings(max_examples=10)
def test_of_all_who_make_an_object_one_did(tmp_path: Path, n: int) -> None:
    uri = f"{tmp_path}/deep/object-{n}"
    entries = [f"{number}".encode() for number in range(n)]
    with ThreadPoolExecutor(n) as pool:
        made = [entry for entry, won in zip(entries, pool.map(lambda e: store.create(uri, e), entries), strict=True) if won]
    assert [store.read(uri)] == made
    store.delete(uri)
    assert store.names(f"{tmp_path}/deep") == []


def test_a_folder_without_hard_links_gives_an_object_to_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert store.probe(str(tmp_path)) == store.ROUNDS
    assert store.names(str(tmp_path)) == []


def test_objects_are_read_replaced_and_removed(tmp_path: Path) -> None:
    uri = f"{tmp_path}/a/one"
    assert store.read(uri) is None
    assert not store.overwrite(uri, b"1")
    assert store.read(uri) is None
    store.put(uri, b"12")
    assert store.overwrite(uri, b"34")
    assert store.read(uri) == b"34"
    assert 0 <= store.age_s(uri) < 60
    for _ in range(2):
        store.delete(uri)
    assert store.names(f"{tmp_path}/nothing") == []


def test_a_sound_store_passes_the_race_and_nothing_is_left(tmp_path: Path) -> None:
    assert store.probe(str(tmp_path), rounds=5) == 5
    assert store.probe(str(tmp_path), budget_s=0) == 5
    assert store.names(str(tmp_path)) == []


def test_stores_that_ignore_or_race_the_condition_are_found_out(tmp_path: Path) -> None:
    def ignores(uri: str, data: bytes) -> bool:
        store.put(uri, data)
        return True

    together = threading.Barrier(store.RACERS)

    def races(uri: str, data: bytes) -> bool:
        """Honoured one after another, and not by those who come at once."""
        free = store.read(uri) is None
        if data != b"late":
            together.wait(10)
        return free and ignores(uri, data)

    assert store.probe(str(tmp_path), make=ignores) is None
    assert store.probe(str(tmp_path), make=races) is None
    assert store.names(str(tmp_path)) == []


def test_any_file_system_of_fsspec_will_do() -> None:
    fsspec.filesystem("memory").rm("/lethe-store", recursive=True) if fsspec.filesystem("memory").exists("/lethe-store") else None
    uri = "memory://lethe-store/one"
    assert store.create(uri, b"1")
    assert not store.create(uri, b"2")
    assert store.names("memory://lethe-store") == ["one"]
    store.delete(uri)
    assert store.read(uri) is None
