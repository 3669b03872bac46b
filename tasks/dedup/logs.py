"""What a log says of one version of a table, as text: a version never changes, so that its log need not be opened again. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

import pyarrow as pa

from infra.contracts import DataFile
from infra.files import Part


def as_text(parts: Sequence[Part], kinds: Mapping[str, str]) -> str:
    """The files of a version, its schema, and the kinds of its columns by lower-case name."""
    schema = base64.b64encode(parts[0].schema.serialize().to_pybytes()).decode() if parts else ""
    return json.dumps([schema, [list(vars(part.file).values()) for part in parts], dict(kinds)], separators=(",", ":"))


def of_text(text: str, uri: str) -> tuple[list[Part], dict[str, str]]:
    """The files of a version of the table at `uri` and the kinds of its columns, as `as_text` wrote them."""
    encoded, files, kinds = json.loads(text)
    schema = _schema(encoded) if files else pa.schema([])
    return [Part(f"{uri}/{values[0]}", DataFile(*values), schema) for values in files], kinds


@lru_cache(4096)
def _schema(encoded: str) -> pa.Schema:
    """Many tables have one schema."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded)))
