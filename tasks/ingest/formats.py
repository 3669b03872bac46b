"""What a file is, by the end of its name: csv, tsv, jsonl, ndjson, json (one object a line) or parquet, bare or in gz, zst,
bz2."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

_FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet"}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
KNOWN = ", ".join(_FORMATS) + " (also with .gz, .zst, .bz2)"


@dataclass(frozen=True)
class Format:
    """A file's format and compression; `name` is empty where the suffix is not known."""

    name: str
    compression: str | None = None


def format_of(path: str) -> Format:
    """The format that a path's suffixes say."""
    pure = PurePosixPath(path.lower())
    compression = _COMPRESSIONS.get(pure.suffix)
    inner = pure.with_suffix("") if compression else pure
    return Format(_FORMATS.get(inner.suffix, ""), compression)


def without_suffixes(path: str) -> str:
    """The path without the suffixes that say its format."""
    pure = PurePosixPath(path)
    if pure.suffix.lower() in _COMPRESSIONS:
        pure = pure.with_suffix("")
    return str(pure.with_suffix("") if pure.suffix.lower() in _FORMATS else pure)
