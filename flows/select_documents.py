"""What `lethe select --json` prints: see `flows.documents`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class SourceKept(_Document):
    """A table of the pool: its records, those kept, and why the others are dropped."""

    raw: int
    kept: int
    reasons: dict[str, int] = {}


class TargetKept(_Document):
    """A target: its share of the budget, the records kept for it, and how far the n-grams of all, of the selected and of as many
    random records are from its own, in nats per n-gram."""

    share: float
    kept: int
    kl_raw: float | None = None
    kl_selected: float | None = None
    kl_random: float | None = None


class Gram(_Document):
    text: str
    n: int
    contribution: float  # nats of the log weight


class Weighed(_Document):
    """A record's log weight for a target, and the n-grams that moved it most."""

    target: str
    log_weight: float | None
    n_tokens: int
    up: list[Gram]
    down: list[Gram]


class Shared(_Document):
    """A run of words that a record shares with an evaluation table."""

    table: str
    n_words: int
    text: str


class SelectedRecord(_Document):
    """A record of the pool and what became of it; personal data, for whoever asked."""

    row_id: int
    table: str
    keep: bool
    reason: str
    said: str
    text: str
    log_weight: float | None = None
    key: float | None = None
    target: str | None = None
    signal: str | None = None
    value: float | None = None
    bound: float | None = None
    representative: int | None = None


class SelectWhyDocument(SelectedRecord):
    n_copies: int
    noise: float | None = None
    threshold: float | None = None
    weights: list[Weighed] = []
    shared: list[Shared] = []
    representative_text: str | None = None
    is_old: bool = False  # the weights shown are not those that the decision was made by


class SamplesDocument(_Document):
    kept: list[SelectedRecord]
    dropped: list[SelectedRecord]


class Neighbour(_Document):
    """An evaluation item of `table`, and a record of the pool near to it; personal data where texts were asked for."""

    item: int
    table: str
    row_id: int
    similarity: float  # the cosine of the two embeddings
    keep: bool
    reason: str
    item_text: str | None = None
    text: str | None = None


class NeighboursDocument(_Document):
    n_pairs: int  # in the list; `pairs` are the first: records that are kept before others, the most similar first
    n_items: int
    n_kept: int  # of the pairs, those whose record is kept
    pairs: list[Neighbour]


class SelectDocument(_Document):
    dataset: str
    n_raw: int
    n_kept: int
    kl_reduction: float | None
    seconds: float
    found: bool = False
    random_kl_reduction: float | None = None
    effective_sample_size: float | None = None
    length_correlation: float | None = None
    version: int | None = None
    digest: str | None = None
    budget: dict[str, float] = {}  # what was asked for: keep_fraction, n_rows or n_tokens
    n_tokens: int | None = None  # of the kept records
    n_by_reason: dict[str, int] = {}
    n_by_signal: dict[str, int] = {}
    by_source: dict[str, SourceKept] = {}
    targets: dict[str, TargetKept] = {}
    seed_overlap: float | None = None
    n_drawn_on: float | None = None  # of how many of the sample the kept ones are drawn
    advised_keep_fraction: float | None = None  # with planned_epochs: the share of tokens that would train best
    n_sample: int | None = None
    threshold: float | None = None
    warnings: list[str] = []
    report: str = ""  # the page with all figures
    why: SelectWhyDocument | None = None  # only where a record was asked for: nothing was selected
    samples: SamplesDocument | None = None  # only where records were asked for
    neighbours: NeighboursDocument | None = None  # only where they were asked for
