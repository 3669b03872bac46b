"""What a file's name says of its format, and what lethe.toml says instead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ingest.formats import Format, format_of, refusal, split_chain, without_suffixes

SUFFIXES = {
    "csv": "csv",
    "TSV": "tsv",
    "ndjson": "jsonl",
    "jsonl": "jsonl",
    "json": "json",
    "pq": "parquet",
    "parquet": "parquet",
    "arrow": "arrow",
    "feather": "arrow",
    "md": "text",
    "txt": "text",
    "JPG": "image",
    "png": "image",
    "idx": "idx",
    "xyz": "",
}
COMPRESSIONS = {"": None, ".gz": "gzip", ".bz2": "bz2", ".ZST": "zstd"}
PLACES = ["/a/b.c/{}", "s3://x/{}", "https://h/d/{}?sig=a.csv", "zip://d/{}::file:///x.zip", "tar://{}::s3://b/x.tar.gz"]


@given(st.sampled_from([*SUFFIXES]), st.sampled_from([*COMPRESSIONS]), st.sampled_from(PLACES))
def test_the_suffix_tells_wherever_the_file_lies(suffix: str, compression: str, place: str) -> None:
    path = place.format(f"n.v1.{suffix}{compression}")
    assert format_of(path) == Format(SUFFIXES[suffix], COMPRESSIONS[compression])
    assert format_of(path, "csv") == Format("csv", COMPRESSIONS[compression])
    if SUFFIXES[suffix]:
        assert without_suffixes(f"d/n.v1.{suffix}{compression}") == "d/n.v1"


@given(
    st.text("ab:/.", max_size=8),
    st.sampled_from(["file:///x.zip", "s3://b/x.zip", "simplecache::s3://b/x.zip", "/x.zip", "r/x.zip"]),
)
def test_a_chain_is_split_where_it_was_joined(member: str, outer: str) -> None:
    path = member.replace("::", "").strip(":") + "m"
    assert split_chain(f"zip://{path}::{outer}") == (path, outer)


@pytest.mark.parametrize("uri", ["/a::b.csv", "s3://x/a::b.csv", "simplecache::s3://x/a.csv", "zip://a.csv"])
def test_what_is_no_chain_of_ours_stays_whole(uri: str) -> None:
    assert split_chain(uri) == (uri, "")


def test_formats_by_eye() -> None:
    assert format_of("train-images-idx3-ubyte.gz") == Format("idx", "gzip")
    assert format_of("t10k-labels.idx1-ubyte") == Format("idx")
    assert format_of("a.tar.gz") == format_of("a.TGZ", "csv") == Format("tar", "gzip")
    assert format_of("a.csv.zip") == Format("zip")
    assert format_of("a.zip.gz") == Format("", "gzip")
    assert format_of("README") == Format("")
    assert format_of("README", "text") == Format("text")
    assert without_suffixes("v1.2/a.b.tar.gz") == "v1.2/a.b"
    assert without_suffixes("v1.2/a.b") == "v1.2/a.b"
    assert refusal("/x/a.xyz").startswith("the suffix '.xyz' is no format that is known. Set format = ")
    assert refusal("zip://d/README::file:///x.zip").startswith("a name without a suffix")
