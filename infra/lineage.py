"""What a stage's output depends on, as one key: equal keys mean equal rows, so the stage need not run again (law 1)."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.contracts import Snapshot
from infra.ids import key_of

_BASE = ("contracts", "decisions", "files", "ids", "layout", "mentions", "rowhash", "subjects")


def stage_key(stage: str, code: str, inputs: Sequence[Snapshot], params: dict[str, Any]) -> str:
    """The identity of a stage's output: equal keys mean equal rows, so the stage need not run again (law 1)."""
    return key_of(stage, code, [list(s.identity) for s in inputs], params)


def code_digest(*module_names: str) -> str:
    """SHA-256 over the source files of modules or packages: a stage whose code changed is run again.

    What every stage's output rests on (ids, hashes, files) is always among them.
    """
    digest = hashlib.sha256()
    for name in sorted({*module_names, *(f"infra.{name}" for name in _BASE)}):
        for path in _sources(name):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _sources(module: str) -> list[Path]:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    origin = Path(spec.origin)
    return sorted(origin.parent.rglob("*.py")) if spec.submodule_search_locations else [origin]
