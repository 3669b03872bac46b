"""What a file is, by the end of its name or by what lethe.toml says: a format, a compression around it, or an archive."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

_FORMATS = {
    "csv": (".csv",),
    "tsv": (".tsv",),
    "jsonl": (".jsonl", ".ndjson"),
    "json": (".json",),
    "parquet": (".parquet", ".pq"),
    "arrow": (".arrow", ".arrows", ".feather", ".ipc"),
    "text": (".txt", ".text", ".md", ".rst", ".log", ".html", ".htm"),  # of HTML the text as it stands, with its tags
    "image": (".png", ".jpg", ".jpeg"),
    "idx": (".idx",),
}
_OF_SUFFIX = {suffix: name for name, suffixes in _FORMATS.items() for suffix in suffixes}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
_TARS = {".tgz": "gzip", ".tbz": "bz2", ".tbz2": "bz2", ".tzst": "zstd"}
_IDX = re.compile(r"[-.]idx[1-9]-[a-z]+$")
_LINK = re.compile(r"::(?=[a-z][a-z0-9+.-]*(?:::|://)|/)")  # "::" may also be part of a member's name
ARCHIVES = ("zip", "tar")
KNOWN = ", ".join(_FORMATS) + " (also in .gz, .zst, .bz2, .zip, .tar)"


@dataclass(frozen=True)
class Format:
    """A file's format and compression; `name` is empty where neither lethe.toml nor the suffix tells, and "zip" or "tar" for an
    archive."""

    name: str
    compression: str | None = None

    @property
    def is_archive(self) -> bool:
        return self.name in ARCHIVES


def format_of(path: str, given: str | None = None) -> Format:
    """The format that a path's or a URL's suffixes say. `given`, the option `format`, is believed more than they are, except of
    an archive: its members have that format."""
    pure = _pure(path)
    if pure.suffix in _TARS:
        return Format("tar", _TARS[pure.suffix])
    compression = _COMPRESSIONS.get(pure.suffix)
    inner = pure.with_suffix("") if compression else pure
    if inner.suffix == ".tar" or (inner.suffix == ".zip" and not compression):
        return Format(inner.suffix[1:], compression)
    return Format(given or _named(inner), compression)


def _named(pure: PurePosixPath) -> str:
    return "idx" if _IDX.search(pure.name) else _OF_SUFFIX.get(pure.suffix, "")


def _pure(path: str) -> PurePosixPath:
    """The lower-cased path of a file: of a member of an archive its path there, of an http URL what stands before the query."""
    inner = split_chain(path)[0]
    plain = re.split(r"[?#]", inner, maxsplit=1)[0] if is_http(inner) else inner
    return PurePosixPath(plain.lower())


def is_http(uri: str) -> bool:
    """Whether a URL is read by HTTP, where `?` starts a query and is no wildcard."""
    return uri.startswith(("http://", "https://"))


def split_chain(uri: str) -> tuple[str, str]:
    """The URL of an archive's member, `zip://a.csv::file:///x.zip`, as (`a.csv`, `file:///x.zip`); any other and ""."""
    scheme, found, chain = uri.partition("://")
    if not found or scheme not in ARCHIVES or "::" not in chain:
        return uri, ""
    member, *rest = _LINK.split(chain, maxsplit=1)
    return (member, rest[0]) if rest else (chain.rpartition("::")[0], chain.rpartition("::")[2])


def without_suffixes(path: str) -> str:
    """The path without the suffixes that say its format."""
    pure = PurePosixPath(path)
    if pure.suffix.lower() in _COMPRESSIONS:
        pure = pure.with_suffix("")
    known = pure.suffix.lower() in _OF_SUFFIX or pure.suffix.lower() in (".zip", ".tar", *_TARS)
    return str(pure.with_suffix("") if known else pure)


def refusal(path: str) -> str:
    """Why a file whose format nobody says is not read."""
    suffix = PurePosixPath(split_chain(path)[0]).suffix
    shown = f"the suffix {suffix!r} is" if suffix else "a name without a suffix is"
    return f"{shown} no format that is known. Set format = ... for its table in lethe.toml: one of {', '.join(_FORMATS)}"
