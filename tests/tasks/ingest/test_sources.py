"""Listings and names: what a glob finds, what a collection's tables are called, which collisions are refused, what a suffix
says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.settings import NAME, Settings
from tasks.ingest.formats import Format, format_of, without_suffixes
from tasks.ingest.sources import SourceError, fixed_prefix, raw_files, table_name


def settings(home: Path, **sections: dict[str, dict[str, str]]) -> Settings:
    return Settings.model_validate({"home": home, **sections})


def touch(home: Path, *paths: str) -> None:
    for path in paths:
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text("a\n1\n", encoding="utf-8")


def test_a_collection_names_a_table_for_each_path(tmp_path: Path) -> None:
    touch(tmp_path, "in/2024/jan.csv", "in/2024/feb 1.csv.gz", "in/top.parquet", "in/_SUCCESS", "in/.hidden.csv")
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


def test_prefixes_and_suffixes_by_eye() -> None:
    assert fixed_prefix("/data/in/**/*.csv") == "/data/in/"
    assert fixed_prefix("/data/in/a.csv") == "/data/in/"
    assert fixed_prefix("/data/x*/a.csv") == "/data/"
    assert without_suffixes("v1.2/a.b.csv.gz") == "v1.2/a.b"
    assert format_of("a.CSV.gz") == Format("csv", "gzip")
    assert format_of("a.jsonl.zst") == Format("jsonl", "zstd")
    assert format_of("a.txt") == Format("")
