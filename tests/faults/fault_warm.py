"""Imported once by the process that all children are forked from: what takes seconds to import or to set up, and no thread."""

from __future__ import annotations

import numba
import s3fs  # noqa: F401

import flows.workspace  # noqa: F401
import infra.cluster
import infra.lake  # noqa: F401
import tasks.dedup.restore
import tasks.ingest.task  # noqa: F401


@numba.njit
def _touched(n: int) -> int:
    return n + 1


_touched(1)  # the first compilation loads Numba's registries; kernels then come from its cache
