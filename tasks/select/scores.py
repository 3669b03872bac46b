"""A score of the user's own: a column of numbers, or what a model said, as bounds that drop and as weights that draw. Pure.

A threshold is a bound by itself, a percentile one by the keyed sample. With neither, records are drawn as in QuRating (Wettig et
al., arXiv 2402.09739): scores are standardised, so that one temperature means the same to a probability and to a perplexity. The
centre and the spread are order statistics of the sample, elements of it or midpoints of two: no order of rows changes a bit of
them, and one wild value moves neither far.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from infra.ids import F64
from infra.select_settings import ScoreSettings
from infra.settings import ConfigError
from tasks.select.budget import n_to_keep

# Quantiles on either side of the median, and how many standard deviations of a normal distribution lie between them.
_SPREADS = ((0.75, 1.349), (0.95, 3.29), (1.0, 1.0))


@dataclass(frozen=True)
class Scale:
    """How scores become log weights: sign · (score - centre) / spread; `sign` is -1 where low scores are the good ones."""

    centre: float
    spread: float
    sign: float = 1.0


def check_score_column(table: str, schema: pa.Schema, column: str) -> None:
    """Raises `ConfigError` where a table of the pool has no such column, or one that holds no numbers."""
    own = [field for field in schema if field.name != "row_id"]
    kind = next((field.type for field in own if field.name == column), None)
    if kind is None or not _is_number(kind):
        what = "has no such column" if kind is None else f"has {kind} there, not numbers"
        raise ConfigError(
            f"table {table!r}: score.column = {column!r}, and the table {what}; it has: "
            + ", ".join(f"{field.name} ({field.type})" for field in own)
        )


def numbers_of(column: pa.Array | pa.ChunkedArray) -> F64:
    """A column of numbers, decimals or booleans as float64 (n,); NULL, NaN and infinities are NaN: no score."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    plain = whole.dictionary_decode() if pt.is_dictionary(whole.type) else whole
    if pt.is_boolean(plain.type):
        plain = plain.cast(pa.int8())
    values = np.array(pc.cast(plain, pa.float64(), safe=False).fill_null(math.nan), np.float64)
    values[np.isinf(values)] = np.nan
    return values + 0.0  # -0.0 is 0.0, as in the row hash


def score_bounds(values: F64, asked: ScoreSettings) -> tuple[float | None, float | None]:
    """(lowest, highest) score that stays, None where there is no such bound; `values` are the keyed sample's, one a record.

    A percentile's bound is the score of the last record of the share asked for: those that equal it stay as well.
    """
    bound = asked.threshold
    if asked.percentile is not None:
        good = np.sort(_known(values) * _sign(asked))[::-1]
        bound = _sign(asked) * float(good[n_to_keep(len(good), asked.percentile / 100) - 1]) if len(good) else None
    return (bound, None) if asked.prefer == "high" else (None, bound)


def scale_of(values: F64, asked: ScoreSettings) -> Scale:
    """The scale of the keyed sample's scores, one a record: median, and the width of the middle half in standard deviations
    of a normal distribution; that of nine in ten, or of all, where it is 0."""
    known = np.sort(_known(values))
    if not len(known):
        return Scale(0.0, 1.0, _sign(asked))
    spreads = ((_quantile(known, high) - _quantile(known, 1 - high)) / width for high, width in _SPREADS)
    return Scale(_quantile(known, 0.5), next((s for s in spreads if 0 < s < math.inf), 1.0), _sign(asked))


def score_log_weights(values: F64, scale: Scale) -> F64:
    """Log weights (n,) of scores: records are drawn by exp(log weight / temperature); NaN without a score."""
    return scale.sign * (values - scale.centre) / scale.spread


def _known(values: F64) -> F64:
    return values[~np.isnan(values)]


def _sign(asked: ScoreSettings) -> float:
    return 1.0 if asked.prefer == "high" else -1.0


def _quantile(ordered: F64, share: float) -> float:
    """The value with this share of the sorted values below it; the midpoint of two where it falls between them."""
    place = round(share * (len(ordered) - 1), 6)
    low, high = float(ordered[math.floor(place)]), float(ordered[math.ceil(place)])
    return low if low == high else low / 2 + high / 2


def _is_number(kind: pa.DataType) -> bool:
    if pt.is_dictionary(kind):
        return _is_number(kind.value_type)
    return pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind) or pt.is_boolean(kind)
