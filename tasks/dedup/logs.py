"""What a log says of one version of a table, as text: a version never changes, so that its log need not be opened again. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

import pyarrow as pa

from infra.contracts import DataFile
from infra.files import Part


def as_text(parts: Sequence[Part]) -> str:
    """The files of a version and its schema."""
    schema = base64.b64encode(parts[0].schema.serialize().to_pybytes()).decode() if parts else ""
    return json.dumps([schema, [list(vars(part.file).values()) for part in parts]], separators=(",", ":"))


def of_text(text: str, uri: str) -> list[Part]:
    """The files of a version of the table at `uri`, as `as_text` wrote them."""
    encoded, files = json.loads(text)
    if not files:
        return []
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded)))
    return [Part(f"{uri}/{file.path}", file, schema) for file in (DataFile(*values) for values in files)]
