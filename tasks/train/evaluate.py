"""How good predictions are, in integers: counts and fixed-point sums that partitions add up to, in any order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.ids import I64, U64

_POINT = 1 << 32
_LEAST = 1e-12


@dataclass(frozen=True)
class Tally:
    """Sums over held-out rows. A row whose class the model does not know is wrong, at the largest loss."""

    n_rows: int = 0
    n_correct: int = 0
    loss: int = 0
    n_subjects: int = 0
    subject_accuracy: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.n_rows + other.n_rows,
            self.n_correct + other.n_correct,
            self.loss + other.loss,
            self.n_subjects + other.n_subjects,
            self.subject_accuracy + other.subject_accuracy,
        )


def tally(chances: npt.NDArray[np.float64], labels: I64, places: U64) -> Tally:
    """Score probabilities (n, n_classes) against class numbers (n,), -1 for an unknown class; `places` tells subjects apart."""
    if not len(labels):
        return Tally()
    known = labels >= 0
    correct = known & (chances.argmax(axis=1) == labels)
    chance = np.where(known, chances[np.arange(len(labels)), np.maximum(labels, 0)], 0.0)
    losses = np.rint(-np.log(np.maximum(chance, _LEAST)) * _POINT).astype(np.int64)
    _, subject = np.unique(places, return_inverse=True)
    n_rows = np.bincount(subject)
    rates = np.rint(np.bincount(subject, weights=correct) / n_rows * _POINT).astype(np.int64)
    return Tally(len(labels), int(correct.sum()), int(losses.sum()), len(n_rows), int(rates.sum()))


def metrics(tallies: Iterable[Tally], prefix: str = "") -> dict[str, float]:
    """accuracy, log_loss (nats), subject_accuracy (mean over subjects of their own accuracy) and n_holdout; none without rows."""
    total = sum(tallies, Tally())
    if not total.n_rows:
        return {}
    return {
        f"{prefix}accuracy": total.n_correct / total.n_rows,
        f"{prefix}log_loss": total.loss / _POINT / total.n_rows,
        f"{prefix}subject_accuracy": total.subject_accuracy / _POINT / total.n_subjects,
        f"{prefix}n_holdout": float(total.n_rows),
    }


def class_numbers(labels: Sequence[str | None], classes: Sequence[str]) -> I64:
    """The number of each label's class, -1 for NULL and for classes not in the list."""
    numbers = {name: i for i, name in enumerate(classes)}
    return np.array([-1 if label is None else numbers.get(label, -1) for label in labels], np.int64)
