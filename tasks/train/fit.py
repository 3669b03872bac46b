"""Train one shard, slice after slice, from the last checkpoint that holds (SISA, arXiv 1912.03817; see `plan`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from infra.ids import I64, key_of
from tasks.train.checkpoints import Checkpoint, longest, save
from tasks.train.environment import deterministic
from tasks.train.features import Features, Spec
from tasks.train.models import build, refit, tensors
from tasks.train.plan import Plan, batches, checkpoint_names, epoch_seed, initial_seed
from tasks.train.weights import content_digest


@dataclass(frozen=True)
class Recipe:
    """All that a shard's bits depend on beside its rows. `code` and `environment` are digests."""

    kind: str
    spec: Spec
    classes: tuple[str, ...]
    plan: Plan
    code: str
    environment: str
    device: str = "cpu"

    def key(self) -> str:
        return key_of("recipe", asdict(self))

    def names(self, shard: int, slices: Sequence[I64]) -> tuple[str, ...]:
        """Checkpoint names of a shard whose slices hold these row ids (or contents)."""
        return checkpoint_names(self.key(), shard, slices)


@dataclass(frozen=True)
class ShardRows:
    """A shard's rows by ascending row id: ids, slices, class numbers (-1: no label, not trained on) and features.

    `contents` stand for what is trained on of each (see `infra.spans.contents`); None where they are the row ids. `weights` are
    those of the end of training (see `mixture`), None where all rows are alike.
    """

    row_ids: I64
    slices: I64
    labels: I64
    features: Features
    contents: I64 | None = None
    weights: I64 | None = None

    def by_slice(self, n_slices: int) -> list[I64]:
        """What each slice holds."""
        held = self.row_ids if self.contents is None else self.contents
        return [held[self.slices == r] for r in range(n_slices)]


@dataclass(frozen=True)
class ShardResult:
    """What became of a shard. `digest` is that of its weights; `found` says that nothing had to be trained."""

    shard: int
    digest: str
    found: bool
    n_rows: int
    n_slices_found: int
    n_steps: int
    checkpoints: tuple[str, ...]
    losses: tuple[float, ...]


def by_row_id(rows: ShardRows) -> ShardRows:
    """The same rows by ascending id, one a row id: copies are one record."""
    _, first = np.unique(rows.row_ids, return_index=True)
    held, weights = (None if of is None else of[first] for of in (rows.contents, rows.weights))
    return ShardRows(rows.row_ids[first], rows.slices[first], rows.labels[first], rows.features.take(first), held, weights)


def fit_shard(recipe: Recipe, shard: int, rows: ShardRows, store: str) -> ShardResult:
    """Train the slices that have no checkpoint yet and save theirs. `rows` in any order, copies allowed."""
    rows = by_row_id(rows)
    names = recipe.names(shard, rows.by_slice(recipe.plan.slices))
    n_found, checkpoint = longest(store, names)
    n_steps = 0
    with deterministic(recipe.device):
        model, optimizer = _start(recipe, shard, checkpoint)
        losses = list(checkpoint.losses) if checkpoint else []
        for slice_ in range(n_found, recipe.plan.slices):
            steps, more = _fit_slice(recipe, shard, slice_, rows, model, optimizer)
            n_steps += steps
            losses += more
            checkpoint = Checkpoint(_weights(model), _flat_state(optimizer), tuple(losses))
            save(store, names[slice_], checkpoint)
    found = n_found == recipe.plan.slices
    return ShardResult(shard, content_digest(_weights(model)), found, len(rows.row_ids), n_found, n_steps, names, tuple(losses))


def found_shard(shard: int, n_rows: int, names: tuple[str, ...], checkpoint: Checkpoint) -> ShardResult:
    """The result of a shard whose last checkpoint was there."""
    return ShardResult(shard, content_digest(checkpoint.weights), True, n_rows, len(names), 0, names, checkpoint.losses)


def _start(recipe: Recipe, shard: int, checkpoint: Checkpoint | None) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(initial_seed(recipe.plan, shard=shard))
    model = build(recipe.kind, len(recipe.classes), recipe.spec)
    if checkpoint is not None:
        model.load_state_dict(checkpoint.weights)
    model.to(recipe.device)
    # On a GPU one kernel for all tensors: launching one a tensor takes longer than the updates. Said, for it may round otherwise.
    fused = recipe.device != "cpu"
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.plan.learning_rate, foreach=False, fused=fused)
    if checkpoint is not None:
        _restore(optimizer, checkpoint.optimizer)
    return model, optimizer


def _fit_slice(
    recipe: Recipe, shard: int, slice_: int, rows: ShardRows, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, list[float]]:
    """Train on the labelled rows of slices 0..slice_; returns (steps, mean loss of each epoch)."""
    seen = np.flatnonzero((rows.slices <= slice_) & (rows.labels >= 0))
    if not len(seen):
        return 0, []
    row_ids, labels, features = rows.row_ids[seen], rows.labels[seen], rows.features.take(seen)
    weights = None if rows.weights is None else rows.weights[seen]
    refit(model, torch.from_numpy(features.dense).to(recipe.device))
    model.train()
    n_steps, losses = 0, list[float]()
    for epoch in range(recipe.plan.epochs_per_slice):
        torch.manual_seed(epoch_seed(recipe.plan, shard=shard, slice_=slice_, epoch=epoch))
        cuts = list(batches(row_ids, recipe.plan, shard=shard, slice_=slice_, epoch=epoch, weights=weights))
        means = [_step(model, optimizer, features.take(batch), labels[batch], recipe.device) for batch in cuts]
        n_steps += len(cuts)
        losses += [_mean([len(batch) for batch in cuts], torch.stack(means).tolist())] if cuts else []
    return n_steps, losses


def _mean(sizes: Sequence[int], means: Sequence[float]) -> float:
    """The mean of a whole epoch from those of its batches."""
    return math.fsum(size * mean for size, mean in zip(sizes, means, strict=True)) / sum(sizes)


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, features: Features, labels: I64, device: str) -> Tensor:
    """The loss, still on the device: asking for its value would have the next step wait for this one."""
    loss = cross_entropy(model(*tensors(features, device)), torch.from_numpy(labels).to(device))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _flat_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors `<parameter>/<what>`."""
    state = optimizer.state_dict()["state"]
    return {f"{i}/{what}": torch.as_tensor(value).cpu().clone() for i, of in state.items() for what, value in of.items()}


def _restore(optimizer: torch.optim.Optimizer, flat: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in flat.items():
        number, _, what = name.partition("/")
        state.setdefault(int(number), {})[what] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
