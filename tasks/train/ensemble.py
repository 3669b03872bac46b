"""The ensemble: the mean of its shards' softmax, and the folder of plain files it is kept in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tasks.train.environment import deterministic
from tasks.train.features import Features, Spec
from tasks.train.models import build, tensors
from tasks.train.weights import content_digest

F64 = npt.NDArray[np.float64]
_ROWS = 512


@dataclass(frozen=True)
class Makeup:
    """What an ensemble is beside its weights: kind, classes, features."""

    kind: str
    classes: tuple[str, ...]
    spec: Spec

    def module(self, weights: Mapping[str, Tensor], device: str = "cpu") -> nn.Module:
        """One constituent model, ready to predict."""
        model = build(self.kind, len(self.classes), self.spec)
        model.load_state_dict(dict(weights))
        return model.to(device).eval()


@dataclass(frozen=True)
class Ensemble:
    """Constituent models in the order of their shards."""

    makeup: Makeup
    models: tuple[nn.Module, ...]

    def probabilities(self, features: Features) -> F64:
        """Mean of softmax, float64 of shape (n, n_classes)."""
        return mean_softmax(self.models, features, n_classes=len(self.makeup.classes))


@torch.no_grad()
def mean_softmax(models: Iterable[nn.Module], features: Features, *, n_classes: int, device: str = "cpu") -> F64:
    """Mean over models of their softmax, (n, n_classes); models are taken one by one, rows in blocks of fixed size."""
    total = np.zeros((len(features), n_classes))
    n_models = 0
    with deterministic(device):
        for model in models:
            for start in range(0, len(features), _ROWS):
                rows = np.arange(start, min(start + _ROWS, len(features)))
                logits = model(*tensors(features.take(rows), device))
                total[rows] += torch.softmax(logits.double(), dim=1).cpu().numpy()
            n_models += 1
    return total / max(1, n_models)


def model_digest(makeup: Makeup, shard_digests: Iterable[str]) -> str:
    """SHA-256 (hex) of an ensemble: its makeup and the digests of its shards' weights in order. Equal digests are equal bits."""
    document = json.dumps([asdict(makeup), list(shard_digests)], sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()


def save_ensemble(folder: Path, makeup: Makeup, weights: Iterable[Mapping[str, Tensor]]) -> str:
    """Write `config.json` and one safetensors file a shard; returns the model's digest."""
    folder.mkdir(parents=True, exist_ok=True)
    digests = list[str]()
    for number, state in enumerate(weights):
        save_file({k: v.contiguous() for k, v in state.items()}, folder / _shard_file(number))
        digests.append(content_digest(state))
    digest = model_digest(makeup, digests)
    config = {**asdict(makeup), "n_models": len(digests), "digest": digest}
    (folder / "config.json").write_text(json.dumps(config, sort_keys=True, indent=1), encoding="utf-8")
    return digest


def load_ensemble(folder: Path) -> Ensemble:
    """The ensemble in a folder. Raises ValueError where its files are not those that its config tells of."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    makeup = Makeup(config["kind"], tuple(config["classes"]), Spec.parse(config["spec"]))
    states = list(_states(folder, config["n_models"]))
    if model_digest(makeup, map(content_digest, states)) != config["digest"]:
        raise ValueError(f"the model in {folder.name} is damaged: its weights do not have the digest of its config.json")
    with deterministic():
        return Ensemble(makeup, tuple(makeup.module(state) for state in states))


def _states(folder: Path, n_models: int) -> Iterator[dict[str, Tensor]]:
    for number in range(n_models):
        yield load_file(folder / _shard_file(number))


def _shard_file(number: int) -> str:
    return f"shard-{number:05d}.safetensors"
