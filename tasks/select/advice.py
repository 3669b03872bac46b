"""How much to keep for the training that is planned: little and good for a short one, more for a long one. Pure.

After Goyal et al., "Scaling Laws for Data Filtering: Data Curation cannot be Compute Agnostic" (arXiv 2404.07177). Error falls
with the tokens n seen as d ln y / d ln n = -b, where the utility b of a record is the higher the better the record is, and halves
with every τ repetitions of the data; of p pools taken together, b is the mean of theirs and the half-life p·τ, for each record
comes again the later. So the best records alone win while they are new, and lose to a larger selection when they are repeated.

What is assumed here, and what it rests on:
- b falls linearly with the log weight, from `Utility.best` for the best hundredth of the tokens to `Utility.worst` for the worst.
- τ is the half-life of a tenth of the pool, and the same for good and bad records.
- Repetitions count continuously, from the end of the first epoch on.
- All selections are equally good when a hundredth of the pool has been seen: the law has no scale of its own.
The paper fits b and τ for image-text models, each pool by itself. The defaults here are of the magnitude of such fits and no
more: who can afford to should fit both by small trainings of their own. Trust the order of fractions more than any one of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import exp1

from infra.ids import F64, I64

N_BUCKETS = 100
_TENTHS = 10
_TIE = 1e-9


@dataclass(frozen=True)
class Utility:
    """The exponent of the best and of the worst records, and the repetitions of a tenth of the pool that halve it."""

    best: float = 0.18
    worst: float = 0.08
    half_life: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.worst <= self.best < math.inf or not 0 < self.half_life < math.inf:
            raise ValueError(f"utilities are 0 < worst <= best and a half-life above 0, not {self}")


@dataclass(frozen=True)
class Advice:
    """The share of the pool's tokens to keep, best first, and how often training will then see it.

    `fractions` and `log_errors`, of shape (N_BUCKETS,), are all that was compared: ln of the expected error, up to a constant.
    """

    fraction: float
    epochs: float
    fractions: F64
    log_errors: F64


def advised_fraction(log_weights: F64, n_tokens: I64, n_training_tokens: float, utility: Utility | None = None) -> Advice:
    """How much to keep of a pool, of which records' log weights and tokens (n,) are a sample, for a training of so many tokens.

    `n_training_tokens` is in units of the sample: planned epochs times the sample's tokens that are kept now. Records without a
    weight (NaN) do not count. ValueError where none has one, or where nothing is to be trained.
    """
    sizes, quality = quality_buckets(log_weights, n_tokens)
    if not sizes.sum() or not n_training_tokens > 0:
        raise ValueError(f"advice needs records with a weight and a training of some tokens, not {n_training_tokens:g}")
    chosen = utility or Utility()
    upto = np.cumsum(sizes)
    b = np.cumsum(sizes * _utilities(quality, chosen)) / upto
    fractions = upto / upto[-1]
    errors = np.array(
        [
            log_error(
                n_training_tokens, n, start=upto[-1] / N_BUCKETS, b=float(mean), half_life=chosen.half_life * _TENTHS * share
            )
            for n, mean, share in zip(upto.tolist(), b, fractions.tolist(), strict=True)
        ]
    )
    # The least data that does as well: where many fractions tie, rounding must not choose among them.
    best = int(np.argmax(errors <= errors.min() + _TIE))
    return Advice(float(fractions[best]), n_training_tokens / float(upto[best]), fractions, errors)


def log_error(n_seen: float, n_pool: float, *, start: float, b: float, half_life: float) -> float:
    """ln of the error after `n_seen` tokens of a pool of `n_pool` over that after `start`: -∫ b·(1/2)^(repetitions/τ) d ln n.

    τ is `half_life`. 0 for a training of no more than `start`.
    """
    if n_seen <= start:
        return 0.0
    n_new = max(start, min(n_seen, n_pool))
    rate = math.log(2) / half_life
    first, last = n_new / n_pool, n_seen / n_pool
    # exp(x)·E1(x), scaled as one: either factor alone leaves the range of floats.
    repeated = [_scaled_exp1(rate * x) * math.exp(-rate * (x - 1)) for x in (first, last)] if last > 1 else [0.0, 0.0]
    return -b * (math.log(n_new / start) + repeated[0] - repeated[1])


def _scaled_exp1(x: float) -> float:
    """exp(x)·E1(x)."""
    return float(exp1(x)) * math.exp(x) if x < 500 else 1 / x


def quality_buckets(log_weights: F64, n_tokens: I64) -> tuple[F64, F64]:
    """Tokens and mean log weight of up to `N_BUCKETS` parts of about as many tokens each, best first."""
    known = ~np.isnan(log_weights) & (n_tokens > 0)
    weights, sizes = log_weights[known], n_tokens[known].astype(np.float64)
    order = np.argsort(-weights, kind="stable")
    middles = np.cumsum(sizes[order]) - sizes[order] / 2
    places = np.minimum(middles * (N_BUCKETS / max(sizes.sum(), 1)), N_BUCKETS - 1).astype(np.int64)
    total = np.bincount(places, sizes[order], N_BUCKETS).astype(np.float64)
    mean = np.bincount(places, sizes[order] * weights[order], N_BUCKETS) / np.maximum(total, 1)
    return total[total > 0], mean[total > 0]


def _utilities(quality: F64, utility: Utility) -> F64:
    """Exponents by quality, linear between the worst and the best bucket."""
    spread = float(quality.max() - quality.min())
    height = (quality - quality.min()) / spread if spread else np.ones_like(quality)
    return utility.worst + (utility.best - utility.worst) * height
