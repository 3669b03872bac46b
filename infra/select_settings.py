"""The `select` part of a dataset in lethe.toml: which records of a pool are worth training on, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from math import isinf
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def _as_targets(value: Any) -> Any:
    """`"gold"`, `["gold", "faq"]` (equal shares) or `{ gold = 0.7, faq = 0.3 }` as shares by table."""
    if value is None or isinstance(value, Mapping):
        return dict(value or {})
    names = [value] if isinstance(value, str) else list(value)
    if len(set(names)) < len(names):
        raise ValueError(f"a target is named twice: {', '.join(map(str, names))}. Say shares instead: {{ {names[0]} = 2 }}")
    return dict.fromkeys(names, 1.0)


def _open_ended(value: Any) -> Any:
    """Infinite bounds are none: TOML has no null."""
    return [None if isinstance(bound, float) and isinf(bound) else bound for bound in value] if isinstance(value, list) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Bound = Annotated[float, Field(allow_inf_nan=False)] | None
Bounds = Annotated[tuple[Bound, Bound], BeforeValidator(_open_ended)]
Targets = Annotated[dict[str, Positive], BeforeValidator(_as_targets)]
Method = Literal["importance", "clusters", "simcore", "transport", "score", "none"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NearDuplicateSettings(_Strict):
    """Of records whose texts are (nearly) the same, one stays. `jaccard` 1.0: equal after normalisation only.

    Shingles are `shingle` words; similarity is estimated from `n_permutations` MinHash values, and a pair counts from 4.5
    standard errors below `jaccard` on (0.65 at 0.8 with 128 values), never below 0.8 of it.
    """

    jaccard: Annotated[float, Field(ge=0.5, le=1.0)] = 0.8
    shingle: Annotated[int, Field(ge=1, le=64)] = 5
    n_permutations: Annotated[int, Field(ge=16, le=1024)] = 128
    seed: int = 0


class DecontaminateSettings(_Strict):
    """Records that hold text of evaluation tables: n-grams of `n` words, exact.

    `min_span` is the shortest run of words, all of them in shared n-grams, that counts; `max_document_fraction` leaves out
    n-grams that so many records of the pool hold (boilerplate). `action`: drop the record, or cut the span out of what is trained
    on and exported. `neighbours` lists, for review, so many records nearest to each evaluation item by embedding.
    """

    tables: Names
    n: Annotated[int, Field(ge=3, le=64)] = 13
    min_span: Annotated[int, Field(ge=1)] | None = None
    max_document_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.01
    action: Literal["drop", "cut"] = "drop"
    neighbours: Annotated[int, Field(ge=0, le=100)] = 0


class ScoreSettings(_Strict):
    """A score of the user's own: a column of the pool, or the probability of `label` under a model of lethe.toml.

    `threshold` keeps what reaches it; `percentile` keeps that share of the best; with neither, records are drawn by
    exp(score / temperature), with the noise of any selection. `prefer` says which end is good.
    """

    column: str | None = None
    model: str | None = None
    label: str | None = None
    prefer: Literal["high", "low"] = "high"
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None
    percentile: Annotated[float, Field(gt=0.0, le=100.0)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> ScoreSettings:
        if (self.column is None) == (self.model is None):
            raise ValueError("a score is a column or a model: name one of the two")
        if (self.model is None) != (self.label is None):
            raise ValueError("a model scores by the probability of a label: name model and label together")
        if self.threshold is not None and self.percentile is not None:
            raise ValueError("threshold and percentile exclude each other")
        return self

    @property
    def is_bound(self) -> bool:
        """Whether the score drops records by itself, rather than that records are drawn by it."""
        return self.threshold is not None or self.percentile is not None


class FloorSettings(_Strict):
    """The least of each stratum that stays: a share of its records, a number of them, or both. `by`: a column, or "table"."""

    by: str
    min_fraction: Share = 0.0
    min_rows: Annotated[int, Field(ge=0)] = 0


class SafetySettings(_Strict):
    """`max_source_loss`: selection stops when a table, or a value of the columns `by`, loses more than this share of its records;
    from `warn_source_loss` on it says so. Sources of fewer than `min_rows` records are not looked at."""

    max_source_loss: Share = 1.0
    warn_source_loss: Share = 0.9
    by: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    min_rows: Annotated[int, Field(ge=1)] = 100


class SelectSettings(_Strict):
    """How much is kept (`keep_fraction`, `n_rows` or `n_tokens`), by which method, and what is dropped before."""

    mode: Literal["default", "parity"] = "default"
    method: Method | None = None
    keep_fraction: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    n_rows: Annotated[int, Field(ge=1)] | None = None
    n_tokens: Annotated[int, Field(ge=1)] | None = None
    exact: bool = False
    n_buckets: Annotated[int, Field(ge=64, le=1 << 24)] = 10_000
    smoothing: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    normalize: bool = True
    temperature: Positive = 0.02
    n_clusters: Annotated[int, Field(ge=2, le=100_000)] = 64
    seed: int = 0
    signals: bool = False  # measure quality signals also where no filter asks for them
    filters: dict[str, Bounds] = {}
    near_duplicates: NearDuplicateSettings | None = None
    decontaminate: DecontaminateSettings | None = None
    score: ScoreSettings | None = None
    floors: FloorSettings | None = None
    safety: SafetySettings = SafetySettings()
    planned_epochs: Positive | None = None

    @model_validator(mode="after")
    def _one_budget(self) -> SelectSettings:
        named = [name for name in ("keep_fraction", "n_rows", "n_tokens") if getattr(self, name) is not None]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} are both budgets: name one")
        for name, (low, high) in self.filters.items():
            if low is not None and high is not None and low > high:
                raise ValueError(f"filters.{name}: the lower bound {low} is above the upper one {high}")
        if self.method == "score" and self.score is None:
            raise ValueError('method = "score" needs [score]: a column, or a model and a label')
        return self

    @property
    def fraction(self) -> float:
        """The share kept where no number of rows or tokens is asked for."""
        return 0.5 if self.keep_fraction is None else self.keep_fraction

    @property
    def has_budget(self) -> bool:
        """Whether it is said how much is kept."""
        return any(value is not None for value in (self.keep_fraction, self.n_rows, self.n_tokens))

    @property
    def reviews(self) -> bool:
        """Whether records near to evaluation items are listed for a person."""
        return self.decontaminate is not None and self.decontaminate.neighbours > 0

    @property
    def measures_signals(self) -> bool:
        """Whether the quality signals of texts are measured."""
        return self.signals or bool(self.filters)

    @property
    def compares_texts(self) -> bool:
        """Whether a step before the resampling looks at texts."""
        return self.measures_signals or self.near_duplicates is not None or self.decontaminate is not None

    @property
    def drops(self) -> bool:
        """Whether a step before the resampling may drop records."""
        return self.compares_texts or (self.score is not None and self.score.is_bound)


class MixtureSettings(_Strict):
    """Domains that are drawn more often at the end of training (domain upsampling, arXiv 2406.03476).

    In the last `final_fraction` of a shard's work rows are drawn by `weights`: a row of a domain that is not named has weight 1.
    A domain is a table of the pool, or a value of the column `by`.
    """

    weights: Annotated[dict[str, Positive], Field(min_length=1)]
    final_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.15
    by: str = "table"
