"""Bounds on quality signals: which records break one, and by how much. Pure.

A filter is a signal's name with the least and the most that stays, either of them open. Bounds are compared with signals as the
lake holds them, as float32: a bound of 0.3 lets a value of 0.3 stay. A signal that is NULL, a share of nothing, breaks no bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

import numpy as np
import pyarrow as pa

from infra.contracts import FILTERED
from infra.ids import I64
from infra.settings import ConfigError
from tasks.kernels.signals import SIGNALS
from tasks.select.verdicts import verdicts

Filters = Mapping[str, tuple[float | None, float | None]]
OWN_PREFIXES = ("rps_doc_", "rps_")


def check_filters(filters: Filters, dataset: str) -> None:
    """Raises `ConfigError` that names the first filter of no known signal, or without any bound, and the way out."""
    for name, (low, high) in filters.items():
        where = f"dataset {dataset!r}: select.filters.{name}"
        if name not in SIGNALS:
            raise ConfigError(f"{where}: there is no signal of that name. {_advice(name)}")
        if low is None and high is None:
            raise ConfigError(f"{where}: no bound is given. Give [least, most], or leave the filter out")
        if any(bound is not None and np.isnan(bound) for bound in (low, high)):
            raise ConfigError(f"{where}: a bound is nan, which nothing compares with. Give numbers")


def _advice(name: str) -> str:
    """The known names nearest to one; all of them where none is near."""
    bare = name.lower()
    for prefix in OWN_PREFIXES:
        bare = bare.removeprefix(prefix)
    near = get_close_matches(bare, SIGNALS, n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(near)}?" if near else f"It is one of: {', '.join(SIGNALS)}"


def filtered(row_ids: I64, signals: pa.Table, filters: Filters) -> pa.Table:
    """A verdict (`VERDICT`) for each record that breaks a bound: the first filter it breaks in the order of `filters`.

    `signals` holds a row for each of `row_ids` and a column for each filter; `value` is the signal, `bound` what it broke.
    """
    n = len(row_ids)
    broken, values, bounds = np.full(n, -1, np.int64), np.zeros(n), np.zeros(n)
    for place, (name, (low, high)) in enumerate(filters.items()):
        value = np.asarray(signals.column(name).cast(pa.float32()).to_numpy(), np.float32)
        below, above = _beyond(value, low, high)
        first = (below | above) & (broken < 0)
        broken[first], values[first] = place, value[first]
        bounds[first & above] = high
        bounds[first & below] = low
    out = np.flatnonzero(broken >= 0)
    names = pa.array(list(filters), pa.string()).take(pa.array(broken[out]))
    return verdicts(row_ids[out], reason=FILTERED, signal=names, value=values[out], bound=bounds[out])


def _beyond(values: np.ndarray, low: float | None, high: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Which float32 values lie below the lower bound, and which above the upper one; NaN, for NULL, is neither."""
    below = values < np.float32(-np.inf if low is None else low)
    return below, values > np.float32(np.inf if high is None else high)
