"""The constituent models: small networks for text, columns and images, or a factory of the user's."""

from __future__ import annotations

import importlib
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from infra.contracts import LetheError
from tasks.train.features import Features, Spec

_DROPOUT = 0.1


class BadFactory(LetheError):
    """`kind = "package.module:factory"` names nothing that makes a model."""


class Factory(Protocol):
    """What `kind = "package.module:factory"` names: called as factory(n_classes, spec)."""

    def __call__(self, n_classes: int, spec: Spec, /) -> nn.Module: ...


class TextBag(nn.Module):
    """Mean of the embeddings of hashed n-grams, then one linear layer (fastText, arXiv 1607.01759)."""

    def __init__(self, n_classes: int, spec: Spec, width: int = 32) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(spec.n_buckets, width, mode="mean", include_last_offset=True)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(_DROPOUT)
        self.out = nn.Linear(width, n_classes)
        nn.init.normal_(self.bag.weight, std=0.1)

    def forward(self, dense: Tensor, tokens: Tensor, offsets: Tensor) -> Tensor:
        return self.out(self.dropout(self.norm(self.bag(tokens, offsets))))


class Tabular(nn.Module):
    """Scaled numbers with their NULL flags beside the sum of token embeddings, then two hidden layers."""

    mean: Tensor
    scale: Tensor

    def __init__(self, n_classes: int, spec: Spec, width: int = 64, token_width: int = 16) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(spec.n_dense))
        self.register_buffer("scale", torch.ones(spec.n_dense))
        self.bag = nn.EmbeddingBag(spec.n_buckets, token_width, mode="sum", include_last_offset=True)
        nn.init.normal_(self.bag.weight, std=0.1)
        n_inputs = 2 * spec.n_dense + token_width
        self.body = nn.Sequential(
            nn.Linear(n_inputs, width),
            nn.ReLU(),
            nn.Dropout(_DROPOUT),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, n_classes),
        )

    @torch.no_grad()
    def refit(self, dense: Tensor) -> None:
        """Take mean and scale from these rows (n, d): those that the coming slice may see. Constant columns get scale 0."""
        values = dense.to(torch.float64)
        known = ~torch.isnan(values)
        count = known.sum(0).clamp(min=1)
        mean = torch.where(known, values, 0.0).sum(0) / count
        spread = (torch.where(known, values - mean, 0.0).square().sum(0) / count).sqrt()
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(spread > 1e-6, 1.0 / spread.clamp(min=1e-6), 0.0))

    def forward(self, dense: Tensor, tokens: Tensor, offsets: Tensor) -> Tensor:
        missing = torch.isnan(dense)
        scaled = torch.where(missing, 0.0, (dense - self.mean) * self.scale).clamp(-8.0, 8.0)
        return self.body(torch.cat([scaled, missing.to(scaled.dtype), self.bag(tokens, offsets)], dim=1))


class Image(nn.Module):
    """Two 3x3 convolutions, average pooling to at most 4x4, one linear layer."""

    def __init__(self, n_classes: int, spec: Spec, width: int = 16) -> None:
        super().__init__()
        self.shape = (spec.channels, spec.side, spec.side)
        # Strides and plain pooling only: adaptive pooling has no deterministic gradient on a GPU.
        step = max(1, spec.side // 8)
        pooled = -(-spec.side // step)
        pool = max(1, pooled // 4)
        self.body = nn.Sequential(
            nn.Conv2d(spec.channels, width, 3, stride=step, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(pool),
            nn.Flatten(),
            nn.Dropout(_DROPOUT),
        )
        n_pooled = ((spec.side + 2 - 3) // step + 1) // pool
        self.out = nn.Linear(2 * width * n_pooled**2, n_classes)

    def forward(self, dense: Tensor, tokens: Tensor, offsets: Tensor) -> Tensor:
        return self.out(self.body(dense.reshape(-1, *self.shape)))


_KINDS: dict[str, Factory] = {"text": TextBag, "tabular": Tabular, "image": Image}


def build(kind: str, n_classes: int, spec: Spec) -> nn.Module:
    """A fresh model of a kind; its weights are drawn from torch's generator. Raises `BadFactory`."""
    made = cast(object, (_KINDS[kind] if kind in _KINDS else load_factory(kind))(n_classes, spec))
    if not isinstance(made, nn.Module):
        raise BadFactory(f"kind = {kind!r} made a {type(made).__name__}, not a torch.nn.Module")
    return made


def load_factory(kind: str) -> Factory:
    """The callable that `package.module:factory` names. Raises `BadFactory` with what is missing."""
    module_name, _, name = kind.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise BadFactory(
            f"kind = {kind!r}: module {module_name} cannot be imported ({error}). Install it where workers run"
        ) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        raise BadFactory(f"kind = {kind!r}: {module_name} has no callable {name}")
    return cast(Factory, factory)


def refit(model: nn.Module, dense: Tensor) -> None:
    """Let a model take its fitted state from the rows (n, d) that its next slice may see, where it has any (`refit` method)."""
    fit = getattr(model, "refit", None)
    if callable(fit):
        fit(dense)


def tensors(features: Features, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """(dense, tokens, offsets) of a batch on a device."""
    dense = torch.from_numpy(features.dense).to(device)
    tokens = torch.from_numpy(features.tokens.astype("int64")).to(device)
    return dense, tokens, torch.from_numpy(features.offsets).to(device)
