"""The registered versions of a model, read without torch: a command that only shows them should not wait for it."""

from __future__ import annotations

from typing import Any

from infra import tracking as store_of_runs
from infra.settings import Settings
from infra.tracking import ModelRecord

DIGEST = "lethe.digest"


def registered_versions(settings: Settings, model: str) -> list[dict[str, Any]]:
    """Every version of a model, oldest first: version, digest, run_id, and state: the alias, `revoked`, or `old`."""
    found = store_of_runs.versions(store_of_runs.open_tracking(settings), model)
    return [
        {
            "version": str(r.version),
            "digest": r.tags.get(DIGEST, ""),
            "run_id": r.run_id,
            "state": _state(r),
            "revoked": r.revoked,
        }
        for r in found
    ]


def _state(record: ModelRecord) -> str:
    return "revoked" if record.revoked else ", ".join(record.aliases) or "old"
